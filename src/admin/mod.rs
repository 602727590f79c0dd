//! The admin port: whether the node lives, and what it can do. For operators and orchestrators, not for the public.
//!
//! | path | answer |
//! |---|---|
//! | `GET /livez` | 200 while the process can do its work at all; 503 when only a restart helps |
//! | `GET /readyz` | 200 when every part that decides is ready, else 503 |
//! | `GET /readyz/<part>` | 200 when this part is ready, else 503: `streams`, `publishing`, `log`, `nats`, as far as the node has them |
//! | `GET /metrics` | what can be counted, for Prometheus; with the admin token, if there is one |
//!
//! The body says why, as JSON: `{"status":"ready","parts":{"streams":"ready","publishing":"…why not…"}}`. A part that does not decide is told
//! for those who look: what it lacks, another node would lack too.

mod guard;
mod metrics;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::guard::Guard;
pub use self::metrics::Gauge;
use crate::{
    gate::{self, Gate, Idlers},
    model::Secret,
    problem::Problem,
};

/// How many connections there may be; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// How many of them may be without a request; when there are more, the one that has been for the longest is dropped. Nobody who connects and
/// says nothing can keep a node's health from being asked for.
const IDLE: usize = 48;
/// How long a request's head may take, and how long a connection may be idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when accepting fails, as it does when there are no file descriptors left: they come back as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the node says of itself.
pub trait Health: Send + Sync + 'static {
    /// Why only a restart helps, if so.
    fn dead(&self) -> Option<String>;

    /// Its parts.
    fn parts(&self) -> Vec<Part>;

    /// What can be counted now.
    fn gauges(&self) -> Vec<Gauge>;
}

/// A part of what a node does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name, in the path.
    pub name: &'static str,
    /// Why it is not ready, if it is not.
    pub why_not: Option<String>,
    /// Whether the node as a whole is not ready without it.
    pub decides: bool,
}

impl Part {
    /// A part that the node is not ready without.
    #[must_use]
    pub const fn deciding(name: &'static str, why_not: Option<String>) -> Self {
        Self {
            name,
            why_not,
            decides: true,
        }
    }

    /// A part that the node can do without, told for those who look.
    #[must_use]
    pub const fn told(name: &'static str, why_not: Option<String>) -> Self {
        Self {
            name,
            why_not,
            decides: false,
        }
    }
}

/// Serves the admin port until `stop` is cancelled. Not gracefully: a client that keeps its connection open must not keep the node from stopping.
/// With a `token`, whoever asks for more than health has to bring it.
pub async fn serve(
    listener: TcpListener,
    health: Arc<dyn Health>,
    (gate, token): (Gate, Option<Secret>),
    stop: CancellationToken,
) {
    let router = gate::behind(gate, router(health, token.as_ref().map(Guard::new)));
    let idlers = Idlers::new(IDLE);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // They are dropped, and with that closed, when this returns.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    let place = idlers.enter();
                    let service = TowerToHyperService::new(gate::in_use(Arc::clone(&place), router.clone()));
                    let connection = http.serve_connection(TokioIo::new(stream), service);
                    connections.spawn(async move {
                        match place.hold(connection).await {
                            Some(Ok(())) => {}
                            Some(Err(error)) => debug!(%peer, %error, "a connection to the admin port failed"),
                            None => debug!(%peer, "a connection to the admin port is cut off: too many are idle"),
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "a connection to the admin port could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

fn router(health: Arc<dyn Health>, guard: Option<Guard>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(count))
        .route_layer(middleware::from_fn_with_state(guard, guard::admit));
    Router::new()
        .merge(guarded)
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/readyz/{part}", get(part_ready))
        .fallback(|| async { problem("there are /livez, /readyz, /readyz/<part> and /metrics") })
        .with_state(health)
}

async fn live(State(health): State<Arc<dyn Health>>) -> Response {
    match health.dead() {
        None => (StatusCode::OK, Json(json!({ "status": "alive" }))).into_response(),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "status": "dead", "reason": why })),
        )
            .into_response(),
    }
}

async fn ready(State(health): State<Arc<dyn Health>>) -> Response {
    let parts = health.parts();
    let ready = parts.iter().all(|part| !part.decides || part.why_not.is_none());
    tell(ready, parts)
}

async fn count(State(health): State<Arc<dyn Health>>) -> Response {
    let text = metrics::render(&health.gauges());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn part_ready(State(health): State<Arc<dyn Health>>, Path(asked): Path<String>) -> Response {
    let parts: Vec<_> = health.parts().into_iter().filter(|part| part.name == asked).collect();
    if parts.is_empty() {
        return problem(&format!("this node has no part {asked:?}"));
    }
    tell(parts.iter().all(|part| part.why_not.is_none()), parts)
}

fn problem(detail: &str) -> Response {
    Problem::new(StatusCode::NOT_FOUND, detail)
        .into_response()
        .map(Body::from)
}

fn tell(ready: bool, parts: Vec<Part>) -> Response {
    let (code, status) = if ready {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    let parts: Map<_, _> = parts
        .into_iter()
        .map(|part| {
            let state = part.why_not.unwrap_or_else(|| "ready".to_owned());
            (part.name.to_owned(), Value::String(state))
        })
        .collect();
    (code, Json(json!({ "status": status, "parts": parts }))).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    struct Well;

    impl Health for Well {
        fn dead(&self) -> Option<String> {
            None
        }

        fn parts(&self) -> Vec<Part> {
            vec![
                Part::deciding("streams", None),
                Part::told("nats", Some("away".to_owned())),
            ]
        }

        fn gauges(&self) -> Vec<Gauge> {
            vec![Gauge::new("tidings_streams", "Open streams.", 2.0)]
        }
    }

    #[tokio::test]
    async fn what_does_not_decide_is_told() {
        let asked = |path: &'static str| async move {
            let mut stream = say(
                start().await,
                &format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"),
            )
            .await;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
            (answer[9..12].to_owned(), body)
        };
        let whole = r#"{"parts":{"nats":"away","streams":"ready"},"status":"ready"}"#;
        assert_eq!(asked("/readyz").await, ("200".to_owned(), whole.to_owned()));
        assert_eq!(asked("/readyz/nats").await.0, "503");
        assert_eq!(asked("/readyz/streams").await.0, "200");
        assert_eq!(asked("/readyz/log").await.0, "404");
        assert!(asked("/metrics").await.1.ends_with("\ntidings_streams 2\n"));
    }

    async fn start() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(serve(
            listener,
            Arc::new(Well),
            (Gate::default(), None),
            CancellationToken::new(),
        ));
        address
    }

    #[tokio::test]
    async fn with_a_token_only_health_is_told_to_everybody() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let token = Some("0123456789abcdef".into());
        tokio::spawn(serve(
            listener,
            Arc::new(Well),
            (Gate::default(), token),
            CancellationToken::new(),
        ));
        for (path, header, status) in [
            ("/livez", "", "200"),
            ("/readyz", "", "200"),
            ("/readyz/streams", "", "200"),
            ("/metrics", "", "401"),
            ("/metrics", "authorization: Bearer 0123456789abcdef\r\n", "200"),
            ("/metrics", "authorization: bearer  0123456789abcdef\r\n", "200"),
            ("/metrics", "authorization: Bearer 0123456789abcde\r\n", "401"),
            ("/metrics", "authorization: Bearer 0123456789abcdef0\r\n", "401"),
            ("/metrics", "authorization: Bearer \r\n", "401"),
            ("/metrics", "authorization: Basic 0123456789abcdef\r\n", "401"),
            (
                "/metrics",
                "authorization: Bearer 0123456789abcdef\r\nauthorization: Bearer x\r\n",
                "401",
            ),
            ("/metrics?token=0123456789abcdef", "", "401"),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: t\r\n{header}connection: close\r\n\r\n");
            let mut answer = String::new();
            let mut stream = say(address, &request).await;
            stream.read_to_string(&mut answer).await.expect("an answer");
            assert_eq!(&answer[9..12], status, "{path} {header}");
            assert_eq!(
                answer.contains("tidings_streams"),
                status == "200" && path == "/metrics",
                "{answer}"
            );
        }
    }

    async fn say(address: std::net::SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it is open");
        stream
    }

    const ASK: &str = "GET /livez HTTP/1.1\r\nhost: t\r\n\r\n";

    async fn is_answered(stream: &mut TcpStream) {
        let mut answer = Vec::new();
        while !answer.ends_with(br#"{"status":"alive"}"#) {
            assert!(stream.read_buf(&mut answer).await.expect("it is open") > 0);
        }
    }

    #[tokio::test]
    async fn who_says_nothing_or_only_half_is_cut_off() {
        let address = start().await;
        let mut idle = say(address, ASK).await;
        is_answered(&mut idle).await;
        // From now on the clock jumps to the next deadline whenever there is nothing to do: without one this hangs.
        tokio::time::pause();
        for half in ["", "GET /livez HTTP/1.1\r\nhost: t\r\n"] {
            let mut stream = say(address, half).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        idle.read_to_end(&mut Vec::new()).await.expect("it is closed in order");
    }

    #[tokio::test]
    async fn who_only_connects_does_not_keep_others_out() {
        let address = start().await;
        let mut silent = Vec::new();
        for half in ["", "GET /livez HTTP/1.1\r\nhost: t\r\n", ASK]
            .iter()
            .cycle()
            .take(3 * CONNECTIONS)
        {
            silent.push(say(address, half).await);
        }
        let mut one = say(address, ASK).await;
        is_answered(&mut one).await;
    }
}
