//! The thread that writes a shard: one batch after the other, all that waits in each.

use std::{collections::HashMap, sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    AppendError, Placed, Receipt,
    clock::Clock,
    local::{Health, QUEUE_BYTES},
};
use crate::{
    bus::{Announcement, Bus},
    log::{Appended, Batch, Store, StoreError},
    model::{Event, Publish, PublishKey, Seq, Slot, Topic, UnixMillis},
};

/// A batch takes no more publishes than this.
const BATCH_PUBLISHES: usize = 4_096;
/// A batch takes no more publishes once it has this many bytes.
const BATCH_BYTES: usize = 8 << 20;
/// What one event takes besides its payload, in bytes: roughly, in memory and on disk.
const EVENT_OVERHEAD: usize = 256;

/// A publish that waits to be written.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) publish: Publish,
    pub(super) reply: oneshot::Sender<Result<Receipt, AppendError>>,
}

impl Entry {
    /// What a publish takes while it is under way, in bytes.
    pub(super) fn cost(publish: &Publish) -> usize {
        publish.data.len() + publish.topics.len() * EVENT_OVERHEAD
    }

    /// How much of the queue's bytes it takes until it is answered.
    pub(super) fn share(publish: &Publish) -> u32 {
        u32::try_from(Self::cost(publish)).map_or(QUEUE_BYTES, |cost| cost.min(QUEUE_BYTES))
    }
}

pub(super) struct Writer {
    pub(super) store: Arc<Store>,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) queue: mpsc::Receiver<Entry>,
    pub(super) clock: Clock,
    pub(super) key_window: Duration,
    pub(super) health: Arc<Health>,
    /// The queue's bytes, of which each entry has taken what it costs.
    pub(super) room: Arc<Semaphore>,
    /// Dropped last: whoever waits for the writer's end waits for this.
    pub(super) _writing: watch::Sender<()>,
}

/// What was made of a batch.
struct Written {
    receipts: Vec<Receipt>,
    announcements: Vec<Announcement>,
}

/// Why a batch was not written.
enum Failure {
    /// Nothing was tried yet.
    Before(StoreError),
    /// The disk may hold it or not.
    Under(StoreError),
}

impl Writer {
    /// Writes until the journal is closed and the queue is empty, then closes the store.
    pub(super) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let entries = self.gather(first);
            let shares: usize = entries.iter().map(|entry| Entry::share(&entry.publish) as usize).sum();
            self.answer(entries);
            self.room.add_permits(shares);
        }
        self.store.close();
    }

    fn gather(&mut self, first: Entry) -> Vec<Entry> {
        let mut bytes = Entry::cost(&first.publish);
        let mut entries = vec![first];
        while entries.len() < BATCH_PUBLISHES && bytes < BATCH_BYTES {
            let Ok(entry) = self.queue.try_recv() else {
                break;
            };
            bytes += Entry::cost(&entry.publish);
            entries.push(entry);
        }
        entries
    }

    fn answer(&mut self, entries: Vec<Entry>) {
        let refused = match self.health.admit() {
            Err(error) => error,
            Ok(()) => match self.write(&entries) {
                Ok(written) => {
                    let bytes: usize = entries.iter().map(|entry| Entry::cost(&entry.publish)).sum();
                    self.health.wrote(bytes);
                    self.bus.announce(&written.announcements);
                    // The last one first: whoever waits for several waits for the first of them, and is woken when all are there.
                    for (entry, receipt) in entries.into_iter().zip(written.receipts).rev() {
                        // Nobody waits any more: the event is durable all the same.
                        let _ = entry.reply.send(Ok(receipt));
                    }
                    return;
                }
                Err(failure) => self.fail(failure),
            },
        };
        for entry in entries.into_iter().rev() {
            let _ = entry.reply.send(Err(refused.clone()));
        }
    }

    fn fail(&self, failure: Failure) -> AppendError {
        match failure {
            Failure::Before(error) => {
                let cause = error.to_string();
                self.health.fail(&cause);
                AppendError::ReadOnly { cause }
            }
            Failure::Under(error) => {
                let cause = error.to_string();
                self.health.fail(&cause);
                AppendError::Unknown { cause }
            }
        }
    }

    fn write(&mut self, entries: &[Entry]) -> Result<Written, Failure> {
        let now = self.clock.after(self.store.head().time);
        let bytes = entries.iter().map(|entry| Entry::cost(&entry.publish)).sum();
        let mut batch = Batch::new(&self.store, bytes);
        let mut keys = Keys::new(&self.store, now, self.key_window);
        let mut written = Written {
            receipts: Vec::with_capacity(entries.len()),
            announcements: Vec::with_capacity(entries.len()),
        };
        for entry in entries {
            self.place(&entry.publish, now, &mut batch, &mut keys, &mut written)
                .map_err(Failure::Before)?;
        }
        batch.commit().map_err(Failure::Under)?;
        Ok(written)
    }

    /// Adds a publish to the batch: the next sequences to the topics on which its key is new, in one go.
    fn place<'e>(
        &self,
        publish: &'e Publish,
        time: UnixMillis,
        batch: &mut Batch<'_>,
        keys: &mut Keys<'e>,
        written: &mut Written,
    ) -> Result<(), StoreError> {
        let (layout, shard, epoch) = (self.store.layout(), self.store.shard(), self.store.epoch());
        let mut placed = SmallVec::with_capacity(publish.topics.len());
        let mut places: SmallVec<[(&Topic, Slot, Seq); 1]> = SmallVec::with_capacity(publish.topics.len());
        let mut next = batch.last().next();
        for topic in &publish.topics {
            let first = match &publish.key {
                None => None,
                Some(key) => keys.first_use(key, topic)?,
            };
            if let Some(seq) = first {
                placed.push(Placed { seq, repeated: true });
                continue;
            }
            if let Some(key) = &publish.key {
                batch.remember(key, topic, next, time)?;
                keys.note(key, topic, next);
            }
            placed.push(Placed {
                seq: next,
                repeated: false,
            });
            places.push((topic, Slot(layout.slot(topic.as_str())), next));
            next = next.next();
        }
        let event = Appended {
            event_type: publish.event_type.as_ref(),
            data: &publish.data,
            time,
        };
        batch.append(&event, &places, |(topic, slot, seq), prev| {
            let event = Event::new(
                topic.clone(),
                publish.event_type.clone(),
                Arc::clone(&publish.data),
                time,
                Some(seq),
            );
            written.announcements.push(Announcement {
                shard,
                epoch,
                slot,
                prev,
                seq,
                event: Arc::new(event),
            });
        })?;
        written.receipts.push(Receipt { placed });
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nothing is given back any more: whoever waits for it is told so.
        self.room.close();
        if std::thread::panicking() {
            self.health.fail("the writer stopped, which is a bug");
        }
    }
}

/// The publishers' keys that count: those of the store that are within the window, and those of the batch under way.
struct Keys<'e> {
    store: &'e Store,
    from: UnixMillis,
    batch: HashMap<(&'e PublishKey, &'e Topic), Seq>,
}

impl<'e> Keys<'e> {
    fn new(store: &'e Store, now: UnixMillis, window: Duration) -> Self {
        let from = now.before(window);
        store.forget_keys_before(from);
        Self {
            store,
            from,
            batch: HashMap::new(),
        }
    }

    /// The sequence that a topic got with the first use of a key, if that counts.
    fn first_use(&self, key: &PublishKey, topic: &Topic) -> Result<Option<Seq>, StoreError> {
        if let Some(&seq) = self.batch.get(&(key, topic)) {
            return Ok(Some(seq));
        }
        let stored = self.store.first_use(key, topic)?;
        Ok(stored.and_then(|(seq, time)| (time >= self.from).then_some(seq)))
    }

    fn note(&mut self, key: &'e PublishKey, topic: &'e Topic, seq: Seq) {
        self.batch.insert((key, topic), seq);
    }
}
