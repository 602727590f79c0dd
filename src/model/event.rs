//! Events and what they are made of.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{Seq, Topic};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The machine's time.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The time this long after; the last there is if that would be later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The time this long before; 1970 if that would be earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// An event as followers get it.
#[derive(Debug)]
pub struct Event {
    /// Where it was published.
    pub topic: Topic,
    /// The SSE event name, if it has one.
    pub event_type: Option<EventType>,
    /// The payload: text without NUL.
    pub data: Arc<str>,
    /// When it was appended; never decreases within a shard.
    pub time: UnixMillis,
    /// Its place in its shard; `None` for an ephemeral event.
    pub seq: Option<Seq>,
    wire: OnceLock<Bytes>,
}

impl Event {
    /// An event.
    #[must_use]
    pub const fn new(
        topic: Topic,
        event_type: Option<EventType>,
        data: Arc<str>,
        time: UnixMillis,
        seq: Option<Seq>,
    ) -> Self {
        Self {
            topic,
            event_type,
            data,
            time,
            seq,
            wire: OnceLock::new(),
        }
    }

    /// Roughly what it takes in memory, in bytes: its payload, what is rendered of it, and all around.
    #[must_use]
    pub fn weight(&self) -> usize {
        const AROUND: usize = 256;
        2 * self.data.len() + AROUND
    }

    /// What `render` makes of this event: made once, by whoever needs it first, and shared by all who hold it.
    pub fn rendered(&self, render: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.wire.get_or_init(|| render(self))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (&self.topic, &self.event_type, &self.data, self.time, self.seq)
            == (&other.topic, &other.event_type, &other.data, other.time, other.seq)
    }
}

impl Eq for Event {}

/// An event's type: its SSE event name. 1 to 255 bytes without control characters; not `open`, `message` or `error`, which collide
/// with the events that every EventSource has, and not `tidings.…`, which the service itself uses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventType(Arc<str>);

impl EventType {
    /// The longest an event type may be, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks an event type's text.
    ///
    /// # Errors
    /// If it is empty, too long, reserved, or holds a control character.
    pub fn parse(text: &str) -> Result<Self, EventTypeError> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(EventTypeError::Length { bytes: text.len() });
        }
        if text.chars().any(char::is_control) {
            return Err(EventTypeError::Control);
        }
        if matches!(text, "open" | "message" | "error") || text.starts_with("tidings.") {
            return Err(EventTypeError::Reserved { name: text.to_owned() });
        }
        Ok(Self(text.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not an event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventTypeError {
    /// Its length is wrong.
    #[error("an event type has 1 to 255 bytes; this one has {bytes}")]
    Length {
        /// How long it is.
        bytes: usize,
    },
    /// It holds a control character, which would break the event stream.
    #[error("an event type has no control characters (no line breaks, no NUL)")]
    Control,
    /// It is a name that means something else.
    #[error("the event type {name:?} is reserved: `open`, `message`, `error` and `tidings.…` are not for publishers")]
    Reserved {
        /// The name.
        name: String,
    },
}

/// A publisher's key for one event: 1 to 255 bytes of printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublishKey(Arc<str>);

impl PublishKey {
    /// The longest a key may be, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks a key's text.
    ///
    /// # Errors
    /// If it is empty, too long, or not printable ASCII.
    pub fn parse(text: &str) -> Result<Self, PublishKeyError> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(PublishKeyError::Length { bytes: text.len() });
        }
        if !text.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
            return Err(PublishKeyError::Character);
        }
        Ok(Self(text.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a publisher key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishKeyError {
    /// Its length is wrong.
    #[error("a key has 1 to 255 bytes; this one has {bytes}")]
    Length {
        /// How long it is.
        bytes: usize,
    },
    /// It holds something else than printable ASCII.
    #[error("a key has only printable ASCII")]
    Character,
}
