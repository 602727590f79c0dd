//! How RocksDB is set up.
//!
//! The process keeps most of its file descriptors for connections, so the store may open only [`OPEN_FILES`]. Nothing is written without
//! a sync, so at start only the end of the write-ahead log may be torn; anything else that is damaged there stops the start, because
//! going on without it would silently take back what was acknowledged.
//!
//! What was written last is kept in memory by topic: a hash table of skip lists, one for each prefix of [`keys`]. So an event is put behind the
//! last one of its topic, where a skip list over all topics would first have to find that place, at the price of half of the writer's time.
//! Such a table is only ever read within one prefix, and written by one thread at a time.
//!
//! A write is first in the write-ahead log and in memory. To be flushed, at close, and to be read back and flushed, at start, what is in
//! memory needs as much space again. [`Store::RESERVE`] is what has to be kept for that.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rocksdb::{
    BlockBasedOptions, Cache, CompactionDecision, DBCompressionType, DBRecoveryMode, LogLevel, MemtableFactory,
    Options, SliceTransform, WriteBufferManager,
};

use super::{
    keys,
    store::Store,
    value::{self, StoredKey},
};
use crate::model::{Seq, UnixMillis};

/// How many files a store has open at most, and how many it needs.
const OPEN_FILES: usize = 512;
const FEWEST_OPEN_FILES: usize = 48;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How many memtables a column family has at most: one that is written, and one that is being flushed. Then writes wait.
const MEMTABLES: i32 = 2;
/// How large write-ahead logs grow together. The columns that are written least hold on to old ones: they are flushed once there is this much, so
/// that one log at a time goes. Several that are deleted at once can keep the file system's journal, and with it every sync, waiting.
const WAL_BYTES: usize = write_buffer(Column::Events) * 3 / 2;
const INFO_LOGS: usize = 2;
const INFO_LOG_BYTES: usize = 4 * MIB;
/// What is written but not flushed takes about this much memory at most, over all stores that share it.
const WRITE_BUFFERS: usize = 96 * MIB;

/// Memory that stores share: all those of a node, so that eight shards take no more than one. And how many files each of them has open.
#[derive(Clone)]
pub struct StoreMemory {
    cache: Cache,
    buffers: WriteBufferManager,
    open_files: usize,
}

impl StoreMemory {
    /// `cache_bytes`: memory for blocks that were read.
    #[must_use]
    pub fn new(cache_bytes: usize) -> Self {
        Self {
            cache: Cache::new_lru_cache(cache_bytes),
            buffers: WriteBufferManager::new_write_buffer_manager(WRITE_BUFFERS, false),
            open_files: OPEN_FILES,
        }
    }

    /// For so many stores that have so many files between them: a store that cannot open a file cannot write any more.
    #[must_use]
    pub fn with_files(self, files: usize, stores: usize) -> Self {
        Self {
            open_files: (files / stores.max(1)).clamp(FEWEST_OPEN_FILES, OPEN_FILES),
            ..self
        }
    }
}

impl std::fmt::Debug for StoreMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreMemory").finish_non_exhaustive()
    }
}

impl Store {
    /// How many bytes of the disk have to stay free, so that the store can flush what it has in memory, begin another write-ahead log,
    /// and be opened again after any end. Whoever writes keeps an eye on that, and looks again after 4 MiB at the latest.
    pub const RESERVE: u64 = 256 * MIB as u64;
}

const _: () = {
    let largest = write_buffer(Column::Events);
    let mut memtables = 0;
    let mut column = 0;
    while column < Column::ALL.len() {
        assert!(write_buffer(Column::ALL[column]) <= largest);
        memtables += MEMTABLES as usize * write_buffer(Column::ALL[column]);
        column += 1;
    }
    // RocksDB allocates so much for a write-ahead log ahead of time.
    let wal = largest + largest / 10;
    let manifest = 4 * MIB;
    // What is written between two looks at the disk, with the largest batch.
    let under_way = 32 * MIB;
    let needed = memtables + wal + manifest + INFO_LOGS * INFO_LOG_BYTES + under_way;
    assert!(needed as u64 <= Store::RESERVE);
};

/// Into how many lists a table in memory is split by the hash of the prefix. Those that share one are a little slower; each takes 8 bytes.
const BUCKETS: usize = 1 << 15;

/// The longest that the name of a key which is out of its window may stay on disk, in seconds.
const KEYS_STAY_SECONDS: u64 = 6 * 60 * 60;

/// A column family; [`super::keys`] says what is in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Events,
    Bodies,
    Keys,
    Milestones,
    Meta,
}

impl Column {
    pub(super) const ALL: [Self; 5] = [Self::Events, Self::Bodies, Self::Keys, Self::Milestones, Self::Meta];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Bodies => "bodies",
            Self::Keys => "keys",
            Self::Milestones => "milestones",
            Self::Meta => "meta",
        }
    }
}

/// What compaction may drop. Each bound is set only after it is durable or derived from the clock, and never falls.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    floor: AtomicU64,
    keys_from: AtomicU64,
}

impl Bounds {
    /// The lowest sequence that is kept.
    pub(super) fn floor(&self) -> Seq {
        Seq(self.floor.load(Ordering::SeqCst))
    }

    /// Keeps only what is at or above a sequence.
    pub(super) fn raise_floor(&self, floor: Seq) {
        self.floor.fetch_max(floor.0, Ordering::SeqCst);
    }

    /// Keeps only publishers' keys that were first used at or after a time.
    pub(super) fn raise_keys(&self, from: UnixMillis) {
        self.keys_from.fetch_max(from.0, Ordering::SeqCst);
    }

    fn drops(&self, column: Column, key: &[u8], value: &[u8]) -> bool {
        match column {
            Column::Events => keys::seq_of_event(key).is_some_and(|seq| seq < self.floor()),
            Column::Bodies => keys::seq(key).is_some_and(|seq| seq < self.floor()),
            // The last one below the floor still tells what the floor stands on.
            Column::Milestones => keys::seq(key).is_some_and(|seq| seq.next() < self.floor()),
            Column::Keys => value::decode::<StoredKey>(value)
                .is_ok_and(|first| first.time_ms < self.keys_from.load(Ordering::SeqCst)),
            Column::Meta => false,
        }
    }
}

/// The options of the database as a whole.
pub(super) fn database(memory: &StoreMemory) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(i32::try_from(memory.open_files).unwrap_or(i32::MAX));
    options.set_max_background_jobs(2);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(WAL_BYTES as u64);
    options.set_write_buffer_manager(&memory.buffers);
    options.set_bytes_per_sync(MIB as u64);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(INFO_LOGS);
    options.set_stats_dump_period_sec(0);
    // The tables in memory know no other way, and there is one writer.
    options.set_allow_concurrent_memtable_write(false);
    options
}

/// How large a memtable grows before it is flushed.
const fn write_buffer(column: Column) -> usize {
    match column {
        Column::Events | Column::Bodies => 32 * MIB,
        Column::Keys => 16 * MIB,
        Column::Milestones | Column::Meta => 2 * MIB,
    }
}

/// What the keys have in common that are read one after the other, where that is what a column family is for. The names are part of the
/// format: a file is asked whether it has a prefix only by the name under which it was written.
fn prefix(column: Column) -> Option<SliceTransform> {
    let prefix: fn(&[u8]) -> &[u8] = match column {
        Column::Events => keys::topic_of_event,
        Column::Keys => |key| key,
        Column::Bodies | Column::Milestones | Column::Meta => return None,
    };
    Some(SliceTransform::create(
        &format!("tidings.{}", column.name()),
        prefix,
        None,
    ))
}

/// The options of one column family.
pub(super) fn column(column: Column, memory: &StoreMemory, bounds: &Arc<Bounds>) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&memory.cache);
    match column {
        // The two that are looked up rather than scanned.
        Column::Keys | Column::Bodies => blocks.set_bloom_filter(10.0, false),
        // Scanned within a topic: a file that has nothing of it need not be opened.
        Column::Events => {
            blocks.set_bloom_filter(10.0, false);
            blocks.set_whole_key_filtering(false);
        }
        Column::Milestones | Column::Meta => {}
    }
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_block_size(16 * KIB);
    blocks.set_format_version(5);

    let mut options = Options::default();
    if let Some(prefix) = prefix(column) {
        options.set_prefix_extractor(prefix);
        options.set_memtable_factory(MemtableFactory::HashSkipList {
            bucket_count: BUCKETS,
            height: 4,
            branching_factor: 4,
        });
    }
    options.set_block_based_table_factory(&blocks);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_write_buffer_size(write_buffer(column));
    options.set_max_write_buffer_number(MEMTABLES);
    if column == Column::Keys {
        options.set_periodic_compaction_seconds(KEYS_STAY_SECONDS);
    }
    let bounds = Arc::clone(bounds);
    options.set_compaction_filter(column.name(), move |_level, key: &[u8], value: &[u8]| {
        if bounds.drops(column, key, value) {
            CompactionDecision::Remove
        } else {
            CompactionDecision::Keep
        }
    });
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_share_the_files_that_there_are() {
        for (files, stores, each) in [(100_000, 8, 512), (1_000, 8, 125), (100, 8, 48), (1_000, 0, 512)] {
            let memory = StoreMemory::new(0).with_files(files, stores);
            assert_eq!(memory.open_files, each, "{files} among {stores}");
        }
    }
}
