//! A cluster: edges with their memberships and rings, ingest nodes that hold the shards or copies of them, each at its own pace, and between
//! them a NATS from which nodes are cut off. Readers connect to the owner of their slot, or anywhere, and are moved when they are misplaced.

mod ask;
mod faults;
mod nodes;
mod shards;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidings_cluster::{Beat, HeldShard};

use self::{
    ask::Ask,
    nodes::{Edge, Node, Running, place, time},
    shards::{Kind, Shards},
};
use super::{
    Faults, SECOND,
    reader::{self, Pipe, PipeOutlet, Published, Reader},
    schedule::Schedule,
    worlds,
};
use crate::{
    bus::Notice,
    hub::{Answer, Effect, Follow, HubSettings, Question, Start, Ticket},
    log::HolderAnswer,
    model::{Cursor, Layout, Seq, Shard, Slot, Topic},
};

const EDGES: usize = 4;
const INGEST: usize = 3;
const TOPICS: usize = 12;
const READERS: usize = 10;

#[derive(Debug)]
enum Action {
    Publish,
    /// An ingest node copies what was appended to a shard, up to a sequence.
    Apply(usize, u32, Shard, u32, Seq),
    Digest(usize),
    /// A node tells of itself.
    Beat(Node),
    /// An edge hears of a node.
    Hear(usize, u32, Box<Beat>),
    /// A second has passed on an edge.
    Tick(usize),
    Notice(usize, u32, Notice),
    Question(usize, u32, Ticket, Question),
    /// A question comes to the holder at this place among those that are asked.
    Asked(u64, usize),
    /// It has answered, or has not.
    Told(u64, usize, Option<HolderAnswer>),
    /// Nobody knew better than who answered first.
    Confirm(u64),
    GiveUp(u64),
    Answer(usize, u32, Ticket, Answer),
    Connect(usize),
    Consume(usize, u32),
    /// A reader's connection ends, with the edge's knowledge.
    End(usize, u32),
    /// An edge that drained leaves.
    Leave(usize, u32),
    Start(Node),
    Relink(Node, u32),
    Reach(usize, u32),
    Chaos,
}

/// A reader, and how it comes to its edge.
struct Client {
    reader: Reader,
    /// Counts its connections.
    connection: u32,
    /// It asks for the owner of its slot, and can be moved there.
    routed: bool,
}

struct World {
    rng: StdRng,
    schedule: Schedule<Action>,
    layout: Layout,
    settings: HubSettings,
    faults: Faults,
    /// Nothing more goes wrong.
    quiet: bool,
    shards: Shards,
    ingest: Vec<Running>,
    edges: Vec<Edge>,
    clients: Vec<Client>,
    /// The questions that are under way.
    asks: BTreeMap<u64, Ask>,
    next_ask: u64,
    topics: Vec<Topic>,
    published: Published,
    /// What happened, if somebody wants to know.
    trace: Option<Vec<String>>,
    prints: bool,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (slots, shards) = [(8, 1), (16, 2), (64, 3)][rng.random_range(0..3)];
        let layout = Layout::new(slots, shards).expect("valid");
        let settings = HubSettings {
            tail_events: rng.random_range(0..12),
            tail_bytes: 1 << 20,
            tail_total_bytes: [1 << 20, 2_000][rng.random_range(0..2)],
            page_events: rng.random_range(1..8),
            page_bytes: 1_000,
            fill_topics: rng.random_range(1..6),
        };
        let kind = [Kind::Owned, Kind::Replicated][rng.random_range(0..2)];
        let nodes = u16::try_from(INGEST).expect("few");
        let shards = Shards::new(layout, kind, nodes, rng.random_range(2..=nodes));
        let clients = (0..READERS).map(|_| Client {
            reader: Reader {
                topics: {
                    let count = rng.random_range(1..=5);
                    rand::seq::index::sample(&mut rng, TOPICS, count).into_vec()
                },
                from_earliest: rng.random_bool(0.7),
                cursor: None,
                seen: Vec::new(),
                on: None,
            },
            connection: 0,
            routed: rng.random_bool(0.6),
        });
        Self {
            clients: clients.collect(),
            schedule: Schedule::new(),
            layout,
            settings,
            faults,
            quiet: false,
            asks: BTreeMap::new(),
            next_ask: 0,
            shards,
            ingest: vec![Running::new(1); INGEST],
            edges: (0..EDGES).map(|_| Edge::new(1, layout, settings, 0)).collect(),
            topics: (0..TOPICS)
                .map(|n| Topic::parse(&format!("t{n}")).expect("valid"))
                .collect(),
            published: Rc::new(RefCell::new(vec![Vec::new(); TOPICS])),
            trace: None,
            prints: false,
            rng,
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.faults.losses && !self.quiet && self.rng.random_bool(probability)
    }

    fn after(&mut self, within: u64, action: Action) {
        let at = self.schedule.now() + self.rng.random_range(0..=within);
        self.schedule.at(at, action);
    }

    fn run(&mut self, until: u64) {
        while let Some(action) = self.schedule.next(until) {
            let stopped_until = action.edge().map_or(0, |edge| self.edges[edge].stopped_until);
            if stopped_until > self.schedule.now() {
                self.schedule.at(stopped_until, action);
                continue;
            }
            let now = self.schedule.now();
            self.note(|| format!("{now} {action}"));
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Publish => {
                let topic = self.rng.random_range(0..TOPICS);
                self.publish(topic);
            }
            Action::Apply(node, life, shard, branch, up_to) => {
                if self.ingest[node].life == life && self.ingest[node].is_heard() {
                    self.shards.apply(shard, ordinal(node), branch, up_to);
                }
            }
            Action::Digest(node) => self.digest(node),
            Action::Beat(node) => self.beat(node),
            Action::Hear(edge, life, beat) => {
                let now = time(self.schedule.now());
                if self.hears(edge, life) {
                    self.edges[edge].membership.beat(now, *beat);
                }
            }
            Action::Tick(edge) => self.tick(edge),
            Action::Notice(edge, life, notice) => {
                if self.hears(edge, life) {
                    self.edges[edge].hub.notice(&notice);
                    self.carry_out(edge);
                }
            }
            Action::Question(edge, life, ticket, question) => self.ask(edge, life, ticket, question),
            Action::Asked(id, holder) => self.asked(id, holder),
            Action::Told(id, holder, answer) => self.told(id, holder, answer),
            Action::Confirm(id) => self.confirm(id),
            Action::GiveUp(id) => self.give_up(id),
            Action::Answer(edge, life, ticket, answer) => {
                if self.edges[edge].node.life == life {
                    self.edges[edge].hub.answer(ticket, &answer);
                    self.carry_out(edge);
                }
            }
            Action::Connect(client) => self.connect(client),
            Action::Consume(client, connection) => self.consume(client, connection),
            Action::End(client, connection) => {
                if self.clients[client].connection == connection {
                    self.drop_connection(client, true);
                }
            }
            Action::Leave(edge, life) => self.leave(edge, life),
            Action::Start(node) => self.start(node),
            Action::Relink(node, life) => self.relink(node, life),
            Action::Reach(edge, life) => {
                if self.edges[edge].node.life == life {
                    self.edges[edge].cut_from.clear();
                }
            }
            Action::Chaos => self.chaos(),
        }
    }

    /// Adds to the trace, if somebody wants it.
    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.prints {
            println!("{}", what());
        } else if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    fn hears(&self, edge: usize, life: u32) -> bool {
        let node = &self.edges[edge].node;
        node.life == life && node.is_heard()
    }

    /// Publishes to a topic; if nobody can take it, it is refused.
    fn publish(&mut self, topic: usize) {
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
        self.published.borrow_mut()[topic].push(reader::Event {
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
    fn have_applied(&mut self, shard: Shard, branch: u32, up_to: Seq) {
        for holder in self.shards.holders(shard).to_vec() {
            let node = usize::from(holder);
            let lag = if self.chance(0.03) { 10 * SECOND } else { 500 };
            let life = self.ingest[node].life;
            self.after(lag, Action::Apply(node, life, shard, branch, up_to));
        }
    }

    /// Sends an edge a notice, which may be lost, late, or doubled.
    fn notify(&mut self, edge: usize, within: u64, notice: impl Fn() -> Notice) {
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
    fn digest(&mut self, node: usize) {
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

    fn beat(&mut self, node: Node) {
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
    fn spread(&mut self, beat: &Beat) {
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
    fn tick(&mut self, edge: usize) {
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

    fn routing_slot(&self, client: &Client) -> Slot {
        Slot(self.layout.slot(self.topics[client.reader.topics[0]].as_str()))
    }

    fn carry_out(&mut self, edge: usize) {
        let life = self.edges[edge].node.life;
        for effect in self.edges[edge].hub.take_effects() {
            self.note(|| format!("edge-{edge}: {effect:?}"));
            match effect {
                Effect::Follow(slot) => self.edges[edge].slots.push(slot),
                Effect::Unfollow(slot) => self.edges[edge].slots.retain(|&followed| followed != slot),
                // An answer may be on its way already.
                Effect::Forget(_) => {}
                Effect::Ask {
                    ticket,
                    question,
                    attempt,
                } => {
                    let delay = if attempt == 0 { 400 } else { 600 };
                    self.after(delay, Action::Question(edge, life, ticket, question));
                }
            }
        }
    }

    fn connect(&mut self, client: usize) {
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
        let outlet = Box::new(PipeOutlet(pipe.clone()));
        let id = self.edges[edge].hub.attach(Follow { topics, start }, outlet);
        self.clients[client].connection += 1;
        self.clients[client].reader.on = Some((edge, id, pipe));
        self.carry_out(edge);
        let connection = self.clients[client].connection;
        self.after(200, Action::Consume(client, connection));
    }

    fn consume(&mut self, client: usize, connection: u32) {
        let taken = self.rng.random_range(0..3);
        let this = &self.clients[client];
        let Some((edge, id, pipe)) = this.reader.on.clone().filter(|_| this.connection == connection) else {
            return;
        };
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

    fn drop_connection(&mut self, client: usize, known: bool) {
        if let Some((edge, id, pipe)) = self.clients[client].reader.on.take() {
            pipe.borrow_mut().gone = true;
            if known {
                self.edges[edge].hub.detach(id);
                self.carry_out(edge);
            }
        }
        self.after(2 * SECOND, Action::Connect(client));
    }

    /// Runs the world, lets it settle, publishes once more to every topic, and judges.
    fn live(mut self) -> Result<(), String> {
        self.begin();
        self.run(60 * SECOND);
        self.calm();
        self.run(90 * SECOND);
        self.agree()?;
        for topic in 0..TOPICS {
            self.publish(topic);
        }
        self.run(120 * SECOND);
        self.judge()
    }

    fn begin(&mut self) {
        for client in 0..READERS {
            self.after(3 * SECOND, Action::Connect(client));
        }
        for edge in 0..EDGES {
            self.after(SECOND, Action::Beat(Node::Edge(edge)));
            self.after(SECOND, Action::Tick(edge));
        }
        for node in 0..INGEST {
            self.after(SECOND, Action::Beat(Node::Ingest(node)));
            self.after(SECOND, Action::Digest(node));
        }
        for _ in 0..300 {
            self.after(60 * SECOND, Action::Publish);
        }
        if self.faults.losses {
            self.after(3 * SECOND, Action::Chaos);
        }
    }

    /// In a world that has settled all see the same, and everyone is where it should be.
    fn agree(&self) -> Result<(), String> {
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

    fn judge(&self) -> Result<(), String> {
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

impl Action {
    /// The edge that has to run for this to happen.
    const fn edge(&self) -> Option<usize> {
        match *self {
            Self::Hear(edge, ..)
            | Self::Tick(edge)
            | Self::Notice(edge, ..)
            | Self::Question(edge, ..)
            | Self::Answer(edge, ..)
            | Self::Beat(Node::Edge(edge)) => Some(edge),
            _ => None,
        }
    }
}

impl std::fmt::Display for Action {
    /// As in a trace: heads without the order in which a map happens to have them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let heads = match self {
            Self::Answer(.., Answer::Heads(heads)) | Self::Told(.., Some(HolderAnswer::Heads(heads))) => heads,
            other => return write!(f, "{other:?}"),
        };
        match self {
            Self::Answer(edge, life, ticket, _) => write!(f, "Answer({edge}, {life}, {ticket:?}, ")?,
            Self::Told(id, holder, _) => write!(f, "Told({id}, {holder}, ")?,
            _ => {}
        }
        let slots: BTreeMap<_, _> = heads.slots.iter().collect();
        write!(f, "{} {} {} {slots:?})", heads.epoch, heads.last, heads.floor)
    }
}

fn ordinal(node: usize) -> u16 {
    u16::try_from(node).expect("few")
}

/// Lives through one world. With `TIDINGS_WORLD_TRACE` it says all that happened.
fn live(seed: u64, faults: Faults) -> Result<(), String> {
    let mut world = World::new(seed, faults);
    world.prints = std::env::var_os("TIDINGS_WORLD_TRACE").is_some();
    world.live()
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut world = World::new(seed, Faults::ALL);
        world.trace = Some(Vec::new());
        world.begin();
        world.run(60 * SECOND);
        world.trace.expect("kept")
    };
    for seed in 0..20 {
        let (once, again) = (trace(seed), trace(seed));
        for (at, (this, that)) in once.iter().zip(&again).enumerate() {
            assert_eq!(this, that, "seed {seed}, line {at}");
        }
        assert_eq!(once.len(), again.len(), "seed {seed}");
    }
}

#[test]
fn in_a_calm_cluster_everything_arrives() {
    worlds(50, |seed| live(seed, Faults::NONE));
}

#[test]
fn losses_cuts_crashes_and_lagging_logs_lose_nothing() {
    worlds(300, |seed| live(seed, Faults::LOSSES));
}

#[test]
fn what_retention_drops_is_told() {
    worlds(100, |seed| live(seed, Faults::RETENTION));
}

#[test]
fn a_forked_history_is_told() {
    worlds(100, |seed| live(seed, Faults::ALL));
}
