//! The words of the service: topics, events, sequences, cursors. Values only; everything else imports them.

mod cursor;
mod event;
mod host;
pub(crate) mod json;
mod origin;
mod position;
mod secret;
mod topic;

pub use cursor::{Cursor, CursorError, Position};
pub use event::{Event, EventType, EventTypeError, PublishKey, PublishKeyError, UnixMillis};
pub use host::{Host, HostError};
pub use origin::{Origin, OriginError};
pub use position::{Epoch, Seq, Shard, Slot};
pub use secret::Secret;
pub use tidings_cluster::Layout;
pub use topic::{Topic, TopicError};

/// One event on its way in: admitted and checked, not yet durable.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where it goes: at least one topic, none twice.
    pub topics: Vec<Topic>,
    /// The SSE event name, if it has one.
    pub event_type: Option<EventType>,
    /// The payload.
    pub data: std::sync::Arc<str>,
    /// The publisher's key: a repeat of it on the same topic within the window delivers nothing.
    pub key: Option<PublishKey>,
    /// When whoever publishes stops waiting, if that is known: nothing is tried again after it.
    pub deadline: Option<std::time::Instant>,
}

impl Publish {
    /// The most topics it may ever have.
    pub const MAX_TOPICS: usize = 1_000;
    /// The longest its payload may ever be, in bytes.
    pub const MAX_DATA_BYTES: usize = 1024 * 1024;
}
