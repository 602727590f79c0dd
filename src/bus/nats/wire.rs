//! What goes over NATS: `proto/tidings/v1/bus.proto`.

use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use prost::Message as _;
use tidings_proto::v1;

use crate::{
    bus::{Announcement, Digest},
    model::{Epoch, Event, EventType, Seq, Shard, Slot, Topic, UnixMillis},
};

/// Set by JetStream on what it republishes: the sequence in the stream.
const SEQUENCE: &str = "Nats-Sequence";
/// Set by JetStream on what it republishes: the sequence before it on the same subject, which is one slot's; 0 for none.
const LAST_SEQUENCE: &str = "Nats-Last-Sequence";

/// A message that is not what its subject promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

impl Malformed {
    /// Its subject names no slot.
    pub(super) const fn subject() -> Self {
        Self("a subject without a slot")
    }
}

/// An announcement as it is sent. For a stream, which gives the sequences itself, `prev` and the event's sequence are left out by whoever
/// appends: see [`encode_for_stream`].
#[must_use]
pub fn encode_announcement(announcement: &Announcement) -> Bytes {
    encode(
        announcement.shard,
        announcement.epoch,
        announcement.prev,
        &announcement.event,
    )
}

/// An event as a stream stores it, and then republishes it as an announcement: sequences come from the stream.
#[must_use]
pub fn encode_for_stream(shard: Shard, epoch: Epoch, event: &Event) -> Bytes {
    encode(shard, epoch, Seq::ZERO, event)
}

fn encode(shard: Shard, epoch: Epoch, prev: Seq, event: &Event) -> Bytes {
    let message = v1::Announcement {
        shard: shard.0.into(),
        epoch: epoch.0,
        prev: prev.0,
        event: Some(event_to_wire(event)),
    };
    message.encode_to_vec().into()
}

/// Reads an announcement of a slot.
///
/// # Errors
/// If it is none.
pub fn decode_announcement(slot: Slot, headers: Option<&HeaderMap>, payload: &[u8]) -> Result<Announcement, Malformed> {
    let message = v1::Announcement::decode(payload).map_err(|_| Malformed("no announcement"))?;
    let event = message.event.ok_or(Malformed("an announcement without an event"))?;
    let stream = headers.and_then(|headers| headers.get(SEQUENCE).map(|seq| (seq, headers.get(LAST_SEQUENCE))));
    let (seq, prev) = match stream {
        None => (event.sequence, message.prev),
        Some((seq, prev)) => {
            let seq = number(seq.as_str())?;
            (seq, prev.map_or(Ok(0), |prev| number(prev.as_str()))?)
        }
    };
    if seq == 0 || prev >= seq {
        return Err(Malformed("an announcement whose sequences are out of order"));
    }
    Ok(Announcement {
        shard: shard(message.shard)?,
        epoch: Epoch(message.epoch),
        slot,
        prev: Seq(prev),
        seq: Seq(seq),
        event: Arc::new(event_from_wire(event, Some(Seq(seq)))?),
    })
}

/// A digest as it is sent.
#[must_use]
pub fn encode_digest(digest: &Digest) -> Bytes {
    let (slots, lasts) = digest.changed.iter().map(|(slot, last)| (slot.0, last.0)).unzip();
    let message = v1::Digest {
        shard: digest.shard.0.into(),
        epoch: digest.epoch.0,
        before: digest.before.0,
        now: digest.now.0,
        slots,
        lasts,
    };
    message.encode_to_vec().into()
}

/// Reads a digest.
///
/// # Errors
/// If it is none.
pub fn decode_digest(payload: &[u8]) -> Result<Digest, Malformed> {
    let message = v1::Digest::decode(payload).map_err(|_| Malformed("no digest"))?;
    if message.slots.len() != message.lasts.len() || message.before > message.now {
        return Err(Malformed("a digest that contradicts itself"));
    }
    let changed = message.slots.into_iter().zip(message.lasts);
    Ok(Digest {
        shard: shard(message.shard)?,
        epoch: Epoch(message.epoch),
        before: Seq(message.before),
        now: Seq(message.now),
        changed: changed.map(|(slot, last)| (Slot(slot), Seq(last))).collect(),
    })
}

/// An ephemeral event as it is sent.
#[must_use]
pub fn encode_ephemeral(event: &Event) -> Bytes {
    event_to_wire(event).encode_to_vec().into()
}

/// Reads an ephemeral event.
///
/// # Errors
/// If it is none.
pub fn decode_ephemeral(payload: &[u8]) -> Result<Event, Malformed> {
    let event = v1::Event::decode(payload).map_err(|_| Malformed("no event"))?;
    event_from_wire(event, None)
}

fn event_to_wire(event: &Event) -> v1::Event {
    v1::Event {
        topic: event.topic.as_str().to_owned(),
        r#type: event
            .event_type
            .as_ref()
            .map_or_else(String::new, |kind| kind.as_str().to_owned()),
        data: event.data.as_ref().to_owned(),
        time_ms: event.time.0,
        sequence: event.seq.map_or(0, |seq| seq.0),
    }
}

fn event_from_wire(event: v1::Event, seq: Option<Seq>) -> Result<Event, Malformed> {
    let topic = Topic::parse(&event.topic).map_err(|_| Malformed("an event without a topic"))?;
    let event_type = match event.r#type.as_str() {
        "" => None,
        text => Some(EventType::parse(text).map_err(|_| Malformed("an event whose type is none"))?),
    };
    Ok(Event::new(
        topic,
        event_type,
        event.data.into(),
        UnixMillis(event.time_ms),
        seq,
    ))
}

fn shard(number: u32) -> Result<Shard, Malformed> {
    u16::try_from(number)
        .map(Shard)
        .map_err(|_| Malformed("a shard that cannot be"))
}

fn number(text: &str) -> Result<u64, Malformed> {
    text.parse()
        .map_err(|_| Malformed("a header of the stream that is no number"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(seq: Option<u64>) -> Event {
        let topic = Topic::parse("user:42").expect("a topic");
        let kind = EventType::parse("order").expect("a type");
        Event::new(
            topic,
            Some(kind),
            "{\"ä\":1}".into(),
            UnixMillis(1_700_000_000_000),
            seq.map(Seq),
        )
    }

    fn announcement() -> Announcement {
        Announcement {
            shard: Shard(3),
            epoch: Epoch(9),
            slot: Slot(971),
            prev: Seq(4),
            seq: Seq(7),
            event: Arc::new(event(Some(7))),
        }
    }

    #[test]
    fn announcements_round_trip() {
        let sent = announcement();
        assert_eq!(
            decode_announcement(sent.slot, None, &encode_announcement(&sent)),
            Ok(sent)
        );
    }

    #[test]
    fn what_a_stream_republishes_has_its_sequences() {
        let sent = announcement();
        let stored = encode_for_stream(sent.shard, sent.epoch, &event(None));
        let mut headers = HeaderMap::new();
        headers.insert(SEQUENCE, "7");
        headers.insert(LAST_SEQUENCE, "4");
        assert_eq!(decode_announcement(sent.slot, Some(&headers), &stored), Ok(sent));
        // As it is stored, it is no announcement.
        assert!(decode_announcement(Slot(971), None, &stored).is_err());
        headers.insert(SEQUENCE, "many");
        assert!(decode_announcement(Slot(971), Some(&headers), &stored).is_err());
    }

    #[test]
    fn ephemeral_events_round_trip() {
        assert_eq!(decode_ephemeral(&encode_ephemeral(&event(None))), Ok(event(None)));
    }

    proptest! {
        #[test]
        fn digests_round_trip(
            before in any::<u64>(),
            more in any::<u64>(),
            changed in prop::collection::vec((any::<u32>().prop_map(Slot), any::<u64>().prop_map(Seq)), 0..20),
        ) {
            let now = Seq(before.saturating_add(more));
            let digest = Digest { shard: Shard(65_535), epoch: Epoch(u32::MAX), before: Seq(before), now, changed };
            prop_assert_eq!(decode_digest(&encode_digest(&digest)), Ok(digest));
        }

        #[test]
        fn anything_is_read_or_refused(payload in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_announcement(Slot(1), None, &payload);
            let _ = decode_digest(&payload);
            let _ = decode_ephemeral(&payload);
        }
    }
}
