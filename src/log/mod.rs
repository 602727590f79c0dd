//! The log: what was published, keyed by topic and sequence, for replay.

mod batch;
mod doubts;
mod format;
mod history;
mod keys;
mod local;
mod options;
mod readers;
mod remote;
mod replay;
mod retention;
pub mod service;
mod store;
mod value;
mod wire;

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;

pub(crate) use self::batch::{Appended, Batch};
#[cfg(test)]
pub(crate) use self::remote::{HolderAnswer, HolderQuestion, ShardView, Weighing};
pub use self::{
    format::{FORMAT, Home, OpenError},
    local::LocalLog,
    options::StoreMemory,
    remote::{RemoteLog, RemoteSettings},
    retention::{Retention, keep},
    store::{Store, StoreError},
    value::ValueError,
};
use crate::model::{Epoch, Event, Seq, Shard, Slot, Topic, UnixMillis};

/// Reads what was appended. One suite (`tests/contract/log.rs`) holds every implementation to this:
///
/// - **Complete:** a page holds every event of its topics after each one's position up to `up_to`, in sequence order, each once.
/// - **Fresh:** once an append has resolved and been announced, a read begun afterwards may still lag behind it (a node that holds the shard applies
///   it a little later) but never goes backwards by itself: heads are at least what had been answered when they were asked for. Embedded, it
///   does not lag.
/// - **Honest:** positions below the floor, of another epoch, or ahead of anything the shard ever issued are said, never papered over. Who
///   holds a copy that may lag cannot tell a position that was never issued from one that it has yet to come to: it answers with an empty page
///   up to where it is, which is below the position. The reader waits.
///
/// Where reads are bounded, they have their turn in the order in which they were asked for, and `heads` never wait for replays.
pub trait Log: Send + Sync + 'static {
    /// How far a shard and its slots have come.
    fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>>;

    /// One page of the events of some topics.
    fn replay(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>>;

    /// The same, for those who are live and missed something: where reads wait for their turn, these do not wait for those of [`Log::replay`].
    fn fill(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        self.replay(request)
    }

    /// Where everything at or after `time` stands; never before what is kept. Coarse: up to a second of earlier events may follow it too.
    fn locate(&self, shard: Shard, time: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>>;
}

/// Where a time stands in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// The shard's incarnation.
    pub epoch: Epoch,
    /// Everything at or after the time has a higher sequence.
    pub after: Seq,
}

/// How far a shard has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads {
    /// Which shard.
    pub shard: Shard,
    /// Its incarnation.
    pub epoch: Epoch,
    /// The last sequence that the log holds.
    pub last: Seq,
    /// The lowest sequence that may still be kept: everything below is gone. 1 while nothing was dropped.
    pub floor: Seq,
    /// The last sequence of each slot that has one; never less than what the slot has come to, up to `last`. A holder that had to leave out
    /// what is gone cannot know whose it was: it says of every slot that it reaches to there.
    pub slots: Arc<HashMap<Slot, Seq>>,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest {
    /// From which shard.
    pub shard: Shard,
    /// The history that the positions belong to: the shard's epoch, or an earlier one that led up to it.
    pub epoch: Epoch,
    /// The topics (all in this shard, none twice), each with the sequence after which to read.
    pub topics: Vec<(Topic, Seq)>,
    /// At most this many events; at least 1.
    pub max_events: usize,
    /// Stop with the event whose payload makes it this many bytes.
    pub max_bytes: usize,
}

/// What the log has of what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// Events.
    Page(Page),
    /// Events after the lowest position asked for may have been dropped: everything below `floor` is gone.
    Gone {
        /// The shard's epoch, as in [`Page::epoch`].
        epoch: Epoch,
        /// The lowest sequence that may still be kept.
        floor: Seq,
    },
    /// The positions belong to another history: to an epoch that did not lead up to this one, or are of sequences that it never issued.
    Forked {
        /// The shard's epoch.
        epoch: Epoch,
        /// The last sequence of the shard.
        last: Seq,
    },
}

/// Some events, in sequence order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The shard's epoch: from here on the reader's position is one of it.
    pub epoch: Epoch,
    /// The events.
    pub events: Vec<Arc<Event>>,
    /// All events of the topics up to here are in this page or before it: the last event's sequence if the page was cut short, else how far
    /// the log had come.
    pub up_to: Seq,
}

/// Why the log could not be read. Always worth another try.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Whoever was asked does not hold the shard. Another node may.
    #[error("shard {0} is not held here: ask a node that holds it")]
    NotHeld(Shard),
    /// Whoever was asked has more to read than it may.
    #[error("too much is being read here: ask another node that holds the shard, or later")]
    Busy,
    /// It did not work out.
    #[error("the log cannot be read: {cause}")]
    Failed {
        /// What failed.
        cause: String,
    },
}

impl ReadError {
    /// Something failed.
    #[must_use]
    pub fn failed(cause: impl ToString) -> Self {
        Self::Failed {
            cause: cause.to_string(),
        }
    }
}
