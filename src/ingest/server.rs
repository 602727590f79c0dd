//! The port that backends talk to: gRPC and JSON over HTTP/2 and HTTP/1.1, served until the node drains.
//!
//! It accepts for itself rather than through tonic's server, for two reasons: connections that outlive the drain are dropped, where tonic would
//! wait for them for ever; and a caller's deadline is left to the service, which knows what to say of the outcome.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use http::{Request, Response, StatusCode};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, codegen::Service, server::NamedService, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{debug, error, warn};

use super::{
    begun::Begun,
    entrance::{Entrance, Guest, TOLD_WITHIN, is_grpc},
    parting::Parting,
};
use crate::{
    addresses::AddressLimits,
    auth::ClientNames,
    gate::{self, Gate, Idlers},
    problem::Problem,
    proxies::Proxies,
    tls::{self, ServerTls},
};

/// How long a connection may take to say its first word, and an HTTP/1.1 request to say its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What every HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait for the rest of it before looking again.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
/// How often an HTTP/2 connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// What one call may send ahead of its being read, and all calls of a connection together. h2 ends a connection that has too many small
/// frames waiting to be read, and counts each as 256 bytes against half of the connection's window. A stream of small events is one such frame
/// each, and is not read while its events wait for the disk: so its own window must be full before that, down to frames of about 8 bytes.
const CALL_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// How long to wait when accepting fails, as it does when there are no file descriptors left: they come back as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the port is served.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Whether the contract can be asked for over gRPC reflection.
    pub reflection: bool,
    /// How many connections there may be; more wait to be accepted.
    pub connections: usize,
    /// How many of them may be without a call under way; when there are more, the one that has been for the longest is dropped.
    pub idle: usize,
    /// How many calls may be under way on one HTTP/2 connection.
    pub calls_per_connection: u32,
    /// How long a connection may take to say which HTTP it speaks; over TLS, its handshake before that may take as long, and so may the word of a
    /// proxy whom it is for.
    pub first_word: Duration,
    /// How connections are encrypted; nothing: they are not.
    pub tls: Option<Arc<ServerTls>>,
    /// Which proxies are believed for whom they connect.
    pub proxies: Proxies,
    /// What one address may have.
    pub addresses: AddressLimits,
    /// How long open calls have to end once the node drains; what is left is dropped.
    pub drain_window: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            reflection: false,
            connections: 4_096,
            idle: 3_072,
            calls_per_connection: 2_048,
            first_word: HEAD_TIMEOUT,
            tls: None,
            proxies: Proxies::default(),
            addresses: AddressLimits::default(),
            drain_window: Duration::from_secs(5),
        }
    }
}

/// What is served: ready-made services.
#[derive(Debug, Default)]
pub struct Services {
    grpc: Routes,
    http: Router,
    names: Vec<&'static str>,
    gate: Gate,
}

impl Services {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a gRPC service, whose health is told too.
    #[must_use]
    pub fn grpc<S>(mut self, service: S) -> Self
    where
        S: Service<Request<tonic::body::Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.grpc = self.grpc.add_service(service);
        self
    }

    /// Adds plain HTTP routes.
    #[must_use]
    pub fn http(mut self, routes: Router) -> Self {
        self.http = self.http.merge(routes);
        self
    }

    /// What is asked of every request.
    #[must_use]
    pub fn behind(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// One router for all, and the means to tell their health.
    pub(super) async fn into_router(self, reflection: bool) -> Result<(Router, Health), ServeError> {
        let (reporter, service) = tonic_health::server::health_reporter();
        let health = Health {
            reporter,
            names: self.names,
        };
        health.report(ServingStatus::Serving).await;
        let mut grpc = self.grpc.add_service(service);
        if reflection {
            let descriptors = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(tidings_proto::DESCRIPTORS)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            };
            // Clients in use speak either version.
            grpc = grpc
                .add_service(descriptors().build_v1()?)
                .add_service(descriptors().build_v1alpha()?);
        }
        let grpc = grpc.into_axum_router().layer(from_fn(only_grpc));
        let router = grpc.merge(self.http).fallback(unknown);
        Ok((gate::behind(self.gate, router.with_state(())), health))
    }
}

/// Serves until `drain` is cancelled, then until every call has ended or the drain window is over. The listener is closed as the drain begins.
///
/// # Errors
/// If the services cannot be put together. Nothing that a client does is an error here.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    settings: ServerSettings,
    drain: CancellationToken,
) -> Result<(), ServeError> {
    let (router, health) = services.into_router(settings.reflection).await?;
    let http = http(settings.calls_per_connection);
    let idlers = Idlers::new(settings.idle);
    let entrance = Entrance::new(settings.proxies, settings.addresses);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = drain.cancelled() => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            accepted = listener.accept(), if connections.len() < settings.connections => match accepted {
                Ok((stream, peer)) => if let Some(guest) = entrance.enter(peer) {
                    let place = idlers.enter();
                    let router = gate::in_use(Arc::clone(&place), router.clone());
                    let opening = Opening { stream, first_word: settings.first_word, http: http.clone(), router };
                    let served = opening.enter(guest, settings.tls.clone(), drain.clone());
                    connections.spawn(async move {
                        if place.hold(served).await.is_none() {
                            debug!(%peer, "a connection is cut off: too many are idle");
                        }
                    });
                },
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    health.close().await;
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if timeout(settings.drain_window, all_ended).await.is_err() {
        warn!(
            connections = connections.len(),
            "connections dropped, they did not end within the drain window"
        );
        connections.shutdown().await;
    }
    Ok(())
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a connection failed");
    }
}

pub(super) fn http(calls_per_connection: u32) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(calls_per_connection);
    http
}

/// A connection that was accepted.
struct Opening {
    stream: TcpStream,
    first_word: Duration,
    http: auto::Builder<TokioExecutor>,
    router: Router,
}

impl Opening {
    /// What a proxy says comes before everything else, TLS too.
    async fn enter(mut self, guest: Guest, tls: Option<Arc<ServerTls>>, drain: CancellationToken) {
        let guest = tokio::select! {
            introduced = timeout(self.first_word, guest.introduced(&self.stream)) => match introduced {
                Ok(Some(guest)) => guest,
                _ => return,
            },
            () = drain.cancelled() => return,
        };
        self.router = guest.router(&self.router);
        let served = self.serve(tls, drain);
        if guest.is_over() {
            // It has been told by then.
            let _ = timeout(TOLD_WITHIN, served).await;
        } else {
            served.await;
        }
    }

    async fn serve(self, tls: Option<Arc<ServerTls>>, drain: CancellationToken) {
        if let Err(error) = self.stream.set_nodelay(true) {
            debug!(%error, "a connection ended before it began");
            return;
        }
        match tls {
            Some(tls) => self.serve_encrypted(&tls, drain).await,
            None => self.serve_plain(drain).await,
        }
    }

    async fn serve_plain(self, drain: CancellationToken) {
        // Which version it speaks is only known by its first bytes, and hyper waits for them without a limit.
        tokio::select! {
            spoken = timeout(self.first_word, first_word_of(&self.stream)) => {
                if matches!(spoken, Ok(Ok(()))) {
                    serve_connection(self.stream, &self.http, self.router, drain).await;
                }
            }
            () = drain.cancelled() => {}
        }
    }

    async fn serve_encrypted(self, tls: &ServerTls, drain: CancellationToken) {
        let first_word = self.first_word;
        let opened = async {
            let stream = timeout(first_word, tls.accept(self.stream)).await??;
            let is_http2 = tls::speaks_http2(&stream);
            let preface = if is_http2 { PREFACE.len() } else { 0 };
            // The handshake has told which version it speaks; hyper waits for the beginning of HTTP/2 without a limit all the same.
            let stream = timeout(first_word, Begun::read(stream, preface)).await??;
            Ok::<_, io::Error>((stream, is_http2))
        };
        let (stream, is_http2) = tokio::select! {
            opened = opened => match opened {
                Ok(opened) => opened,
                Err(error) => return debug!(%error, "a connection is not let in"),
            },
            () = drain.cancelled() => return,
        };
        let router = match certified_names(stream.get_ref()) {
            Some(names) => self.router.layer(Extension(names)),
            None => self.router,
        };
        let http = if is_http2 {
            self.http.http2_only()
        } else {
            self.http.http1_only()
        };
        serve_connection(stream, &http, router, drain).await;
    }
}

/// The names of a client's certificate, which was found good; nothing if it has shown none.
fn certified_names(stream: &TlsStream<TcpStream>) -> Option<ClientNames> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    Some(ClientNames(tls::names(certificate).into()))
}

/// Waits until the first bytes tell which HTTP a connection speaks, and leaves them where they are.
async fn first_word_of(stream: &TcpStream) -> io::Result<()> {
    let mut begin = [0; PREFACE.len()];
    loop {
        stream.readable().await?;
        let bytes = stream.peek(&mut begin).await?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if begin[0] == tls::FIRST_BYTE {
            // No answer would be understood there.
            return Err(io::ErrorKind::InvalidData.into());
        }
        if bytes == PREFACE.len() || begin[..bytes] != PREFACE[..bytes] {
            return Ok(());
        }
        // What is there stays readable. Nobody sends the preface in pieces but by bad luck.
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

/// Serves one connection until it ends; once `drain` is cancelled, until the calls that are under way have ended.
pub(super) async fn serve_connection<IO>(
    io: IO,
    http: &auto::Builder<TokioExecutor>,
    router: Router,
    drain: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Parting::new(io));
    let mut connection = pin!(http.serve_connection(io, TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(error, "a connection ended early");
    }
}

/// Passes on calls that say what they are. tonic would read any body as a message: one that a browser sends for any page, as `text/plain`.
async fn only_grpc(request: Request<Body>, next: Next) -> Response<Body> {
    if is_grpc(&request) {
        return next.run(request).await;
    }
    let problem = Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "calls of gRPC have the content type `application/grpc`; JSON is published with POST /v1/publish",
    );
    problem.with_field("content-type").into_response().map(Body::from)
}

/// What answers a request for something that is not there, in the words of its protocol.
async fn unknown(request: Request<Body>) -> Response<Body> {
    if is_grpc(&request) {
        let status = Status::unimplemented(format!("no such service here: {}", request.uri().path()));
        return status.into_http();
    }
    let detail = "this port serves gRPC and POST /v1/publish; streams are read from /v1/events on the other port";
    Problem::new(StatusCode::NOT_FOUND, detail)
        .into_response()
        .map(Body::from)
}

/// Tells the health of the services, and of the port as a whole (under the empty name).
pub(super) struct Health {
    reporter: HealthReporter,
    names: Vec<&'static str>,
}

impl Health {
    async fn report(&self, status: ServingStatus) {
        for name in self.names.iter().copied().chain([""]) {
            self.reporter.set_service_status(name, status).await;
        }
    }

    /// Says that nothing is served any more, and ends the streams of those who watch: the drain would wait for them in vain.
    async fn close(mut self) {
        self.report(ServingStatus::NotServing).await;
        for name in self.names.iter().copied().chain([""]) {
            self.reporter.clear_service_status(name).await;
        }
    }
}

/// Why the port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The contract's descriptors cannot be read.
    #[error("the descriptors for gRPC reflection cannot be read: {0}")]
    Descriptors(#[from] tonic_reflection::server::Error),
}
