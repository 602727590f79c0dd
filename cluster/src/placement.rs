//! The placement: which ingest nodes hold which shard.

use std::cmp::Reverse;

use crate::hash::{score, seed};

/// Which ingest nodes, by ordinal, hold each shard: a pure function of how many there are.
///
/// Rendezvous hashing of shards over ordinals, with loads as even as can be: no node is first for two shards more than another, and
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
        let mut dealt = Dealt {
            holders: vec![Vec::new(); usize::from(shards)],
            loads: vec![0; usize::from(nodes)],
        };
        for round in 1..=usize::from(replicas.min(nodes)) {
            // First everyone up to the share rounded down, then up to the share rounded up. What is left, because those with room hold the
            // shard already, goes to whoever fits best.
            let (share, nodes) = (round * usize::from(shards), usize::from(nodes));
            for room in [share / nodes, share.div_ceil(nodes), usize::MAX] {
                for &(_, shard, ordinal) in &pairs {
                    dealt.deal(shard, ordinal, round, room);
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
}

impl Dealt {
    /// Gives a shard to a node, if the shard has no holder of this round yet, and the node does not hold it and has room.
    fn deal(&mut self, shard: u16, ordinal: u16, round: usize, room: usize) {
        let holders = &mut self.holders[usize::from(shard)];
        let load = &mut self.loads[usize::from(ordinal)];
        if holders.len() < round && *load < room && !holders.contains(&ordinal) {
            holders.push(ordinal);
            *load += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
}
