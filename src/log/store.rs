//! One shard's store: a RocksDB database, and in memory how far it has come.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, IteratorMode, ReadOptions, WriteOptions};

use super::{
    Heads, ReadError,
    doubts::Doubts,
    format::{self, Home, OpenError},
    history::History,
    keys,
    options::{self, Bounds, Column, StoreMemory},
    retention::Floor,
    value::{
        StoredEpoch, StoredFloor, StoredHead, StoredIdentity, StoredKey, StoredMilestone, StoredSeq, ValueError,
        decode, encode,
    },
};
use crate::model::{Epoch, Layout, PublishKey, Seq, Shard, Slot, Topic, UnixMillis};

/// One shard's events on disk. The journal writes them, the log reads them; both share it.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    layout: Layout,
    shard: Shard,
    epoch: Epoch,
    history: History,
    is_replica: bool,
    /// `None` once it is closed. Readers hold the lock for one page at most, so closing waits for them and then is final.
    db: RwLock<Option<DB>>,
    head: Mutex<Head>,
    bounds: Arc<Bounds>,
    /// The floor as it is stored; the bounds have what reads and compaction go by.
    pub(super) kept: Mutex<Floor>,
    /// In a replica, the positions beyond its stream's end.
    doubts: Mutex<Doubts>,
}

/// How far the shard has come. What is in here is durable and readable.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The last sequence.
    pub(crate) last: Seq,
    /// The time of the last event.
    pub(crate) time: UnixMillis,
    /// How many bytes the shard has been given since the beginning.
    pub(crate) bytes: u64,
    /// In a replica, what tells the message at `last` from any other: 0 if it is not known.
    pub(crate) tail: u64,
    /// The last milestone.
    pub(crate) milestone: Option<Milestone>,
    /// The last sequence of each slot that has one.
    pub(crate) slots: Arc<HashMap<Slot, Seq>>,
}

/// What lies around a sequence that ends a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Milestone {
    /// The sequence: 0 before the first event of all.
    pub(crate) seq: Seq,
    /// The time of the first event after it.
    pub(crate) time: UnixMillis,
    /// How many bytes the shard had been given up to it.
    pub(crate) bytes: u64,
}

impl Store {
    /// Opens the store of a shard in a data directory, and makes both if they are new. `cache_bytes`: memory for blocks that were read.
    ///
    /// # Errors
    /// If the directory is not Tidings' own, is of another layout or a newer version, is in use, or cannot be read or written.
    pub fn open(dir: &Path, layout: Layout, shard: Shard, cache_bytes: usize) -> Result<Arc<Self>, OpenError> {
        Self::open_in(dir, layout, Home::Alone, shard, &StoreMemory::new(cache_bytes))
    }

    /// The same for a node of a cluster that owns the shard: its disk is where the shard's events are. `home` is written in the directory
    /// when it is new, and compared ever after.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if the directory was made for another home.
    pub fn open_in(
        dir: &Path,
        layout: Layout,
        home: Home,
        shard: Shard,
        memory: &StoreMemory,
    ) -> Result<Arc<Self>, OpenError> {
        let dir = format::claim(dir, layout, home, shard)?;
        let bounds = Arc::new(Bounds::default());
        let db = open_database(&dir, memory, &bounds)?;
        let recovered = recover(&db, shard, Lives::Begins).map_err(|error| error.of(&dir, shard))?;
        Ok(Self::opened(dir, layout, shard, db, bounds, recovered, false))
    }

    /// Checks that a directory can be used for the replica of a shard, and makes it if it is new.
    ///
    /// # Errors
    /// As [`open_in`](Self::open_in).
    pub fn claim_replica(dir: &Path, layout: Layout, shard: Shard) -> Result<(), OpenError> {
        format::claim(dir, layout, Home::Replica, shard).map(drop)
    }

    /// Opens a replica of what a `JetStream` stream holds, of the stream's epoch. What the directory has of another epoch is wiped: the stream
    /// is the truth, and the replica is made again from it.
    ///
    /// # Errors
    /// As [`open_in`](Self::open_in).
    pub fn open_replica(
        dir: &Path,
        layout: Layout,
        shard: Shard,
        epoch: Epoch,
        memory: &StoreMemory,
    ) -> Result<Arc<Self>, OpenError> {
        let dir = format::claim(dir, layout, Home::Replica, shard)?;
        let lives = Lives::In(epoch);
        let bounds = Arc::new(Bounds::default());
        let db = open_database(&dir, memory, &bounds)?;
        let recovered = match recover(&db, shard, lives) {
            Err(RecoverError::OtherEpoch(found)) => {
                tracing::warn!(dir = %dir.display(), %shard, %epoch, %found, "the store is of another epoch of the stream: it is made again");
                drop(db);
                format::wipe(&dir)?;
                let db = open_database(&dir, memory, &bounds)?;
                let recovered = recover(&db, shard, lives).map_err(|error| error.of(&dir, shard))?;
                return Ok(Self::opened(dir, layout, shard, db, bounds, recovered, true));
            }
            recovered => recovered.map_err(|error| error.of(&dir, shard))?,
        };
        Ok(Self::opened(dir, layout, shard, db, bounds, recovered, true))
    }

    fn opened(
        dir: PathBuf,
        layout: Layout,
        shard: Shard,
        db: DB,
        bounds: Arc<Bounds>,
        recovered: Recovered,
        is_replica: bool,
    ) -> Arc<Self> {
        bounds.raise_floor(recovered.floor.seq);
        tracing::info!(
            dir = %dir.display(), %shard, epoch = %recovered.epoch, last = %recovered.head.last, floor = %recovered.floor.seq,
            "store opened"
        );
        Arc::new(Self {
            dir,
            layout,
            shard,
            epoch: recovered.epoch,
            history: recovered.history,
            is_replica,
            db: RwLock::new(Some(db)),
            head: Mutex::new(recovered.head),
            bounds,
            kept: Mutex::new(recovered.floor),
            doubts: Mutex::default(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The layout it was made for.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The shard it holds.
    #[must_use]
    pub const fn shard(&self) -> Shard {
        self.shard
    }

    /// The shard's incarnation, which began when the store was opened; a replica's is the stream's.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether it is a replica, which may have yet to come to what others hold: a position of its epoch that lies ahead of it may well be one
    /// that the shard has issued.
    #[must_use]
    pub const fn may_lag(&self) -> bool {
        self.is_replica
    }

    /// The leader of a replica's stream said where that ends, when it was asked then. A position of the stream's epoch beyond it that was asked
    /// for so long before that is none of this history: it was lost, or never issued.
    pub(crate) fn leader_said(&self, end: Seq, asked: Instant, confirmed_after: Duration) {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.ends_at(end, asked, confirmed_after);
    }

    /// Whether a position beyond what the replica has applied is known to be lost.
    pub(super) fn is_lost(&self, position: Seq) -> bool {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.is_lost(position, Instant::now())
    }

    /// Whether a position is of this shard's history, which has come to `last`.
    pub(super) fn has_been_at(&self, epoch: Epoch, position: Seq, last: Seq) -> bool {
        self.history.has(epoch, position, last)
    }

    /// The lowest sequence that may still be kept; 1 while nothing was dropped.
    #[must_use]
    pub fn floor(&self) -> Seq {
        self.bounds.floor()
    }

    /// How far the shard and its slots have come.
    #[must_use]
    pub fn heads(&self) -> Heads {
        let head = self.head();
        Heads {
            shard: self.shard,
            epoch: self.epoch,
            last: head.last,
            floor: self.floor(),
            slots: Arc::clone(&head.slots),
        }
    }

    /// Closes the database: flushes what is only in memory and its write-ahead log, ends compactions, waits for reads under way and lets
    /// go of the directory. Nothing can be read or written afterwards. Again: nothing.
    pub fn close(&self) {
        let flushed = self.with(|db| {
            for column in Column::ALL {
                db.db.flush_cf(db.column(column))?;
            }
            Ok(())
        });
        match flushed {
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "not flushed at close, the next start reads the write-ahead log instead");
            }
            Ok(()) => {}
        }
        let cancelled = self.with(|db| {
            db.db.cancel_all_background_work(true);
            Ok(())
        });
        if cancelled.is_ok() {
            self.db.write().unwrap_or_else(PoisonError::into_inner).take();
            tracing::info!(dir = %self.dir.display(), "store closed");
        }
    }

    /// The first use of a publisher's key on a topic, if it is still known.
    pub(crate) fn first_use(&self, key: &PublishKey, topic: &Topic) -> Result<Option<(Seq, UnixMillis)>, StoreError> {
        let key = keys::publish_key(key, topic);
        let first: Option<StoredKey> = self.with(|db| db.record(Column::Keys, &key))?;
        Ok(first.map(|first| (Seq(first.seq), UnixMillis(first.time_ms))))
    }

    /// Lets compaction drop the publishers' keys that were first used before a time.
    pub(crate) fn forget_keys_before(&self, time: UnixMillis) {
        self.bounds.raise_keys(time);
    }

    /// How far the shard has come.
    pub(crate) fn head(&self) -> Head {
        self.lock_head().clone()
    }

    /// Lets readers see what was just made durable.
    pub(super) fn advance(&self, head: Head) {
        *self.lock_head() = head;
    }

    /// Lets reads and compaction go by a floor that is durable.
    pub(super) fn raise_floor(&self, floor: Seq) {
        self.bounds.raise_floor(floor);
    }

    /// Works on the database, which stays open for as long.
    pub(super) fn with<T>(&self, work: impl FnOnce(Columns<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        work(Columns {
            db: db.as_ref().ok_or(StoreError::Closed)?,
        })
    }

    fn lock_head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes that are on the disk when they return.
pub(super) fn durably() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// The open database.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) db: &'a DB,
}

impl<'a> Columns<'a> {
    pub(super) fn column(self, column: Column) -> &'a ColumnFamily {
        self.db
            .cf_handle(column.name())
            .expect("a database opens with all its column families or not at all")
    }

    /// A record, if there is one.
    pub(super) fn record<M: prost::Message + Default>(
        self,
        column: Column,
        key: &[u8],
    ) -> Result<Option<M>, StoreError> {
        match self.db.get_pinned_cf(self.column(column), key)? {
            None => Ok(None),
            Some(value) => Ok(Some(decode(&value)?)),
        }
    }

    /// Where a column family can be walked: within one prefix of its keys, where [`options`](super::options) gives it prefixes.
    pub(super) fn walk(self, column: Column, options: ReadOptions) -> DBRawIterator<'a> {
        self.db.raw_iterator_cf_opt(self.column(column), options)
    }
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It was closed.
    #[error("the store is closed")]
    Closed,
    /// RocksDB says no.
    #[error("{0}")]
    Database(#[from] rocksdb::Error),
    /// A value that cannot be read.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// What is stored does not fit together.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::failed(error)
    }
}

fn refused(dir: &Path, error: &rocksdb::Error) -> OpenError {
    let text = error.as_ref();
    let dir = dir.to_path_buf();
    if text.contains("lock hold by current process") || text.contains("While lock file") {
        OpenError::Locked { dir }
    } else {
        OpenError::Store {
            dir,
            cause: text.to_owned(),
        }
    }
}

struct Recovered {
    epoch: Epoch,
    history: History,
    floor: Floor,
    head: Head,
}

enum RecoverError {
    OtherShard(u32),
    OtherEpoch(Epoch),
    Store(StoreError),
}

impl RecoverError {
    fn of(self, dir: &Path, expected: Shard) -> OpenError {
        let dir = dir.to_path_buf();
        match self {
            Self::OtherShard(found) => OpenError::OtherShard { dir, found, expected },
            Self::OtherEpoch(found) => OpenError::Store {
                dir,
                cause: format!("it is of epoch {found}, although it was made again"),
            },
            Self::Store(error) => OpenError::Store {
                dir,
                cause: error.to_string(),
            },
        }
    }
}

/// Where a store's epoch comes from.
#[derive(Debug, Clone, Copy)]
enum Lives {
    /// Its start begins one.
    Begins,
    /// It is the stream's.
    In(Epoch),
}

impl<E: Into<StoreError>> From<E> for RecoverError {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

fn open_database(dir: &Path, memory: &StoreMemory, bounds: &Arc<Bounds>) -> Result<DB, OpenError> {
    let columns =
        Column::ALL.map(|column| ColumnFamilyDescriptor::new(column.name(), options::column(column, memory, bounds)));
    DB::open_cf_descriptors(&options::database(memory), dir, columns).map_err(|error| refused(dir, &error))
}

/// Reads how far the shard had come, and begins its next epoch if it is one that its starts begin.
fn recover(db: &DB, shard: Shard, lives: Lives) -> Result<Recovered, RecoverError> {
    let columns = Columns { db };
    let meta = columns.column(Column::Meta);
    let head: StoredHead = columns.record(Column::Meta, keys::HEAD)?.unwrap_or_default();
    let stored: Option<StoredIdentity> = columns.record(Column::Meta, keys::IDENTITY)?;
    let mut history = match stored {
        Some(identity) if identity.shard != u32::from(shard.0) => return Err(RecoverError::OtherShard(identity.shard)),
        Some(identity) => History::of(identity.epochs.iter().map(|life| (Epoch(life.epoch), Seq(life.after)))),
        None => History::default(),
    };
    let present = history.epochs().next_back().map(|(epoch, _)| epoch);
    let epoch = match (lives, present) {
        (Lives::Begins, _) => Epoch(rand::random_range(1..=u32::MAX)),
        (Lives::In(epoch), Some(found)) if found != epoch => return Err(RecoverError::OtherEpoch(found)),
        (Lives::In(epoch), _) => epoch,
    };
    if present != Some(epoch) {
        history.begin(epoch, Seq(head.last));
    }
    let identity = StoredIdentity {
        shard: u32::from(shard.0),
        epochs: history
            .epochs()
            .map(|(Epoch(epoch), Seq(after))| StoredEpoch { epoch, after })
            .collect(),
    };
    db.put_cf_opt(meta, keys::IDENTITY, encode(&identity), &durably())
        .map_err(StoreError::from)?;
    let floor: Option<StoredFloor> = columns.record(Column::Meta, keys::FLOOR)?;
    let mut slots = HashMap::new();
    for entry in db.iterator_cf(meta, IteratorMode::Start) {
        let (key, value) = entry.map_err(StoreError::from)?;
        if let Some(slot) = keys::slot_in(&key) {
            let last: StoredSeq = decode(&value).map_err(StoreError::from)?;
            slots.insert(slot, Seq(last.seq));
        }
    }
    let mut milestones = columns.walk(Column::Milestones, ReadOptions::default());
    milestones.seek_to_last();
    Ok(Recovered {
        epoch,
        history,
        floor: floor.unwrap_or(StoredFloor::BEGINNING).into(),
        head: Head {
            last: Seq(head.last),
            time: UnixMillis(head.time_ms),
            bytes: head.bytes,
            tail: head.tail,
            milestone: milestone_at(&milestones)?,
            slots: Arc::new(slots),
        },
    })
}

/// The milestone where a walk stands, if it stands on one.
pub(super) fn milestone_at(walk: &DBRawIterator<'_>) -> Result<Option<Milestone>, StoreError> {
    let Some((key, value)) = walk.item() else {
        walk.status()?;
        return Ok(None);
    };
    let seq = keys::seq(key).ok_or_else(|| StoreError::Damaged("a milestone without a sequence".to_owned()))?;
    let stored: StoredMilestone = decode(value)?;
    Ok(Some(Milestone {
        seq,
        time: UnixMillis(stored.time_ms),
        bytes: stored.bytes,
    }))
}
