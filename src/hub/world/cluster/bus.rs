//! What goes over NATS: announcements, digests and beats, each of which may be lost, late, or doubled; and what an edge does every second.

use std::sync::Arc;

use rand::Rng as _;
use tidings_cluster::{Beat, HeldShard};

use super::super::reader::Event;
use super::{Action, Client, EDGES, Kind, Node, Running, SECOND, World, ordinal, time};
use crate::{
    bus::Notice,
    model::{Seq, Shard, Slot},
};

impl World {
    /// Publishes to a topic; if nobody can take it, it is refused.
    pub(super) fn publish(&mut self, topic: usize) {
        let name = self.topics[topic].clone();
        let slot = Slot(self.layout.slot(name.as_str()));
        let shard = Shard(self.layout.shard(slot.0));
        let holder = |&holder: &u16| self.ingest[usize::from(holder)];
        let holders: Vec<_> = self.shards.holders(shard).iter().map(holder).collect();
        let (taken, announced) = match self.shards.kind {
            Kind::Owned => (holders[0].up, holders[0].linked),
            // The stream announces by itself.
            Kind::Replicated => (holders.iter().any(Running::is_heard), true),
        };
        if !taken {
            return;
        }
        let step = [1, 1, 1, 2, 5][self.rng.random_range(0..5)];
        let now = self.schedule.now();
        let journal = self.shards.appended(shard);
        let (epoch, branch) = (journal.epoch(), journal.branch);
        let announcement = journal.append(name, slot, &format!("{topic} {epoch}"), now, step);
        let seq = announcement.seq;
        journal.applied = seq;
        self.published.borrow_mut()[topic].push(Event {
            epoch,
            seq,
            undone: false,
        });
        for edge in 0..EDGES {
            if announced && self.edges[edge].slots.contains(&slot) {
                self.notify(edge, 300, || Notice::Announcement(announcement.clone()));
            }
        }
        self.have_applied(shard, branch, seq);
    }

    /// Has each holder of a shard apply what was appended, each in its time.
    pub(super) fn have_applied(&mut self, shard: Shard, branch: u32, up_to: Seq) {
        for holder in self.shards.holders(shard).to_vec() {
            let node = usize::from(holder);
            let lag = if self.chance(0.03) { 10 * SECOND } else { 500 };
            let life = self.ingest[node].life;
            self.after(lag, Action::Apply(node, life, shard, branch, up_to));
        }
    }

    /// Sends an edge a notice, which may be lost, late, or doubled.
    pub(super) fn notify(&mut self, edge: usize, within: u64, notice: impl Fn() -> Notice) {
        if self.chance(0.15) {
            return;
        }
        let life = self.edges[edge].node.life;
        let late = if self.chance(0.1) { 3 * SECOND } else { within };
        for _ in 0..if self.chance(0.05) { 2 } else { 1 } {
            self.after(late, Action::Notice(edge, life, notice()));
        }
    }

    /// An ingest node tells how far its shards have come; and goes on applying, should it have missed something.
    pub(super) fn digest(&mut self, node: usize) {
        if self.ingest[node].is_heard() {
            for (shard, _) in self.shards.held_by(ordinal(node)) {
                if self.shards.is_open(shard, ordinal(node)) {
                    let digest = Arc::new(self.shards.held(shard, ordinal(node)).digest());
                    for edge in 0..EDGES {
                        self.notify(edge, 500, || Notice::Digest(digest.clone()));
                    }
                }
                let stream = self.shards.appended(shard);
                let (branch, last, life) = (stream.branch, stream.last(), self.ingest[node].life);
                self.after(2 * SECOND, Action::Apply(node, life, shard, branch, last));
            }
        }
        self.after(SECOND, Action::Digest(node));
    }

    pub(super) fn beat(&mut self, node: Node) {
        let (layout, now) = (self.layout, self.schedule.now());
        let beat = match node {
            Node::Edge(place) => {
                let edge = &mut self.edges[place].node;
                edge.is_heard().then(|| edge.beat(node, layout, Vec::new()))
            }
            Node::Ingest(place) => {
                let shards = self.shards.held_by(ordinal(place)).into_iter();
                let open: Vec<_> = shards
                    .filter(|&(shard, _)| self.shards.is_open(shard, ordinal(place)))
                    .collect();
                let shards = open.into_iter().map(|(shard, rank)| {
                    let held = self.shards.held(shard, ordinal(place));
                    HeldShard {
                        shard: shard.0,
                        epoch: held.epoch(),
                        last: held.last().0,
                        writable: true,
                        rank: u32::try_from(rank).expect("few"),
                    }
                });
                let shards = shards.collect();
                let ingest = &mut self.ingest[place];
                ingest.is_heard().then(|| ingest.beat(node, layout, shards))
            }
        };
        if let Some(beat) = beat {
            self.spread(&beat);
        }
        self.schedule.at(now + SECOND, Action::Beat(node));
    }

    /// Has all edges hear a beat, which may be lost, late, or doubled.
    pub(super) fn spread(&mut self, beat: &Beat) {
        for edge in 0..EDGES {
            if self.chance(0.15) {
                continue;
            }
            let life = self.edges[edge].node.life;
            let late = if self.chance(0.1) { 3 * SECOND } else { 200 };
            for _ in 0..if self.chance(0.05) { 2 } else { 1 } {
                self.after(late, Action::Hear(edge, life, Box::new(beat.clone())));
            }
        }
    }

    /// A second has passed on an edge: the membership is told, the bus says that it may have lost something while it is cut off, and one reader
    /// that should be elsewhere is sent there.
    pub(super) fn tick(&mut self, edge: usize) {
        let now = self.schedule.now();
        self.schedule.at(now + SECOND, Action::Tick(edge));
        let this = &mut self.edges[edge];
        if !this.node.up {
            return;
        }
        this.membership.tick(time(now));
        if !this.node.linked {
            this.hub.notice(&Notice::Unverified);
            return self.carry_out(edge);
        }
        if self.edges[edge].membership.view().is_settled() {
            let is_misplaced = |client: &Client| {
                let here = client.reader.on.as_ref().is_some_and(|&(on, ..)| on == edge);
                here && client.routed && self.edges[edge].owner(self.routing_slot(client)) != Some(edge)
            };
            if let Some(client) = self.clients.iter().position(is_misplaced) {
                self.drop_connection(client, true);
            }
        }
    }
}
