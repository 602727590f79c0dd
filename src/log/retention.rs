//! Retention: a floor under which history is gone, moved up by age and by bytes.
//!
//! The floor is a sequence, and counts at once for every read. The space below it comes back later, when compaction passes. Milestones
//! map time and bytes to sequences; they are up to 100 ms or 1 MiB apart, and the floor stands only on them, so what is kept is never
//! less than asked for. Bytes are those of the keys and values as they were written, before compression and without RocksDB's own
//! overhead: an approximation of the disk they take, and as a rule more than it.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use rocksdb::{DBRawIterator, ReadOptions};

use super::{
    batch::MILESTONE_MILLIS,
    keys,
    options::Column,
    store::{Columns, Milestone, Store, StoreError, durably, milestone_at},
    value::{StoredFloor, encode},
};
use crate::model::{Seq, UnixMillis};

/// Space is taken back when at least this much of it is to be had, in bytes, and at least a quarter of what is kept.
const WORTH_COMPACTING: u64 = 64 << 20;

/// How much history is kept: what is past either bound is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events are kept at least this long.
    pub age: Duration,
    /// And at least this many bytes of the latest of them.
    pub bytes: u64,
}

/// Where the floor is, in sequences and in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Floor {
    /// The lowest sequence that is kept.
    pub(super) seq: Seq,
    /// How many bytes the shard had been given below it.
    pub(super) bytes: u64,
    /// How many of those compaction has given back.
    pub(super) reclaimed: u64,
}

impl Floor {
    /// Whether compaction has enough to give back, of a shard that has been given so many bytes.
    fn is_worth_compacting(self, total: u64) -> bool {
        let kept = total.saturating_sub(self.bytes);
        self.bytes.saturating_sub(self.reclaimed) >= WORTH_COMPACTING.max(kept / 4)
    }
}

impl From<Floor> for StoredFloor {
    fn from(floor: Floor) -> Self {
        Self {
            seq: floor.seq.0,
            bytes: floor.bytes,
            reclaimed: floor.reclaimed,
        }
    }
}

impl From<StoredFloor> for Floor {
    fn from(stored: StoredFloor) -> Self {
        Self {
            seq: Seq(stored.seq),
            bytes: stored.bytes,
            reclaimed: stored.reclaimed,
        }
    }
}

/// Applies the retention to a store, at once and then at every interval, until it is dropped or the store is closed.
pub async fn keep(store: Arc<Store>, retention: Retention, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let store = Arc::clone(&store);
        let applied = tokio::task::spawn_blocking(move || {
            store.retain(&retention, UnixMillis::now())?;
            store.reclaim()
        });
        match applied.await {
            Ok(Ok(())) => {}
            Ok(Err(StoreError::Closed)) => return,
            Ok(Err(error)) => tracing::warn!(%error, "retention not applied, history grows until it is"),
            Err(error) => tracing::error!(%error, "retention not applied, history grows until it is"),
        }
    }
}

impl Store {
    /// Moves the floor up to where the retention has it at a time; it never comes down. Answers where it is.
    ///
    /// # Errors
    /// If the store cannot be read or written; the floor then stays where it is.
    pub fn retain(&self, retention: &Retention, now: UnixMillis) -> Result<Seq, StoreError> {
        let mut floor = self.lock_floor();
        let head = self.head();
        let (by_age, by_bytes) = self.with(|db| {
            let by_age = self.locate_in(db, head.last, floor.seq, now.before(retention.age))?;
            let by_bytes = match head.bytes.checked_sub(retention.bytes) {
                None => Seq::ZERO,
                Some(excess) => last_milestone(db, head.last, |milestone| milestone.bytes <= excess)?
                    .map_or(Seq::ZERO, |milestone| milestone.seq),
            };
            Ok((by_age, by_bytes))
        })?;
        let gone = by_age.max(by_bytes);
        if gone < floor.seq {
            return Ok(floor.seq);
        }
        let bytes = if gone == head.last {
            head.bytes
        } else {
            self.with(|db| last_milestone(db, head.last, |milestone| milestone.seq <= gone))?
                .map_or(floor.bytes, |milestone| milestone.bytes)
        };
        let raised = Floor {
            seq: gone.next(),
            bytes,
            reclaimed: floor.reclaimed,
        };
        self.write_floor(raised)?;
        *floor = raised;
        self.raise_floor(raised.seq);
        tracing::debug!(floor = %raised.seq, last = %head.last, "floor raised");
        Ok(raised.seq)
    }

    /// Has compaction give back the space below the floor, if there is enough of it. Takes as long as rewriting what is kept.
    ///
    /// # Errors
    /// If the store is closed, or cannot note what was done.
    pub fn reclaim(&self) -> Result<(), StoreError> {
        let floor = *self.lock_floor();
        if !floor.is_worth_compacting(self.head().bytes) {
            return Ok(());
        }
        self.compact(floor.seq)?;
        let mut now = self.lock_floor();
        now.reclaimed = floor.bytes;
        self.write_floor(*now)
    }

    /// Compacts whatever may lie below a sequence.
    pub(super) fn compact(&self, floor: Seq) -> Result<(), StoreError> {
        self.with(|db| {
            let (none, below) = (None::<&[u8]>, Some(keys::of_seq(floor)));
            for column in [Column::Bodies, Column::Milestones] {
                db.db.compact_range_cf(db.column(column), none, below);
            }
            // Sorted by topic first: what is below the floor may be anywhere.
            db.db.compact_range_cf(db.column(Column::Events), none, none);
            Ok(())
        })
    }

    /// The sequence after which everything at or after a time stands; up to 100 ms of earlier events may follow it too.
    pub(super) fn locate(&self, time: UnixMillis) -> Result<Seq, StoreError> {
        let (last, floor) = (self.head().last, self.floor());
        self.with(|db| self.locate_in(db, last, floor, time))
    }

    fn locate_in(&self, db: Columns<'_>, last: Seq, floor: Seq, time: UnixMillis) -> Result<Seq, StoreError> {
        let lowest = Seq(floor.0.saturating_sub(1));
        let Some(before) = last_milestone(db, last, |milestone| milestone.time < time)? else {
            return Ok(lowest);
        };
        let located = if before.time.0.saturating_add(MILESTONE_MILLIS) <= time.0 {
            // Whatever follows it, up to the next one, is earlier too.
            let mut walk = milestones(db);
            walk.seek(keys::of_seq(before.seq.next()));
            milestone_at(&walk)?.map_or(last, |next| next.seq.min(last))
        } else {
            before.seq
        };
        Ok(located.max(lowest))
    }

    fn write_floor(&self, floor: Floor) -> Result<(), StoreError> {
        let stored = StoredFloor::from(floor);
        self.with(|db| {
            let meta = db.column(Column::Meta);
            Ok(db.db.put_cf_opt(meta, keys::FLOOR, encode(&stored), &durably())?)
        })
    }

    pub(super) fn lock_floor(&self) -> MutexGuard<'_, Floor> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milestones(db: Columns<'_>) -> DBRawIterator<'_> {
    db.walk(Column::Milestones, ReadOptions::default())
}

/// The last milestone up to `last` that is `before` something, which is so of all those up to it and of none after it.
fn last_milestone(
    db: Columns<'_>,
    last: Seq,
    before: impl Fn(&Milestone) -> bool,
) -> Result<Option<Milestone>, StoreError> {
    let mut walk = milestones(db);
    let mut found = None;
    let (mut low, mut high) = (0, last.0);
    while low <= high {
        let middle = low + (high - low) / 2;
        walk.seek_for_prev(keys::of_seq(Seq(middle)));
        match milestone_at(&walk)? {
            Some(milestone) if !before(&milestone) => match milestone.seq.0.checked_sub(1) {
                Some(below) => high = below,
                None => break,
            },
            milestone => {
                found = milestone.or(found);
                low = middle + 1;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
