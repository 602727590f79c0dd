//! The ring: which edge owns which slot.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use crate::hash::{cost, score, seed};

/// Which node owns each slot: rendezvous hashing with weights and bounded load.
///
/// A slot prefers nodes by a hash of both; a node prefers slots by the same, and takes no more than a quarter above its share, rounded
/// up. Slot and node are matched so that no two would rather have each other (there is one such matching): the order of the nodes does
/// not matter, all who know the same nodes come to the same ring, and a node that comes or goes moves little more than what it
/// has to own or owned.
///
/// A user's inbox is in one slot, so whoever connects to the owner of that slot shares an edge with all of the slot, and an edge needs the
/// live traffic of its own slots alone. Nothing but cost depends on that: an edge serves whoever comes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ring {
    /// Sorted.
    nodes: Vec<Box<str>>,
    /// By slot: the place among the nodes.
    owners: Vec<u32>,
}

impl Ring {
    /// The ring of these nodes, each with its weight: its share of the slots relative to the others'. One of weight 0 owns
    /// nothing; of several of one name the greatest weight counts.
    ///
    /// Takes time in proportion to slots times nodes: a millisecond or so for 1,024 slots and 300 nodes.
    #[must_use]
    pub fn compute(slots: u32, nodes: &[(&str, u32)]) -> Self {
        let mut nodes: Vec<_> = nodes.iter().copied().filter(|&(_, weight)| weight > 0).collect();
        nodes.sort_unstable_by_key(|&(id, weight)| (id, Reverse(weight)));
        nodes.dedup_by_key(|&mut (id, _)| id);
        Self {
            owners: if nodes.is_empty() {
                Vec::new()
            } else {
                Matching::new(slots, &nodes).settle()
            },
            nodes: nodes.into_iter().map(|(id, _)| id.into()).collect(),
        }
    }

    /// The owner of a slot; none if there are no nodes, or no such slot.
    #[must_use]
    pub fn owner(&self, slot: u32) -> Option<&str> {
        let owner = *self.owners.get(usize::try_from(slot).ok()?)?;
        Some(&self.nodes[owner as usize])
    }

    /// The slots that a node owns, ascending.
    pub fn slots_of(&self, id: &str) -> impl Iterator<Item = u32> + use<'_> {
        let place = self.nodes.binary_search_by(|node| (**node).cmp(id)).ok();
        let place = place.and_then(|place| u32::try_from(place).ok());
        (0_u32..)
            .zip(&self.owners)
            .filter_map(move |(slot, &owner)| (Some(owner) == place).then_some(slot))
    }

    /// The nodes that take part, sorted.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.nodes.iter().map(|node| &**node)
    }

    /// How many slots have another owner in the other ring, which has to be of as many slots, or of no nodes.
    #[must_use]
    pub fn moved(&self, other: &Self) -> usize {
        let slots = u32::try_from(self.owners.len().max(other.owners.len())).unwrap_or(u32::MAX);
        (0..slots).filter(|&slot| self.owner(slot) != other.owner(slot)).count()
    }
}

/// Slots and nodes on their way to a stable matching: each slot asks its nodes in the order it prefers them; a node keeps those that fit
/// it best, as many as it has room for, and refuses the others, which ask on.
struct Matching {
    nodes: Vec<Node>,
    /// All weights are equal: then the scores themselves are in the order of the costs.
    even: bool,
    /// By slot: whom it asked last.
    asked: Vec<Option<Bid>>,
}

struct Node {
    seed: u64,
    weight: u32,
    room: usize,
    /// Whom it keeps, the one that fits it least first.
    kept: BinaryHeap<Reverse<(u64, Reverse<u32>)>>,
}

/// How much a slot prefers a node: less is better.
#[derive(Debug, Clone, Copy)]
struct Bid {
    cost: u64,
    weight: u32,
    score: u64,
    node: u32,
}

impl Matching {
    /// Of one node at least, each with a weight.
    fn new(slots: u32, nodes: &[(&str, u32)]) -> Self {
        let total: u64 = nodes.iter().map(|&(_, weight)| u64::from(weight)).sum();
        let even = nodes.iter().all(|&(_, weight)| weight == nodes[0].1);
        let nodes = nodes.iter().map(|&(id, weight)| {
            let room = (u128::from(slots) * u128::from(weight) * 5).div_ceil(u128::from(total) * 4);
            Node {
                seed: seed(id.as_bytes()),
                weight,
                room: usize::try_from(room).unwrap_or(usize::MAX),
                kept: BinaryHeap::new(),
            }
        });
        Self {
            nodes: nodes.collect(),
            even,
            asked: (0..slots).map(|_| None).collect(),
        }
    }

    /// By slot: the node that it ends with. Everyone's room together is more than the slots, so there is one for each.
    fn settle(mut self) -> Vec<u32> {
        let slots = u32::try_from(self.asked.len()).expect("as many as were asked for");
        for slot in 0..slots {
            let mut asking = slot;
            loop {
                let bid = self.next(asking).expect("somebody has room");
                self.asked[asking as usize] = Some(bid);
                let node = &mut self.nodes[bid.node as usize];
                node.kept.push(Reverse((bid.score, Reverse(asking))));
                if node.kept.len() <= node.room {
                    break;
                }
                let Reverse((_, Reverse(refused))) = node.kept.pop().expect("not empty");
                asking = refused;
            }
        }
        self.asked.iter().flatten().map(|bid| bid.node).collect()
    }

    /// Whom a slot prefers, after whom it asked last.
    fn next(&self, slot: u32) -> Option<Bid> {
        let last = self.asked[slot as usize].as_ref();
        let mut best: Option<Bid> = None;
        for (place, node) in (0_u32..).zip(&self.nodes) {
            let score = score(node.seed, slot);
            let bid = Bid {
                cost: if self.even { !score } else { cost(score) },
                weight: if self.even { 1 } else { node.weight },
                score,
                node: place,
            };
            let is_better = best.as_ref().is_none_or(|best| bid.cmp(best).is_lt());
            if is_better && last.is_none_or(|last| bid.cmp(last).is_gt()) {
                best = Some(bid);
            }
        }
        best
    }
}

impl Bid {
    /// By cost over weight, then by score; the nodes are sorted by name.
    fn cmp(&self, other: &Self) -> Ordering {
        let (this, that) = (
            u128::from(self.cost) * u128::from(other.weight),
            u128::from(other.cost) * u128::from(self.weight),
        );
        let order = this.cmp(&that).then_with(|| other.score.cmp(&self.score));
        order.then_with(|| self.node.cmp(&other.node))
    }
}

#[cfg(test)]
mod tests;
