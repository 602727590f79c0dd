//! The journal: where events become durable and get their order.

mod clock;
mod digest;
mod disk;
mod error;
pub mod jetstream;
mod lane;
mod local;
pub mod routed;
pub mod service;
mod wire;
mod writer;

use futures::future::BoxFuture;

pub use self::{
    digest::{digest, send_digests},
    disk::{Disk, DiskFull, DiskProbe, DiskSpace},
    error::{AppendError, Unavailable},
    local::{CloseError, LocalJournal, Settings, Status, Surroundings},
};
use crate::model::{Publish, Seq};

/// Appends events durably. One suite (`tests/contract/journal.rs`) holds every implementation to this:
///
/// - **Durable:** a ticket resolves with a receipt only when the event survives the loss of this process and of its machine's power
///   (embedded: fsynced; in a cluster: replicated). What resolves with an error was not appended and never will be, but for
///   [`AppendError::Unknown`], and for those topics of [`AppendError::Partly`] that have the event or may have it.
/// - **Ordered:** sequences are strictly increasing within a shard; appends of one caller to one shard, one awaited after the other, are in that
///   order, whatever fails in between. One that is [`Unknown`](AppendError::Unknown) may come later than that, if at all.
/// - **Whole:** within a shard, all topics of one publish are appended, next to each other, or none.
/// - **Once:** a repeat of a key on a topic within the window gives that topic the first sequence and appends nothing, across restarts.
/// - **In time:** after the deadline of a publish nothing more is tried for it.
/// - **Announced:** what was appended is announced on the bus after it is durable and readable from the log; where the log is a copy that may
///   lag, it may be readable a moment later.
pub trait Journal: Send + Sync + 'static {
    /// Takes its place in the order, waiting while too much is in flight, and returns a ticket that resolves when the event is
    /// durable. Dropping the ticket does not undo the append.
    fn append(&self, publish: Publish) -> BoxFuture<'_, Result<Ticket, AppendError>>;
}

/// Resolves when the event is durable.
pub type Ticket = BoxFuture<'static, Result<Receipt, AppendError>>;

/// An event that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// One per topic, in the order of the publish.
    pub placed: Vec<Placed>,
}

/// Where an event is in one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its sequence.
    pub seq: Seq,
    /// Whether the key was known: the sequence is the first one's, and nothing was appended.
    pub repeated: bool,
}
