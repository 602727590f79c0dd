//! Replayed events per second, for one topic and for several that are merged; how long it takes to fill a gap; and how many readers come back per
//! second after a restart, each of whom missed a few events.
//!
//! `cargo bench --bench replay`. What is read fits the page cache: this is the cost of finding, merging and decoding.

use std::{hint::black_box, path::Path, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use tidings::{
    bus::LocalBus,
    journal::{Journal, LocalJournal, Settings, Surroundings},
    log::{LocalLog, Log, Replay, ReplayRequest, Store},
    model::{Layout, Publish, Seq, Shard, Topic},
};

const EVENTS: u64 = 200_000;
const TOPICS: u64 = 64;
/// In the log to which readers come back: each inbox has [`MISSED`] events, spread over all of it.
const INBOXES: u64 = 15_000;
const MISSED: u64 = 20;
const PAGE_EVENTS: usize = 1_000;
const PAYLOAD_BYTES: usize = 256;
const SHARD: Shard = Shard(0);

fn topic(number: u64) -> Topic {
    Topic::parse(&format!("user:{number}")).expect("a topic")
}

async fn fill(journal: &LocalJournal, events: u64, topics: u64) {
    let mut last = None;
    for number in 0..events {
        let publish = Publish {
            topics: vec![topic(number % topics)],
            event_type: None,
            data: format!("{number:0PAYLOAD_BYTES$}").into(),
            key: None,
            deadline: None,
        };
        last = Some(journal.append(publish).await.expect("a place"));
    }
    last.expect("appended").await.expect("durable");
}

/// All events of the first topics, a page at a time.
async fn replay(log: &LocalLog, topics: u64) -> u64 {
    let heads = log.heads(SHARD).await.expect("heads");
    let (mut after, mut events) = (Seq::ZERO, 0);
    while after < heads.last {
        let request = ReplayRequest {
            shard: SHARD,
            epoch: heads.epoch,
            topics: (0..topics).map(|number| (topic(number), after)).collect(),
            max_events: PAGE_EVENTS,
            max_bytes: usize::MAX,
        };
        let Replay::Page(page) = log.replay(request).await.expect("read") else {
            panic!("nothing was dropped");
        };
        events += page.events.len() as u64;
        after = page.up_to;
        black_box(page);
    }
    events
}

/// The last hundred events, of so many topics.
async fn fill_a_gap(log: &LocalLog, topics: u64) -> usize {
    let heads = log.heads(SHARD).await.expect("heads");
    let after = Seq(heads.last.0 - 100);
    let request = ReplayRequest {
        shard: SHARD,
        epoch: heads.epoch,
        topics: (0..topics).map(|number| (topic(number), after)).collect(),
        max_events: PAGE_EVENTS,
        max_bytes: usize::MAX,
    };
    match log.replay(request).await.expect("read") {
        Replay::Page(page) => page.events.len(),
        other => panic!("nothing was dropped: {other:?}"),
    }
}

fn open(dir: &Path) -> Arc<Store> {
    Store::open(dir, Layout::EMBEDDED, SHARD, 64 << 20).expect("opened")
}

fn start(dir: &Path, store: Arc<Store>) -> Arc<LocalJournal> {
    let settings = Settings {
        key_window: Duration::from_secs(600),
        disk_high_water_percent: 95,
        max_in_flight: 4_096,
    };
    LocalJournal::start(store, Arc::new(LocalBus::default()), settings, Surroundings::real(dir)).expect("started")
}

/// Readers of so many inboxes each, all of whom come back at the same time and read what they missed.
async fn come_back(log: &LocalLog, readers: u64, inboxes: u64) {
    let heads = log.heads(SHARD).await.expect("heads");
    let reads = (0..readers).map(|reader| {
        // Neighbours in the log do not come one after the other.
        let inbox = |number| (reader * 7_919 + number * 3_571) % INBOXES;
        log.replay(ReplayRequest {
            shard: SHARD,
            epoch: heads.epoch,
            topics: (0..inboxes).map(|number| (topic(inbox(number)), Seq::ZERO)).collect(),
            max_events: PAGE_EVENTS,
            max_bytes: usize::MAX,
        })
    });
    for replay in join_all(reads).await {
        let Replay::Page(page) = replay.expect("read") else {
            panic!("nothing was dropped");
        };
        assert_eq!(page.events.len() as u64, inboxes * MISSED);
    }
}

fn bench_return(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = start(dir.path(), open(dir.path()));
    runtime.block_on(async {
        fill(&journal, INBOXES * MISSED, INBOXES).await;
        journal.close(Duration::from_secs(60)).await.expect("closed");
    });
    let store = open(dir.path());
    let log = LocalLog::new(Arc::clone(&store), runtime.handle().clone(), 16);
    let mut group = criterion.benchmark_group("come back");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    for inboxes in [1, 4] {
        let readers = 2_000;
        group.throughput(Throughput::Elements(readers));
        group.bench_function(BenchmarkId::new("inboxes", inboxes), |bencher| {
            bencher.iter(|| runtime.block_on(come_back(&log, readers, inboxes)));
        });
    }
    group.finish();
    store.close();
}

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    let log = LocalLog::new(Arc::clone(&store), runtime.handle().clone(), 16);
    let journal = start(dir.path(), store);
    runtime.block_on(fill(&journal, EVENTS, TOPICS));

    let mut group = criterion.benchmark_group("replay");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    for topics in [1, 4, TOPICS] {
        group.throughput(Throughput::Elements(EVENTS * topics / TOPICS));
        group.bench_function(BenchmarkId::new("topics", topics), |bencher| {
            bencher.iter(|| assert_eq!(runtime.block_on(replay(&log, topics)), EVENTS * topics / TOPICS));
        });
    }
    group.finish();

    // What a feed asks that missed one announcement: all the topics of a slot, few of which have anything new.
    let mut group = criterion.benchmark_group("fill");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1));
    for topics in [100, 10_000] {
        group.bench_function(BenchmarkId::new("topics", topics), |bencher| {
            bencher.iter(|| assert!(runtime.block_on(fill_a_gap(&log, topics)) > 0));
        });
    }
    group.finish();
    runtime
        .block_on(journal.close(Duration::from_secs(60)))
        .expect("closed");
}

criterion_group!(benches, bench, bench_return);
criterion_main!(benches);
