//! The port that backends talk to: gRPC and JSON over HTTP/2 and HTTP/1.1, served until the node drains.
//!
//! It accepts for itself rather than through tonic's server, for two reasons: connections that outlive the drain are dropped, where tonic would
//! wait for them for ever; and a caller's deadline is left to the service, which knows what to say of the outcome.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, codegen::Service, server::NamedService, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{debug, error, warn};

use super::{
    connection::{Connection, HEAD_TIMEOUT, http},
    entrance::{Entrance, Strangers},
};
use crate::{
    addresses::AddressLimits,
    gate::{self, Gate, Idlers, Prompt, is_grpc},
    problem::Problem,
    proxies::Proxies,
    tls::ServerTls,
};

/// Where everybody may ask for the health of services, and watch it.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// The longest message of those that everybody may send, which ask for the health or the description of a service.
const SHORT_MESSAGE: usize = 4 * 1024;
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
        let service = service.max_decoding_message_size(SHORT_MESSAGE);
        let mut grpc = self.grpc.add_service(Prompt::new(service, HEAD_TIMEOUT));
        if reflection {
            let descriptors = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(tidings_proto::DESCRIPTORS)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            };
            // Clients in use speak either version.
            grpc = grpc
                .add_service(descriptors().build_v1()?.max_decoding_message_size(SHORT_MESSAGE))
                .add_service(descriptors().build_v1alpha()?.max_decoding_message_size(SHORT_MESSAGE));
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
                    let connection = Connection { stream, first_word: settings.first_word, http: http.clone(), router };
                    let served = connection.enter(guest, settings.tls.clone(), drain.clone());
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

/// Passes on calls that say what they are. tonic would read any body as a message: one that a browser sends for any page, as `text/plain`.
async fn only_grpc(request: Request<Body>, next: Next) -> Response<Body> {
    if is_grpc(request.headers()) {
        if !request.uri().path().starts_with(HEALTH) {
            return next.run(request).await;
        }
        let room = request.extensions().get::<Strangers>().cloned().unwrap_or_default();
        let Some(place) = room.place() else {
            let problem = "this connection has as many calls about health under way as it may have";
            return Status::resource_exhausted(problem).into_http();
        };
        let response = next.run(request).await;
        return response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _held = &place;
                frame
            }))
        });
    }
    let problem = Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "calls of gRPC have the content type `application/grpc`; JSON is published with POST /v1/publish",
    );
    problem.with_field("content-type").into_response().map(Body::from)
}

/// What answers a request for something that is not there, in the words of its protocol.
async fn unknown(request: Request<Body>) -> Response<Body> {
    if is_grpc(request.headers()) {
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
