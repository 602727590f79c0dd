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

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use smallvec::SmallVec;
use tokio::sync::oneshot;

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

    /// The same, if that needs no waiting; if it would, the publish comes back. It may always do so.
    fn try_append(&self, publish: Publish) -> Attempt {
        Attempt::Waits(publish)
    }
}

/// What comes of an append that does not wait for its place.
pub enum Attempt {
    /// It has its place, or is refused.
    Done(Result<Ticket, AppendError>),
    /// There was none at once: [`Journal::append`] waits for it.
    Waits(Publish),
}

/// Resolves when the event is durable.
#[must_use = "it tells whether the event is durable"]
pub struct Ticket(Answer);

enum Answer {
    /// A writer of this process answers. As many tickets resolve as there are events: this one takes no memory but the answer's own.
    Awaited(oneshot::Receiver<Result<Receipt, AppendError>>),
    /// Something else has to be done.
    Worked(BoxFuture<'static, Result<Receipt, AppendError>>),
}

impl Ticket {
    /// One that resolves as a future does.
    pub fn new(outcome: impl Future<Output = Result<Receipt, AppendError>> + Send + 'static) -> Self {
        Self(Answer::Worked(Box::pin(outcome)))
    }

    /// One that resolves with what somebody says who has taken the event. If they go without a word, nobody knows what became of it.
    pub(crate) const fn of(answer: oneshot::Receiver<Result<Receipt, AppendError>>) -> Self {
        Self(Answer::Awaited(answer))
    }
}

impl Future for Ticket {
    type Output = Result<Receipt, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::Awaited(answer) => answer.poll_unpin(cx).map(|answer| {
                answer.unwrap_or_else(|_| {
                    Err(AppendError::Unknown {
                        cause: "whoever was to answer stopped".to_owned(),
                    })
                })
            }),
            Answer::Worked(outcome) => outcome.poll_unpin(cx),
        }
    }
}

/// An event that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// One per topic, in the order of the publish.
    pub placed: SmallVec<[Placed; 1]>,
}

/// Where an event is in one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its sequence.
    pub seq: Seq,
    /// Whether the key was known: the sequence is the first one's, and nothing was appended.
    pub repeated: bool,
}
