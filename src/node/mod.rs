//! The composition root: the only module that knows which implementations were chosen. A node's life reads from top to bottom:
//! open → build → bind → spawn → drain.

mod health;
mod settings;
mod signals;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tidings_proto::v1::subscriber_server::SubscriberServer;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    task::{JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{health::NodeHealth, signals::Signals};
use crate::{
    admin,
    bus::{Bus, LocalBus},
    config::{Config, Role},
    edge::{Edge, EdgeHandle, Listeners, Routes, SubscriberService, WorkerFailed, limits},
    hub::HubSettings,
    ingest::{self, Ingest, ServeError, Services},
    journal::{self, LocalJournal, Surroundings},
    log::{self, LocalLog, Log, OpenError, Store},
    model::{Layout, OriginError, Shard},
};

/// The one shard of a process that does everything itself.
const SHARD: Shard = Shard(0);
/// How often the log's holder tells how far it has come.
const DIGEST_EVERY: Duration = Duration::from_millis(500);
/// How often retention is applied.
const RETENTION_EVERY: Duration = Duration::from_secs(10);
/// Memory for blocks of the log that were read.
const BLOCK_CACHE: usize = 64 << 20;
/// What the ends of streams and calls may take beyond the drain window.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// What writing the last events and closing the log may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(20);

/// Runs a role until a signal ends it, and then until it has drained.
///
/// # Errors
/// If it cannot start, or a part of it fails.
pub fn run(_role: Role, config: &Config) -> Result<(), NodeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(NodeError::Runtime)?;
    let outcome = runtime.block_on(run_serve(config));
    // What still runs has had its deadline.
    runtime.shutdown_background();
    outcome
}

async fn run_serve(config: &Config) -> Result<(), NodeError> {
    let mut signals = Signals::listen().map_err(NodeError::Runtime)?;
    let store = tokio::select! {
        opened = open(config) => opened?,
        signal = signals.next() => {
            info!(signal, "told to end while the data directory was being opened");
            // Nothing was served yet, and what is interrupted here the next start does again. That cannot be waited for: a recovery may take minutes.
            exit(0);
        }
    };
    let built = build(config, store)?;
    let journal = built.journal.clone();
    let started = bind(config).await.and_then(|bound| spawn(config, built, bound));
    let mut node = match started {
        Ok(node) => node,
        Err(error) => {
            close(&journal).await;
            return Err(error);
        }
    };
    announce(&node.addresses);
    let failure = tokio::select! {
        signal = signals.next() => {
            info!(signal, "told to end");
            None
        }
        failure = node.fails() => Some(failure),
    };
    tokio::select! {
        () = node.drain(config.drain.window) => {}
        signal = signals.next() => {
            warn!(signal, "ended before it had drained");
            // What was acknowledged is durable: nothing is lost but the good manners.
            exit(signals::exit_code(signal));
        }
    }
    info!("stopped");
    failure.map_or(Ok(()), Err)
}

/// Ends the process while RocksDB is at work. What C++ has registered for an orderly exit is left out, since it takes away what RocksDB's
/// threads are still using.
fn exit(code: i32) -> ! {
    signal_hook::low_level::exit(code)
}

/// Opens the log, on a thread of its own since it may take long after a crash: meanwhile signals are heard.
async fn open(config: &Config) -> Result<Arc<Store>, NodeError> {
    let dir = config.data.dir.clone();
    let opening = spawn_blocking(move || Store::open(&dir, Layout::EMBEDDED, SHARD, BLOCK_CACHE));
    let opened = opening.await.map_err(|panic| NodeError::Runtime(panic.into()))?;
    Ok(opened?)
}

/// What holds and carries events.
struct Built {
    journal: Arc<LocalJournal>,
    store: Arc<Store>,
    log: Arc<dyn Log>,
    bus: Arc<dyn Bus>,
}

fn build(config: &Config, store: Arc<Store>) -> Result<Built, NodeError> {
    let bus: Arc<dyn Bus> = Arc::new(LocalBus::default());
    let log: Arc<dyn Log> = Arc::new(LocalLog::new(
        store.clone(),
        Handle::current(),
        config.log.concurrent_replays,
    ));
    let surroundings = Surroundings::real(store.dir());
    let journal = LocalJournal::start(store.clone(), bus.clone(), settings::journal(config), surroundings)
        .map_err(NodeError::Runtime)?;
    Ok(Built {
        journal,
        store,
        log,
        bus,
    })
}

/// The sockets, before anything is served on any of them.
struct Bound {
    http: Listeners,
    grpc: TcpListener,
    admin: TcpListener,
}

async fn bind(config: &Config) -> Result<Bound, NodeError> {
    Ok(Bound {
        http: at(
            "--http",
            config.http.listen,
            Listeners::bind(config.http.listen, settings::workers(config), None),
        )?,
        grpc: at(
            "--grpc",
            config.grpc.listen,
            TcpListener::bind(config.grpc.listen).await,
        )?,
        admin: at(
            "--admin",
            config.admin.listen,
            TcpListener::bind(config.admin.listen).await,
        )?,
    })
}

fn at<T>(flag: &'static str, address: SocketAddr, bound: io::Result<T>) -> Result<T, NodeError> {
    bound.map_err(|cause| NodeError::Listen { address, flag, cause })
}

/// Where a node can be reached.
struct Addresses {
    http: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
}

/// A running node.
struct Node {
    addresses: Addresses,
    edge: EdgeHandle,
    journal: Arc<LocalJournal>,
    draining: CancellationToken,
    stop: CancellationToken,
    /// The one task that serves publishers, until it has drained.
    ingest: JoinSet<Result<(), ServeError>>,
    /// Digests, retention, the admin port: they end when they are told to, and nothing waits for them.
    background: JoinSet<()>,
}

fn spawn(config: &Config, built: Built, bound: Bound) -> Result<Node, NodeError> {
    let Built {
        journal,
        store,
        log,
        bus,
    } = built;
    let draining = CancellationToken::new();
    let stop = CancellationToken::new();
    let addresses = Addresses {
        http: bound.http.address(),
        grpc: bound.grpc.local_addr().map_err(NodeError::Runtime)?,
        admin: bound.admin.local_addr().map_err(NodeError::Runtime)?,
    };

    let files = limits::raise_file_limit().map_err(NodeError::Runtime)?;
    let routes = Routes::alone(Layout::EMBEDDED, config.node(), config.advertised_http(addresses.http));
    let edge = Edge {
        layout: Layout::EMBEDDED,
        settings: settings::edge(config)?,
        limits: settings::limits(config, files)?,
        hub: HubSettings::default(),
        log: log.clone(),
        bus: bus.clone(),
        routes: routes.forever(),
    };
    let edge = edge.start(bound.http).map_err(NodeError::Runtime)?;

    let settings = settings::ingest(config);
    let publisher = Ingest::new(
        journal.clone(),
        bus.clone(),
        Layout::EMBEDDED,
        settings,
        draining.clone(),
    );
    let services = Services::new()
        .grpc(ingest::grpc::publisher(publisher.clone()))
        .grpc(SubscriberServer::new(SubscriberService::new(edge.clone())))
        .grpc(log::service::service(log.clone()))
        .http(ingest::json::router(publisher));
    let mut ingest = JoinSet::new();
    ingest.spawn(ingest::serve(
        bound.grpc,
        services,
        settings::server(config, files),
        draining.clone(),
    ));

    let mut background = JoinSet::new();
    background.spawn(journal::send_digests(log, bus, SHARD, DIGEST_EVERY));
    background.spawn(log::keep(store, settings::retention(config), RETENTION_EVERY));
    let health = Arc::new(NodeHealth::new(edge.clone(), journal.clone(), draining.clone()));
    background.spawn(admin::serve(bound.admin, health, stop.clone()));

    Ok(Node {
        addresses,
        edge,
        journal,
        draining,
        stop,
        ingest,
        background,
    })
}

fn announce(addresses: &Addresses) {
    let Addresses { http, grpc, admin } = addresses;
    info!(%http, %grpc, %admin, "ready");
}

impl Node {
    /// Waits until a part ends that should not, or panics.
    async fn fails(&mut self) -> NodeError {
        tokio::select! {
            stopped = self.edge.stopped() => match stopped {
                Err(failed) => failed.into(),
                Ok(()) => NodeError::Ended("the edge"),
            },
            Some(served) = self.ingest.join_next() => match served {
                Ok(Err(error)) => error.into(),
                Ok(Ok(())) | Err(_) => NodeError::Ended("the port of publishers"),
            },
            Some(_) = self.background.join_next() => {
                NodeError::Ended("a background task (digests, retention or the admin port)")
            }
        }
    }

    /// Ends in good order: streams and calls over the window, then the journal, then the rest. Each phase has its own deadline.
    async fn drain(mut self, window: Duration) {
        self.draining.cancel();
        self.edge.drain(window);
        info!(
            streams = self.edge.streams(),
            ?window,
            "draining; a second signal ends it at once"
        );
        let ingest = async {
            match self.ingest.join_next().await {
                None | Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => warn!(%error, "calls were cut off"),
                Some(Err(error)) => warn!(%error, "calls were cut off"),
            }
        };
        phase("streams and calls end", window + DRAIN_GRACE, async {
            tokio::join!(self.edge.ended(), ingest)
        })
        .await;
        close(&self.journal).await;
        self.stop.cancel();
        self.background.shutdown().await;
    }
}

/// Writes what was taken and closes the log. A process must not exit without that: RocksDB's threads would be at work in what is left of it.
async fn close(journal: &LocalJournal) {
    phase("the journal is closed", CLOSE_DEADLINE, async {
        if let Err(error) = journal.close(CLOSE_DEADLINE).await {
            warn!(%error, "what was acknowledged is durable all the same");
        }
    })
    .await;
}

/// One step of the drain, which may not hold up the next.
async fn phase<T>(what: &'static str, deadline: Duration, work: impl Future<Output = T>) {
    if tokio::time::timeout(deadline, work).await.is_err() {
        warn!(phase = what, ?deadline, "not done in time, going on");
    }
}

/// Why a node could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} ({cause}): stop what else listens there, or choose another address with {flag}"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// An origin that pages may follow from is none.
    #[error("`http.cors_origins`: {0}")]
    Origin(OriginError),
    /// More streams are asked for than the limit on open files allows.
    #[error(
        "`limits.connections` is {asked}, but the limit on open files leaves room for {room}: raise the hard limit (`ulimit -Hn`, `LimitNOFILE`) or lower the setting"
    )]
    TooManyConnections {
        /// The setting.
        asked: usize,
        /// How many there can be.
        room: usize,
    },
    /// The machine refuses threads, signals or the like.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    /// An edge worker failed.
    #[error(transparent)]
    Worker(#[from] WorkerFailed),
    /// Publishers cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A part ended without being told to.
    #[error("{0} ended by itself")]
    Ended(&'static str),
}
