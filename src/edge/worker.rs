//! A worker: one thread's runtime, hub, streams and clock. Everything here stays on its thread.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    panic::{AssertUnwindSafe, resume_unwind},
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::LocalSet,
    time::{Instant, MissedTickBehavior},
};
use tracing::debug;

use super::{
    Settings,
    answer::{Opening, Rules, Shed},
    carrier::{Carrier, Due, End, Turn},
    grpc, http,
    limits::{Admission, ConnectionPermit, Limits, Over, UserPermit},
    listener,
    moves::Moves,
    route::Routes,
    sockets::{Hearing, Ready, Sockets, sockets},
    streams::{Key, Now, Streams, Terms},
    wheel::Tick,
};
use crate::{
    auth::{Auth, TokenFacts},
    bus::Bus,
    gate::Idlers,
    hub::{HubHandle, HubSettings},
    log::Log,
    model::{Layout, UnixMillis},
    proxies::Client,
    tls::ServerTls,
};

/// So many connections are accepted before what is open already has its turn: when thousands come back at once, none of them waits long, and
/// what is delivered meanwhile does not wait for them.
const AT_ONCE: usize = 16;

/// How long before the end of the drain window the last stream ends, at least.
const REST: Duration = Duration::from_millis(150);

/// What a worker is made from; on any thread.
pub(super) struct Parts {
    pub(super) layout: Layout,
    pub(super) settings: Arc<Settings>,
    pub(super) hub: HubSettings,
    pub(super) limits: Arc<Limits>,
    pub(super) log: Arc<dyn Log>,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) routes: watch::Receiver<Arc<Routes>>,
    pub(super) auth: Arc<Auth>,
    pub(super) tls: Option<Arc<ServerTls>>,
    /// How many workers the edge has.
    pub(super) workers: usize,
    /// How many connections without a stream this one may have.
    pub(super) idle: usize,
    pub(super) listener: std::net::TcpListener,
    pub(super) total: Arc<AtomicUsize>,
    /// Streams that come another way than through the listener.
    pub(super) bridged: mpsc::Receiver<grpc::Bridge>,
    /// The drain window, once draining began. Closed without a word, it means: stop now.
    pub(super) drain: watch::Receiver<Option<Duration>>,
}

/// What all connections of a worker share.
pub(super) struct Worker {
    pub(super) settings: Arc<Settings>,
    pub(super) rules: Rules,
    pub(super) limits: Arc<Limits>,
    pub(super) hub: HubHandle,
    /// Who may follow what.
    pub(super) auth: Arc<Auth>,
    /// Its connections without a stream.
    idlers: Arc<Idlers>,
    /// How connections are encrypted, if they are.
    pub(super) tls: Option<Arc<ServerTls>>,
    /// The sockets of its streams.
    pub(super) sockets: Sockets,
    streams: RefCell<Streams>,
    routes: watch::Receiver<Arc<Routes>>,
    moves: RefCell<Moves>,
    draining: Cell<bool>,
    begin: Instant,
    now: Cell<Tick>,
}

impl Worker {
    /// When it is, to within a step or two.
    pub(super) fn now(&self) -> Tick {
        self.now.get()
    }

    /// Whether new streams are turned away.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Which edge has which slot now.
    pub(super) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.borrow())
    }

    /// The key of the stream that begins next.
    pub(super) fn next_key(&self) -> Key {
        self.streams.borrow().next_key()
    }

    /// A stream begins.
    pub(super) fn enter(&self, carrier: Rc<dyn Carrier>, terms: Terms) -> Key {
        let now = Now {
            tick: self.now(),
            wall: UnixMillis::now(),
        };
        let is_revoked = |token: &TokenFacts| self.auth.revocations().covers(token, now.wall);
        self.streams.borrow_mut().enter(carrier, terms, now, is_revoked)
    }

    /// A stream is over.
    pub(super) fn leave(&self, key: Key) {
        self.streams.borrow_mut().leave(key);
    }

    /// A stream's socket has something to say, or the stream itself.
    fn turn(&self, key: Key, ready: Ready) {
        let carrier = self.streams.borrow().carrier(key).map(Rc::clone);
        let turn = carrier.map(|carrier| carrier.turn(ready));
        if turn == Some(Turn::Over) {
            self.leave(key);
        }
    }

    /// Whether there is room for a stream; with the user's share of it, if it has a user.
    pub(super) fn admit(&self, opening: &Opening) -> Result<Option<UserPermit>, Shed> {
        if self.is_draining() {
            return Err(Shed::Draining);
        }
        let permit = |user| self.limits.user(user, opening.replays());
        Ok(opening.user.as_ref().map(permit).transpose()?)
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) -> Infallible {
        let mut accepted = 0;
        loop {
            let (stream, peer) = listener::accept(&listener).await;
            let client = self.settings.proxies.peer(peer.ip());
            match self.limits.connect(client, std::time::Instant::now()) {
                Admission::Served(permit) => self.serve(stream, client, permit, None),
                Admission::Shed(permit, over) => {
                    debug!(peer = %client, reason = %over, "a connection is shed");
                    self.serve(stream, client, permit, Some(over));
                }
                Admission::Refused => debug!(peer = %client, "a connection is closed at once: too many are being shed"),
            }
            accepted = (accepted + 1) % AT_ONCE;
            if accepted == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn serve(self: &Rc<Self>, stream: TcpStream, client: Client, permit: ConnectionPermit, over: Option<Over>) {
        let place = self.idlers.enter();
        let connection = http::Connection {
            worker: Rc::clone(self),
            place: Arc::clone(&place),
            client,
            permit,
            over,
        };
        // The task ends by itself: with its connection, at the latest when a deadline of the connection passes, or with the worker. Without a
        // stream it also ends when others need the place.
        tokio::task::spawn_local(async move {
            if place.hold(http::serve(connection, stream)).await.is_none() {
                debug!(peer = %client, "a connection is cut off: too many are idle");
            }
        });
    }

    async fn bridge(self: Rc<Self>, mut bridged: mpsc::Receiver<grpc::Bridge>) -> Infallible {
        while let Some(bridge) = bridged.recv().await {
            bridge.open(&self);
        }
        // The edge's handle is gone: draining ends this worker.
        std::future::pending().await
    }

    async fn attend(self: Rc<Self>, hearing: Hearing) -> std::io::Error {
        self.sockets.attend(hearing, |key, ready| self.turn(key, ready)).await
    }

    async fn tick(self: Rc<Self>, mut revocations: watch::Receiver<u64>) -> Infallible {
        let mut routes = self.routes.clone();
        let mut interval = tokio::time::interval(Tick::STEP);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let now = Tick::at(self.begin.elapsed());
            self.now.set(now);
            let wall = UnixMillis::now();
            let due = self.streams.borrow_mut().advance(Now { tick: now, wall });
            due.into_iter().for_each(Due::carry_out);
            // An error means that nothing is taken back any more.
            if revocations.has_changed().unwrap_or_default() {
                revocations.mark_unchanged();
                self.streams.borrow_mut().look_for_revoked();
            }
            let revoked = |token: &TokenFacts| self.auth.revocations().covers(token, wall);
            let due = self.streams.borrow_mut().revoked(now, revoked);
            due.into_iter().for_each(Due::carry_out);
            // An error means that they never change again.
            if routes.has_changed().unwrap_or_default() {
                self.moves.borrow_mut().pause(now);
            }
            if !self.is_draining() {
                let routes = Arc::clone(&routes.borrow_and_update());
                self.move_some(&routes, now);
            }
        }
    }

    /// Sends as many misplaced streams on their way as may go now.
    fn move_some(&self, routes: &Routes, now: Tick) {
        let mut due = Vec::new();
        let streams = self.streams.borrow();
        let find = || streams.misplaced(|slot| routes.is_misplaced(slot));
        self.moves.borrow_mut().tick(now, find, |key| {
            let one = streams.dismiss(key);
            let is_there = one.is_some();
            due.extend(one);
            is_there
        });
        drop(streams);
        due.into_iter().for_each(Due::carry_out);
    }

    /// Waits until draining begins, has all streams end, and returns when they have, or else when the window is over.
    async fn drain(self: Rc<Self>, mut drain: watch::Receiver<Option<Duration>>) {
        let window = match drain.wait_for(Option::is_some).await {
            Ok(window) => window.unwrap_or_default(),
            Err(_) => return,
        };
        self.draining.set(true);
        // The rest is for what is still on its way then.
        let ends = window.saturating_sub(REST.max(window / 20));
        let (now, until) = (self.now(), Tick::at(self.begin.elapsed() + ends));
        self.streams.borrow_mut().end_all(now, until);
        // Without a handle there is nobody to wait for.
        let forsaken = async { while drain.changed().await.is_ok() {} };
        tokio::select! {
            // Until the last stream of the whole edge has ended: meanwhile those who come are told to come back.
            _ = tokio::time::timeout(window, self.no_streams()) => {}
            () = forsaken => {}
        }
    }

    /// Waits until there has been no stream on any worker for a few steps: what the last ones were told is with HTTP/2, and on its way.
    async fn no_streams(&self) {
        let mut steps = tokio::time::interval(Tick::STEP);
        let mut empty = 0;
        while empty < 3 {
            steps.tick().await;
            empty = if self.streams.borrow().total() == 0 {
                empty + 1
            } else {
                0
            };
        }
    }

    /// Ends what is left, however stuck: sockets close when nobody holds them any more.
    fn abandon(&self) {
        let all = self.streams.borrow_mut().clear();
        for carrier in all {
            carrier.abandon(End::later());
        }
    }
}

/// Runs a worker until it has drained.
pub(super) fn run(parts: Parts) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let listener = TcpListener::from_std(parts.listener)?;
        let (hub, driver) = HubHandle::new(parts.layout, parts.hub, parts.log, &*parts.bus);
        // From before the first stream: nothing that is taken back is missed.
        let revocations = parts.auth.revocations().changes();
        let (sockets, hearing) = sockets()?;
        let worker = Rc::new(Worker {
            rules: Rules::new(&parts.settings, Arc::clone(&parts.auth), parts.tls.is_some()),
            limits: parts.limits,
            hub,
            auth: parts.auth,
            idlers: Idlers::new(parts.idle),
            tls: parts.tls,
            sockets,
            streams: RefCell::new(Streams::new(&parts.settings, parts.total)),
            routes: parts.routes,
            moves: RefCell::new(Moves::new(&parts.settings, parts.workers)),
            settings: parts.settings,
            draining: Cell::new(false),
            begin: Instant::now(),
            now: Cell::new(Tick::default()),
        });
        let all = async {
            tokio::select! {
                never = Rc::clone(&worker).accept(listener) => match never {},
                never = Rc::clone(&worker).bridge(parts.bridged) => match never {},
                never = Rc::clone(&worker).tick(revocations) => match never {},
                error = Rc::clone(&worker).attend(hearing) => Err(error),
                // Streams without a hub would stay open and say nothing.
                () = driver.run() => Err(std::io::Error::other("its hub has ended")),
                () = Rc::clone(&worker).drain(parts.drain) => Ok(()),
            }
        };
        // However it ended: the streams and their worker hold each other, and would stay open for ever without a word.
        let outcome = AssertUnwindSafe(all).catch_unwind().await;
        worker.abandon();
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }))
}
