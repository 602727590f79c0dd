//! The edge: streams to subscribers, over HTTP/1.1, HTTP/2 and gRPC.
//!
//! One worker per core: a thread with its own runtime, listening socket, hub, streams and clock, so that nothing is locked on the way of
//! a frame. In the order in which a stream meets them:
//!
//! ```text
//! listener ─▶ limits ─▶ entrance ─▶ http (which one?) ─▶ http1 ───────────────────▶ socket ─┐
//!                       (proxies)     └─ (TLS or h2c) ▶ http2, https1 ─▶ streamed ─▶ relay ─┼─▶ hub
//!                                        (tonic) ─▶ grpc ──────────────────────────▶ relay ─┘
//! outbox: what a socket has not taken yet      sockets: the epoll of a worker's own      channel: between relay and hyper or tonic
//! request, caller, route, cors, answer: what is answered      frame: byte for byte
//! streams, wheel, moves, lease, sweep: heartbeats and ends    carrier: what each protocol does about them
//! ```
//!
//! Build → bind → spawn → drain: [`Listeners::bind`], [`Edge::start`], [`EdgeHandle::drain`], [`EdgeHandle::stopped`].

mod answer;
mod caller;
mod carrier;
mod channel;
mod cors;
mod entrance;
pub mod frame;
mod grpc;
mod http;
mod http1;
mod http2;
mod https1;
mod lease;
pub mod limits;
mod listener;
mod moves;
mod outbox;
mod relay;
pub mod request;
mod route;
mod socket;
mod sockets;
mod streamed;
mod streams;
mod sweep;
mod wheel;
mod worker;

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tracing::error;

use self::{grpc::NoWorker, limits::Limits};
pub use self::{
    grpc::subscriber,
    listener::Listeners,
    route::{EdgeAddress, Routes, Sight},
};
use crate::{
    auth::Auth,
    bus::Bus,
    gate::Hosts,
    hub::HubSettings,
    log::Log,
    model::{Layout, Origin},
    proxies::Proxies,
    tls::ServerTls,
};

/// How streams are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// After how long without an event a comment is sent.
    pub heartbeat: Duration,
    /// How long a client is told to wait before it reconnects.
    pub retry: Duration,
    /// How long a request's head may take; and how long a connection may be idle between requests.
    pub header_timeout: Duration,
    /// How large a request's head may be, in bytes.
    pub max_header_bytes: usize,
    /// Which proxies are believed for whom they connect.
    pub proxies: Proxies,
    /// How much is queued for a slow reader before it reads on from the log, in bytes.
    pub send_queue: usize,
    /// The topics that one stream may follow.
    pub topics_per_stream: usize,
    /// Whose pages may read streams with credentials.
    pub cors_origins: Vec<Origin>,
    /// Which hosts are answered for.
    pub hosts: Hosts,
    /// After how long a stream is asked to come back, give or take a fifth; nothing: never.
    pub max_age: Duration,
    /// How many misplaced streams are asked a second to come back, and are then sent to their owner; 0: none.
    pub moves_per_second: u32,
    /// For how long the owners of slots must not have changed before anyone is moved.
    pub settle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            retry: Duration::from_secs(3),
            header_timeout: Duration::from_secs(10),
            max_header_bytes: 16 * 1024,
            proxies: Proxies::default(),
            send_queue: 64 * 1024,
            topics_per_stream: 64,
            cors_origins: Vec::new(),
            hosts: Hosts::any(),
            max_age: Duration::ZERO,
            moves_per_second: 100,
            // A node that restarts is back by then, as a rule.
            settle: Duration::from_secs(5),
        }
    }
}

/// What an edge is made from.
pub struct Edge {
    /// Which topic is where.
    pub layout: Layout,
    /// How streams are served.
    pub settings: Settings,
    /// How many there may be.
    pub limits: limits::Settings,
    /// How each worker's hub works.
    pub hub: HubSettings,
    /// What was published.
    pub log: Arc<dyn Log>,
    /// What is being published.
    pub bus: Arc<dyn Bus>,
    /// Which edge has which slot.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// Who may follow what.
    pub auth: Arc<Auth>,
    /// How connections are encrypted; nothing: they are not.
    pub tls: Option<Arc<ServerTls>>,
}

impl Edge {
    /// Starts a worker on each listening socket.
    ///
    /// # Errors
    /// If a thread cannot be started. Those that were stop again.
    pub fn start(self, listeners: Listeners) -> std::io::Result<EdgeHandle> {
        /// Streams on their way to a worker: no reason to have many wait.
        const BRIDGED: usize = 64;

        let settings = Arc::new(self.settings);
        let idle = (self.limits.pending_connections / listeners.sockets.len().max(1)).max(1);
        let limits = Limits::new(self.limits);
        let total = Arc::new(AtomicUsize::new(0));
        let (drain, draining) = watch::channel(None);
        let (exits, running) = watch::channel(Running {
            workers: listeners.sockets.len(),
            failed: None,
        });
        let exits = Arc::new(exits);
        let address = listeners.address();
        let workers = listeners.sockets.len();
        let mut bridges = Vec::new();
        for (number, listener) in listeners.sockets.into_iter().enumerate() {
            let (bridge, bridged) = mpsc::channel(BRIDGED);
            bridges.push(bridge);
            let parts = worker::Parts {
                layout: self.layout,
                settings: Arc::clone(&settings),
                hub: self.hub,
                limits: Arc::clone(&limits),
                log: Arc::clone(&self.log),
                bus: Arc::clone(&self.bus),
                routes: self.routes.clone(),
                auth: Arc::clone(&self.auth),
                tls: self.tls.clone(),
                workers,
                idle,
                listener,
                total: Arc::clone(&total),
                bridged,
                drain: draining.clone(),
            };
            let exits = Arc::clone(&exits);
            // The thread ends when its worker has drained, or fails; both are told to whoever waits in `stopped`.
            std::thread::Builder::new()
                .name(format!("edge-{number}"))
                .spawn(move || {
                    let outcome = run(number, parts);
                    exits.send_modify(|running| running.exit(outcome));
                })?;
        }
        Ok(EdgeHandle(Arc::new(Inner {
            address,
            settings,
            auth: self.auth,
            limits,
            total,
            drain,
            running,
            bridges,
            next: AtomicUsize::new(0),
        })))
    }
}

/// Runs a worker to its end.
fn run(number: usize, parts: worker::Parts) -> Result<(), WorkerFailed> {
    let cause = match catch_unwind(AssertUnwindSafe(|| worker::run(parts))) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => format!("panic: {text}"),
            (_, Some(text)) => format!("panic: {text}"),
            _ => "panic".to_owned(),
        },
    };
    error!(worker = number, cause, "an edge worker failed");
    Err(WorkerFailed { worker: number, cause })
}

struct Running {
    workers: usize,
    failed: Option<WorkerFailed>,
}

impl Running {
    fn exit(&mut self, outcome: Result<(), WorkerFailed>) {
        self.workers -= 1;
        if let Err(failed) = outcome {
            self.failed.get_or_insert(failed);
        }
    }
}

/// A worker ended that should not have. The others go on; its streams are gone, and its listening socket with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("edge worker {worker} failed: {cause}")]
pub struct WorkerFailed {
    /// Which one.
    pub worker: usize,
    /// Why.
    pub cause: String,
}

/// A running edge; for any thread, and cheap to clone. When the last handle is dropped the workers stop.
#[derive(Clone)]
pub struct EdgeHandle(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    settings: Arc<Settings>,
    auth: Arc<Auth>,
    limits: Arc<Limits>,
    total: Arc<AtomicUsize>,
    drain: watch::Sender<Option<Duration>>,
    running: watch::Receiver<Running>,
    bridges: Vec<mpsc::Sender<grpc::Bridge>>,
    next: AtomicUsize,
}

impl EdgeHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// How many streams there are, over all protocols.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Begins to drain: each stream ends at a time of its own within the window, and new ones are told to come back later. The workers stop
    /// when there is no stream left, or else when the window is over, whatever is left. The first call counts.
    pub fn drain(&self, window: Duration) {
        self.0.drain.send_if_modified(|drain| {
            let first = drain.is_none();
            drain.get_or_insert(window);
            first
        });
    }

    /// The first worker that failed, if one did.
    #[must_use]
    pub fn failed(&self) -> Option<WorkerFailed> {
        self.0.running.borrow().failed.clone()
    }

    /// Waits until all workers have stopped, or one failed.
    ///
    /// # Errors
    /// As soon as a worker fails.
    pub async fn stopped(&self) -> Result<(), WorkerFailed> {
        let mut running = self.0.running.clone();
        let ended = |running: &Running| running.workers == 0 || running.failed.is_some();
        match running.wait_for(ended).await {
            Ok(running) => running.failed.clone().map_or(Ok(()), Err),
            // Nobody is left to tell anything else.
            Err(_) => Ok(()),
        }
    }

    /// Waits until no worker runs any more, however each of them ended.
    pub async fn ended(&self) {
        // An error means that nobody is left to tell.
        let _ = self.0.running.clone().wait_for(|running| running.workers == 0).await;
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn auth(&self) -> &Auth {
        &self.0.auth
    }

    fn limits(&self) -> &Arc<Limits> {
        &self.0.limits
    }

    /// Hands a stream to the next worker that takes it.
    async fn bridge(&self, mut bridge: grpc::Bridge) -> Result<(), NoWorker> {
        let bridges = &self.0.bridges;
        let first = self.0.next.fetch_add(1, Ordering::Relaxed);
        for step in 0..bridges.len() {
            match bridges[first.wrapping_add(step) % bridges.len()].send(bridge).await {
                Ok(()) => return Ok(()),
                Err(returned) => bridge = returned.0,
            }
        }
        Err(NoWorker)
    }
}

impl std::fmt::Debug for EdgeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeHandle")
            .field("address", &self.0.address)
            .field("streams", &self.streams())
            .finish_non_exhaustive()
    }
}
