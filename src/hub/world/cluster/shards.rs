//! The shards of a cluster: what was appended, and what each of those who hold it has of it.

use std::collections::{BTreeMap, BTreeSet};

use tidings_cluster::Placement;

use super::super::journal::Journal;
use crate::{
    hub::Question,
    model::{Layout, Seq, Shard, Slot},
};

/// How a cluster keeps its shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each shard on the disk of one ingest node, which appends to it. Each start begins an epoch.
    Owned,
    /// Each shard a stream that outlives the ingest nodes; several of them copy it to their disks, each at its own pace.
    Replicated,
}

/// All shards.
pub(super) struct Shards {
    layout: Layout,
    pub(super) kind: Kind,
    placement: Placement,
    shards: BTreeMap<Shard, Journal>,
    /// What each holder of a replicated shard has of it.
    copies: BTreeMap<(Shard, u16), Journal>,
    /// The copies that are served: a holder that starts serves none before it has seen the stream, and knows that its copy is of that.
    open: BTreeSet<(Shard, u16)>,
}

impl Shards {
    pub(super) fn new(layout: Layout, kind: Kind, nodes: u16, replicas: u16) -> Self {
        let replicas = if kind == Kind::Owned { 1 } else { replicas };
        let placement = Placement::compute(layout.shards(), nodes, replicas);
        let all = || (0..layout.shards()).map(Shard);
        let holders = all().flat_map(|shard| placement.of(shard.0).iter().map(move |&holder| (shard, holder)));
        Self {
            layout,
            copies: holders.map(|of| (of, Journal::copy(of.0))).collect(),
            shards: all().map(|shard| (shard, Journal::new(shard))).collect(),
            open: BTreeSet::new(),
            kind,
            placement,
        }
    }

    /// Who is to hold a shard, the first one first.
    pub(super) fn holders(&self, shard: Shard) -> &[u16] {
        self.placement.of(shard.0)
    }

    /// Which shards a node is to hold, with its rank.
    pub(super) fn held_by(&self, node: u16) -> Vec<(Shard, usize)> {
        let rank = |shard| self.placement.rank(shard, node).map(|rank| (Shard(shard), rank));
        self.placement.held_by(node).filter_map(rank).collect()
    }

    /// What was appended.
    pub(super) fn appended(&mut self, shard: Shard) -> &mut Journal {
        self.shards.get_mut(&shard).expect("exists")
    }

    /// What a holder has.
    pub(super) fn held(&mut self, shard: Shard, node: u16) -> &mut Journal {
        match self.kind {
            Kind::Owned => self.shards.get_mut(&shard).expect("exists"),
            Kind::Replicated => self.copies.get_mut(&(shard, node)).expect("holds it"),
        }
    }

    /// A holder copies what was appended up to a sequence.
    pub(super) fn apply(&mut self, shard: Shard, node: u16, branch: u32, up_to: Seq) {
        let stream = &self.shards[&shard];
        if stream.branch == branch
            && let Some(copy) = self.copies.get_mut(&(shard, node))
        {
            let slots = (0..self.layout.slots()).filter(|&slot| self.layout.shard(slot) == shard.0);
            copy.apply(stream, up_to, slots.map(Slot));
            self.open.insert((shard, node));
        }
    }

    /// Whether a holder that runs serves what it has.
    pub(super) fn is_open(&self, shard: Shard, node: u16) -> bool {
        self.kind == Kind::Owned || self.open.contains(&(shard, node))
    }

    /// A holder died.
    pub(super) fn close(&mut self, node: u16) {
        self.open.retain(|&(_, holder)| holder != node);
    }

    /// A holder's disk is lost.
    pub(super) fn wipe(&mut self, shard: Shard, node: u16) {
        self.copies.insert((shard, node), Journal::copy(shard));
    }
}

pub(super) const fn shard_of(question: &Question) -> Shard {
    match question {
        Question::Heads(shard) | Question::Locate(shard, _) => *shard,
        Question::Replay(request) | Question::Fill(request) => request.shard,
    }
}
