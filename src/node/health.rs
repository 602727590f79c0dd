//! What a node says of itself on the admin port.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{claims::Claims, cluster::Heard, owner::Owned, replica::Held};
use crate::{
    admin::{Gauge, Health, Part},
    auth::Auth,
    edge::EdgeHandle,
    journal::{
        AppendError, LocalJournal, Status,
        jetstream::{self, State},
    },
    log::Store,
    members::Holders,
    model::Shard,
    nats::Link,
};

/// What a node is doing that drains.
fn draining(token: &CancellationToken) -> Option<String> {
    token.is_cancelled().then(|| "the node is draining".to_owned())
}

/// Why streams are not served.
fn streams(edge: &EdgeHandle, token: &CancellationToken) -> Option<String> {
    draining(token).or_else(|| dead(edge))
}

fn dead(edge: &EdgeHandle) -> Option<String> {
    edge.failed().map(|failed| failed.to_string())
}

/// Why no token is accepted yet.
fn not_trusting(auth: &Auth) -> Option<String> {
    let is_level = auth.revocations().is_level();
    (!is_level).then(|| {
        "what is revoked has not been read yet, and until then no token is accepted: see whether the ingest nodes are there".to_owned()
    })
}

/// Why a journal takes nothing.
fn refusal(journal: &LocalJournal) -> Option<String> {
    match journal.status() {
        Status::Writable => None,
        Status::Closed => Some("the journal is closed".to_owned()),
        Status::DiskFull(full) => Some(full.to_string()),
        Status::ReadOnly { cause } => Some(format!("a write failed, nothing more is written: {cause}")),
    }
}

/// What is said while NATS is away.
const NO_NATS: &str = "there is no connection to NATS";

/// A node goes on without NATS, and so would any other.
fn nats(link: &watch::Receiver<Link>) -> Part {
    let away = !link.borrow().up;
    Part::told("nats", away.then(|| NO_NATS.to_owned()))
}

/// The health of a node that does everything itself.
pub(super) struct ServeHealth {
    pub(super) edge: EdgeHandle,
    pub(super) journal: Arc<LocalJournal>,
    pub(super) store: Arc<Store>,
    pub(super) auth: Arc<Auth>,
    pub(super) draining: CancellationToken,
}

impl Health for ServeHealth {
    fn dead(&self) -> Option<String> {
        dead(&self.edge)
    }

    fn parts(&self) -> Vec<Part> {
        let publishing = draining(&self.draining).or_else(|| refusal(&self.journal));
        vec![
            Part::deciding(
                "streams",
                streams(&self.edge, &self.draining).or_else(|| not_trusting(&self.auth)),
            ),
            Part::deciding("publishing", publishing),
        ]
    }

    fn gauges(&self) -> Vec<Gauge> {
        vec![open_streams(&self.edge), last(self.store.shard(), &self.store)]
    }
}

/// The health of an edge: once it has heard the cluster it follows neither NATS nor the ingest nodes, since its streams go on without either.
pub(super) struct EdgeHealth {
    pub(super) edge: EdgeHandle,
    pub(super) heard: Heard,
    pub(super) auth: Arc<Auth>,
    pub(super) link: watch::Receiver<Link>,
    pub(super) draining: CancellationToken,
}

impl Health for EdgeHealth {
    fn dead(&self) -> Option<String> {
        dead(&self.edge)
    }

    fn parts(&self) -> Vec<Part> {
        let streams = streams(&self.edge, &self.draining)
            .or_else(|| self.heard.why_not())
            .or_else(|| not_trusting(&self.auth));
        vec![Part::deciding("streams", streams), nats(&self.link)]
    }

    fn gauges(&self) -> Vec<Gauge> {
        vec![open_streams(&self.edge), connected(&self.link)]
    }
}

/// The health of an ingest node whose shards are on its own disk.
pub(super) struct OwnerHealth {
    pub(super) owned: Vec<Owned>,
    pub(super) claims: watch::Receiver<Claims>,
    pub(super) heard: Heard,
    pub(super) link: watch::Receiver<Link>,
    pub(super) draining: CancellationToken,
}

impl OwnerHealth {
    fn publishing(&self) -> Option<String> {
        let of_shard = |owned: &Owned| {
            let claimed = self.claims.borrow().of(owned.shard());
            let why_not = claimed.or_else(|| refusal(&owned.journal))?;
            Some(format!("shard {}: {why_not}", owned.shard()))
        };
        draining(&self.draining)
            .or_else(|| self.heard.why_not())
            .or_else(|| join(self.owned.iter().filter_map(of_shard)))
    }
}

impl Health for OwnerHealth {
    fn dead(&self) -> Option<String> {
        None
    }

    fn parts(&self) -> Vec<Part> {
        vec![
            Part::deciding("publishing", self.publishing()),
            Part::deciding("log", draining(&self.draining)),
            nats(&self.link),
        ]
    }

    fn gauges(&self) -> Vec<Gauge> {
        let mut gauges = vec![connected(&self.link)];
        gauges.extend(self.owned.iter().map(|owned| last(owned.shard(), &owned.store)));
        gauges
    }
}

fn open_streams(edge: &EdgeHandle) -> Gauge {
    Gauge::new("tidings_streams", "Open streams.", count(edge.streams() as u64))
}

fn connected(link: &watch::Receiver<Link>) -> Gauge {
    let up = f64::from(u8::from(link.borrow().up));
    Gauge::new("tidings_nats_connected", "1 while there is a connection to NATS.", up)
}

fn last(shard: Shard, store: &Store) -> Gauge {
    let help = "The last sequence of the shard that this node has.";
    Gauge::new("tidings_shard_last_sequence", help, count(store.heads().last.0)).of_shard(shard.0)
}

/// Beyond 2^53 the nearest that there is.
#[allow(clippy::cast_precision_loss, reason = "a metric")]
const fn count(number: u64) -> f64 {
    number as f64
}

/// All reasons in one text.
fn join(reasons: impl Iterator<Item = String>) -> Option<String> {
    let reasons: Vec<_> = reasons.collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// How far behind its stream a replica may be to count as ready.
const LAG: Duration = Duration::from_secs(10);

/// The health of an ingest node that keeps replicas of streams.
pub(super) struct ReplicaHealth {
    pub(super) held: Vec<Held>,
    pub(super) claims: watch::Receiver<Claims>,
    pub(super) holders: watch::Receiver<Arc<Holders>>,
    pub(super) me: String,
    pub(super) heard: Heard,
    pub(super) link: watch::Receiver<Link>,
    pub(super) draining: CancellationToken,
}

impl ReplicaHealth {
    /// Publishing needs one node for each shard, not this one.
    fn publishing(&self) -> Option<String> {
        let holders = Arc::clone(&self.holders.borrow());
        let claims = self.claims.borrow().clone();
        let of_shard = |held: &Held| {
            if let Some(why) = claims.of(held.shard) {
                return Some(format!("shard {}: {why}", held.shard));
            }
            let others = holders.of(held.shard).iter().filter(|holder| holder.node != self.me);
            let why_not = held.replica.ready().err()?;
            let is_elsewhere = others.into_iter().any(|holder| holder.writable);
            let why_not = match why_not {
                // What is said of an event is not said here.
                AppendError::Unavailable { cause, .. } => cause.to_string(),
                other => other.to_string(),
            };
            (!is_elsewhere).then(|| format!("shard {}: {why_not}", held.shard))
        };
        let nats = || (!self.link.borrow().up).then(|| NO_NATS.to_owned());
        draining(&self.draining)
            .or_else(|| self.heard.why_not())
            .or_else(nats)
            .or_else(|| join(self.held.iter().filter_map(of_shard)))
    }

    fn log(&self) -> Option<String> {
        let now = Instant::now();
        let of_shard = |held: &Held| {
            let status = held.replica.status().borrow().clone();
            (!status.is_within(LAG, now)).then(|| format!("shard {}: {}", held.shard, lag(&status, now)))
        };
        draining(&self.draining).or_else(|| join(self.held.iter().filter_map(of_shard)))
    }
}

/// What keeps a replica from being level.
fn lag(status: &jetstream::Status, now: Instant) -> String {
    let mut text = match &status.state {
        State::Starting => "its stream has not been looked at yet".to_owned(),
        State::Following => format!("{} events behind", status.messages_behind()),
        State::Unusable { cause } | State::Diverged { cause } | State::Failed { cause } => cause.clone(),
        State::Closed => "it is closed".to_owned(),
    };
    if let (State::Following, Some(behind)) = (&status.state, status.time_behind(now)) {
        text.push_str(&format!(", as of {} seconds ago", behind.as_secs()));
    }
    if let Some(trouble) = &status.trouble
        && *trouble != text
    {
        text.push_str(&format!(" ({trouble})"));
    }
    text
}

impl Health for ReplicaHealth {
    fn dead(&self) -> Option<String> {
        None
    }

    fn parts(&self) -> Vec<Part> {
        vec![
            Part::deciding("publishing", self.publishing()),
            Part::deciding("log", self.log()),
            nats(&self.link),
        ]
    }

    fn gauges(&self) -> Vec<Gauge> {
        let now = Instant::now();
        let mut gauges = vec![connected(&self.link)];
        for held in &self.held {
            let status = held.replica.status().borrow().clone();
            gauges.extend(held.replica.store().map(|store| last(held.shard, &store)));
            let help = "How many events of the stream the shard's log has yet to apply.";
            let events = Gauge::new("tidings_shard_behind_events", help, count(status.messages_behind()));
            gauges.push(events.of_shard(held.shard.0));
            // One that never was level is as far behind as can be.
            let behind = status
                .time_behind(now)
                .map_or(f64::INFINITY, |behind| behind.as_secs_f64());
            let help = "How old what the shard's log has applied may be, in seconds.";
            gauges.push(Gauge::new("tidings_shard_behind_seconds", help, behind).of_shard(held.shard.0));
        }
        gauges
    }
}
