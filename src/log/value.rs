//! The values of what is stored: one byte, the version of the encoding, then a protobuf message.
//!
//! Protobuf lets a message gain fields without a rewrite of what is there: a reader skips those it does not know, and takes those that
//! are absent as their default. The version changes only if that is ever not enough; a store never holds one that is newer than its
//! format ([`super::format`]).

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};

/// The version of the encoding that is written.
const VERSION: u8 = 1;

/// In `events`: one event. Its topic and sequence are in its key.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct StoredEvent {
    /// The SSE event name.
    #[prost(string, optional, tag = "1")]
    pub(super) event_type: Option<String>,
    /// The payload, unless `body` says where it is.
    #[prost(string, tag = "2")]
    pub(super) data: String,
    /// When it was appended, in milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub(super) time_ms: u64,
    /// The sequence under which `bodies` has the payload.
    #[prost(uint64, optional, tag = "4")]
    pub(super) body: Option<u64>,
}

/// A [`StoredEvent`] that is written from where its parts are.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventToStore<'e> {
    pub(super) event_type: Option<&'e str>,
    pub(super) data: &'e str,
    pub(super) time_ms: u64,
    pub(super) body: Option<u64>,
}

impl EventToStore<'_> {
    /// Writes the value, as [`encode`] would, in place of what was there.
    pub(super) fn write(self, value: &mut Vec<u8>) {
        value.clear();
        value.push(VERSION);
        if let Some(event_type) = self.event_type {
            write_text(value, 1, event_type);
        }
        if !self.data.is_empty() {
            write_text(value, 2, self.data);
        }
        if self.time_ms != 0 {
            write_number(value, 3, self.time_ms);
        }
        if let Some(body) = self.body {
            write_number(value, 4, body);
        }
    }
}

fn write_text(value: &mut Vec<u8>, tag: u32, text: &str) {
    encode_key(tag, WireType::LengthDelimited, value);
    encode_varint(text.len() as u64, value);
    value.extend_from_slice(text.as_bytes());
}

fn write_number(value: &mut Vec<u8>, tag: u32, number: u64) {
    encode_key(tag, WireType::Varint, value);
    encode_varint(number, value);
}

/// In `bodies`: a payload that several events share.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct StoredBody {
    /// The payload.
    #[prost(string, tag = "1")]
    pub(super) data: String,
}

/// In `keys`: the first use of a publisher's key on a topic.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct StoredKey {
    /// The sequence that the topic got.
    #[prost(uint64, tag = "1")]
    pub(super) seq: u64,
    /// When, in milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub(super) time_ms: u64,
}

/// In `milestones`: what lies around a sequence that ends a publish.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct StoredMilestone {
    /// The time of the first event after it, in milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub(super) time_ms: u64,
    /// How many bytes the shard had been given up to it, since the beginning.
    #[prost(uint64, tag = "2")]
    pub(super) bytes: u64,
}

/// In `meta`: which store this is.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct StoredIdentity {
    /// Which shard it holds.
    #[prost(uint32, tag = "1")]
    pub(super) shard: u32,
    /// The shard's incarnations, in the order they began; the last is the present one.
    #[prost(message, repeated, tag = "2")]
    pub(super) epochs: Vec<StoredEpoch>,
}

/// In an identity: one incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct StoredEpoch {
    /// Made up when it began, which every start of the program does: 1 to 2^32 - 1, at random.
    #[prost(uint32, tag = "1")]
    pub(super) epoch: u32,
    /// The last sequence when it began.
    #[prost(uint64, tag = "2")]
    pub(super) after: u64,
}

/// In `meta`: how far the shard has come.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct StoredHead {
    /// The last sequence.
    #[prost(uint64, tag = "1")]
    pub(super) last: u64,
    /// The time of the last event, in milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub(super) time_ms: u64,
    /// How many bytes of keys and values the shard has been given since the beginning.
    #[prost(uint64, tag = "3")]
    pub(super) bytes: u64,
    /// In a replica, what tells the message at the last sequence from any other: 0 if it is not known.
    #[prost(fixed64, tag = "4")]
    pub(super) tail: u64,
}

/// In `meta`: where the floor is.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct StoredFloor {
    /// The lowest sequence that is kept.
    #[prost(uint64, tag = "1")]
    pub(super) seq: u64,
    /// How many bytes the shard had been given below it.
    #[prost(uint64, tag = "2")]
    pub(super) bytes: u64,
    /// How many of those compaction has given back.
    #[prost(uint64, tag = "3")]
    pub(super) reclaimed: u64,
}

impl StoredFloor {
    /// The floor while nothing was dropped.
    pub(super) const BEGINNING: Self = Self {
        seq: 1,
        bytes: 0,
        reclaimed: 0,
    };
}

/// In `meta`: the last sequence of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct StoredSeq {
    /// The sequence.
    #[prost(uint64, tag = "1")]
    pub(super) seq: u64,
}

/// Why a stored value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not even a version.
    #[error("a stored value is empty")]
    Empty,
    /// An encoding that this program does not know.
    #[error("a stored value has version {0}, and this program reads version {VERSION}")]
    Version(u8),
    /// Not the message it should be.
    #[error("a stored value cannot be decoded: {0}")]
    Message(#[from] prost::DecodeError),
}

/// A value as it is stored.
pub(super) fn encode(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(VERSION);
    message
        .encode(&mut bytes)
        .expect("a vector grows to whatever the message needs");
    bytes
}

/// Reads a value as it was stored.
pub(super) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, ValueError> {
    match bytes.split_first() {
        None => Err(ValueError::Empty),
        Some((&VERSION, message)) => Ok(M::decode(message)?),
        Some((&version, _)) => Err(ValueError::Version(version)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event as a later version may write it: with a field that this one does not know.
    #[derive(Clone, PartialEq, Eq, Message)]
    struct LaterEvent {
        #[prost(string, optional, tag = "1")]
        event_type: Option<String>,
        #[prost(string, tag = "2")]
        data: String,
        #[prost(uint64, tag = "3")]
        time_ms: u64,
        #[prost(bytes = "vec", tag = "100")]
        trace: Vec<u8>,
    }

    /// An event as an earlier version may have written it: without one of the fields that this one knows.
    #[derive(Clone, PartialEq, Eq, Message)]
    struct EarlierEvent {
        #[prost(string, tag = "2")]
        data: String,
    }

    proptest! {
        #[test]
        fn events_round_trip(
            event_type in prop::option::of(".*"),
            data in ".*",
            time_ms in prop_oneof![Just(0), any::<u64>()],
            body in prop::option::of(any::<u64>()),
        ) {
            let event = StoredEvent { event_type, data, time_ms, body };
            let mut written = b"what was there".to_vec();
            let to_store = EventToStore { event_type: event.event_type.as_deref(), data: &event.data, time_ms, body };
            to_store.write(&mut written);
            prop_assert_eq!(&written, &encode(&event));
            prop_assert_eq!(decode::<StoredEvent>(&written), Ok(event));
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in any::<Vec<u8>>()) {
            let _ = decode::<StoredEvent>(&bytes);
        }

        #[test]
        fn a_field_that_is_not_known_is_skipped(data in ".*", time_ms in any::<u64>(), trace in any::<Vec<u8>>()) {
            let later = LaterEvent { event_type: None, data: data.clone(), time_ms, trace };
            let event = StoredEvent { event_type: None, data, time_ms, body: None };
            prop_assert_eq!(decode::<StoredEvent>(&encode(&later)), Ok(event));
        }

        #[test]
        fn a_field_that_is_absent_is_its_default(data in ".*") {
            let event = StoredEvent { event_type: None, data: data.clone(), time_ms: 0, body: None };
            prop_assert_eq!(decode::<StoredEvent>(&encode(&EarlierEvent { data })), Ok(event));
        }
    }

    #[test]
    fn other_versions_are_refused() {
        assert_eq!(decode::<StoredSeq>(&[2, 8, 1]), Err(ValueError::Version(2)));
        assert_eq!(decode::<StoredSeq>(&[]), Err(ValueError::Empty));
    }

    #[test]
    fn published_layout() {
        let event = StoredEvent {
            event_type: Some("t".to_owned()),
            data: "d".to_owned(),
            time_ms: 300,
            body: Some(5),
        };
        assert_eq!(encode(&event), b"\x01\x0a\x01t\x12\x01d\x18\xac\x02\x20\x05");
    }
}
