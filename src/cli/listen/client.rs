//! One request for a stream, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{net::TcpStream, time::timeout};

/// What stands in a query as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b'@');

/// How long the connection itself may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of an answer that is no stream is read for its explanation.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// A server, as `--url` names it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    authority: String,
    path: String,
}

/// Why a text does not name a server.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum UrlError {
    #[error("{url:?} is not the address of a server: http://127.0.0.1:8080 is one")]
    Form { url: String },
    #[error(
        "{url:?} needs TLS, which this program does not speak yet: use http:// from where the server can be trusted to be reached"
    )]
    Tls { url: String },
}

impl Server {
    pub(super) fn parse(url: &str) -> Result<Self, UrlError> {
        let form = || UrlError::Form { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| form())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(UrlError::Tls { url: url.to_owned() }),
            _ => return Err(form()),
        }
        let authority = uri.authority().ok_or_else(form)?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(form());
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self {
            authority: format!("{}:{port}", authority.host()),
            path: format!("{}/v1/events", uri.path().trim_end_matches('/')),
        })
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("{address} cannot be reached ({cause}): is `tidings serve` running, and does --url name its streams?")]
    Unreachable { address: String, cause: String },
    #[error("{address} does not answer: {cause}")]
    Broken { address: String, cause: String },
    #[error("{address} is not ready ({status}): {explanation}")]
    NotReady {
        address: String,
        status: StatusCode,
        explanation: String,
    },
    #[error("{address} refuses ({status}): {explanation}")]
    Refused {
        address: String,
        status: StatusCode,
        explanation: String,
    },
    #[error("{address} does not speak Server-Sent Events: is this the address of a Tidings server's streams?")]
    NotAStream { address: String },
}

impl OpenError {
    /// Whether the same request can succeed later.
    pub(super) const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::NotReady { .. } => true,
            Self::Refused { .. } | Self::NotAStream { .. } => false,
        }
    }
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Opened {
    /// A stream.
    Stream(Incoming),
    /// The server asks never to come back.
    Stop,
}

/// Asks for a stream; `last_event_id` is sent as the header of that name.
pub(super) async fn open(
    server: &Server,
    query: &[(&str, &str)],
    last_event_id: Option<&str>,
    patience: Duration,
) -> Result<Opened, OpenError> {
    let address = server.authority.clone();
    let unreachable = |cause: String| OpenError::Unreachable {
        address: address.clone(),
        cause,
    };
    let broken = |cause: String| OpenError::Broken {
        address: address.clone(),
        cause,
    };
    let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(&server.authority))
        .await
        .map_err(|_| unreachable(format!("no connection within {CONNECT_TIMEOUT:?}")))?
        .map_err(|error| unreachable(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|error| broken(error.to_string()))?;
    // It ends with the connection: when the server closes it, or when the response's body is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
    let mut target = server.path.clone();
    for (at, (name, value)) in query.iter().enumerate() {
        target.push(if at == 0 { '?' } else { '&' });
        target.push_str(name);
        target.push('=');
        target.extend(utf8_percent_encode(value, QUERY));
    }
    let mut request = Request::get(target)
        .header(header::HOST, &server.authority)
        .header(header::ACCEPT, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-store")
        .header(header::USER_AGENT, concat!("tidings/", env!("CARGO_PKG_VERSION")));
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(error.to_string()))?;
    let response = timeout(patience, sender.send_request(request))
        .await
        .map_err(|_| broken(format!("no answer within {patience:?}")))?
        .map_err(|error| broken(error.to_string()))?;
    let status = response.status();
    match status {
        StatusCode::OK if is_event_stream(response.headers()) => Ok(Opened::Stream(response.into_body())),
        StatusCode::OK => Err(OpenError::NotAStream { address }),
        StatusCode::NO_CONTENT => Ok(Opened::Stop),
        _ => {
            let body = Limited::new(response.into_body(), MAX_PROBLEM_BYTES).collect();
            let body = match timeout(CONNECT_TIMEOUT, body).await {
                Ok(Ok(body)) => body.to_bytes(),
                // The status says enough.
                _ => Bytes::new(),
            };
            let explanation = explain(&body);
            let again = status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
            Err(if again {
                OpenError::NotReady {
                    address,
                    status,
                    explanation,
                }
            } else {
                OpenError::Refused {
                    address,
                    status,
                    explanation,
                }
            })
        }
    }
}

fn is_event_stream(headers: &http::HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// What a problem body (RFC 9457) says, or any other text.
fn explain(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let said = ["detail", "title"]
        .into_iter()
        .find_map(|field| problem[field].as_str());
    let said = said.unwrap_or_else(|| text.trim());
    if said.is_empty() {
        "the answer says no more".to_owned()
    } else {
        super::output::printable(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_url() {
        for (url, authority, path) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "/v1/events"),
            ("http://[::1]:8080/", "[::1]:8080", "/v1/events"),
            (
                "http://events.example/tidings/",
                "events.example:80",
                "/tidings/v1/events",
            ),
        ] {
            let server = Server::parse(url).expect(url);
            assert_eq!((server.authority.as_str(), server.path.as_str()), (authority, path));
        }
        for url in [
            "",
            "127.0.0.1:8080",
            "localhost",
            "ftp://x",
            "http://",
            "http://x/?a=b",
            "http://u@x",
            "https://x",
        ] {
            assert!(Server::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn explanations_come_from_the_problem_or_the_text() {
        assert_eq!(
            explain(br#"{"title":"bad request","detail":"topic \"a b\" is wrong"}"#),
            "topic \"a b\" is wrong"
        );
        assert_eq!(explain(br#"{"title":"bad request"}"#), "bad request");
        assert_eq!(explain(b"nope\n"), "nope");
        assert_eq!(explain(b""), "the answer says no more");
        assert_eq!(explain(b"a\x1b[2Jb"), "a\\u{1b}[2Jb");
    }
}
