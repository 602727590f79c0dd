//! The placement: which ingest nodes hold which shard.

use std::cmp::Reverse;

use crate::hash::{score, seed};

/// Which ingest nodes, by ordinal, hold each shard: a pure function of how many there are.
///
/// Rendezvous hashing of shards over ordinals (as two bytes, the lower first), with loads as even as can be: no node is first for two shards more than another, and
/// with as many shards as nodes each node is first for one at least.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// By shard, the first one first.
    holders: Vec<Vec<u16>>,
}

impl Placement {
    /// The placement of so many shards on so many nodes, each shard on `replicas` of them, or on all if there are fewer.
    #[must_use]
    pub fn compute(shards: u16, nodes: u16, replicas: u16) -> Self {
        let seeds: Vec<_> = (0..nodes).map(|ordinal| seed(&ordinal.to_le_bytes())).collect();
        let mut pairs: Vec<_> = (0..shards)
            .flat_map(|shard| (0..nodes).map(move |ordinal| (shard, ordinal)))
            .map(|(shard, ordinal)| (score(seeds[usize::from(ordinal)], u32::from(shard)), shard, ordinal))
            .collect();
        pairs.sort_unstable_by_key(|&(score, shard, ordinal)| (Reverse(score), shard, ordinal));
        let mut preferred = vec![Vec::new(); usize::from(shards)];
        for &(_, shard, ordinal) in &pairs {
            preferred[usize::from(shard)].push(ordinal);
        }
        let mut dealt = Dealt {
            holders: vec![Vec::new(); usize::from(shards)],
            loads: vec![0; usize::from(nodes)],
            preferred,
        };
        for round in 1..=usize::from(replicas.min(nodes)) {
            // First everyone up to the share rounded down, then up to the share rounded up; should that be impossible, up to anything.
            let (share, nodes) = (round * usize::from(shards), usize::from(nodes));
            for room in [share / nodes, share.div_ceil(nodes), usize::MAX] {
                for &(_, shard, ordinal) in &pairs {
                    dealt.deal(shard, ordinal, round, room);
                }
                for shard in 0..shards {
                    if dealt.of(shard).len() < round {
                        dealt.make_room(shard, round, room, &mut vec![false; nodes]);
                    }
                }
            }
        }
        Self { holders: dealt.holders }
    }

    /// The ordinals of those who hold a shard, the first one first; empty if there are no nodes, or no such shard.
    #[must_use]
    pub fn of(&self, shard: u16) -> &[u16] {
        self.holders.get(usize::from(shard)).map_or(&[], Vec::as_slice)
    }

    /// The first of those who hold a shard.
    #[must_use]
    pub fn first(&self, shard: u16) -> Option<u16> {
        self.of(shard).first().copied()
    }

    /// The place of a node among those who hold a shard: 0 is the first.
    #[must_use]
    pub fn rank(&self, shard: u16, ordinal: u16) -> Option<usize> {
        self.of(shard).iter().position(|&holder| holder == ordinal)
    }

    /// The shards that a node holds, ascending.
    pub fn held_by(&self, ordinal: u16) -> impl Iterator<Item = u16> + use<'_> {
        let held = (0_u16..).zip(&self.holders);
        held.filter_map(move |(shard, holders)| holders.contains(&ordinal).then_some(shard))
    }
}

struct Dealt {
    holders: Vec<Vec<u16>>,
    /// How many shards each node holds.
    loads: Vec<usize>,
    /// By shard, all nodes, the best fit first.
    preferred: Vec<Vec<u16>>,
}

impl Dealt {
    fn of(&self, shard: u16) -> &[u16] {
        &self.holders[usize::from(shard)]
    }

    /// Gives a shard to a node, if the shard has no holder of this round yet, and the node does not hold it and has room.
    fn deal(&mut self, shard: u16, ordinal: u16, round: usize, room: usize) {
        let holders = &mut self.holders[usize::from(shard)];
        let load = &mut self.loads[usize::from(ordinal)];
        if holders.len() < round && *load < room && !holders.contains(&ordinal) {
            holders.push(ordinal);
            *load += 1;
        }
    }

    /// Gives a shard that all who have room hold already to one who has none, whose shard of this round goes to another, and so on until one
    /// has room. Answers whether that was possible.
    fn make_room(&mut self, shard: u16, round: usize, room: usize, asked: &mut [bool]) -> bool {
        for place in 0..self.loads.len() {
            let ordinal = self.preferred[usize::from(shard)][place];
            let held = self.of(shard).iter().take(round - 1).any(|&holder| holder == ordinal);
            if held || std::mem::replace(&mut asked[usize::from(ordinal)], true) {
                continue;
            }
            let has_room = self.loads[usize::from(ordinal)] < room;
            let makes_room = || {
                let others = (0_u16..).zip(&self.holders);
                let others = others.filter(|(_, holders)| holders.get(round - 1) == Some(&ordinal));
                others.map(|(other, _)| other).collect::<Vec<_>>()
            };
            if has_room {
                self.loads[usize::from(ordinal)] += 1;
            } else if !makes_room()
                .into_iter()
                .any(|other| self.make_room(other, round, room, asked))
            {
                continue;
            }
            let holders = &mut self.holders[usize::from(shard)];
            holders.truncate(round - 1);
            holders.push(ordinal);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_vectors() {
        let of = |shards, nodes, replicas| {
            let placement = Placement::compute(shards, nodes, replicas);
            let of = |shard| placement.of(shard).iter().map(u16::to_string).collect::<String>();
            (0..shards).map(of).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(1, 1, 1), "0");
        assert_eq!(of(8, 2, 1), "1 1 0 0 0 1 1 0");
        assert_eq!(of(8, 3, 2), "20 10 20 01 01 12 12 02");
        assert_eq!(of(8, 3, 3), "201 102 201 012 012 120 120 021");
        assert_eq!(of(4, 5, 3), "234 310 420 041");
    }

    #[test]
    fn what_does_not_exist_is_nowhere() {
        let placement = Placement::compute(2, 0, 1);
        assert_eq!((placement.of(0), placement.first(0)), (&[][..], None));
        let placement = Placement::compute(2, 3, 9);
        assert_eq!((placement.of(0).len(), placement.of(2)), (3, &[][..]));
        assert_eq!((placement.rank(0, 3), placement.held_by(3).count()), (None, 0));
    }

    /// How many shards hold another set of nodes.
    fn moved(one: &Placement, other: &Placement, shards: u16) -> usize {
        let changed = |shard: &u16| {
            let (mut one, mut other) = (one.of(*shard).to_vec(), other.of(*shard).to_vec());
            one.sort_unstable();
            other.sort_unstable();
            one != other
        };
        (0..shards).filter(changed).count()
    }

    proptest! {
        #[test]
        fn everyone_has_its_share(shards in 1..64_u16, nodes in 1..20_u16, replicas in 1..5_u16) {
            let placement = Placement::compute(shards, nodes, replicas);
            let replicas = replicas.min(nodes);
            let (mut firsts, mut loads) = (vec![0; nodes.into()], vec![0; nodes.into()]);
            for shard in 0..shards {
                let holders = placement.of(shard);
                prop_assert_eq!(holders.len(), usize::from(replicas));
                firsts[usize::from(holders[0])] += 1;
                for (rank, &holder) in holders.iter().enumerate() {
                    prop_assert_eq!(placement.rank(shard, holder), Some(rank));
                    loads[usize::from(holder)] += 1;
                }
            }
            for (ordinal, (&first, &load)) in (0..).zip(firsts.iter().zip(&loads)) {
                let (low, high) = (shards / nodes, shards.div_ceil(nodes));
                prop_assert!((low..=high).contains(&first), "{} is first for {}", ordinal, first);
                let (low, high) = (shards * replicas / nodes, (shards * replicas).div_ceil(nodes));
                prop_assert!((low..=high).contains(&load), "{} holds {}", ordinal, load);
                prop_assert_eq!(placement.held_by(ordinal).count(), usize::from(load));
            }
        }

        #[test]
        fn one_node_more_moves_some_of_the_shards(nodes in 1..12_u16, replicas in 1..4_u16) {
            let shards = 256;
            let before = Placement::compute(shards, nodes, replicas);
            let after = Placement::compute(shards, nodes + 1, replicas);
            // Each copy that the new node gets, and those that have to make room elsewhere.
            let ideal = usize::from(shards * replicas.min(nodes + 1) / (nodes + 1));
            prop_assert!(moved(&before, &after, shards) <= ideal * 2, "{} of {}", moved(&before, &after, shards), ideal);
        }
    }
}
