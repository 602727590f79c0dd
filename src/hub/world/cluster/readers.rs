//! The readers: where they connect, what they take, and what they should have had in the end.

use rand::Rng as _;

use super::{Action, Client, EDGES, INGEST, Pipe, PipeOutlet, SECOND, World};
use crate::{
    hub::{Follow, Start},
    model::{Cursor, Slot},
};

impl World {
    pub(super) fn routing_slot(&self, client: &Client) -> Slot {
        Slot(self.layout.slot(self.topics[client.reader.topics[0]].as_str()))
    }

    pub(super) fn connect(&mut self, client: usize) {
        let now = self.schedule.now();
        if self.clients[client].reader.on.is_some() {
            return;
        }
        // It lands somewhere, and may be led on from there.
        let landed = self.rng.random_range(0..EDGES);
        let slot = self.routing_slot(&self.clients[client]);
        let led = self.clients[client].routed && !self.chance(0.2) && self.edges[landed].accepts(now);
        let edge = if led {
            self.edges[landed].owner(slot).unwrap_or(landed)
        } else {
            landed
        };
        if !self.edges[edge].accepts(now) {
            return self.after(2 * SECOND, Action::Connect(client));
        }
        let reader = &self.clients[client].reader;
        let start = match &reader.cursor {
            None if reader.from_earliest => Start::Earliest,
            None => Start::Now,
            Some(text) => Start::After(Cursor::parse(text).expect("issued")),
        };
        let topics = reader.topics.iter().map(|&topic| self.topics[topic].clone()).collect();
        let room = if self.faults.losses {
            self.rng.random_range(1..6)
        } else {
            1_000
        };
        let pipe = Pipe::new(room, self.published.clone());
        let outlet = std::rc::Rc::new(PipeOutlet(pipe.clone()));
        let id = self.edges[edge].hub.attach(Follow { topics, start }, outlet);
        self.clients[client].connection += 1;
        self.clients[client].reader.on = Some((edge, id, pipe));
        self.carry_out(edge);
        let connection = self.clients[client].connection;
        self.after(200, Action::Consume(client, connection));
    }

    pub(super) fn consume(&mut self, client: usize, connection: u32) {
        let taken = self.rng.random_range(0..3);
        let this = &self.clients[client];
        let Some((edge, id, pipe)) = this.reader.on.clone().filter(|_| this.connection == connection) else {
            return;
        };
        assert!(
            pipe.borrow().held.is_empty(),
            "whatever is held back is sent before the hub waits"
        );
        for _ in 0..taken {
            let Some((seen, cursor)) = pipe.borrow_mut().items.pop_front() else {
                break;
            };
            self.note(|| format!("reader {client} on edge-{edge}: {seen:?} {cursor}"));
            let reader = &mut self.clients[client].reader;
            reader.seen.push(seen);
            reader.cursor = Some(cursor);
        }
        let has_room = pipe.borrow().items.len() < pipe.borrow().room;
        if self.edges[edge].stopped_until <= self.schedule.now()
            && has_room
            && std::mem::take(&mut pipe.borrow_mut().refused)
        {
            self.edges[edge].hub.drained(id);
            self.carry_out(edge);
        }
        self.after(if self.quiet { 20 } else { 200 }, Action::Consume(client, connection));
    }

    pub(super) fn drop_connection(&mut self, client: usize, known: bool) {
        if let Some((edge, id, pipe)) = self.clients[client].reader.on.take() {
            pipe.borrow_mut().gone = true;
            if known {
                self.edges[edge].hub.detach(id);
                self.carry_out(edge);
            }
        }
        self.after(2 * SECOND, Action::Connect(client));
    }

    /// In a world that has settled all see the same, and everyone is where it should be.
    pub(super) fn agree(&self) -> Result<(), String> {
        let first = self.edges[0].membership.view();
        for (n, edge) in self.edges.iter().enumerate() {
            let view = edge.membership.view();
            if view != first || view.ring() != first.ring() {
                return Err(format!("edges 0 and {n} do not agree: {first:?}, {view:?}"));
            }
        }
        if first.edges().count() != EDGES || first.ingest().count() != INGEST || !first.is_settled() {
            return Err(format!("not all are there: {first:?}"));
        }
        for (n, client) in self.clients.iter().enumerate() {
            let on = client.reader.on.as_ref().map(|&(edge, ..)| edge);
            let owner = self.edges[0].owner(self.routing_slot(client));
            if on.is_none() || client.routed && on != owner {
                return Err(format!("reader {n} is on {on:?} and should be on {owner:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn judge(&self) -> Result<(), String> {
        let published = self.published.borrow();
        for (n, client) in self.clients.iter().enumerate() {
            for &topic in &client.reader.topics {
                let verdict = client.reader.judge(topic, &published[topic], self.faults);
                verdict.map_err(|fault| format!("reader {n}, topic {topic}: {fault}"))?;
            }
        }
        Ok(())
    }
}
