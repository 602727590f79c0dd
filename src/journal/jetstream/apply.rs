//! Applying what a stream holds to a replica. Idempotent: the position is written with what it stands for, and what is at or below it is skipped.

use crate::{
    log::{Appended, Batch, Store, StoreError},
    model::{Seq, Slot, Topic},
};

use super::{
    message::{Entry, Place, tail},
    pull::Delivered,
    stream::Names,
};

/// What came of a piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// All of it is in the store. What was appended by whom, with its sequence.
    All(Vec<(u64, Seq)>),
    /// Something is missing before the message at `found`; nothing was applied.
    Hole { found: Seq },
    /// The message at the position that the store has come to is another one; nothing was applied.
    Other { at: Seq },
}

/// Applies a piece of the stream that follows what the store holds, or overlaps it.
///
/// # Errors
/// If the store refuses. What was applied until then is whole.
pub(super) fn apply(store: &Store, names: &Names, messages: &[Delivered]) -> Result<Applied, StoreError> {
    let place = Place {
        names,
        layout: store.layout(),
        shard: store.shard(),
    };
    let mut batch = Batch::new(store, messages.iter().map(|message| message.payload.len()).sum());
    let begin = batch.last();
    let known_tail = store.head().tail;
    let mut entries: Vec<(Entry, Slot, Seq)> = Vec::with_capacity(messages.len());
    let mut last = begin;
    let mut at_last = None;
    for message in messages {
        if message.seq == begin && begin > Seq::ZERO && known_tail != 0 && tail_of(message) != known_tail {
            return Ok(Applied::Other { at: begin });
        }
        if message.seq <= last {
            continue;
        }
        if message.seq != last.next() {
            return Ok(Applied::Hole { found: message.seq });
        }
        last = message.seq;
        at_last = Some(message);
        match Entry::decode(&message.subject, &message.payload, place) {
            Ok((entry, slot)) => entries.push((entry, slot, message.seq)),
            Err(error) => tracing::error!(
                stream = names.stream(), seq = %message.seq, subject = %message.subject, %error,
                "a message of the stream is no event and is left out: see who else publishes to the stream's subjects"
            ),
        }
    }
    let Some(at_last) = at_last else {
        return Ok(Applied::All(Vec::new()));
    };
    for publish in entries.chunk_by(|(one, ..), (other, ..)| one.is_of_one_publish_with(other)) {
        append(&mut batch, publish)?;
    }
    batch.reach(last, tail_of(at_last));
    batch.commit()?;
    Ok(Applied::All(
        entries.iter().map(|(entry, _, seq)| (entry.append, *seq)).collect(),
    ))
}

/// Adds the messages of one publish.
fn append(batch: &mut Batch<'_>, publish: &[(Entry, Slot, Seq)]) -> Result<(), StoreError> {
    let Some((first, ..)) = publish.first() else {
        return Ok(());
    };
    // Holders' clocks differ: whoever reads the log sees time go on.
    let time = first.time.max(batch.time());
    let event = Appended {
        event_type: first.event_type.as_ref(),
        data: &first.data,
        time,
    };
    let places: Vec<(&Topic, Slot, Seq)> = publish
        .iter()
        .map(|(entry, slot, seq)| (&entry.topic, *slot, *seq))
        .collect();
    batch.append(&event, &places, |_, _| {})?;
    for (entry, _, seq) in publish {
        if let Some(key) = &entry.key {
            batch.remember(key, &entry.topic, *seq, time)?;
        }
    }
    Ok(())
}

/// What lies up to `last` cannot be had any more: the store goes on after it, and says that everything before is gone.
///
/// # Errors
/// If the store refuses.
pub(super) fn leave_out(store: &Store, last: Seq) -> Result<(), StoreError> {
    let mut batch = Batch::new(store, 0);
    batch.leave_out(last);
    batch.commit()
}

fn tail_of(message: &Delivered) -> u64 {
    tail(&message.subject, &message.payload, message.published_nanos)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        log::{Replay, ReplayRequest, StoreMemory},
        model::{Epoch, Layout, PublishKey, Shard, UnixMillis},
        nats::Subjects,
    };

    const EPOCH: Epoch = Epoch(7);

    fn store(dir: &std::path::Path, epoch: Epoch) -> Arc<Store> {
        Store::open_replica(dir, Layout::EMBEDDED, Shard(0), epoch, &StoreMemory::new(1 << 20)).expect("opened")
    }

    fn names() -> Names {
        Names::new(Subjects::new("c").expect("a name"), Shard(0))
    }

    fn message(seq: u64, topic: &str, data: &str, append: u64) -> Delivered {
        let entry = Entry {
            topic: Topic::parse(topic).expect("a topic"),
            event_type: None,
            data: data.into(),
            time: UnixMillis(1_000 + seq),
            key: Some(PublishKey::parse(&format!("k{seq}")).expect("a key")),
            append,
        };
        Delivered {
            seq: Seq(seq),
            subject: names().subject(Slot(0)),
            payload: entry.encode(Shard(0), EPOCH),
            published_nanos: 5,
        }
    }

    fn read(store: &Store, topic: &str, after: u64) -> Replay {
        let request = ReplayRequest {
            shard: Shard(0),
            epoch: store.epoch(),
            topics: vec![(Topic::parse(topic).expect("a topic"), Seq(after))],
            max_events: 100,
            max_bytes: usize::MAX,
        };
        store.replay(&request).expect("read")
    }

    fn seqs(store: &Store, topic: &str, after: u64) -> Vec<u64> {
        match read(store, topic, after) {
            Replay::Page(page) => page.events.iter().filter_map(|event| Some(event.seq?.0)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_comes_again_is_applied_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path(), EPOCH);
        let all: Vec<_> = (1..=6).map(|seq| message(seq, "a", "x", seq)).collect();
        for piece in [&all[..3], &all[1..4], &all[..2], &all[3..]] {
            assert!(matches!(apply(&store, &names(), piece), Ok(Applied::All(_))));
        }
        assert_eq!(seqs(&store, "a", 0), [1, 2, 3, 4, 5, 6]);
        let key = PublishKey::parse("k4").expect("a key");
        let first = store
            .first_use(&key, &Topic::parse("a").expect("a topic"))
            .expect("read");
        assert_eq!(first, Some((Seq(4), UnixMillis(1_004))));
    }

    #[test]
    fn a_large_payload_of_one_publish_is_kept_once_and_read_by_all_its_topics() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path(), EPOCH);
        let data = "x".repeat(5_000);
        let mut all: Vec<_> = ["a", "b", "c"]
            .iter()
            .zip(1..)
            .map(|(topic, seq)| message(seq, topic, &data, 9))
            .collect();
        for message in &mut all {
            let (entry, _) = Entry::decode(
                &message.subject,
                &message.payload,
                Place {
                    names: &names(),
                    layout: Layout::EMBEDDED,
                    shard: Shard(0),
                },
            )
            .expect("an entry");
            message.payload = Entry {
                time: UnixMillis(5),
                ..entry
            }
            .encode(Shard(0), EPOCH);
        }
        apply(&store, &names(), &all[..2]).expect("applied");
        apply(&store, &names(), &all[2..]).expect("applied");
        assert!(store.head().bytes < 11_000, "{} bytes", store.head().bytes);
        for topic in ["a", "b", "c"] {
            assert_eq!(seqs(&store, topic, 0).len(), 1);
        }
    }

    #[test]
    fn holes_and_other_histories_are_told_and_nothing_is_applied() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path(), EPOCH);
        apply(&store, &names(), &[message(1, "a", "x", 1), message(2, "a", "x", 2)]).expect("applied");
        let hole = [message(4, "a", "x", 4)];
        assert_eq!(apply(&store, &names(), &hole), Ok(Applied::Hole { found: Seq(4) }));
        let other = [message(2, "a", "y", 3), message(3, "a", "y", 3)];
        assert_eq!(apply(&store, &names(), &other), Ok(Applied::Other { at: Seq(2) }));
        assert_eq!(store.head().last, Seq(2));
    }

    #[test]
    fn what_cannot_be_had_any_more_is_gone_for_readers_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let before = store(dir.path(), EPOCH);
        apply(&before, &names(), &[message(1, "a", "x", 1), message(2, "a", "x", 2)]).expect("applied");
        leave_out(&before, Seq(9)).expect("left out");
        let slots = before.head().slots;
        assert_eq!(slots.get(&Slot(0)), Some(&Seq(9)), "it may have been of any slot");
        apply(&before, &names(), &[message(10, "a", "x", 1)]).expect("applied");
        before.close();
        drop(before);
        let store = store(dir.path(), EPOCH);
        let gone = Replay::Gone {
            epoch: EPOCH,
            floor: Seq(10),
        };
        assert_eq!(read(&store, "a", 8), gone);
        assert_eq!(seqs(&store, "a", 9), [10]);
    }

    #[test]
    fn a_message_of_somebody_else_is_left_out_and_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path(), EPOCH);
        let mut alien = message(2, "a", "x", 2);
        alien.payload = "hello".into();
        apply(&store, &names(), &[message(1, "a", "x", 1), alien.clone()]).expect("applied");
        assert_eq!(store.head().last, Seq(2));
        apply(&store, &names(), &[alien, message(3, "a", "x", 3)]).expect("applied");
        assert_eq!(seqs(&store, "a", 0), [1, 3]);
    }

    #[test]
    fn time_goes_on_whatever_the_writers_clocks_say() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path(), EPOCH);
        let late = message(50, "a", "x", 1);
        let pieces = [Delivered { seq: Seq(1), ..late }, message(2, "a", "x", 2)];
        apply(&store, &names(), &pieces).expect("applied");
        assert_eq!(store.head().time, UnixMillis(1_050));
    }

    #[test]
    fn a_store_of_another_epoch_is_made_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = store(dir.path(), EPOCH);
        apply(&first, &names(), &[message(1, "a", "x", 1)]).expect("applied");
        first.close();
        drop(first);
        let same = store(dir.path(), EPOCH);
        assert_eq!((same.epoch(), same.head().last), (EPOCH, Seq(1)));
        same.close();
        drop(same);
        let other = store(dir.path(), Epoch(8));
        assert_eq!(
            (other.epoch(), other.head().last, seqs(&other, "a", 0).len()),
            (Epoch(8), Seq(0), 0)
        );
    }
}
