//! Appends per second, each durable before it counts, at several numbers of publishers in flight.
//!
//! `cargo bench --bench append`. The disk is that of the temporary directory: set `TMPDIR` to measure another.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings::{
    bus::LocalBus,
    journal::{Journal, LocalJournal, Settings, Surroundings},
    log::Store,
    model::{Layout, Publish, Shard, Topic},
};

const PAYLOAD_BYTES: usize = 256;

fn publish(publisher: usize) -> Publish {
    Publish {
        topics: vec![Topic::parse(&format!("user:{publisher}")).expect("a topic")],
        event_type: None,
        data: "x".repeat(PAYLOAD_BYTES).into(),
        key: None,
        deadline: None,
    }
}

/// So many appends by so many publishers, each of which waits for one to be durable before the next.
async fn appends(journal: &Arc<LocalJournal>, publishers: usize, appends: u64) -> Duration {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..publishers as u64)
        .map(|publisher| {
            let journal = Arc::clone(journal);
            let share = appends / publishers as u64 + u64::from(publisher < appends % publishers as u64);
            tokio::spawn(async move {
                let publish = publish(usize::try_from(publisher).expect("few"));
                for _ in 0..share {
                    let ticket = journal.append(publish.clone()).await.expect("a place");
                    black_box(ticket.await.expect("durable"));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    begin.elapsed()
}

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path(), Layout::EMBEDDED, Shard(0), 64 << 20).expect("opened");
    let settings = Settings {
        key_window: Duration::from_secs(600),
        disk_high_water_percent: 95,
        max_in_flight: 4_096,
    };
    let surroundings = Surroundings::real(dir.path());
    let journal = LocalJournal::start(store, Arc::new(LocalBus::default()), settings, surroundings).expect("started");

    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.measurement_time(Duration::from_secs(8));
    for publishers in [1, 64, 1_024] {
        group.bench_function(BenchmarkId::new("in flight", publishers), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(appends(&journal, publishers, count)));
        });
    }
    group.finish();
    runtime
        .block_on(journal.close(Duration::from_secs(60)))
        .expect("closed");
}

criterion_group!(benches, bench);
criterion_main!(benches);
