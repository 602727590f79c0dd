//! The shards of a cluster: what was appended, and what each of those who hold it has of it.

use std::collections::BTreeMap;

use tidings_cluster::Placement;

use super::super::journal::Journal;
use crate::{
    hub::{Answer, Question},
    log::Replay,
    model::{Layout, Seq, Shard},
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
    pub(super) kind: Kind,
    placement: Placement,
    shards: BTreeMap<Shard, Journal>,
    /// What each holder of a replicated shard has of it.
    copies: BTreeMap<(Shard, u16), Journal>,
}

impl Shards {
    pub(super) fn new(layout: Layout, kind: Kind, nodes: u16, replicas: u16) -> Self {
        let replicas = if kind == Kind::Owned { 1 } else { replicas };
        let placement = Placement::compute(layout.shards(), nodes, replicas);
        let all = || (0..layout.shards()).map(Shard);
        let holders = all().flat_map(|shard| placement.of(shard.0).iter().map(move |&holder| (shard, holder)));
        Self {
            copies: holders.map(|of| (of, Journal::new(of.0))).collect(),
            shards: all().map(|shard| (shard, Journal::new(shard))).collect(),
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
            copy.apply(stream, up_to);
        }
    }

    /// A holder's disk is lost.
    pub(super) fn wipe(&mut self, shard: Shard, node: u16) {
        self.copies.insert((shard, node), Journal::new(shard));
    }

    /// What a holder answers; none if it has not come as far as it is asked: it is not for it to say what came of what it has yet to see.
    pub(super) fn answer(&mut self, question: &Question, node: u16) -> Option<Answer> {
        let answer = self.held(shard_of(question), node).answer(question);
        match (question, &answer) {
            (Question::Replay(request) | Question::Fill(request), Answer::Replay(Replay::Forked { epoch, .. })) if *epoch == request.epoch => {
                None
            }
            _ => Some(answer),
        }
    }
}

pub(super) const fn shard_of(question: &Question) -> Shard {
    match question {
        Question::Heads(shard) | Question::Locate(shard, _) => *shard,
        Question::Replay(request) | Question::Fill(request) => request.shard,
    }
}
