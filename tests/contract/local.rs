//! The implementations on this machine, and what only they promise: of their data directory, their disk, their bounds, their end.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tidings::{
    bus::{Bus, LocalBus, Notice},
    journal::{AppendError, DiskFull, DiskSpace, Journal, LocalJournal, Settings, Status, Surroundings, send_digests},
    log::{LocalLog, Log, OpenError, Retention, Store, keep},
    model::{Event, Layout, Seq, Shard, Slot, UnixMillis},
};
use tokio::runtime::Handle;

use crate::world::{KEY_WINDOW, Node, SHARD, World, publish, topic};

pub(crate) const SETTINGS: Settings = Settings {
    key_window: KEY_WINDOW,
    disk_high_water_percent: 100,
    max_in_flight: 64,
};
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A data directory, and the process that has it open.
pub(crate) struct LocalWorld {
    dir: tempfile::TempDir,
    clock: Arc<AtomicU64>,
    running: Mutex<Option<(Arc<LocalJournal>, Arc<Store>)>>,
}

impl LocalWorld {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            clock: Arc::new(AtomicU64::new(UnixMillis::now().0)),
            running: Mutex::default(),
        }
    }
}

impl World for LocalWorld {
    fn layout(&self) -> Layout {
        Layout::new(8, 1).expect("valid")
    }

    async fn start(&self) -> Node {
        let store = Store::open(self.dir.path(), self.layout(), SHARD, 1 << 20).expect("opened");
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::default());
        let clock = Arc::clone(&self.clock);
        let surroundings = Surroundings {
            clock: Box::new(move || UnixMillis(clock.load(Ordering::SeqCst))),
            ..Surroundings::real(store.dir())
        };
        let journal =
            LocalJournal::start(Arc::clone(&store), Arc::clone(&bus), SETTINGS, surroundings).expect("started");
        let log = LocalLog::new(Arc::clone(&store), Handle::current(), 4);
        *self.running.lock().expect("whole") = Some((Arc::clone(&journal), store));
        Node {
            journal,
            log: Arc::new(log),
            bus,
        }
    }

    async fn stop(&self, node: Node) {
        let (journal, _) = self.running.lock().expect("whole").take().expect("running");
        journal.close(DEADLINE).await.expect("closed in time");
        drop(node);
    }

    fn set_time(&self, now: UnixMillis) {
        self.clock.store(now.0, Ordering::SeqCst);
    }

    async fn retain(&self, _: &Node, retention: Retention) {
        let (_, store) = self.running.lock().expect("whole").clone().expect("running");
        let now = UnixMillis(self.clock.load(Ordering::SeqCst));
        let retain = tokio::task::spawn_blocking(move || store.retain(&retention, now));
        retain.await.expect("no panic").expect("retained");
    }
}

pub(crate) fn open(dir: &Path) -> Result<Arc<Store>, OpenError> {
    Store::open(dir, Layout::EMBEDDED, SHARD, 1 << 20)
}

pub(crate) fn start(store: &Arc<Store>, settings: Settings, surroundings: Surroundings) -> Arc<LocalJournal> {
    LocalJournal::start(Arc::clone(store), Arc::new(LocalBus::default()), settings, surroundings).expect("started")
}

pub(crate) async fn append(journal: &LocalJournal, data: &str) -> Result<Seq, AppendError> {
    let receipt = journal.append(publish(&["a"], data)).await?.await?;
    Ok(receipt.placed[0].seq)
}

#[tokio::test]
async fn a_writer_that_panics_is_told_of_and_is_no_shutdown() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path()).expect("new");
    let surroundings = Surroundings {
        clock: Box::new(|| panic!("no time today")),
        ..Surroundings::real(dir.path())
    };
    let journal = start(&store, SETTINGS, surroundings);
    let under_way = append(&journal, "x").await;
    assert!(matches!(under_way, Err(AppendError::Unknown { .. })), "{under_way:?}");
    // The writer tells of its end before the queue is gone, and the queue goes a moment after the answer.
    loop {
        match append(&journal, "x").await {
            Err(AppendError::Unknown { .. }) => {}
            Err(AppendError::ReadOnly { .. }) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(journal.status(), Status::ReadOnly { .. }));
}

#[tokio::test]
async fn a_closed_journal_refuses_and_its_directory_is_free_at_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for round in 1..=5 {
        let store = open(dir.path()).expect("free");
        let log = LocalLog::new(Arc::clone(&store), Handle::current(), 4);
        let journal = start(&store, SETTINGS, Surroundings::real(dir.path()));
        let ticket = journal.append(publish(&["a"], "x")).await.expect("a place");
        journal.close(DEADLINE).await.expect("closed");
        assert_eq!(
            ticket.await.expect("what was taken is written").placed[0].seq,
            Seq(round)
        );
        assert_eq!(append(&journal, "x").await, Err(AppendError::Closed));
        assert_eq!(journal.status(), Status::Closed);
        let located = log.locate(SHARD, UnixMillis(0)).await.expect_err("closed");
        assert!(located.to_string().contains("the store is closed"), "{located}");
        journal.close(DEADLINE).await.expect("closed already");
    }
}

#[tokio::test]
async fn a_dropped_journal_finishes_and_closes_its_store() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path()).expect("opened");
    let journal = start(&store, SETTINGS, Surroundings::real(dir.path()));
    let ticket = journal.append(publish(&["a"], "x")).await.expect("a place");
    drop(journal);
    assert_eq!(ticket.await.expect("durable").placed[0].seq, Seq(1));
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let _held = open(dir.path()).expect("opened");
    let error = open(dir.path()).expect_err("in use");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
}

#[test]
fn a_store_under_another_shards_name_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let layout = Layout::new(4, 2).expect("valid");
    drop(Store::open(dir.path(), layout, SHARD, 1 << 20).expect("opened"));
    std::fs::rename(dir.path().join("shard-0"), dir.path().join("shard-1")).expect("renamed");
    let error = Store::open(dir.path(), layout, Shard(1), 1 << 20).expect_err("the wrong one");
    assert!(matches!(error, OpenError::OtherShard { found: 0, .. }), "{error}");
}

#[test]
fn each_start_of_a_store_has_an_epoch_of_its_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let epochs = [(); 3].map(|()| open(dir.path()).expect("opened").epoch());
    assert!(epochs[0] != epochs[1] || epochs[1] != epochs[2], "{epochs:?}");
}

#[tokio::test]
async fn a_full_disk_refuses_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path()).expect("opened");
    let full = Arc::new(AtomicBool::new(true));
    let probed = Arc::clone(&full);
    let surroundings = Surroundings {
        disk: Box::new(move || {
            let used = if probed.load(Ordering::SeqCst) { 96 } else { 95 };
            Ok(DiskSpace {
                used: used << 30,
                available: (100 - used) << 30,
            })
        }),
        ..Surroundings::real(dir.path())
    };
    let settings = Settings {
        disk_high_water_percent: 95,
        ..SETTINGS
    };
    let journal = start(&store, settings, surroundings);
    let refused = DiskFull {
        used_percent: 96,
        high_water_percent: 95,
        available: 4 << 30,
        reserve: Store::RESERVE,
    };
    assert_eq!(append(&journal, "x").await, Err(AppendError::DiskFull(refused)));
    assert_eq!(journal.status(), Status::DiskFull(refused));
    assert_eq!(store.heads().last, Seq(0));

    full.store(false, Ordering::SeqCst);
    // A measurement counts for a moment; whoever is refused meanwhile tries again.
    while append(&journal, "x").await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(journal.status(), Status::Writable);
    assert_eq!(store.heads().last, Seq(1));
    journal.close(DEADLINE).await.expect("closed");
}

#[tokio::test]
async fn a_fast_writer_does_not_outrun_the_measurement() {
    const ROOM: u64 = 20 << 20;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path()).expect("opened");
    let written = Arc::new(AtomicU64::new(0));
    let probed = Arc::clone(&written);
    let surroundings = Surroundings {
        disk: Box::new(move || {
            let used = probed.load(Ordering::SeqCst);
            Ok(DiskSpace {
                used,
                available: Store::RESERVE + ROOM - used,
            })
        }),
        ..Surroundings::real(dir.path())
    };
    let journal = start(&store, SETTINGS, surroundings);
    let large = "x".repeat(1 << 20);
    let refused = loop {
        match append(&journal, &large).await {
            Ok(_) => written.fetch_add(1 << 20, Ordering::SeqCst),
            Err(error) => break error,
        };
        let written = written.load(Ordering::SeqCst);
        assert!(written <= ROOM + (8 << 20), "{written} bytes, and never refused");
    };
    assert!(written.load(Ordering::SeqCst) >= ROOM, "refused while there was room");
    let AppendError::DiskFull(full) = refused else {
        panic!("{refused}");
    };
    assert!(full.available < full.reserve, "{full}");
    assert_eq!(journal.status(), Status::DiskFull(full));
    journal.close(DEADLINE).await.expect("closed");
}

#[tokio::test]
async fn the_real_disk_is_measured() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("taken"), vec![1; 1 << 20]).expect("written");
    let store = open(&dir.path().join("data")).expect("opened");
    let settings = Settings {
        // Whatever is taken of a real disk, rounded up, is more.
        disk_high_water_percent: 0,
        ..SETTINGS
    };
    let journal = start(&store, settings, Surroundings::real(store.dir()));
    let error = append(&journal, "x").await.expect_err("refused");
    assert!(
        matches!(
            error,
            AppendError::DiskFull(DiskFull {
                high_water_percent: 0,
                ..
            })
        ),
        "{error}"
    );
    journal.close(DEADLINE).await.expect("closed");
}

#[tokio::test]
async fn a_queue_in_which_there_is_no_room_holds_appends_up_and_loses_none() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path()).expect("opened");
    let settings = Settings {
        max_in_flight: 1,
        ..SETTINGS
    };
    let journal = start(&store, settings, Surroundings::real(dir.path()));
    let large = "x".repeat(1 << 20);
    let appends = (0..100).map(|_| append(&journal, &large));
    let mut seqs = futures::future::try_join_all(appends).await.expect("durable");
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=100).map(Seq).collect::<Vec<_>>());
    journal.close(DEADLINE).await.expect("closed");
}

#[tokio::test]
async fn a_payload_for_many_topics_is_stored_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path()).expect("opened");
    let journal = start(&store, SETTINGS, Surroundings::real(dir.path()));
    let names: Vec<_> = (0..1_000).map(|number| format!("t{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    // Text that does not compress.
    let payload: String = (0_u64..8_192)
        .map(|number| format!("{:08x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32))
        .collect();
    let ticket = journal.append(publish(&names, &payload)).await.expect("a place");
    ticket.await.expect("durable");
    journal.close(DEADLINE).await.expect("closed");
    let bytes: u64 = std::fs::read_dir(dir.path().join("shard-0"))
        .expect("listed")
        .map(|entry| entry.expect("listed").metadata().expect("read").len())
        .sum();
    assert!(bytes < 4 << 20, "{bytes} bytes for 64 KiB in 1,000 topics");
}

#[tokio::test]
async fn a_full_line_says_so_before_anything_else() {
    let bus = LocalBus::new(2);
    let mut line = bus.open();
    line.follow(Slot(0));
    let event = || Arc::new(Event::new(topic("a"), None, "x".into(), UnixMillis(0), None));
    for _ in 0..3 {
        bus.ephemeral(Slot(0), event());
    }
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(line.next().await.expect("open"));
    }
    assert!(
        matches!(
            heard.as_slice(),
            [Notice::Unverified, Notice::Ephemeral(_), Notice::Ephemeral(_)]
        ),
        "{heard:?}"
    );
    bus.ephemeral(Slot(0), event());
    assert!(
        matches!(line.next().await, Some(Notice::Ephemeral(_))),
        "it is told once"
    );
    drop(bus);
    assert!(line.next().await.is_none(), "the bus is closed");
}

#[tokio::test]
async fn heavy_events_fill_a_line_before_their_number_does() {
    let bus = LocalBus::default();
    let mut line = bus.open();
    line.follow(Slot(0));
    let data: Arc<str> = "x".repeat(1 << 20).into();
    let event = Arc::new(Event::new(topic("a"), None, data, UnixMillis(0), None));
    let fit = LocalBus::WEIGHT / event.weight();
    assert!(fit < LocalBus::CAPACITY);
    for _ in 0..=fit {
        bus.ephemeral(Slot(0), Arc::clone(&event));
    }
    assert!(matches!(line.next().await, Some(Notice::Unverified)));
    for _ in 0..fit {
        assert!(matches!(line.next().await, Some(Notice::Ephemeral(_))));
    }
    // Empty again, it has all of its room.
    for _ in 0..fit {
        bus.ephemeral(Slot(0), Arc::clone(&event));
        assert!(matches!(line.next().await, Some(Notice::Ephemeral(_))));
    }
}

#[tokio::test]
async fn digests_follow_on_each_other_and_tell_all_there_is() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path()).expect("opened");
    let bus: Arc<dyn Bus> = Arc::new(LocalBus::default());
    let log = Arc::new(LocalLog::new(Arc::clone(&store), Handle::current(), 4));
    let journal = start(&store, SETTINGS, Surroundings::real(dir.path()));
    append(&journal, "before the first").await.expect("durable");
    let mut line = bus.open();
    let digests = tokio::spawn(send_digests(log, bus, SHARD, Duration::from_millis(1)));
    let mut now = Seq(1);
    for seq in 1..=3 {
        loop {
            let Some(Notice::Digest(digest)) = line.next().await else {
                panic!("only digests are sent");
            };
            assert_eq!((digest.epoch, digest.before), (store.epoch(), now));
            let changed: &[_] = if digest.now > now {
                &[(Slot(0), digest.now)]
            } else {
                &[]
            };
            assert_eq!(digest.changed, changed);
            now = digest.now;
            if now == Seq(seq) {
                break;
            }
        }
        append(&journal, "another").await.expect("durable");
    }
    digests.abort();
    journal.close(DEADLINE).await.expect("closed");
}

#[tokio::test]
async fn retention_is_kept_until_the_store_is_closed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path()).expect("opened");
    let journal = start(&store, SETTINGS, Surroundings::real(dir.path()));
    append(&journal, "x").await.expect("durable");
    let retention = Retention {
        age: Duration::ZERO,
        bytes: u64::MAX,
    };
    let keeping = tokio::spawn(keep(Arc::clone(&store), retention, Duration::from_millis(1)));
    while store.floor() != Seq(2) {
        tokio::task::yield_now().await;
    }
    journal.close(DEADLINE).await.expect("closed");
    tokio::time::timeout(DEADLINE, keeping)
        .await
        .expect("it ends with the store")
        .expect("no panic");
}
