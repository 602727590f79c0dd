//! Publishers, readers of every protocol, kills, drains and disconnects at random; and at the end, a ledger.
//!
//! What was acknowledged is with every reader of its topics once and in order. What was given up is there at most once.
//!
//! `./dev chaos SECONDS` runs it for longer than `./dev test` does. The choices come from a seed, which is printed; `TIDINGS_CHAOS_SEED` has
//! them made again, though what they meet is never quite the same.

mod ledger;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use rustix::process::Signal;
use tidings_proto::v1::{PublishRequest, SubscribeRequest, SubscribeResponse, subscribe_request, subscribe_response};
use tokio::sync::watch;
use tonic::Streaming;

use self::ledger::{Ledger, Rule};
use crate::{
    client::{Publisher, subscriber},
    node::{Addresses, Node, Setup},
    patiently,
    sse::{Ask, Stream},
};

const TOPICS: usize = 8;
const PUBLISHERS: u64 = 4;
const READERS: u64 = 6;
/// How long it takes unless it is told.
const SECONDS: u64 = 6;
/// The last event of every topic.
const END: &str = "end";

fn topics() -> Vec<String> {
    (0..TOPICS).map(|number| format!("chaos/{number}")).collect()
}

fn some_topics(rng: &mut StdRng, most: usize) -> Vec<String> {
    let count = rng.random_range(1..=most);
    topics().choose_multiple(rng, count).cloned().collect()
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")),
    )
}

/// What everybody in a run shares.
#[derive(Clone)]
struct World {
    addresses: Addresses,
    /// How often the node has come up. Whoever finds it gone waits for the next time.
    ups: watch::Receiver<u64>,
    acknowledgements: Arc<watch::Sender<u64>>,
    ledger: Arc<Mutex<Ledger>>,
    until: Instant,
}

impl World {
    fn up(&self) -> u64 {
        *self.ups.borrow()
    }

    /// Waits until the node has come up again since.
    async fn up_again(&mut self, since: u64) {
        let up = self.ups.wait_for(|&ups| ups > since);
        patiently("the node's return", up).await.expect("a driver");
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("whole")
    }

    fn acknowledge(&self, topic: &str, sequence: u64, data: &str) {
        self.ledger().acknowledge(topic, sequence, data);
        self.acknowledgements.send_modify(|count| *count += 1);
    }
}

/// Publishes until time is up: with keys, which it asks for again, and without.
async fn publisher(mut world: World, name: u64, mut rng: StdRng) {
    let mut up = world.up();
    let mut publisher = connect(&mut world, &mut up).await;
    for number in 0.. {
        if Instant::now() >= world.until {
            return;
        }
        let data = format!("{name}-{number}");
        let keyed = rng.random_bool(0.8);
        let request = PublishRequest {
            topics: some_topics(&mut rng, 3),
            data: data.clone(),
            key: if keyed { data.clone() } else { String::new() },
            ..PublishRequest::default()
        };
        loop {
            match publisher.try_publish(request.clone()).await {
                Ok(answer) => {
                    for result in answer.results {
                        assert!(keyed || !result.repeated);
                        world.acknowledge(&result.topic, result.sequence, &data);
                    }
                    break;
                }
                Err(_) => {
                    world.up_again(up).await;
                    up = world.up();
                    publisher = connect(&mut world, &mut up).await;
                    // Without a key it might be published twice.
                    if !keyed || rng.random_bool(0.2) {
                        world.ledger().give_up(data, request.topics);
                        break;
                    }
                }
            }
        }
    }
}

/// Connects, if need be to the next incarnation.
async fn connect(world: &mut World, up: &mut u64) -> Publisher {
    loop {
        if let Ok(publisher) = Publisher::try_connect(world.addresses).await {
            return publisher;
        }
        world.up_again(*up).await;
        *up = world.up();
    }
}

/// One way to read.
enum Reading {
    Sse(Box<Stream>),
    Grpc(Box<Streaming<SubscribeResponse>>),
}

impl Reading {
    async fn open(world: &World, topics: &[String], cursor: &str, protocol: u32) -> Option<Self> {
        if protocol == 0 {
            let request = SubscribeRequest {
                topics: topics.to_vec(),
                cursor: cursor.to_owned(),
                start: Some(subscribe_request::Start::Earliest(true)),
            };
            let mut client = subscriber(world.addresses).await.ok()?;
            let subscribed = patiently("a subscription", client.subscribe(request)).await;
            return Some(Self::Grpc(Box::new(subscribed.ok()?.into_inner())));
        }
        let ask = Ask::topics(topics).query("since", "earliest").after(cursor);
        let stream = if protocol == 1 {
            ask.open(world.addresses.http).await
        } else {
            ask.open_http2(world.addresses.http).await
        };
        Some(Self::Sse(Box::new(stream.ok()?)))
    }

    /// The next event's data and cursor; `None` if the stream is over.
    async fn next(&mut self) -> Option<(String, String)> {
        match self {
            Self::Sse(stream) => {
                let event = stream.try_event().await.ok()?;
                assert_eq!(event.gap(), None);
                Some((event.data, event.id))
            }
            Self::Grpc(stream) => loop {
                let response = patiently("a message", stream.message()).await.ok()??;
                match response.message {
                    Some(subscribe_response::Message::Event(event)) => return Some((event.data, response.cursor)),
                    Some(subscribe_response::Message::Gap(gap)) => panic!("{gap:?}"),
                    _ => {}
                }
            },
        }
    }
}

/// Reads until it has the last event of each topic, coming back as often as it must, and sometimes when it need not.
async fn reader(mut world: World, topics: Vec<String>, mut rng: StdRng) -> Vec<String> {
    let (mut received, mut cursor, mut ends) = (Vec::new(), String::new(), 0);
    loop {
        let up = world.up();
        let protocol = rng.random_range(0..3);
        let patience = rng.random_range(1..400);
        if let Some(mut reading) = Reading::open(&world, &topics, &cursor, protocol).await {
            let mut read = 0;
            while read < patience
                && let Some((data, id)) = reading.next().await
            {
                read += 1;
                cursor = id;
                if data == END {
                    ends += 1;
                }
                received.push(data);
                if ends == topics.len() {
                    return received;
                }
            }
            if read == patience {
                continue;
            }
        }
        world.up_again(up).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_arrives_once_and_in_order_whatever_happens() {
    let seed = number_from("TIDINGS_CHAOS_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    let seconds = number_from("TIDINGS_CHAOS_SECONDS").unwrap_or(SECONDS);
    println!("chaos for {seconds} seconds; again with TIDINGS_CHAOS_SEED={seed}");
    let rng = |actor: u64| StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(actor));
    let mut node: Node = Setup::new().set("drain.window", "500ms").start().await;
    let (up, ups) = watch::channel(1);
    let world = World {
        addresses: node.addresses(),
        ups,
        acknowledgements: Arc::new(watch::channel(0).0),
        ledger: Arc::new(Mutex::new(Ledger::new(Rule::OneShard))),
        until: Instant::now() + Duration::from_secs(seconds),
    };
    let mut readers = Vec::new();
    for number in 0..READERS {
        let mut rng = rng(100 + number);
        let topics = some_topics(&mut rng, TOPICS);
        readers.push((topics.clone(), tokio::spawn(reader(world.clone(), topics, rng))));
    }
    let mut publishers = tokio::task::JoinSet::new();
    for number in 0..PUBLISHERS {
        publishers.spawn(publisher(world.clone(), number, rng(number)));
    }

    // The node's ends come by what was achieved, so that each run of it gets somewhere.
    let mut fate = rng(99);
    let mut acknowledgements = world.acknowledgements.subscribe();
    let (mut kills, mut drains) = (0, 0);
    while Instant::now() < world.until {
        let mark = *acknowledgements.borrow() + fate.random_range(20..600);
        tokio::select! {
            reached = acknowledgements.wait_for(|&count| count >= mark) => { reached.expect("publishers"); }
            () = tokio::time::sleep_until(world.until.into()) => break,
        }
        if fate.random_bool(0.8) {
            kills += 1;
            node.kill().await;
        } else {
            drains += 1;
            node.signal(Signal::TERM);
            assert_eq!(node.ended().await.code(), Some(0), "{}", node.log());
        }
        node.restart().await;
        up.send_modify(|ups| *ups += 1);
    }
    while let Some(ended) = publishers.join_next().await {
        ended.expect("no panic");
    }
    let end = PublishRequest {
        topics: topics(),
        data: END.to_owned(),
        ..PublishRequest::default()
    };
    let answer = Publisher::connect(node.addresses()).await.try_publish(end).await;
    for result in answer.expect("it is accepted").results {
        world.acknowledge(&result.topic, result.sequence, END);
    }
    let mut read = 0;
    for (topics, reader) in readers {
        let received = reader.await.expect("no panic");
        read += received.len();
        let wrong = world.ledger().wrong(&topics, &received);
        assert_eq!(
            wrong, None,
            "a reader of {topics:?}; again with TIDINGS_CHAOS_SEED={seed}"
        );
    }
    let counts = world.ledger().counts();
    println!(
        "{} acknowledged, {} given up, {read} read by {READERS} readers; {kills} kills, {drains} drains",
        counts.acknowledged, counts.given_up
    );
    assert!(kills + drains > 0, "nothing happened to the node");
}
