//! The messages of a stream: one per topic of a publish.
//!
//! | part | what is in it |
//! |---|---|
//! | subject | `<cluster>.log.<shard>.<slot>` |
//! | `Nats-Msg-Id` | of a keyed publish a hash of key, topic and the key's expired use; else a random one |
//! | `Nats-Batch-…` | if it was appended with others at once |
//! | payload | `tidings.v1.LogEntry` |
//!
//! `JetStream` republishes it to `<cluster>.slot.<slot>`, where it is an announcement.

use std::{hash::Hasher as _, sync::Arc};

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use prost::Message as _;
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use tidings_proto::v1;

use super::stream::Names;
use crate::model::{Epoch, EventType, Layout, PublishKey, Seq, Shard, Slot, Topic, UnixMillis};

/// The key of the hash that makes message ids. All holders make the same of the same.
const ID_KEY: (u64, u64) = (0x7469_6469_6e67_7320, 0x6d65_7373_6167_6520);
/// What tells messages apart that are at the same sequence of two histories.
const TAIL_KEY: (u64, u64) = (0x7469_6469_6e67_7320, 0x7461_696c_2074_6167);
/// What headers and subject may take beside the payload, in bytes.
pub(super) const AROUND: usize = 1_024;

const MSG_ID: &str = "Nats-Msg-Id";
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// What makes the stream take one message once, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MessageId(String);

impl MessageId {
    /// Of a keyed publish to a topic: the same from every holder. `expired`: the sequence of the key's last use if that does not count any more,
    /// so that the stream does not take the next use for it.
    pub(super) fn keyed(key: &PublishKey, topic: &Topic, expired: Option<Seq>) -> Self {
        let mut hasher = SipHasher24::new_with_keys(ID_KEY.0, ID_KEY.1);
        let key = key.as_str().as_bytes();
        hasher.write(&(key.len() as u64).to_be_bytes());
        hasher.write(key);
        hasher.write(topic.as_str().as_bytes());
        hasher.write(&expired.unwrap_or(Seq::ZERO).0.to_be_bytes());
        Self(format!("{:032x}", hasher.finish128().as_u128()))
    }

    /// Of a publish without a key: the `at`-th topic of the one that drew this number.
    pub(super) fn unkeyed(drawn: u64, at: usize) -> Self {
        Self(format!("{drawn:016x}-{at}"))
    }
}

/// One message on its way into the stream.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) id: MessageId,
    pub(super) subject: Subject,
    pub(super) payload: Bytes,
}

impl Outgoing {
    /// Its headers; `batch`: the batch it belongs to, its place there from 1 on, and how many there are.
    pub(super) fn headers(&self, batch: Option<(&str, usize, usize)>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(MSG_ID, self.id.0.as_str());
        if let Some((batch, place, of)) = batch {
            headers.insert(BATCH_ID, batch);
            headers.insert(BATCH_SEQUENCE, place.to_string());
            if place == of {
                headers.insert(BATCH_COMMIT, "1");
            }
        }
        headers
    }
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) topic: Topic,
    pub(super) event_type: Option<EventType>,
    pub(super) data: Arc<str>,
    pub(super) time: UnixMillis,
    pub(super) key: Option<PublishKey>,
    /// The same for all that were appended at once.
    pub(super) append: u64,
}

/// Where a message belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) names: &'a Names,
    pub(super) layout: Layout,
    pub(super) shard: Shard,
}

impl Entry {
    pub(super) fn encode(&self, shard: Shard, epoch: Epoch) -> Bytes {
        let entry = v1::LogEntry {
            shard: u32::from(shard.0),
            epoch: epoch.0,
            event: Some(v1::Event {
                topic: self.topic.as_str().to_owned(),
                r#type: self
                    .event_type
                    .as_ref()
                    .map_or_else(String::new, |name| name.as_str().to_owned()),
                data: self.data.as_ref().to_owned(),
                time_ms: self.time.0,
                sequence: 0,
            }),
            key: self
                .key
                .as_ref()
                .map_or_else(String::new, |key| key.as_str().to_owned()),
            append: self.append,
        };
        entry.encode_to_vec().into()
    }

    /// Reads a message of the stream, and the slot it is in.
    pub(super) fn decode(subject: &str, payload: &[u8], place: Place<'_>) -> Result<(Self, Slot), Malformed> {
        let slot = place.names.slot(subject, place.layout).ok_or(Malformed::Subject)?;
        let entry = v1::LogEntry::decode(payload)?;
        let event = entry.event.ok_or(Malformed::Empty)?;
        let topic = Topic::parse(&event.topic).map_err(Malformed::of)?;
        let belongs = Slot(place.layout.slot(topic.as_str()));
        if belongs != slot || entry.shard != u32::from(place.shard.0) {
            return Err(Malformed::Elsewhere { topic, slot: belongs });
        }
        if event.data.contains('\0') {
            return Err(Malformed::Content("the data holds a NUL".to_owned()));
        }
        let entry = Self {
            topic,
            event_type: optional(&event.r#type, EventType::parse)?,
            data: event.data.into(),
            time: UnixMillis(event.time_ms),
            key: optional(&entry.key, PublishKey::parse)?,
            append: entry.append,
        };
        Ok((entry, slot))
    }

    /// Whether both are of the same publish, as far as can be told: they may share what they hold.
    pub(super) fn is_of_one_publish_with(&self, other: &Self) -> bool {
        self.append == other.append
            && self.time == other.time
            && self.event_type == other.event_type
            && self.data == other.data
    }
}

fn optional<T, E: std::fmt::Display>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, Malformed> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).map_err(Malformed::of)
}

/// What tells a message from any other that may be at its sequence. Never 0, which stands for a message that is not known.
pub(super) fn tail(subject: &str, payload: &[u8], published_nanos: i128) -> u64 {
    let mut hasher = siphasher::sip::SipHasher24::new_with_keys(TAIL_KEY.0, TAIL_KEY.1);
    hasher.write(&published_nanos.to_be_bytes());
    hasher.write(subject.as_bytes());
    hasher.write(payload);
    hasher.finish().max(1)
}

/// Why a message of the stream is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("its subject is none of the shard's")]
    Subject,
    #[error("it cannot be decoded ({0})")]
    Payload(#[from] prost::DecodeError),
    #[error("it holds no event")]
    Empty,
    #[error("{0}")]
    Content(String),
    #[error("its topic {topic} belongs to slot {slot}, and so to another subject")]
    Elsewhere { topic: Topic, slot: Slot },
}

impl Malformed {
    fn of(error: impl std::fmt::Display) -> Self {
        Self::Content(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nats::Subjects;

    const SHARD: Shard = Shard(1);

    fn names() -> (Names, Layout) {
        (
            Names::new(Subjects::new("c").expect("a name"), SHARD),
            Layout::new(8, 2).expect("valid"),
        )
    }

    fn entry(topic: &str) -> Entry {
        Entry {
            topic: Topic::parse(topic).expect("a topic"),
            event_type: Some(EventType::parse("t").expect("a type")),
            data: "d".into(),
            time: UnixMillis(300),
            key: Some(PublishKey::parse("k").expect("a key")),
            append: 7,
        }
    }

    /// A topic of the shard, and its slot.
    fn ours() -> (Entry, Slot) {
        let (_, layout) = names();
        (0..)
            .map(|number| entry(&format!("t{number}")))
            .map(|entry| (layout.slot(entry.topic.as_str()), entry))
            .find(|(slot, _)| layout.shard(*slot) == SHARD.0)
            .map(|(slot, entry)| (entry, Slot(slot)))
            .expect("one of many")
    }

    #[test]
    fn entries_round_trip() {
        let (names, layout) = names();
        let place = Place {
            names: &names,
            layout,
            shard: SHARD,
        };
        let (entry, slot) = ours();
        let payload = entry.encode(SHARD, Epoch(5));
        assert_eq!(Entry::decode(&names.subject(slot), &payload, place), Ok((entry, slot)));
    }

    #[test]
    fn an_entry_reads_as_an_announcement() {
        let (entry, _) = ours();
        let announcement = v1::Announcement::decode(entry.encode(SHARD, Epoch(5))).expect("one");
        assert_eq!((announcement.shard, announcement.epoch, announcement.prev), (1, 5, 0));
        assert_eq!(announcement.event.expect("an event").data, "d");
    }

    #[test]
    fn what_is_not_ours_is_told() {
        let (names, layout) = names();
        let place = Place {
            names: &names,
            layout,
            shard: SHARD,
        };
        let (entry, slot) = ours();
        let payload = entry.encode(SHARD, Epoch(5));
        let other = Slot((slot.0 + 2) % 8);
        assert!(matches!(
            Entry::decode(&names.subject(other), &payload, place),
            Err(Malformed::Elsewhere { .. })
        ));
        assert_eq!(Entry::decode("c.log.0.1", &payload, place), Err(Malformed::Subject));
        assert!(Entry::decode(&names.subject(slot), b"hello", place).is_err());
        assert_eq!(Entry::decode(&names.subject(slot), b"", place), Err(Malformed::Empty));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_an_error(payload in any::<Vec<u8>>()) {
            let (names, layout) = names();
            let _ = Entry::decode(&names.subject(Slot(1)), &payload, Place { names: &names, layout, shard: SHARD });
        }
    }

    #[test]
    fn ids_are_of_key_topic_and_use() {
        let of = |key, topic, expired| {
            MessageId::keyed(
                &PublishKey::parse(key).expect("a key"),
                &Topic::parse(topic).expect("a topic"),
                expired,
            )
        };
        let id = of("k", "a", None);
        assert_eq!(id, of("k", "a", None));
        for other in [
            of("k1", "a", None),
            of("k", "b", None),
            of("ka", "a", None),
            of("k", "a", Some(Seq(4))),
        ] {
            assert_ne!(id, other);
        }
        assert_eq!(id.0.len(), 32);
        assert_ne!(MessageId::unkeyed(1, 0), MessageId::unkeyed(1, 1));
    }
}
