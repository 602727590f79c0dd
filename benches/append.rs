//! Appends per second, each durable before it counts, at several numbers of publishers in flight: straight to the store's journal, through the
//! routed journal of a cluster to a shard of this process, and through it to one that is served over gRPC on loopback.
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
    ingest::{ServerSettings, Services, serve},
    journal::{
        Journal, LocalJournal, Settings, Surroundings,
        routed::{self, Routed},
        service::{Held, service},
    },
    log::Store,
    members::{ClusterSecret, Holder, Holders},
    model::{Layout, Publish, Shard, Topic},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

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
async fn appends(journal: &Arc<dyn Journal>, publishers: usize, appends: u64) -> Duration {
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

/// Serves journals on loopback; gives back who holds the shard then.
async fn serve_journals(held: Held) -> Holders {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("an address");
    let never = CancellationToken::new();
    let services = Services::new().grpc(service(
        "there",
        Layout::EMBEDDED,
        held,
        &ClusterSecret::default(),
        never.clone(),
    ));
    tokio::spawn(serve(listener, services, ServerSettings::default(), never));
    let holder = Holder {
        node: "there".to_owned(),
        grpc: format!("http://{address}"),
        writable: true,
    };
    Holders::new([(Shard(0), vec![holder])].into())
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

    let straight: Arc<dyn Journal> = journal.clone();
    let held: Held = [(Shard(0), straight.clone())].into();
    let holders = watch::Sender::new(Arc::new(runtime.block_on(serve_journals(held.clone()))));
    let routed = |held| -> Arc<dyn Journal> {
        let settings = routed::Settings::default();
        Routed::start("here", Layout::EMBEDDED, held, &holders.subscribe(), settings)
    };
    let (here, elsewhere) = {
        let _entered = runtime.enter();
        (routed(held), routed(Held::new()))
    };

    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.measurement_time(Duration::from_secs(8));
    for (way, journal) in [
        ("in flight", straight),
        ("routed here", here),
        ("routed elsewhere", elsewhere),
    ] {
        for publishers in [1, 64, 1_024] {
            group.bench_function(BenchmarkId::new(way, publishers), |bencher| {
                bencher.iter_custom(|count| runtime.block_on(appends(&journal, publishers, count)));
            });
        }
    }
    group.finish();
    runtime
        .block_on(journal.close(Duration::from_secs(60)))
        .expect("closed");
}

criterion_group!(benches, bench);
criterion_main!(benches);
