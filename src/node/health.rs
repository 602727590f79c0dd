//! What the node says of itself on the admin port.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    admin::Health,
    edge::EdgeHandle,
    journal::{LocalJournal, Status},
};

/// The health of a node that does everything itself.
pub(super) struct ServeHealth {
    edge: EdgeHandle,
    journal: Arc<LocalJournal>,
    draining: CancellationToken,
}

impl ServeHealth {
    pub(super) const fn new(edge: EdgeHandle, journal: Arc<LocalJournal>, draining: CancellationToken) -> Self {
        Self {
            edge,
            journal,
            draining,
        }
    }

    fn streams(&self) -> Option<String> {
        if self.draining.is_cancelled() {
            Some("the node is draining".to_owned())
        } else {
            self.dead()
        }
    }

    fn publishing(&self) -> Option<String> {
        if self.draining.is_cancelled() {
            return Some("the node is draining".to_owned());
        }
        match self.journal.status() {
            Status::Writable => None,
            Status::Closed => Some("the journal is closed".to_owned()),
            Status::DiskFull(full) => Some(full.to_string()),
            Status::ReadOnly { cause } => Some(format!("a write failed, nothing more is written: {cause}")),
        }
    }
}

impl Health for ServeHealth {
    fn dead(&self) -> Option<String> {
        self.edge.failed().map(|failed| failed.to_string())
    }

    fn parts(&self) -> Vec<(&'static str, Option<String>)> {
        vec![("streams", self.streams()), ("publishing", self.publishing())]
    }
}
