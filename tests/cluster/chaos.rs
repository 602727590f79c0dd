//! Publishers with keys that retry, 200 and more readers of mixed topics, and everything that can go wrong, at random; and after each round, a
//! ledger.
//!
//! What was acknowledged is with every reader of its topics once and in the order of its topic. What was refused for good is with nobody, what
//! nobody knows of with nobody or with all once. There is no gap.
//!
//! `./dev chaos SECONDS [rocksdb|jetstream]` runs it for longer than `./dev test` does. The choices come from a seed, which is printed;
//! `TIDINGS_CHAOS_SEED` has them made again, though what they meet is never quite the same.

mod fault;
#[path = "../embedded/chaos/ledger.rs"]
mod ledger;
mod publisher;
mod reader;
mod recovery;

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::{sync::watch, task::JoinSet};

use self::{
    ledger::{Ledger, Rule},
    publisher::{Event, Publisher},
    reader::{Manner, Reader, mark},
    recovery::{Probing, Recoveries},
};
use crate::{
    node::Addresses,
    server::Version,
    world::{Journal, Plan},
};

const PUBLISHERS: u64 = 6;
const USERS: u64 = 150;
const SHARED: u64 = 12;
/// How many faults there are to a round.
const ROUND: usize = 5;
/// For how long faults go on to happen unless it is told.
const SECONDS: u64 = 60;

/// What everybody shares.
struct Stage {
    publishing: Vec<Addresses>,
    streaming: Vec<Addresses>,
    /// A topic of each shard.
    probes: Vec<String>,
    ledger: Mutex<Ledger>,
}

impl Stage {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("whole")
    }

    /// An inbox, a shared topic, or several of both.
    fn some_topics(&self, rng: &mut StdRng) -> Vec<String> {
        let inbox = |rng: &mut StdRng| format!("user:{}", rng.random_range(0..USERS));
        match rng.random_range(0..10) {
            0..6 => vec![inbox(rng)],
            6..8 => vec![format!("shared/{}", rng.random_range(0..SHARED))],
            _ => {
                let mut topics = some_shared(rng, 3);
                topics.push(inbox(rng));
                topics
            }
        }
    }
}

fn some_shared(rng: &mut StdRng, most: usize) -> Vec<String> {
    let all: Vec<_> = (0..SHARED).map(|number| format!("shared/{number}")).collect();
    let count = rng.random_range(1..=most);
    all.choose_multiple(rng, count).cloned().collect()
}

/// Sleeps for a random time, in milliseconds: it is how an actor acts, and nothing is waited for.
async fn pause(rng: &mut StdRng, milliseconds: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(milliseconds))).await;
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")),
    )
}

/// Readers of every kind.
fn readers(stage: &Arc<Stage>, rng: &impl Fn(u64) -> StdRng) -> Vec<Reader> {
    let mut readers = Vec::new();
    for edge in 0..stage.streaming.len() {
        let probes = stage.probes.clone();
        readers.push(Reader::start(
            stage,
            None,
            probes,
            Manner::At(edge),
            rng(1_000 + edge as u64),
        ));
    }
    for number in 0..USERS + 60 {
        let mut rng = rng(2_000 + number);
        let user = (number < USERS).then(|| number.to_string());
        let topics = match number {
            // Their inbox alone.
            ..100 => Vec::new(),
            // Their inbox and more.
            100..150 => some_shared(&mut rng, 3),
            _ => some_shared(&mut rng, 5),
        };
        let manner = match number % 5 {
            0 => Manner::Restless,
            1 if user.is_none() => Manner::Slow,
            _ => Manner::Steady,
        };
        readers.push(Reader::start(stage, user, topics, manner, rng));
    }
    readers
}

/// Ends a round: a last event in every topic, and everything must be there.
async fn settle(stage: &Arc<Stage>, readers: &mut [Reader], round: u64, rng: StdRng) -> Result<usize, String> {
    let topics = (0..USERS).map(|user| format!("user:{user}"));
    let topics = topics.chain((0..SHARED).map(|number| format!("shared/{number}")));
    let topics = topics.chain(stage.probes.iter().cloned());
    let marks = topics.map(|topic| Event::keyed(format!("{}{topic}", mark(round)), &topic));
    Publisher::of(Arc::clone(stage), marks, rng)
        .run(watch::channel(true).1)
        .await;
    let mut read = 0;
    for reader in readers {
        let received = reader.all_of(round).await;
        read += received.len();
        if let Some(wrong) = stage.ledger().wrong(&reader.topics, &received) {
            return Err(format!("a {:?} reader of {:?}: {wrong}", reader.manner, reader.topics));
        }
    }
    stage.ledger().settle();
    Ok(read)
}

async fn chaos(journal: Journal) {
    let seed = number_from("TIDINGS_CHAOS_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    let seconds = number_from("TIDINGS_CHAOS_SECONDS").unwrap_or(SECONDS);
    println!("chaos with {journal:?} for {seconds} seconds; again with TIDINGS_CHAOS_SEED={seed}");
    let rng = |actor: u64| StdRng::seed_from_u64(seed.wrapping_mul(100_000).wrapping_add(actor));
    let plan = Plan {
        version: Version::Newest,
        servers: 3,
        ingests: 2,
        edges: 3,
        ..Plan::small(journal)
    };
    let plan = plan.set("drain.window", "1s").set("http.heartbeat", "1s");
    let mut world = plan.start().await.expect("the newest is always there");
    let stage = Arc::new(Stage {
        publishing: world.publishing(),
        streaming: world.streaming(),
        probes: world.topic_of_each_shard("probe/"),
        ledger: Mutex::new(Ledger::new(Rule::Shards)),
    });
    let mut readers = readers(&stage, &rng);
    let mut probing = Probing::new(
        &stage,
        readers.iter().filter(|reader| matches!(reader.manner, Manner::At(_))),
    );
    println!("  {:15} {}", "to begin with", probing.measure().await);

    let until = Instant::now() + Duration::from_secs(seconds);
    let mut fate = rng(99);
    let (mut recoveries, mut deck) = (Recoveries::default(), Vec::new());
    let (mut rounds, mut read) = (0, 0);
    while Instant::now() < until {
        rounds += 1;
        let (stop, stopped) = watch::channel(false);
        let mut publishers = JoinSet::new();
        for number in 0..PUBLISHERS {
            let name = format!("{rounds}.{number}");
            let publisher = Publisher::new(Arc::clone(&stage), name, rng(10_000 * rounds + number));
            publishers.spawn(publisher.run(stopped.clone()));
        }
        for _ in 0..ROUND {
            if Instant::now() >= until {
                break;
            }
            if deck.is_empty() {
                deck = fault::deck(journal, &mut fate);
            }
            let fault = deck.pop().expect("some");
            let recovery = fault::happen(fault, &mut world, &mut probing, &mut fate).await;
            recoveries.add(fault.to_string(), recovery);
        }
        stop.send_replace(true);
        while let Some(ended) = crate::patiently("the publishers", publishers.join_next()).await {
            ended.expect("no panic");
        }
        match settle(&stage, &mut readers, rounds, rng(9_000 + rounds)).await {
            Ok(events) => read += events,
            Err(wrong) => panic!("{wrong}; again with TIDINGS_CHAOS_SEED={seed}"),
        }
        println!("  round {rounds}: everything is there, once and in order");
    }
    let counts = stage.ledger().counts();
    let opened: usize = readers.iter().map(|reader| reader.heard().opened).sum();
    print!("{recoveries}");
    println!(
        "  {} acknowledged, {} refused, {} not known of; {read} read by {} readers in {opened} streams",
        counts.acknowledged,
        counts.refused,
        counts.given_up,
        readers.len(),
    );
    assert!(recoveries.count() > 0, "nothing happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_rocksdb_what_is_acknowledged_arrives_once_and_in_order_whatever_happens() {
    chaos(Journal::Rocksdb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_jetstream_what_is_acknowledged_arrives_once_and_in_order_whatever_happens() {
    chaos(Journal::Jetstream).await;
}
