//! Publishers: over gRPC, or over HTTP by a [`Template`](crate::template::Template).
//!
//! A [`Publisher`] publishes at a rate, whatever the answers do (an event's due time is in its payload, so that one that goes out late counts
//! as late), or as fast as answers come with so many in flight. It numbers the events of each topic and accounts for each. A topic always goes
//! over the same connection: the order in which it is published is that of its numbers.
//!
//! One that [`persists`](What::persists) gives every event a key, and sends it again until it is acknowledged, over whatever happens to the server.

mod grpc;
mod http;
mod queue;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::Instant,
};

pub(crate) use self::grpc::{accepted, connect};
use self::queue::Counts;
use crate::{
    alarm::Alarm,
    payload::{Key, Payload, now},
    swarm::say::note,
    template::{Publish, Template},
};

/// How long nothing may be acknowledged while something is in flight.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long what is due may be kept until it is sent. It counts as late from when it was due.
const TICK: Duration = Duration::from_micros(500);

/// Times in nanoseconds.
pub type Times = Histogram<u64>;

/// An empty record of times, in nanoseconds, to three digits.
#[must_use]
pub fn times() -> Times {
    Times::new(3).expect("3 digits are within what histograms have")
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Where to publish, and how.
#[derive(Debug, Clone)]
pub struct To {
    /// How the server is spoken to.
    pub template: Template,
    /// Where it listens for publishers: connections are spread over these, and go on to the next when one fails.
    pub addresses: Vec<SocketAddr>,
    /// What shows who publishes.
    pub token: Option<String>,
    /// How, over gRPC.
    pub call: Call,
    /// How many connections; with 0 one over gRPC, and over HTTP what the template says.
    pub connections: usize,
}

impl To {
    /// To a Tidings node: pipelined, over one connection.
    #[must_use]
    pub fn tidings(addresses: Vec<SocketAddr>) -> Self {
        Self::by(Template::tidings(), addresses)
    }

    /// To a server of this template.
    #[must_use]
    pub const fn by(template: Template, addresses: Vec<SocketAddr>) -> Self {
        Self {
            template,
            addresses,
            token: None,
            call: Call::Stream,
            connections: 0,
        }
    }
}

/// How requests are sent over gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Call {
    /// Pipelined on one call per connection: `PublishStream`.
    Stream,
    /// A call each: `Publish`.
    Unary,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Unary => "unary",
        })
    }
}

/// What to publish.
pub struct What {
    /// The topic of each event, by how many were published before it.
    pub topic: Box<dyn FnMut(u64) -> Key + Send>,
    /// Bytes of each payload, at least.
    pub payload: usize,
    /// Whether each event is sent again, with its key, until it is acknowledged.
    pub persists: bool,
    /// Whether each has a key in any case.
    pub keys: bool,
    /// Whether events are ephemeral (gRPC alone).
    pub ephemeral: bool,
}

impl What {
    /// Events of so many bytes, of which each has its topic from this function.
    #[must_use]
    pub fn new(payload: usize, topic: impl FnMut(u64) -> Key + Send + 'static) -> Self {
        Self {
            topic: Box::new(topic),
            payload,
            persists: false,
            keys: false,
            ephemeral: false,
        }
    }

    /// Events of one topic.
    #[must_use]
    pub fn of(key: Key, payload: usize) -> Self {
        Self::new(payload, move |_| key)
    }

    /// Each is sent again until it is acknowledged.
    #[must_use]
    pub const fn persisting(mut self) -> Self {
        self.persists = true;
        self
    }
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("What")
            .field("payload", &self.payload)
            .field("persists", &self.persists)
            .finish_non_exhaustive()
    }
}

/// How fast to publish.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Not at all.
    Still,
    /// So many a second, whatever the answers do: but no more than so many in flight. What waits for that is still due when it was.
    Rate {
        /// Events per second.
        per_second: f64,
        /// The most in flight.
        most_in_flight: u64,
    },
    /// As fast as the answers come.
    Window {
        /// In flight at the same time.
        in_flight: u64,
        /// How many in all; none for no end.
        events: Option<u64>,
    },
}

impl Pace {
    /// So many events a second, with a bound that only a server that answers no more comes up to.
    #[must_use]
    pub const fn rate(per_second: f64) -> Self {
        Self::Rate {
            per_second,
            most_in_flight: 100_000,
        }
    }
}

/// What has been published so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that were sent.
    pub published: u64,
    /// Of these, acknowledged.
    pub acknowledged: u64,
    /// Events that were sent more than once, for each time that they were.
    pub retried: u64,
    /// Acknowledged as repeated: the server had them already.
    pub repeated: u64,
    /// By topic, how many: the number of its last event.
    pub topics: BTreeMap<Key, u32>,
}

/// A publisher at work.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    tasks: JoinSet<Result<()>>,
}

/// What the tasks of a publisher share.
#[derive(Debug)]
struct Shared {
    /// What all connections send alike.
    sending: Sending,
    published: AtomicU64,
    acknowledged: AtomicU64,
    retried: AtomicU64,
    repeated: AtomicU64,
    /// From due to acknowledged, since it was last taken.
    times: Mutex<Times>,
    pace: Mutex<Pace>,
    counts: Mutex<Counts>,
    /// An answer came, or the pace is another: whoever makes events as answers come looks again.
    changed: Notify,
    /// The pace is another: whoever makes events as they are due looks again.
    repaced: Notify,
    /// An answer came: whoever waits for the end looks again.
    answered: Notify,
}

/// What all connections send alike.
#[derive(Debug)]
struct Sending {
    to: To,
    payload: usize,
    persists: bool,
    ephemeral: bool,
    /// What keys begin with, if events have keys.
    run: Option<String>,
}

impl Sending {
    fn key(&self, event: &Payload) -> Option<String> {
        let run = self.run.as_ref()?;
        Some(format!("{run}-{}-{}", event.key, event.number))
    }
}

impl Shared {
    fn lock<'a, T>(of: &'a Mutex<T>) -> MutexGuard<'a, T> {
        // Nothing panics while it is locked: what is within is whole.
        of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_flight(&self) -> u64 {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        self.published.load(Ordering::Relaxed).saturating_sub(acknowledged)
    }

    /// These events are acknowledged.
    fn acknowledge(&self, events: impl IntoIterator<Item = Payload>) {
        let (at, mut count) = (now(), 0);
        let mut times = Self::lock(&self.times);
        for event in events {
            note(&mut times, at.saturating_sub(event.due), 1);
            count += 1;
        }
        drop(times);
        if count > 0 {
            self.acknowledged.fetch_add(count, Ordering::Relaxed);
            self.changed.notify_one();
            self.answered.notify_one();
        }
    }
}

impl Publisher {
    /// Connects. Nothing is published before there is a [`pace`](Self::pace).
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn start(to: To, what: What) -> Result<Self> {
        ensure!(!to.addresses.is_empty(), "nowhere to publish to");
        let connections = match (&to.template.publish, to.connections) {
            (Publish::Grpc, connections) => connections.max(1),
            (Publish::Http(http), 0) => http.connections,
            (Publish::Http(_), connections) => connections,
        };
        ensure!(
            !what.ephemeral || to.template.publish == Publish::Grpc,
            "ephemeral events are published over gRPC alone"
        );
        let sending = Sending {
            payload: what.payload,
            persists: what.persists,
            ephemeral: what.ephemeral,
            run: (what.persists || what.keys).then(|| format!("{:016x}", rand::random::<u64>())),
            to,
        };
        let shared = Arc::new(Shared {
            sending,
            published: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            times: Mutex::new(times()),
            pace: Mutex::new(Pace::Still),
            counts: Mutex::default(),
            changed: Notify::new(),
            repaced: Notify::new(),
            answered: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        let mut lanes = Vec::with_capacity(connections);
        for number in 0..connections {
            let (events, waiting) = mpsc::unbounded_channel();
            lanes.push(events);
            let shared = Arc::clone(&shared);
            match &shared.sending.to.template.publish {
                Publish::Grpc => {
                    let lane = grpc::Lane::open(shared, number, waiting).await?;
                    tasks.spawn(lane.run());
                }
                Publish::Http(http) => {
                    let http = (**http).clone();
                    let lane = http::Lane::open(shared, http, number, waiting).await?;
                    tasks.spawn(lane.run());
                }
            }
        }
        tasks.spawn(make(Arc::clone(&shared), what.topic, lanes));
        Ok(Self { shared, tasks })
    }

    /// Publishes at this pace from now on.
    pub fn pace(&self, pace: Pace) {
        *Shared::lock(&self.shared.pace) = pace;
        self.shared.changed.notify_one();
        self.shared.repaced.notify_one();
    }

    /// Publishes so many events as fast as the answers come, and returns when all are acknowledged.
    ///
    /// # Errors
    /// If one is refused, or no answer comes for a minute.
    pub async fn publish(&mut self, events: u64, in_flight: u64) -> Result<()> {
        let until = self.shared.published.load(Ordering::Relaxed) + events;
        let events = Some(events);
        self.pace(Pace::Window { in_flight, events });
        self.acknowledged(until).await
    }

    /// What has been published so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let Shared {
            acknowledged,
            retried,
            repeated,
            counts,
            ..
        } = &*self.shared;
        // The counts first: what is counted there is published.
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        let topics = Shared::lock(counts).0.clone();
        Tally {
            published: topics.values().map(|&count| u64::from(count)).sum(),
            acknowledged,
            retried: retried.load(Ordering::Relaxed),
            repeated: repeated.load(Ordering::Relaxed),
            topics,
        }
    }

    /// How many have been published and acknowledged so far, without a look at each topic.
    #[must_use]
    pub fn so_far(&self) -> (u64, u64) {
        let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        (self.shared.published.load(Ordering::Relaxed), acknowledged)
    }

    /// From due to acknowledged, of those that were acknowledged since this was last called.
    #[must_use]
    pub fn interval(&self) -> Times {
        std::mem::replace(&mut *Shared::lock(&self.shared.times), times())
    }

    /// Whether it is still at work.
    ///
    /// # Errors
    /// If it has failed: why.
    pub fn check(&mut self) -> Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => ended?.and_then(|()| bail!("a publisher ended by itself")),
        }
    }

    /// Publishes no more, and returns when everything is acknowledged that was published.
    ///
    /// # Errors
    /// If an event was refused, or no answer comes for a minute.
    pub async fn stop(mut self) -> Result<Tally> {
        self.settle().await?;
        let tally = self.tally();
        self.tasks.shutdown().await;
        Ok(tally)
    }

    /// Publishes no more for now, and returns when everything is acknowledged that was published.
    ///
    /// # Errors
    /// If an event was refused, or no answer comes for a minute.
    pub async fn settle(&mut self) -> Result<()> {
        self.pace(Pace::Still);
        // An event is made while the pace is locked: from here on none is.
        let published = self.shared.published.load(Ordering::Relaxed);
        self.acknowledged(published).await
    }

    async fn acknowledged(&mut self, until: u64) -> Result<()> {
        loop {
            let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
            if acknowledged >= until {
                return Ok(());
            }
            tokio::select! {
                () = self.shared.answered.notified() => {}
                Some(ended) = self.tasks.join_next() => {
                    ended??;
                    bail!("a publisher ended by itself");
                }
                () = tokio::time::sleep(PATIENCE) => {
                    ensure!(
                        self.shared.acknowledged.load(Ordering::Relaxed) > acknowledged,
                        "{} events were not acknowledged within {} s",
                        until - acknowledged,
                        PATIENCE.as_secs()
                    );
                }
            }
        }
    }
}

/// Makes events as they are due and hands them to the connections, until these are gone.
async fn make(
    shared: Arc<Shared>,
    mut topic: Box<dyn FnMut(u64) -> Key + Send>,
    lanes: Vec<mpsc::UnboundedSender<Payload>>,
) -> Result<()> {
    let mut alarm = Alarm::new()?;
    let mut number = 0;
    // Where an open loop began, and how many were due since.
    let mut open: Option<(Pace, u64, u64)> = None;
    loop {
        // How long to wait; none: until an answer comes.
        let wait = {
            let mut pace = Shared::lock(&shared.pace);
            let free = |most: u64| most.saturating_sub(shared.in_flight());
            // When the events are due: each one's time.
            let (count, mut due): (u64, Box<dyn FnMut(u64) -> u64>) = match &mut *pace {
                Pace::Still => (0, Box::new(|_| 0)),
                Pace::Window { in_flight, events } => {
                    let count = free(*in_flight).min(events.unwrap_or(u64::MAX));
                    if let Some(events) = events {
                        *events -= count;
                    }
                    let at = now();
                    (count, Box::new(move |_| at))
                }
                Pace::Rate {
                    per_second,
                    most_in_flight,
                } => {
                    let current = Pace::Rate {
                        per_second: *per_second,
                        most_in_flight: *most_in_flight,
                    };
                    let (_, begin, made) = match open {
                        Some(open) if open.0 == current => open,
                        _ => (current, now(), 0),
                    };
                    let each = 1e9 / *per_second;
                    let elapsed = now().saturating_sub(begin) as f64;
                    let due = (elapsed / each) as u64 + 1;
                    let count = due.saturating_sub(made).min(free(*most_in_flight));
                    open = Some((current, begin, made + count));
                    (count, Box::new(move |n| begin + ((made + n) as f64 * each) as u64))
                }
            };
            let wait = match *pace {
                // Nothing is gained by more haste than that, and much is lost.
                Pace::Rate { .. } => Some(Duration::from_nanos(due(count).saturating_sub(now())).max(TICK)),
                _ => {
                    open = None;
                    None
                }
            };
            let mut counts = Shared::lock(&shared.counts);
            for n in 0..count {
                let key = topic(number);
                number += 1;
                let event = Payload {
                    key,
                    number: counts.next(key),
                    due: due(n),
                };
                // Its connection may have failed, which is told by its task.
                let _ = lanes[lane(key, lanes.len())].send(event);
            }
            drop(counts);
            shared.published.fetch_add(count, Ordering::Relaxed);
            wait
        };
        match wait {
            Some(wait) => tokio::select! {
                gone_off = alarm.wait(wait) => gone_off?,
                () = shared.repaced.notified() => {}
            },
            None => shared.changed.notified().await,
        }
    }
}

fn lane(key: Key, lanes: usize) -> usize {
    let (Key::Inbox(number) | Key::Shared(number)) = key;
    number as usize % lanes
}

/// When to try again: soon at first, then less often.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    since: Instant,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const MOST: Duration = Duration::from_millis(500);

    fn new() -> Self {
        Self {
            next: Self::FIRST,
            since: Instant::now(),
        }
    }

    /// Waits; `error` is why, and is what comes of it if it was in vain for too long.
    async fn wait(&mut self, error: anyhow::Error) -> Result<()> {
        if self.since.elapsed() > PATIENCE {
            return Err(error);
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Self::MOST);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
