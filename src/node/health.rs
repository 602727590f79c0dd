//! What a node says of itself on the admin port.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::claims::Claims;
use crate::{
    admin::{Health, Part},
    edge::EdgeHandle,
    journal::{LocalJournal, Status},
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

/// Why a journal takes nothing.
fn refusal(journal: &LocalJournal) -> Option<String> {
    match journal.status() {
        Status::Writable => None,
        Status::Closed => Some("the journal is closed".to_owned()),
        Status::DiskFull(full) => Some(full.to_string()),
        Status::ReadOnly { cause } => Some(format!("a write failed, nothing more is written: {cause}")),
    }
}

/// A node goes on without NATS, and so would any other.
fn nats(link: &watch::Receiver<Link>) -> Part {
    let away = !link.borrow().up;
    Part::told("nats", away.then(|| "there is no connection to NATS".to_owned()))
}

/// The health of a node that does everything itself.
pub(super) struct ServeHealth {
    pub(super) edge: EdgeHandle,
    pub(super) journal: Arc<LocalJournal>,
    pub(super) draining: CancellationToken,
}

impl Health for ServeHealth {
    fn dead(&self) -> Option<String> {
        dead(&self.edge)
    }

    fn parts(&self) -> Vec<Part> {
        let publishing = draining(&self.draining).or_else(|| refusal(&self.journal));
        vec![
            Part::deciding("streams", streams(&self.edge, &self.draining)),
            Part::deciding("publishing", publishing),
        ]
    }
}

/// The health of an edge: it follows neither NATS nor the ingest nodes, since its streams go on without either.
pub(super) struct EdgeHealth {
    pub(super) edge: EdgeHandle,
    pub(super) link: watch::Receiver<Link>,
    pub(super) draining: CancellationToken,
}

impl Health for EdgeHealth {
    fn dead(&self) -> Option<String> {
        dead(&self.edge)
    }

    fn parts(&self) -> Vec<Part> {
        vec![
            Part::deciding("streams", streams(&self.edge, &self.draining)),
            nats(&self.link),
        ]
    }
}

/// The health of an ingest node whose shards are on its own disk.
pub(super) struct OwnerHealth {
    pub(super) journals: Vec<(Shard, Arc<LocalJournal>)>,
    pub(super) claims: watch::Receiver<Claims>,
    pub(super) link: watch::Receiver<Link>,
    pub(super) draining: CancellationToken,
}

impl OwnerHealth {
    fn publishing(&self) -> Option<String> {
        let of_shard = |(shard, journal): &(Shard, Arc<LocalJournal>)| {
            let claimed = self.claims.borrow().of(*shard);
            let why_not = claimed.or_else(|| refusal(journal))?;
            Some(format!("shard {shard}: {why_not}"))
        };
        draining(&self.draining).or_else(|| join(self.journals.iter().filter_map(of_shard)))
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
}

/// All reasons in one text.
fn join(reasons: impl Iterator<Item = String>) -> Option<String> {
    let reasons: Vec<_> = reasons.collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}
