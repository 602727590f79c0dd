//! A cluster: edges with their memberships and rings, ingest nodes that hold the shards or copies of them, each at its own pace, and between
//! them a NATS from which nodes are cut off. Readers connect to the owner of their slot, or anywhere, and are moved when they are misplaced.

mod ask;
mod bus;
mod faults;
mod nodes;
mod readers;
mod shards;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidings_cluster::Beat;

use self::{
    ask::Ask,
    nodes::{Edge, Node, Running, place, time},
    shards::{Kind, Shards},
};
use super::{
    Faults, SECOND, in_the_end,
    reader::{Pipe, PipeOutlet, Published, Reader},
    schedule::Schedule,
    worlds,
};
use crate::{
    bus::Notice,
    hub::{Answer, Effect, HubSettings, Question, Ticket},
    log::HolderAnswer,
    model::{Layout, Seq, Shard, Topic},
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
                    // Now and then an edge is late, and finds more than one.
                    let until = self.schedule.now() + self.rng.random_range(0..20);
                    let is_next =
                        |next: &Action| matches!(next, Action::Notice(of, its, _) if (*of, *its) == (edge, life));
                    let mut burst = vec![notice];
                    while let Some(Action::Notice(.., next)) = self.schedule.next_if(until, is_next) {
                        burst.push(next);
                    }
                    self.edges[edge].hub.notices(&burst);
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
        in_the_end(|now| {
            self.run(now);
            self.judge()
        })
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

/// Worlds in which something went wrong once. They stay what they are as long as worlds are made in the same way: when that changes,
/// the fault has to be put back to find another.
const PINNED: [(u64, Faults); 2] = [
    // A copy that had to leave out what its stream had dropped did not say so of the slots it knew nothing of: a reader that was live there
    // passed for level, and was never given what another holder still had.
    (15_141_454_361_227_400_790, Faults::RETENTION),
    // A copy that had just been wiped was served before its holder had seen the stream: it took readers back to an epoch that was over, and
    // they were given again what they had seen.
    (17_132_105_474_444_313_165, Faults::ALL),
];

#[test]
fn what_went_wrong_once_goes_right() {
    for (seed, faults) in PINNED {
        assert_eq!(live(seed, faults).err(), None, "seed {seed}");
    }
}

#[test]
fn in_a_calm_cluster_everything_arrives() {
    worlds(30, |seed| live(seed, Faults::NONE));
}

#[test]
fn losses_cuts_crashes_and_lagging_logs_lose_nothing() {
    worlds(200, |seed| live(seed, Faults::LOSSES));
}

#[test]
fn what_retention_drops_is_told() {
    worlds(100, |seed| live(seed, Faults::RETENTION));
}

#[test]
fn a_forked_history_is_told() {
    worlds(100, |seed| live(seed, Faults::ALL));
}
