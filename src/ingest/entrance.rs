//! Who calls: the address that a connection or a call is really from, and whether that may have one more connection.
//!
//! Through a proxy that speaks HTTP there are no connections of clients to be counted, and their calls are not: how many a publisher may make is
//! a limit of its own.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body, middleware::map_request};
use http::{Request, Response, StatusCode};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::{Code, Status, transport::server::TcpConnectInfo};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::debug;

use crate::{
    addresses::{AddressLimits, AddressPermit, Addresses, OverAddress},
    gate::is_grpc,
    problem::Problem,
    proxies::{Client, HeaderError, Proxies},
};

/// How many are told at the same time that their address has too much; more are closed at once.
const TELLING: usize = 256;
/// How many calls may be under way on one connection that everybody may make: who watches the health of all services needs fewer.
const CALLS_OF_STRANGERS: usize = 32;
/// How long one who is told so may stay.
pub(super) const TOLD_WITHIN: Duration = Duration::from_secs(3);
/// How long to wait before connecting again.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

/// What all connections of the port share.
#[derive(Debug)]
pub(super) struct Entrance {
    proxies: Proxies,
    addresses: Arc<Addresses>,
    telling: AtomicUsize,
}

/// A connection that came in.
#[derive(Debug)]
pub(super) struct Guest {
    entrance: Arc<Entrance>,
    client: Client,
    /// Its own port; of whoever a proxy tells, none is known.
    port: u16,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    Welcome(#[expect(dead_code, reason = "given back when it is dropped")] Option<AddressPermit>),
    Over(
        OverAddress,
        #[expect(dead_code, reason = "given back when it is dropped")] Telling,
    ),
}

impl Entrance {
    pub(super) fn new(proxies: Proxies, limits: AddressLimits) -> Arc<Self> {
        Arc::new(Self {
            proxies,
            addresses: Addresses::new(limits),
            telling: AtomicUsize::new(0),
        })
    }

    /// A connection comes in. None if there is no room even to say that there is none.
    pub(super) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Guest> {
        self.admit(self.proxies.peer(peer.ip()), peer.port())
    }

    fn admit(self: &Arc<Self>, client: Client, port: u16) -> Option<Guest> {
        let admitted = self.addresses.attempt(client, Instant::now());
        let standing = match admitted.and_then(|()| self.addresses.connect(client)) {
            Ok(permit) => Standing::Welcome(permit),
            Err(over) => {
                let telling = self.tell();
                debug!(peer = %client, reason = %over, told = telling.is_some(), "a connection is turned away");
                Standing::Over(over, telling?)
            }
        };
        Some(Guest {
            entrance: Arc::clone(self),
            client,
            port,
            standing,
        })
    }

    fn tell(self: &Arc<Self>) -> Option<Telling> {
        self.telling
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < TELLING).then_some(n + 1))
            .ok()?;
        Some(Telling(Arc::clone(self)))
    }
}

/// One who is told; makes room for the next when it is dropped.
#[derive(Debug)]
struct Telling(Arc<Entrance>);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.telling.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Guest {
    /// Has a proxy say whom it connects for, if it must. None if it does not, or there is no room for that client.
    pub(super) async fn introduced(self, stream: &TcpStream) -> Option<Self> {
        let entrance = &self.entrance;
        if !entrance.proxies.must_introduce(self.client) {
            return Some(self);
        }
        match entrance.proxies.introduced(self.client, stream).await {
            Ok(client) => entrance.admit(client, 0),
            // Those that look whether the port is open, as proxies do.
            Err(HeaderError::Ended) => None,
            Err(error) => {
                debug!(peer = %self.client, %error, "a proxy's connection is closed");
                None
            }
        }
    }

    /// Whether it may stay only to be told that it may not.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.standing, Standing::Over(..))
    }

    /// The router for this connection: services ask a request for its peer, as they would under tonic's own server, and are told who that is
    /// behind the proxies.
    pub(super) fn router(&self, router: &Router) -> Router {
        if let Standing::Over(over, _) = self.standing {
            return Router::new().fallback(move |request: Request<Body>| async move { turned_away(over, &request) });
        }
        let (entrance, peer, port) = (Arc::clone(&self.entrance), self.client, self.port);
        let strangers = Strangers::default();
        router.clone().layer(map_request(move |mut request: Request<Body>| {
            let client = entrance.proxies.of_request(peer, request.headers());
            let port = if client == peer { port } else { 0 };
            let extensions = request.extensions_mut();
            extensions.insert(client);
            extensions.insert(strangers.clone());
            extensions.insert(TcpConnectInfo {
                local_addr: None,
                remote_addr: Some(SocketAddr::new(client.address(), port)),
            });
            async move { Ok::<_, Infallible>(request) }
        }))
    }
}

/// Room on one connection for calls that everybody may make, and keep open.
#[derive(Debug, Clone)]
pub(super) struct Strangers(Arc<Semaphore>);

impl Default for Strangers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CALLS_OF_STRANGERS)))
    }
}

impl Strangers {
    /// A place for one more, given back when it is dropped; nothing if all are taken.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// What answers everything on a connection that its address has no room for, in the words of its protocol.
fn turned_away(over: OverAddress, request: &Request<Body>) -> Response<Body> {
    if is_grpc(request.headers()) {
        let details = ErrorDetails::with_retry_info(Some(COME_BACK_AFTER));
        return Status::with_error_details(Code::ResourceExhausted, over.to_string(), details).into_http();
    }
    let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, over.to_string());
    problem.retry_after = Some(COME_BACK_AFTER);
    problem.into_response().map(Body::from)
}
