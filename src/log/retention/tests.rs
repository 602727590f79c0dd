//! That what is below the floor is gone from the disk, and nothing else is; that what is above the head is not read yet.

use std::{ops::RangeInclusive, path::Path};

use super::*;
use crate::{
    log::{Appended, Batch, Replay, ReplayRequest},
    model::{Layout, PublishKey, Shard, Slot, Topic},
};

const SHARED: usize = 1_000;

fn open(dir: &Path) -> Arc<Store> {
    Store::open(dir, Layout::EMBEDDED, Shard(0), 1 << 20).expect("opened")
}

fn topics() -> [Topic; 2] {
    ["a", "a/b"].map(|text| Topic::parse(text).expect("a topic"))
}

/// Adds a publish to both topics, large enough that its payload is stored once, at so many seconds.
fn add(batch: &mut Batch<'_>, number: u64) {
    let topics = topics();
    let last = batch.last();
    let places = [
        (&topics[0], Slot(0), last.next()),
        (&topics[1], Slot(0), last.next().next()),
    ];
    let data = format!("{number:0SHARED$}");
    let event = Appended {
        event_type: None,
        data: &data,
        time: UnixMillis(number * 1_000),
    };
    let key = PublishKey::parse(&format!("k{number}")).expect("a key");
    batch.remember(&key, &topics[0], last.next(), event.time).expect("open");
    batch.append(&event, &places, |_, _| {}).expect("open");
}

fn append(store: &Store, numbers: RangeInclusive<u64>) {
    let mut batch = Batch::new(store, 0);
    numbers.for_each(|number| add(&mut batch, number));
    batch.commit().expect("written");
}

/// Keeps the publishes since one of them.
fn keep_since(store: &Store, number: u64) -> Seq {
    let retention = Retention {
        age: Duration::ZERO,
        bytes: u64::MAX,
    };
    store.retain(&retention, UnixMillis(number * 1_000)).expect("retained")
}

fn request(store: &Store, after: Seq) -> ReplayRequest {
    ReplayRequest {
        shard: Shard(0),
        epoch: store.epoch(),
        topics: topics().into_iter().map(|topic| (topic, after)).collect(),
        max_events: usize::MAX,
        max_bytes: usize::MAX,
    }
}

fn read(store: &Store, after: Seq) -> Replay {
    store.replay(&request(store, after)).expect("read")
}

fn stored(store: &Store, column: Column) -> Vec<Vec<u8>> {
    let keys = store.with(|db| {
        let mut all = ReadOptions::default();
        all.set_total_order_seek(true);
        let mut walk = db.walk(column, all);
        let mut keys = Vec::new();
        walk.seek_to_first();
        while let Some(key) = walk.key() {
            keys.push(key.to_vec());
            walk.next();
        }
        Ok(keys)
    });
    keys.expect("read")
}

#[test]
fn compaction_drops_what_is_below_the_floor_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    append(&store, 1..=20);
    let floor = keep_since(&store, 11);
    assert_eq!(floor, Seq(21), "ten publishes of two events are gone");
    assert_eq!(stored(&store, Column::Events).len(), 40, "the space comes back later");
    store.compact(floor).expect("compacted");

    let mut seqs: Vec<_> = stored(&store, Column::Events)
        .iter()
        .filter_map(|key| keys::seq_of_event(key))
        .collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (21..=40).map(Seq).collect::<Vec<_>>());
    let bodies: Vec<_> = stored(&store, Column::Bodies)
        .iter()
        .filter_map(|key| keys::seq(key))
        .collect();
    assert_eq!(bodies, (11..=20).map(|number| Seq(number * 2)).collect::<Vec<_>>());
    let milestones: Vec<_> = stored(&store, Column::Milestones)
        .iter()
        .filter_map(|key| keys::seq(key))
        .collect();
    assert_eq!(
        milestones.first(),
        Some(&Seq(20)),
        "the one that the floor stands on stays"
    );
    assert_eq!(store.locate(UnixMillis(0)).expect("read"), Seq(20));
    let Replay::Page(page) = read(&store, Seq(20)) else {
        panic!("above the floor");
    };
    assert_eq!(page.events.len(), 20);
    assert!(
        page.events.iter().all(|event| event.data.len() == SHARED),
        "with their payloads"
    );
}

#[test]
fn compaction_drops_the_keys_that_are_out_of_their_window() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    append(&store, 1..=20);
    store.forget_keys_before(UnixMillis(16_000));
    let compacted = store.with(|db| {
        let none = None::<&[u8]>;
        db.db.compact_range_cf(db.column(Column::Keys), none, none);
        Ok(())
    });
    compacted.expect("compacted");
    assert_eq!(stored(&store, Column::Keys).len(), 5);
    let first = |number: u64| {
        let key = PublishKey::parse(&format!("k{number}")).expect("a key");
        store.first_use(&key, &topics()[0]).expect("read")
    };
    assert_eq!(first(15), None);
    assert_eq!(first(16), Some((Seq(31), UnixMillis(16_000))));
}

#[test]
fn the_floor_and_what_was_reclaimed_are_known_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    append(&store, 1..=20);
    keep_since(&store, 11);
    let floor = *store.lock_floor();
    let half = store.head().bytes / 2;
    assert!(
        floor.bytes.abs_diff(half) < SHARED as u64,
        "about half of what was given: {floor:?} of {half}"
    );
    store.close();
    drop(store);
    let store = open(dir.path());
    assert_eq!(*store.lock_floor(), floor);
    assert_eq!(store.floor(), floor.seq);
}

#[test]
fn space_is_reclaimed_once_there_is_enough_of_it() {
    let floor = |bytes, reclaimed| Floor {
        seq: Seq(9),
        bytes,
        reclaimed,
    };
    let total = 1_000 << 20;
    assert!(!floor(WORTH_COMPACTING - 1, 0).is_worth_compacting(WORTH_COMPACTING));
    assert!(floor(WORTH_COMPACTING, 0).is_worth_compacting(WORTH_COMPACTING));
    assert!(
        !floor(100 << 20, 0).is_worth_compacting(total),
        "less than a quarter of what is kept"
    );
    assert!(floor(300 << 20, 0).is_worth_compacting(total));
    assert!(
        !floor(300 << 20, 290 << 20).is_worth_compacting(total),
        "reclaimed already"
    );
}

#[test]
fn a_page_with_a_hole_in_it_is_gone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    append(&store, 1..=20);
    let dropped = || {
        let floor = keep_since(&store, 11);
        store.compact(floor).expect("compacted");
    };
    let replay = store.replay_while(&request(&store, Seq(0)), dropped);
    assert_eq!(
        replay.expect("read"),
        Replay::Gone {
            epoch: store.epoch(),
            floor: Seq(21),
        }
    );
}

#[test]
fn what_is_written_is_not_read_before_the_store_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    append(&store, 1..=1);
    let heads = store.heads();
    let mut batch = Batch::new(&store, 0);
    add(&mut batch, 2);
    batch.write().expect("written");
    assert_eq!(stored(&store, Column::Events).len(), 4, "it is there");
    for after in [Seq(0), Seq(1), Seq(2)] {
        let Replay::Page(page) = read(&store, after) else {
            panic!("above the floor");
        };
        assert_eq!(page.events.len() as u64, 2 - after.0, "after {after}");
        assert_eq!(page.up_to, heads.last);
    }
    assert_eq!(store.heads(), heads);
    assert_eq!(store.locate(UnixMillis(u64::MAX)).expect("read"), heads.last);
}
