//! One process: edges on one log that lags, fails, forgets and forks, and a bus that loses, repeats and reorders.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    Faults, SECOND, in_the_end,
    journal::Journal,
    reader::{self, Pipe, PipeOutlet, Published, Reader},
    schedule::Schedule,
    worlds,
};
use crate::{
    bus::Notice,
    hub::{Answer, Effect, Follow, Hub, HubSettings, Question, Start, Ticket},
    log::ReadError,
    model::{Cursor, Layout, Seq, Shard, Slot, Topic},
};

struct Edge {
    hub: Hub,
    slots: Vec<Slot>,
    life: u32,
}

enum Action {
    Publish,
    Apply(Shard, u32, Seq),
    Notice(usize, u32, Notice),
    Digest(Shard),
    Question(usize, u32, Ticket, Question),
    Answer(usize, u32, Ticket, Answer),
    Consume(usize, Rc<RefCell<Pipe>>),
    Connect(usize),
    Chaos,
}

struct World {
    rng: StdRng,
    schedule: Schedule<Action>,
    layout: Layout,
    settings: HubSettings,
    faults: Faults,
    quiet: bool,
    journals: BTreeMap<Shard, Journal>,
    published: Published,
    topics: Vec<Topic>,
    edges: Vec<Edge>,
    readers: Vec<Reader>,
}

const EDGES: usize = 3;
const TOPICS: usize = 10;

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (slots, shards) = [(1, 1), (6, 1), (12, 3)][rng.random_range(0..3)];
        let layout = Layout::new(slots, shards).expect("valid");
        let settings = HubSettings {
            tail_events: rng.random_range(0..12),
            tail_bytes: 1 << 20,
            tail_total_bytes: [1 << 20, 2_000][rng.random_range(0..2)],
            page_events: rng.random_range(1..8),
            page_bytes: 1_000,
            fill_topics: rng.random_range(1..6),
        };
        let readers = (0..8).map(|_| {
            let mut topics: Vec<_> = (0..TOPICS).collect();
            for at in 0..TOPICS {
                topics.swap(at, rng.random_range(at..TOPICS));
            }
            topics.truncate(rng.random_range(1..=6));
            Reader {
                topics,
                from_earliest: rng.random_bool(0.7),
                cursor: None,
                seen: Vec::new(),
                on: None,
            }
        });
        let readers = readers.collect();
        let edge = || Edge {
            hub: Hub::new(layout, settings),
            slots: Vec::new(),
            life: 0,
        };
        Self {
            schedule: Schedule::new(),
            layout,
            settings,
            faults,
            quiet: false,
            journals: (0..shards)
                .map(Shard)
                .map(|shard| (shard, Journal::new(shard)))
                .collect(),
            published: Rc::new(RefCell::new(vec![Vec::new(); TOPICS])),
            topics: (0..TOPICS)
                .map(|n| Topic::parse(&format!("t{n}")).expect("valid"))
                .collect(),
            edges: (0..EDGES).map(|_| edge()).collect(),
            readers,
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
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Publish => {
                let topic = self.rng.random_range(0..TOPICS);
                self.publish(topic);
            }
            Action::Apply(shard, branch, seq) => {
                let journal = self.journals.get_mut(&shard).expect("exists");
                if journal.branch == branch {
                    journal.applied = journal.applied.max(seq);
                }
            }
            Action::Notice(edge, life, notice) => {
                if self.edges[edge].life == life {
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
            Action::Digest(shard) => self.digest(shard),
            Action::Question(edge, life, ticket, question) => {
                let answer = self.answer(&question);
                self.after(400, Action::Answer(edge, life, ticket, answer));
            }
            Action::Answer(edge, life, ticket, answer) => {
                if self.edges[edge].life == life {
                    self.edges[edge].hub.answer(ticket, &answer);
                    self.carry_out(edge);
                }
            }
            Action::Consume(reader, pipe) => self.consume(reader, &pipe),
            Action::Connect(reader) => self.connect(reader),
            Action::Chaos => self.chaos(),
        }
    }

    fn publish(&mut self, topic: usize) {
        let name = self.topics[topic].clone();
        let slot = Slot(self.layout.slot(name.as_str()));
        let shard = Shard(self.layout.shard(slot.0));
        let step = [1, 1, 1, 2, 5][self.rng.random_range(0..5)];
        let journal = self.journals.get_mut(&shard).expect("exists");
        let (epoch, branch) = (journal.epoch(), journal.branch);
        let announcement = journal.append(name, slot, &format!("{topic} {epoch}"), self.schedule.now(), step);
        let seq = announcement.seq;
        self.published.borrow_mut()[topic].push(reader::Event {
            epoch,
            seq,
            undone: false,
        });
        for edge in 0..EDGES {
            if self.edges[edge].slots.contains(&slot) && !self.chance(0.15) {
                let late = if self.chance(0.1) { 3 * SECOND } else { 300 };
                for _ in 0..if self.chance(0.05) { 2 } else { 1 } {
                    let life = self.edges[edge].life;
                    self.after(
                        late,
                        Action::Notice(edge, life, Notice::Announcement(announcement.clone())),
                    );
                }
            }
        }
        let lag = if self.chance(0.02) { 8 * SECOND } else { 500 };
        self.after(lag, Action::Apply(shard, branch, seq));
    }

    fn digest(&mut self, shard: Shard) {
        let digest = Arc::new(self.journals.get_mut(&shard).expect("exists").digest());
        for edge in 0..EDGES {
            if !self.chance(0.2) {
                let life = self.edges[edge].life;
                self.after(500, Action::Notice(edge, life, Notice::Digest(digest.clone())));
            }
        }
        self.after(SECOND, Action::Digest(shard));
    }

    fn answer(&mut self, question: &Question) -> Answer {
        if self.chance(0.1) {
            return Answer::Failed(ReadError::failed("a fault"));
        }
        let shard = match question {
            Question::Heads(shard) | Question::Locate(shard, _) => shard,
            Question::Replay(request) | Question::Fill(request) => &request.shard,
        };
        self.journals[shard].answer(question)
    }

    fn carry_out(&mut self, edge: usize) {
        let life = self.edges[edge].life;
        for effect in self.edges[edge].hub.take_effects() {
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

    fn connect(&mut self, reader: usize) {
        if self.readers[reader].on.is_some() {
            return;
        }
        let edge = self.rng.random_range(0..EDGES);
        let start = match &self.readers[reader].cursor {
            None if self.readers[reader].from_earliest => Start::Earliest,
            None => Start::Now,
            Some(text) => Start::After(Cursor::parse(text).expect("issued")),
        };
        let topics = self.readers[reader]
            .topics
            .iter()
            .map(|&topic| self.topics[topic].clone())
            .collect();
        let room = if self.faults.losses {
            self.rng.random_range(1..6)
        } else {
            1_000
        };
        let pipe = Pipe::new(room, self.published.clone());
        let id = self.edges[edge]
            .hub
            .attach(Follow { topics, start }, Rc::new(PipeOutlet(pipe.clone())));
        self.readers[reader].on = Some((edge, id, pipe.clone()));
        self.carry_out(edge);
        self.after(200, Action::Consume(reader, pipe));
    }

    fn consume(&mut self, reader: usize, pipe: &Rc<RefCell<Pipe>>) {
        let Some((edge, id, current)) = self.readers[reader].on.clone() else {
            return;
        };
        if !Rc::ptr_eq(&current, pipe) {
            return;
        }
        assert!(
            pipe.borrow().held.is_empty(),
            "whatever is held back is sent before the hub waits"
        );
        let taken = self.rng.random_range(0..3);
        for _ in 0..taken {
            let Some((seen, cursor)) = pipe.borrow_mut().items.pop_front() else {
                break;
            };
            self.readers[reader].seen.push(seen);
            self.readers[reader].cursor = Some(cursor);
        }
        let has_room = pipe.borrow().items.len() < pipe.borrow().room;
        if has_room && std::mem::take(&mut pipe.borrow_mut().refused) {
            self.edges[edge].hub.drained(id);
            self.carry_out(edge);
        }
        self.after(if self.quiet { 20 } else { 200 }, Action::Consume(reader, pipe.clone()));
    }

    fn drop_connection(&mut self, reader: usize, known: bool) {
        if let Some((edge, id, pipe)) = self.readers[reader].on.take() {
            pipe.borrow_mut().gone = true;
            if known {
                self.edges[edge].hub.detach(id);
                self.carry_out(edge);
            }
        }
        self.after(2 * SECOND, Action::Connect(reader));
    }

    fn chaos(&mut self) {
        if self.quiet {
            return;
        }
        match self.rng.random_range(0..22) {
            0..12 => {
                let (reader, known) = (self.rng.random_range(0..self.readers.len()), self.rng.random_bool(0.5));
                self.drop_connection(reader, known);
            }
            12..15 => self.kill_edge(),
            15 => {
                let edge = self.rng.random_range(0..EDGES);
                self.edges[edge].hub.notice(&Notice::Unverified);
                self.carry_out(edge);
            }
            16 => {
                let edge = self.rng.random_range(0..EDGES);
                self.edges[edge].hub.sweep();
                self.carry_out(edge);
            }
            17 | 18 if self.faults.retention => {
                let shard = Shard(self.rng.random_range(0..self.layout.shards()));
                self.journals.get_mut(&shard).expect("exists").expire();
            }
            19 => {
                let shard = Shard(self.rng.random_range(0..self.layout.shards()));
                self.journals.get_mut(&shard).expect("exists").restart();
            }
            20 | 21 if self.faults.forks => self.restore(),
            _ => {}
        }
        self.after(SECOND, Action::Chaos);
    }

    /// Puts a shard back to an older copy, or to nothing.
    fn restore(&mut self) {
        let shard = Shard(self.rng.random_range(0..self.layout.shards()));
        let journal = self.journals.get_mut(&shard).expect("exists");
        let last = Seq(self.rng.random_range(0..=journal.last().0));
        journal.restore(if self.rng.random_bool(0.3) { Seq::ZERO } else { last });
        let last = journal.last();
        for (topic, events) in self.topics.iter().zip(self.published.borrow_mut().iter_mut()) {
            if self.layout.shard(self.layout.slot(topic.as_str())) == shard.0 {
                events.iter_mut().for_each(|event| event.undone |= event.seq > last);
            }
        }
    }

    fn kill_edge(&mut self) {
        let edge = self.rng.random_range(0..EDGES);
        let life = self.edges[edge].life + 1;
        self.edges[edge] = Edge {
            hub: Hub::new(self.layout, self.settings),
            slots: Vec::new(),
            life,
        };
        for reader in 0..self.readers.len() {
            if self.readers[reader].on.as_ref().is_some_and(|&(on, ..)| on == edge) {
                self.drop_connection(reader, false);
            }
        }
    }

    /// Runs the world, lets it settle, publishes once more to every topic, and judges.
    fn live(mut self) -> Result<(), String> {
        self.begin();
        self.run(60 * SECOND);
        self.quiet = true;
        for reader in 0..self.readers.len() {
            self.connect(reader);
        }
        self.run(90 * SECOND);
        for topic in 0..TOPICS {
            self.publish(topic);
        }
        in_the_end(|now| {
            self.run(now);
            self.judge()
        })
    }

    fn begin(&mut self) {
        for reader in 0..self.readers.len() {
            self.connect(reader);
        }
        for shard in self.journals.keys().copied().collect::<Vec<_>>() {
            self.after(SECOND, Action::Digest(shard));
        }
        for _ in 0..300 {
            self.after(60 * SECOND, Action::Publish);
        }
        if self.faults.losses {
            self.after(3 * SECOND, Action::Chaos);
        }
    }

    fn judge(&self) -> Result<(), String> {
        let published = self.published.borrow();
        for (n, reader) in self.readers.iter().enumerate() {
            for &topic in &reader.topics {
                let verdict = reader.judge(topic, &published[topic], self.faults);
                verdict.map_err(|fault| format!("reader {n}, topic {topic}: {fault}"))?;
            }
        }
        Ok(())
    }
}

#[test]
fn a_seed_is_a_world() {
    let faults = Faults::ALL;
    let seen = |seed| {
        let mut world = World::new(seed, faults);
        world.begin();
        world.run(60 * SECOND);
        world.readers.into_iter().map(|reader| reader.seen).collect::<Vec<_>>()
    };
    for seed in 0..20 {
        assert_eq!(seen(seed), seen(seed), "seed {seed}");
    }
}

#[test]
fn in_a_calm_world_everything_arrives() {
    worlds(50, |seed| World::new(seed, Faults::NONE).live());
}

#[test]
fn losses_repeats_delays_failures_and_deaths_lose_nothing() {
    worlds(400, |seed| World::new(seed, Faults::LOSSES).live());
}

#[test]
fn what_retention_drops_is_told() {
    worlds(200, |seed| World::new(seed, Faults::RETENTION).live());
}

#[test]
fn a_forked_history_is_told() {
    worlds(200, |seed| World::new(seed, Faults::ALL).live());
}
