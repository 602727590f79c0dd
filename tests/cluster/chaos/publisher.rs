//! Publishers that go on whatever happens: many events under way on one call, and with a key what had no answer is asked for again, at
//! whichever ingest node comes next.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use tidings_proto::v1::{
    PublishError, PublishRequest, PublishStreamResponse, publish_stream_response::Outcome,
    publisher_client::PublisherClient,
};
use tokio::{sync::mpsc, sync::watch, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Endpoint};

use super::{Stage, pause};
use crate::node::Addresses;

/// Events that one publisher has under way.
const WINDOW: usize = 16;
/// How often a publisher that makes up events does.
const EVERY: Duration = Duration::from_millis(25);
/// How long it waits for the next answer before it goes elsewhere: less than nodes are stopped, which then find what it had asked for.
const ANSWER: Duration = Duration::from_secs(3);
/// How likely it is to leave in the middle of a call, each time that it has something to say.
const LEAVES: f64 = 0.01;
/// The padding of an event that is large.
const LARGE: usize = 20 << 10;

/// An event on its way.
#[derive(Debug)]
pub(super) struct Event {
    /// The first word of its data, by which readers know it.
    name: String,
    padding: usize,
    keyed: bool,
    /// Where it has yet to be acknowledged.
    topics: Vec<Topic>,
}

#[derive(Debug)]
struct Topic {
    name: String,
    /// It may have been appended there by an attempt that had no answer.
    unknown: bool,
}

impl Event {
    /// One that is asked for until it is acknowledged.
    pub(super) fn keyed(name: String, topic: &str) -> Self {
        let topic = Topic {
            name: topic.to_owned(),
            unknown: false,
        };
        Self {
            name,
            padding: 0,
            keyed: true,
            topics: vec![topic],
        }
    }

    fn request(&self) -> PublishRequest {
        PublishRequest {
            topics: self.topics.iter().map(|topic| topic.name.clone()).collect(),
            data: format!("{} {}", self.name, "x".repeat(self.padding)),
            key: if self.keyed { self.name.clone() } else { String::new() },
            ..PublishRequest::default()
        }
    }
}

/// A publisher.
pub(super) struct Publisher {
    stage: Arc<Stage>,
    /// Comes before the number in the name of each of its events.
    name: String,
    rng: StdRng,
    number: u64,
    /// What is to be sent before anything new.
    again: VecDeque<Event>,
    /// Whether it gives up on some.
    gives_up: bool,
    /// How often it has something to say.
    every: Duration,
}

impl Publisher {
    /// One that makes up events.
    pub(super) fn new(stage: Arc<Stage>, name: String, rng: StdRng) -> Self {
        Self {
            stage,
            name,
            rng,
            number: 0,
            again: VecDeque::new(),
            gives_up: true,
            every: EVERY,
        }
    }

    /// One that publishes these events and gives up on none.
    pub(super) fn of(stage: Arc<Stage>, events: impl IntoIterator<Item = Event>, rng: StdRng) -> Self {
        let again = events.into_iter().collect();
        Self {
            stage,
            name: String::new(),
            rng,
            number: 0,
            again,
            gives_up: false,
            every: Duration::from_millis(1),
        }
    }

    /// Publishes until it is told to stop, and then until it knows of every event what became of it, or never will.
    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) {
        loop {
            let &node = self.stage.publishing.choose(&mut self.rng).expect("some");
            self.session(node, &stop).await;
            if self.is_done(&stop) {
                return;
            }
            pause(&mut self.rng, 20..200).await;
        }
    }

    fn is_done(&self, stop: &watch::Receiver<bool>) -> bool {
        *stop.borrow() && self.again.is_empty()
    }

    /// One call: up to its failure, or until nothing is left to do.
    async fn session(&mut self, node: Addresses, stop: &watch::Receiver<bool>) {
        let (requests, sent) = mpsc::channel(WINDOW);
        let mut waiting = VecDeque::new();
        let endpoint = Endpoint::from_shared(node.publish_url())
            .expect("a URL")
            .connect_timeout(ANSWER);
        let Ok(channel) = endpoint.connect().await else { return };
        let mut client = PublisherClient::new(channel);
        // Some servers answer only what they are asked.
        self.send(&requests, &mut waiting, stop).await;
        let opened = tokio::time::timeout(ANSWER, client.publish_stream(ReceiverStream::new(sent))).await;
        let Ok(Ok(answers)) = opened else {
            return self.unanswered(waiting);
        };
        let mut answers = answers.into_inner();
        let mut every = tokio::time::interval(self.every);
        let mut last = Instant::now();
        // As soon as one is refused, the others are waited for, and another node is tried.
        let mut leaves = false;
        loop {
            if waiting.is_empty() && (leaves || self.is_done(stop)) {
                return;
            }
            tokio::select! {
                _ = every.tick(), if !leaves && waiting.len() < WINDOW => {
                    if waiting.is_empty() {
                        last = Instant::now();
                    }
                    self.send(&requests, &mut waiting, stop).await;
                    if self.gives_up && self.rng.random_bool(LEAVES) {
                        break;
                    }
                }
                answer = tokio::time::timeout_at(last + ANSWER, answers.message()), if !waiting.is_empty() => {
                    let Ok(Ok(Some(answer))) = answer else { break };
                    let event = waiting.pop_front().expect("something waits");
                    last = Instant::now();
                    leaves |= !self.answered(event, answer);
                }
            }
        }
        self.unanswered(waiting);
    }

    async fn send(
        &mut self,
        requests: &mpsc::Sender<PublishRequest>,
        waiting: &mut VecDeque<Event>,
        stop: &watch::Receiver<bool>,
    ) {
        let event = match self.again.pop_front() {
            Some(event) => event,
            None if *stop.borrow() => return,
            None => self.next(),
        };
        let request = event.request();
        waiting.push_back(event);
        // Where the call has failed, its answers tell.
        let _ = requests.send(request).await;
    }

    fn next(&mut self) -> Event {
        self.number += 1;
        let topics = self.stage.some_topics(&mut self.rng);
        Event {
            name: format!("{}.{}", self.name, self.number),
            padding: if self.rng.random_bool(0.03) { LARGE } else { 0 },
            keyed: self.rng.random_bool(0.8),
            topics: topics.into_iter().map(|name| Topic { name, unknown: false }).collect(),
        }
    }

    /// The call is over: whatever had no answer may or may not have been appended.
    fn unanswered(&mut self, waiting: VecDeque<Event>) {
        for mut event in waiting.into_iter().rev() {
            for topic in &mut event.topics {
                topic.unknown = true;
            }
            self.again_or_never(event);
        }
    }

    /// Returns whether all was well.
    fn answered(&mut self, mut event: Event, answer: PublishStreamResponse) -> bool {
        match answer.outcome.expect("an outcome") {
            Outcome::Published(published) => {
                assert_eq!(published.results.len(), event.topics.len(), "{event:?}");
                let mut left = Vec::new();
                for (mut topic, result) in event.topics.drain(..).zip(published.results) {
                    assert_eq!(topic.name, result.topic);
                    if let Some(error) = result.error {
                        topic.unknown |= is_unknown(&error);
                        left.push(topic);
                    } else {
                        assert!(event.keyed || !result.repeated, "{} has no key", event.name);
                        let mut ledger = self.stage.ledger();
                        ledger.acknowledge(&topic.name, result.sequence, &event.name);
                    }
                }
                event.topics = left;
            }
            Outcome::Error(error) => {
                let unknown = is_unknown(&error);
                for topic in &mut event.topics {
                    topic.unknown |= unknown;
                }
            }
        }
        if event.topics.is_empty() {
            return true;
        }
        self.again_or_never(event);
        false
    }

    fn again_or_never(&mut self, event: Event) {
        if event.keyed && !(self.gives_up && self.rng.random_bool(0.05)) {
            return self.again.push_front(event);
        }
        let (unknown, refused): (Vec<_>, Vec<_>) = event.topics.into_iter().partition(|topic| topic.unknown);
        let mut ledger = self.stage.ledger();
        ledger.give_up(event.name, unknown.into_iter().map(|topic| topic.name).collect());
        ledger.refuse(refused.len());
    }
}

/// Whether an event may have been appended though there is an error.
fn is_unknown(error: &PublishError) -> bool {
    match Code::from_i32(error.code) {
        Code::Unavailable | Code::ResourceExhausted => false,
        Code::Unknown | Code::DeadlineExceeded => true,
        _ => panic!("refused as nothing here should be: {error:?}"),
    }
}
