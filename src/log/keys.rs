//! The keys of what is stored, one layout per column family. All numbers are big endian, so that bytes sort as numbers do.
//!
//! | column family | key | value ([`super::value`]) |
//! |---|---|---|
//! | `events` | topic, `00`, sequence (8 bytes) | the event, or where its payload is |
//! | `bodies` | sequence (8 bytes): the *last* of the publish it came with | a payload that several events share |
//! | `keys` | length of the publisher's key (1 byte), the key, topic | the first sequence, and when |
//! | `milestones` | sequence (8 bytes) | what lies before and after it |
//! | `meta` | [`IDENTITY`], [`HEAD`], [`FLOOR`]; or `s` and a slot (4 bytes) | one record each |
//!
//! A topic never holds a zero byte, so `topic 00` is the prefix of that topic alone and of no other, however they begin alike. A
//! payload is kept under its publish's last sequence because history is dropped from the front: it outlives all that refer to it.

use crate::model::{PublishKey, Seq, Slot, Topic};

/// In `meta`: which store this is.
pub(super) const IDENTITY: &[u8] = b"identity";
/// In `meta`: how far the shard has come.
pub(super) const HEAD: &[u8] = b"head";
/// In `meta`: the lowest sequence that may still be kept.
pub(super) const FLOOR: &[u8] = b"floor";

const END_OF_TOPIC: u8 = 0;
const SLOT: u8 = b's';

/// Where an event is in `events`.
pub(super) fn event(topic: &Topic, seq: Seq) -> Vec<u8> {
    let mut key = Vec::with_capacity(topic.as_str().len() + 9);
    write_event(&mut key, topic, seq);
    key
}

/// Writes where an event is in `events` in place of what was there.
pub(super) fn write_event(key: &mut Vec<u8>, topic: &Topic, seq: Seq) {
    key.clear();
    key.extend_from_slice(topic.as_str().as_bytes());
    key.push(END_OF_TOPIC);
    key.extend_from_slice(&seq.0.to_be_bytes());
}

/// The sequence in a key of `events`, if it is one of this topic's.
pub(super) fn seq_in_topic(key: &[u8], topic: &Topic) -> Option<Seq> {
    let rest = key.strip_prefix(topic.as_str().as_bytes())?;
    seq(rest.strip_prefix(&[END_OF_TOPIC])?)
}

/// The sequence in a key of `events`, whichever topic it is of.
pub(super) fn seq_of_event(key: &[u8]) -> Option<Seq> {
    let (_, last) = key.split_last_chunk::<8>()?;
    Some(Seq(u64::from_be_bytes(*last)))
}

/// What all keys of a topic in `events` have in common, and no other key has.
pub(super) fn topic_of_event(key: &[u8]) -> &[u8] {
    key.split_last_chunk::<8>().map_or(key, |(topic, _)| topic)
}

/// A key of `bodies` or `milestones`.
pub(super) const fn of_seq(seq: Seq) -> [u8; 8] {
    seq.0.to_be_bytes()
}

/// The sequence that is a key of `bodies` or `milestones`.
pub(super) fn seq(key: &[u8]) -> Option<Seq> {
    Some(Seq(u64::from_be_bytes(key.try_into().ok()?)))
}

/// Where a publisher's key is in `keys`.
pub(super) fn publish_key(key: &PublishKey, topic: &Topic) -> Vec<u8> {
    let (key, topic) = (key.as_str().as_bytes(), topic.as_str().as_bytes());
    let mut bytes = Vec::with_capacity(1 + key.len() + topic.len());
    bytes.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(topic);
    bytes
}

/// Where the last sequence of a slot is in `meta`.
pub(super) fn slot(slot: Slot) -> [u8; 5] {
    let [a, b, c, d] = slot.0.to_be_bytes();
    [SLOT, a, b, c, d]
}

/// The slot in a key of `meta`, if it is a slot's.
pub(super) fn slot_in(key: &[u8]) -> Option<Slot> {
    match key {
        &[SLOT, a, b, c, d] => Some(Slot(u32::from_be_bytes([a, b, c, d]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topics() -> impl Strategy<Value = Topic> {
        prop_oneof!["[a-c/._~:@-]{1,4}", "[A-Za-z0-9._~:/@-]{1,255}"]
            .prop_map(|text| Topic::parse(&text).expect("in the alphabet"))
    }

    proptest! {
        #[test]
        fn event_keys_round_trip(topic in topics(), seq in any::<u64>()) {
            let key = event(&topic, Seq(seq));
            prop_assert_eq!(seq_in_topic(&key, &topic), Some(Seq(seq)));
            prop_assert_eq!(seq_of_event(&key), Some(Seq(seq)));
            prop_assert_eq!(topic_of_event(&key), [topic.as_str().as_bytes(), &[END_OF_TOPIC]].concat());
        }

        #[test]
        fn events_sort_by_topic_then_sequence(topic in topics(), a in any::<u64>(), b in any::<u64>()) {
            prop_assert_eq!(event(&topic, Seq(a)).cmp(&event(&topic, Seq(b))), a.cmp(&b));
            prop_assert_eq!(of_seq(Seq(a)).cmp(&of_seq(Seq(b))), a.cmp(&b));
        }

        #[test]
        fn no_key_of_one_topic_lies_among_anothers(a in topics(), b in topics(), seq in any::<u64>()) {
            let key = event(&a, Seq(seq));
            let among = event(&b, Seq::ZERO) <= key && key <= event(&b, Seq(u64::MAX));
            prop_assert_eq!(among, a == b);
            prop_assert_eq!(seq_in_topic(&key, &b).is_some(), a == b);
        }

        #[test]
        fn publish_keys_never_coincide(
            a in ("[ -~]{1,3}", topics()),
            b in ("[ -~]{1,3}", topics()),
        ) {
            let of = |(key, topic): &(String, Topic)| publish_key(&PublishKey::parse(key).expect("printable"), topic);
            prop_assert_eq!(of(&a) == of(&b), a == b);
        }

        #[test]
        fn slots_round_trip(number in any::<u32>()) {
            prop_assert_eq!(slot_in(&slot(Slot(number))), Some(Slot(number)));
        }
    }

    #[test]
    fn topics_that_begin_alike_are_apart() {
        let [a, dash, slash] = ["a", "a-", "a/b"].map(|text| Topic::parse(text).expect("a topic"));
        let keys = [&a, &dash, &slash].map(|topic| (event(topic, Seq(1)), event(topic, Seq(u64::MAX))));
        assert!(keys.is_sorted_by(|before, after| before.1 < after.0), "{keys:?}");
    }

    #[test]
    fn published_layout() {
        let topic = Topic::parse("a/b").expect("a topic");
        let key = PublishKey::parse("k1").expect("a key");
        assert_eq!(event(&topic, Seq(258)), b"a/b\0\0\0\0\0\0\0\x01\x02");
        assert_eq!(publish_key(&key, &topic), b"\x02k1a/b");
        assert_eq!(slot(Slot(1_023)), *b"s\0\0\x03\xff");
        assert_eq!(slot_in(IDENTITY), None);
        assert_eq!(slot_in(HEAD), None);
        assert_eq!(slot_in(FLOOR), None);
    }
}
