//! What goes wrong in a cluster, and how it is put right.

use rand::Rng as _;

use super::{Action, EDGES, INGEST, Kind, Node, Running, SECOND, World, ordinal, time};
use crate::{
    bus::Notice,
    model::{Seq, Shard},
};

impl World {
    /// Something goes wrong, about once a second.
    pub(super) fn chaos(&mut self) {
        if self.quiet {
            return;
        }
        let (edge, node) = (self.rng.random_range(0..EDGES), self.rng.random_range(0..INGEST));
        let shard = Shard(self.rng.random_range(0..self.layout.shards()));
        match self.rng.random_range(0..34) {
            0..8 => {
                let client = self.rng.random_range(0..self.clients.len());
                let known = self.rng.random_bool(0.5);
                self.drop_connection(client, known);
            }
            8..11 => self.kill_edge(edge),
            11 | 12 => self.drain_edge(edge),
            13..16 => self.cut(Node::Edge(edge)),
            16 | 17 => self.stop_edge(edge),
            18 => {
                self.edges[edge].hub.sweep();
                self.carry_out(edge);
            }
            19 | 20 => {
                let life = self.edges[edge].node.life;
                self.edges[edge].cut_from.push(node);
                self.after(8 * SECOND, Action::Reach(edge, life));
            }
            21..24 => self.kill_ingest(node),
            24 | 25 => self.cut(Node::Ingest(node)),
            26 | 27 if self.shards.kind == Kind::Replicated => {
                self.kill_ingest(node);
                for (shard, _) in self.shards.held_by(ordinal(node)) {
                    self.shards.wipe(shard, ordinal(node));
                }
            }
            28..31 if self.faults.retention => {
                let holders = self.shards.holders(shard);
                let holder = holders[self.rng.random_range(0..holders.len())];
                if self.rng.random_bool(0.5) {
                    self.shards.appended(shard).expire();
                } else {
                    self.shards.held(shard, holder).expire();
                }
            }
            31..34 if self.faults.forks => self.fork(shard),
            _ => {}
        }
        self.after(SECOND, Action::Chaos);
    }

    fn kill_edge(&mut self, edge: usize) {
        if !self.edges[edge].node.up {
            return;
        }
        self.edges[edge].node.up = false;
        self.edges[edge].node.life += 1;
        self.edges[edge].slots.clear();
        self.edges[edge].stopped_until = 0;
        for client in 0..self.clients.len() {
            let on = &self.clients[client].reader.on;
            if on.as_ref().is_some_and(|&(on, ..)| on == edge) {
                self.drop_connection(client, false);
            }
        }
        self.after(10 * SECOND, Action::Start(Node::Edge(edge)));
    }

    /// An edge takes nobody any more, sends its readers away over three seconds, and then leaves.
    fn drain_edge(&mut self, edge: usize) {
        if !self.edges[edge].accepts(self.schedule.now()) {
            return;
        }
        self.edges[edge].node.draining = true;
        for client in 0..self.clients.len() {
            let on = &self.clients[client].reader.on;
            if on.as_ref().is_some_and(|&(on, ..)| on == edge) {
                let connection = self.clients[client].connection;
                self.after(3 * SECOND, Action::End(client, connection));
            }
        }
        let (now, life) = (self.schedule.now(), self.edges[edge].node.life);
        self.schedule.at(now + 3 * SECOND + 1, Action::Leave(edge, life));
    }

    pub(super) fn leave(&mut self, edge: usize, life: u32) {
        let layout = self.layout;
        let node = &mut self.edges[edge].node;
        if node.life != life {
            return;
        }
        if node.is_heard() {
            let mut last = node.beat(Node::Edge(edge), layout, Vec::new());
            last.leaving = true;
            self.spread(&last);
        }
        self.kill_edge(edge);
    }

    fn stop_edge(&mut self, edge: usize) {
        let until = self.schedule.now() + self.rng.random_range(SECOND..10 * SECOND);
        if self.edges[edge].node.up {
            self.edges[edge].stopped_until = until;
        }
    }

    /// An ingest node dies, and comes back.
    fn kill_ingest(&mut self, node: usize) {
        if !self.ingest[node].up {
            return;
        }
        self.ingest[node].up = false;
        self.ingest[node].life += 1;
        self.shards.close(ordinal(node));
        self.after(10 * SECOND, Action::Start(Node::Ingest(node)));
    }

    pub(super) fn start(&mut self, node: Node) {
        match node {
            Node::Edge(edge) => {
                let life = self.edges[edge].node.life;
                if !self.edges[edge].node.up {
                    self.edges[edge] = super::Edge::new(life, self.layout, self.settings, self.schedule.now());
                }
            }
            Node::Ingest(place) => {
                if self.ingest[place].up {
                    return;
                }
                self.ingest[place] = Running::new(self.ingest[place].life);
                if self.shards.kind == Kind::Owned {
                    for (shard, _) in self.shards.held_by(ordinal(place)) {
                        self.shards.appended(shard).restart();
                    }
                }
            }
        }
    }

    /// A node is cut off from NATS for a while.
    fn cut(&mut self, node: Node) {
        let now = time(self.schedule.now());
        let this = match node {
            Node::Edge(edge) => {
                self.edges[edge].membership.link(now, false);
                &mut self.edges[edge].node
            }
            Node::Ingest(place) => &mut self.ingest[place],
        };
        this.linked = false;
        let life = this.life;
        self.after(15 * SECOND, Action::Relink(node, life));
    }

    pub(super) fn relink(&mut self, node: Node, life: u32) {
        let now = time(self.schedule.now());
        match node {
            Node::Edge(place) if self.edges[place].node.life == life && self.edges[place].node.up => {
                let edge = &mut self.edges[place];
                edge.node.linked = true;
                edge.membership.link(now, true);
                edge.hub.notice(&Notice::Unverified);
                self.carry_out(place);
            }
            Node::Ingest(place) if self.ingest[place].life == life => self.ingest[place].linked = true,
            Node::Edge(_) | Node::Ingest(_) => {}
        }
    }

    /// A shard's history forks: its only copy is put back to an older one, or its stream is made anew.
    fn fork(&mut self, shard: Shard) {
        let kind = self.shards.kind;
        let journal = self.shards.appended(shard);
        let last = match kind {
            Kind::Owned => {
                let last = Seq(self.rng.random_range(0..=journal.last().0));
                journal.restore(if self.rng.random_bool(0.3) { Seq::ZERO } else { last });
                journal.last()
            }
            Kind::Replicated => {
                journal.recreate();
                Seq::ZERO
            }
        };
        for (topic, events) in self.topics.iter().zip(self.published.borrow_mut().iter_mut()) {
            if self.layout.shard(self.layout.slot(topic.as_str())) == shard.0 {
                events.iter_mut().for_each(|event| event.undone |= event.seq > last);
            }
        }
    }

    /// From now on nothing goes wrong, and what is broken is put right.
    pub(super) fn calm(&mut self) {
        self.quiet = true;
        for edge in 0..EDGES {
            if self.edges[edge].node.draining {
                self.kill_edge(edge);
            }
            self.edges[edge].stopped_until = 0;
            self.edges[edge].cut_from.clear();
            self.start(Node::Edge(edge));
            self.relink(Node::Edge(edge), self.edges[edge].node.life);
        }
        for node in 0..INGEST {
            self.start(Node::Ingest(node));
            self.relink(Node::Ingest(node), self.ingest[node].life);
        }
        for client in 0..self.clients.len() {
            self.connect(client);
        }
    }
}
