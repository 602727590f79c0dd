//! Why an event was not appended, or may not have been.

use std::time::Duration;

use super::{DiskFull, Placed};
use crate::model::Shard;

/// Why an event was not appended.
///
/// All but [`Unknown`](Self::Unknown) and [`Partly`](Self::Partly) say that it certainly was not, and never will be by this call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk is nearly full.
    #[error(
        "{0}: free some space, shorten the retention, or raise `journal.disk_high_water_percent` if it is the mark that was passed"
    )]
    DiskFull(DiskFull),
    /// A write failed earlier: nothing more is written, so that what was acknowledged stays true. Reading goes on.
    #[error(
        "the node with the events' disk refuses writes since one failed ({cause}): see to its disk, then restart it"
    )]
    ReadOnly {
        /// What failed.
        cause: String,
    },
    /// The node is stopping.
    #[error("this node is shutting down: publish to another, or again when it is back")]
    Closed,
    /// Nobody takes events for the shard now.
    #[error("the event was not appended, as shard {shard} takes none now: {cause}")]
    Unavailable {
        /// Which shard.
        shard: Shard,
        /// Why, and what to do.
        cause: Unavailable,
    },
    /// The shard's stream has reached one of its limits.
    #[error(
        "the event was not appended, as the stream of shard {shard} is full ({cause}): raise its limits or JetStream's storage, or shorten the retention"
    )]
    StreamFull {
        /// Which shard.
        shard: Shard,
        /// Which limit it is, as the server says it.
        cause: String,
    },
    /// The stream would never take this event, as it is set up.
    #[error(
        "the event was not appended, as the stream of shard {shard} refuses it ({cause}): an event that is too large for NATS needs a larger `max_payload` there"
    )]
    StreamRefused {
        /// Which shard.
        shard: Shard,
        /// Why, as the server says it.
        cause: String,
    },
    /// Too much is in flight for how fast the shard is: this one was given up before it was tried.
    #[error(
        "the event was not appended, as shard {shard} did not take it within {waited:?}: publish more slowly, and this one again later"
    )]
    TooSlow {
        /// Which shard.
        shard: Shard,
        /// How long it waited for its turn.
        waited: Duration,
    },
    /// The write was under way when it failed: the event may or may not be durable.
    #[error("the write failed under way ({cause}), the outcome is unknown: publish again with the same key")]
    Unknown {
        /// What failed.
        cause: String,
    },
    /// The topics belong to several shards, and some have the event where others do not.
    #[error(
        "{} of {} topics have the event, the others do not or may not: publish again with the same key",
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        outcomes.len()
    )]
    Partly {
        /// One per topic, in the order of the publish; none of the errors is a `Partly` itself, and at least one topic has the event.
        outcomes: Vec<Result<Placed, AppendError>>,
    },
}

/// Why a shard takes no events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No node says that it takes events for it.
    #[error(
        "no node that takes its events is known: see whether the ingest nodes that hold it run, and whether they reach NATS"
    )]
    NoHolder,
    /// Its node does not answer.
    #[error(
        "node {node}, which holds it, cannot be reached ({cause}): see whether it runs; publish again when it is back"
    )]
    Unreachable {
        /// Which node.
        node: String,
        /// What failed.
        cause: String,
    },
    /// Its node is shutting down, and took the event no more.
    #[error("node {node}, which holds it, is shutting down: publish again when it is back")]
    Leaving {
        /// Which node.
        node: String,
    },
    /// The node that was asked does not hold it, or not any more.
    #[error("node {node} does not hold it: publish again, the nodes will soon agree on who does")]
    NotHeld {
        /// Which node.
        node: String,
    },
    /// Its node has not read the stream to its end yet, so that it does not know which keys were used.
    #[error(
        "the node that holds it has still to catch up with its stream ({cause}): publish again in a while, or to another node"
    )]
    CatchingUp {
        /// How far behind it is.
        cause: String,
    },
    /// What its node has applied is not what the stream holds.
    #[error(
        "the node that holds it has applied what its stream does not hold ({cause}): the stream has lost events; the node's log says what to do"
    )]
    Diverged {
        /// Where they differ.
        cause: String,
    },
    /// NATS cannot be reached, or has no `JetStream`.
    #[error("NATS cannot be reached by the node that holds it ({cause}): see to the NATS servers, and to `nats.urls`")]
    NoNats {
        /// What failed.
        cause: String,
    },
    /// Its stream is not what it has to be, or cannot be made.
    #[error("{cause}; until then nothing is published to it")]
    Unusable {
        /// What is wrong, and what to do.
        cause: String,
    },
    /// The stream has no leader.
    #[error(
        "its stream has no leader ({cause}): see that most of the NATS servers that hold it run; an election takes a few seconds"
    )]
    NoQuorum {
        /// What failed, as the server or the client says it.
        cause: String,
    },
}

impl AppendError {
    /// Whether the same publish may succeed later. Where the outcome is unknown, or some topics have the event, it takes the same key to be safe.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::StreamRefused { .. } => false,
            Self::Partly { outcomes } => outcomes
                .iter()
                .filter_map(|outcome| outcome.as_ref().err())
                .all(Self::is_retryable),
            Self::DiskFull(_)
            | Self::ReadOnly { .. }
            | Self::Closed
            | Self::Unavailable { .. }
            | Self::StreamFull { .. }
            | Self::TooSlow { .. }
            | Self::Unknown { .. } => true,
        }
    }

    /// Whether a topic may have the event all the same.
    #[must_use]
    pub const fn may_be_appended(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Partly { .. })
    }
}
