//! The journal over JetStream, with the replica it is read from: a NATS server, a holder, and the announcements that the stream republishes.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream;
use futures::{StreamExt as _, future::BoxFuture};
use tidings::{
    bus::{Bus, LocalBus, nats::wire},
    journal::{
        Disk, DiskSpace,
        jetstream::{Home, Replica, Settings, State, Status, StreamSettings},
    },
    log::{Heads, LocalLog, Located, Log, ReadError, Replay, ReplayRequest, Retention, StoreMemory},
    model::{Layout, Seq, Shard, UnixMillis},
    nats::{Nats, Subjects},
};
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    nats::{PATIENCE, Server, Version, connect, settings},
    world::{KEY_WINDOW, Node, SHARD, World},
};

pub(crate) const STREAM: &str = "tests-shard-0";

pub(crate) fn layout() -> Layout {
    Layout::new(8, 1).expect("valid")
}

pub(crate) fn stream_settings(replicas: usize) -> StreamSettings {
    StreamSettings {
        replicas,
        in_memory: false,
        max_age: Duration::ZERO,
        max_bytes: 0,
        duplicate_window: Duration::from_secs(120),
    }
}

pub(crate) fn holder_settings(node: &str, stream: StreamSettings) -> Settings {
    Settings {
        node: node.to_owned(),
        stream,
        key_window: KEY_WINDOW,
        patience: Duration::from_secs(30),
        max_in_flight: 4_096,
        retention: None,
        loss_confirmed_after: Duration::from_secs(2),
    }
}

/// A holder of the one shard.
#[derive(Clone)]
pub(crate) struct Holder {
    pub(crate) nats: Nats,
    pub(crate) replica: Arc<Replica>,
    pub(crate) log: Arc<LocalLog>,
}

impl Holder {
    /// Starts it. Its clock is `clock`, or the machine's.
    pub(crate) fn start(nats: &Nats, dir: &Path, settings: Settings, clock: Option<Arc<AtomicU64>>) -> Self {
        let log = Arc::new(LocalLog::empty(Handle::current(), 4));
        let home = Home {
            dir: dir.to_path_buf(),
            layout: layout(),
            shard: SHARD,
            memory: StoreMemory::new(1 << 20),
        };
        let path = dir.to_path_buf();
        let disk = Disk::new(Box::new(move || DiskSpace::of(&path)), 100, 1);
        let clock = Box::new(move || match &clock {
            Some(clock) => UnixMillis(clock.load(Ordering::SeqCst)),
            None => UnixMillis::now(),
        });
        let replica =
            Replica::start(nats, Arc::clone(&log), settings, home, clock, &disk).expect("a directory of its own");
        Self {
            nats: nats.clone(),
            replica,
            log,
        }
    }

    /// Waits until its status is such.
    pub(crate) async fn wait(&self, what: &str, is_such: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.replica.status();
        let waited = tokio::time::timeout(PATIENCE, status.wait_for(is_such))
            .await
            .map(|got| got.expect("open").clone());
        waited.unwrap_or_else(|_| panic!("not in time: {what}; it is {:?}", status.borrow().clone()))
    }

    /// Waits until it is level with the stream.
    pub(crate) async fn level(&self) {
        self.wait("level", |status| {
            status.state == State::Following && status.level_at.is_some()
        })
        .await;
        let last = self.stream_last().await;
        self.wait("level", |status| status.applied >= last).await;
    }

    /// How far the stream is.
    pub(crate) async fn stream_last(&self) -> Seq {
        let context = jetstream::new(self.nats.client().clone());
        loop {
            // Without a leader, the question takes a while by itself.
            if let Ok(stream) = context.get_stream(STREAM).await {
                return Seq(stream.cached_info().state.last_sequence);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn close(&self) {
        self.replica.close(PATIENCE).await.expect("closed in time");
    }
}

/// A log that is level with the stream whenever it is read: what the port allows to lag, and the suites do not wait for.
struct LevelLog(Holder);

impl Log for LevelLog {
    fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
        let holder = self.0.clone();
        Box::pin(async move {
            holder.level().await;
            holder.log.heads(shard).await
        })
    }

    fn replay(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        let holder = self.0.clone();
        Box::pin(async move {
            holder.level().await;
            holder.log.replay(request).await
        })
    }

    fn locate(&self, shard: Shard, time: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
        let holder = self.0.clone();
        Box::pin(async move {
            holder.level().await;
            holder.log.locate(shard, time).await
        })
    }
}

/// One server, and a holder whose clock only the test moves.
pub(crate) struct JetStreamWorld {
    server: Server,
    dir: tempfile::TempDir,
    clock: Arc<AtomicU64>,
    running: Mutex<Option<(Holder, AbortHandle)>>,
}

impl JetStreamWorld {
    pub(crate) fn new() -> Self {
        Self {
            // The suites have payloads that are larger than what NATS takes unless it is told to.
            server: Server::start(Version::Newest, "max_payload: 4MB").expect("installed"),
            dir: tempfile::tempdir().expect("a temporary directory"),
            clock: Arc::new(AtomicU64::new(UnixMillis::now().0)),
            running: Mutex::default(),
        }
    }
}

/// Hears what the stream republishes, from when this returns.
async fn republished(nats: &Nats) -> (Arc<dyn Bus>, AbortHandle) {
    let bus = Arc::new(LocalBus::default());
    let mut heard = nats.client().subscribe("tests.slot.*").await.expect("subscribed");
    nats.round_trip(PATIENCE).await.expect("the server knows of it");
    let announcing = Arc::clone(&bus);
    let hearing = tokio::spawn(async move {
        while let Some(message) = heard.next().await {
            let slot = Subjects::slot_in(&message.subject).expect("a slot");
            let announcement =
                wire::decode_announcement(slot, message.headers.as_ref(), &message.payload).expect("an announcement");
            announcing.announce(&[announcement]);
        }
    });
    (bus, hearing.abort_handle())
}

impl World for JetStreamWorld {
    fn layout(&self) -> Layout {
        layout()
    }

    async fn start(&self) -> Node {
        let nats = connect(&settings(&[self.server.url()])).await;
        let (bus, hearing) = republished(&nats).await;
        let settings = holder_settings("ingest-0", stream_settings(1));
        let holder = Holder::start(&nats, self.dir.path(), settings, Some(Arc::clone(&self.clock)));
        holder.level().await;
        *self.running.lock().expect("whole") = Some((holder.clone(), hearing));
        Node {
            journal: holder.replica.clone(),
            log: Arc::new(LevelLog(holder)),
            bus,
        }
    }

    async fn stop(&self, node: Node) {
        let (holder, hearing) = self.running.lock().expect("whole").take().expect("running");
        holder.close().await;
        hearing.abort();
        drop(node);
    }

    fn may_lag(&self) -> bool {
        true
    }

    fn set_time(&self, now: UnixMillis) {
        self.clock.store(now.0, Ordering::SeqCst);
    }

    async fn retain(&self, _: &Node, retention: Retention) {
        let (holder, _) = self.running.lock().expect("whole").clone().expect("running");
        holder.level().await;
        let store = holder.replica.store().expect("open");
        let now = UnixMillis(self.clock.load(Ordering::SeqCst));
        let retain = tokio::task::spawn_blocking(move || store.retain(&retention, now));
        retain.await.expect("no panic").expect("retained");
    }
}
