//! What is written in one go: events, the publishers' keys they came with, and how far the shard has come with them.

use std::{collections::HashMap, sync::Arc};

use rocksdb::WriteBatch;

use super::{
    keys,
    options::Column,
    retention::Floor,
    store::{Columns, Head, Milestone, Store, StoreError, durably},
    value::{EventToStore, StoredBody, StoredFloor, StoredHead, StoredKey, StoredMilestone, StoredSeq, encode},
};
use crate::model::{EventType, PublishKey, Seq, Slot, Topic, UnixMillis};

/// A payload longer than this that goes to several topics is stored once, in bytes.
const SHARED_ABOVE: usize = 512;
/// Milestones are at least this far apart in time, in milliseconds, or [`MILESTONE_BYTES`] in bytes. Part of the format: a milestone says
/// that the events after it, up to the next one, are no later than this after its time.
pub(super) const MILESTONE_MILLIS: u64 = 100;
const MILESTONE_BYTES: u64 = 1 << 20;

/// What is to be written in one go. Nothing of it can be read before [`Batch::commit`] returns, and all of it afterwards.
pub(crate) struct Batch<'s> {
    store: &'s Store,
    write: WriteBatch,
    head: Head,
    slots: Slots,
    /// Where the floor is to be, if the batch leaves something out.
    floor: Option<Floor>,
    /// Whether there is anything to write.
    moved: bool,
    /// The key and the value that are being put.
    key: Vec<u8>,
    value: Vec<u8>,
}

/// The slots that a batch changes. As a rule the next event is of the same slot as the last one: an embedded server has only one.
#[derive(Debug, Default)]
struct Slots {
    latest: Option<(Slot, Seq)>,
    others: HashMap<Slot, Seq>,
}

impl Slots {
    /// A slot has come to a sequence. Answers where it was, if that is of this batch.
    fn advance(&mut self, slot: Slot, seq: Seq) -> Option<Seq> {
        match self.latest.replace((slot, seq)) {
            Some((same, before)) if same == slot => return Some(before),
            Some((other, last)) => drop(self.others.insert(other, last)),
            None => {}
        }
        self.others.remove(&slot)
    }

    fn iter(&self) -> impl Iterator<Item = (Slot, Seq)> {
        let others = self.others.iter().map(|(&slot, &seq)| (slot, seq));
        self.latest.into_iter().chain(others)
    }
}

/// One event of a batch, for one or several topics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended<'e> {
    /// Its type.
    pub(crate) event_type: Option<&'e EventType>,
    /// Its payload.
    pub(crate) data: &'e str,
    /// When it is appended: no earlier than anything before it.
    pub(crate) time: UnixMillis,
}

impl<'s> Batch<'s> {
    /// An empty batch, to follow what the store holds. There must be only one at a time. `bytes`: how large it becomes, about.
    pub(crate) fn new(store: &'s Store, bytes: usize) -> Self {
        Self {
            store,
            write: WriteBatch::with_capacity_bytes(bytes),
            head: store.head(),
            slots: Slots::default(),
            floor: None,
            moved: false,
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// The last sequence, with what is in the batch.
    pub(crate) const fn last(&self) -> Seq {
        self.head.last
    }

    /// The time of the last event, with what is in the batch.
    pub(crate) const fn time(&self) -> UnixMillis {
        self.head.time
    }

    /// Adds an event to its topics, whose sequences ascend and follow all before them. `each` hears of every place, with the last sequence
    /// before it in its slot; 0 if that has none.
    pub(crate) fn append<'t>(
        &mut self,
        event: &Appended<'_>,
        places: &[(&'t Topic, Slot, Seq)],
        mut each: impl FnMut((&'t Topic, Slot, Seq), Seq),
    ) -> Result<(), StoreError> {
        let Some(&(_, _, last)) = places.last() else {
            return Ok(());
        };
        let store = self.store;
        store.with(|db| {
            self.mark(db, event.time);
            let shared = places.len() > 1 && event.data.len() > SHARED_ABOVE;
            if shared {
                let (key, value) = (
                    keys::of_seq(last),
                    encode(&StoredBody {
                        data: event.data.to_owned(),
                    }),
                );
                self.write.put_cf(db.column(Column::Bodies), key, &value);
                self.head.bytes += (key.len() + value.len()) as u64;
            }
            // The same for each topic: what differs is in the key.
            let to_store = EventToStore {
                event_type: event.event_type.map(EventType::as_str),
                data: if shared { "" } else { event.data },
                time_ms: event.time.0,
                body: shared.then_some(last.0),
            };
            to_store.write(&mut self.value);
            let events = db.column(Column::Events);
            for &(topic, slot, seq) in places {
                keys::write_event(&mut self.key, topic, seq);
                self.write.put_cf(events, &self.key, &self.value);
                self.head.bytes += (self.key.len() + self.value.len()) as u64;
                let before = || self.head.slots.get(&slot).copied();
                let prev = self.slots.advance(slot, seq).or_else(before).unwrap_or(Seq::ZERO);
                each((topic, slot, seq), prev);
            }
            Ok(())
        })?;
        self.head.last = last;
        self.head.time = event.time;
        self.moved = true;
        Ok(())
    }

    /// In a replica: the shard has come to `last`, where the message is the one that `tail` tells.
    pub(crate) fn reach(&mut self, last: Seq, tail: u64) {
        self.moved |= last != self.head.last;
        self.head.last = last;
        self.head.tail = tail;
    }

    /// In a replica: what lies up to `last`, after all that the store has, cannot be had any more. History begins after it.
    pub(crate) fn leave_out(&mut self, last: Seq) {
        self.reach(last, 0);
        // Any slot may have had something there: one that is said to have come less far would be taken to have missed nothing.
        let (layout, shard) = (self.store.layout(), self.store.shard());
        for slot in (0..layout.slots()).filter(|&slot| layout.shard(slot) == shard.0) {
            self.slots.advance(Slot(slot), last);
        }
        // The next event sets one: the floor stands on milestones.
        self.head.milestone = None;
        let reclaimed = self.store.lock_floor().reclaimed;
        self.floor = Some(Floor {
            seq: last.next(),
            bytes: self.head.bytes,
            reclaimed,
        });
    }

    /// Notes the first use of a publisher's key on a topic.
    pub(crate) fn remember(
        &mut self,
        key: &PublishKey,
        topic: &Topic,
        seq: Seq,
        time: UnixMillis,
    ) -> Result<(), StoreError> {
        let first = StoredKey {
            seq: seq.0,
            time_ms: time.0,
        };
        self.store.with(|db| {
            self.write
                .put_cf(db.column(Column::Keys), keys::publish_key(key, topic), encode(&first));
            Ok(())
        })
    }

    /// Makes it durable, then readable. A batch without events writes nothing.
    pub(crate) fn commit(mut self) -> Result<(), StoreError> {
        if !self.moved {
            return Ok(());
        }
        // Retention moves the floor too: what is on the disk and what reads go by have to be the same one.
        let kept = self.floor.map(|floor| (self.store.lock_floor(), floor));
        self.write()?;
        if let Some((mut kept, floor)) = kept {
            *kept = floor;
            self.store.raise_floor(floor.seq);
        }
        Arc::make_mut(&mut self.head.slots).extend(self.slots.iter());
        self.store.advance(self.head);
        Ok(())
    }

    /// Makes it durable. Until the store is told so, readers see nothing of it.
    pub(super) fn write(&mut self) -> Result<(), StoreError> {
        let mut write = std::mem::take(&mut self.write);
        self.store.with(|db| {
            let meta = db.column(Column::Meta);
            for (slot, Seq(seq)) in self.slots.iter() {
                write.put_cf(meta, keys::slot(slot), encode(&StoredSeq { seq }));
            }
            let head = StoredHead {
                last: self.head.last.0,
                time_ms: self.head.time.0,
                bytes: self.head.bytes,
                tail: self.head.tail,
            };
            write.put_cf(meta, keys::HEAD, encode(&head));
            if let Some(floor) = self.floor {
                write.put_cf(meta, keys::FLOOR, encode(&StoredFloor::from(floor)));
            }
            Ok(db.db.write_opt(write, &durably())?)
        })
    }

    /// Sets a milestone before the next event if the last one is far enough back.
    fn mark(&mut self, db: Columns<'_>, time: UnixMillis) {
        let due = self.head.milestone.is_none_or(|last| {
            time.0 >= last.time.0.saturating_add(MILESTONE_MILLIS) || self.head.bytes >= last.bytes + MILESTONE_BYTES
        });
        if due {
            let milestone = Milestone {
                seq: self.head.last,
                time,
                bytes: self.head.bytes,
            };
            let stored = StoredMilestone {
                time_ms: milestone.time.0,
                bytes: milestone.bytes,
            };
            self.write.put_cf(
                db.column(Column::Milestones),
                keys::of_seq(milestone.seq),
                encode(&stored),
            );
            self.head.milestone = Some(milestone);
        }
    }
}
