//! A server, as `--url` names it, and what it answers to a GET.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Response, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::tls::{ClientTls, Protocol};

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

/// How much of an answer is read for its explanation.
const MAX_BODY_BYTES: usize = 64 << 10;

/// A server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    host: String,
    port: u16,
    base: String,
    /// How it is made sure that it is the server, if it is asked over TLS.
    tls: Option<ClientTls>,
}

/// Why a text does not name a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not the address of a server: http://127.0.0.1:8080 is one")]
pub(super) struct UrlError {
    url: String,
}

impl Server {
    /// The server of a URL; `tls` is for those that begin with https.
    pub(super) fn parse(url: &str, tls: &ClientTls) -> Result<Self, UrlError> {
        let form = || UrlError { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| form())?;
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => (Some(tls.clone()), 443),
            _ => return Err(form()),
        };
        let authority = uri.authority().ok_or_else(form)?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(form());
        }
        Ok(Self {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(port),
            base: uri.path().trim_end_matches('/').to_owned(),
            tls,
        })
    }

    /// Where it is, for messages.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        let socket = TcpStream::connect(self.address()).await?;
        Ok(match &self.tls {
            None => Box::new(socket),
            Some(tls) => Box::new(tls.connect(&self.host, socket, Protocol::Http1).await?),
        })
    }

    /// Asks for a path with these parameters and headers; the answer's head has `patience`.
    pub(super) async fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        patience: Duration,
    ) -> Result<Response<Incoming>, GetError> {
        let address = &self.address();
        let unreachable = |cause: String| GetError::Unreachable {
            address: address.clone(),
            cause,
        };
        let broken = |cause: String| GetError::Broken {
            address: address.clone(),
            cause,
        };
        let socket = timeout(CONNECT_TIMEOUT, self.connect())
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
        let mut target = format!("{}{path}", self.base);
        for (at, (name, value)) in query.iter().enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.extend(utf8_percent_encode(value, QUERY));
        }
        let mut request = Request::get(target)
            .header(header::HOST, address)
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::USER_AGENT, concat!("tidings/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(error.to_string()))?;
        timeout(patience, sender.send_request(request))
            .await
            .map_err(|_| broken(format!("no answer within {patience:?}")))?
            .map_err(|error| broken(error.to_string()))
    }
}

/// A connection, encrypted or not.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<C: AsyncRead + AsyncWrite + Unpin + Send> Connection for C {}

/// Why there is no answer. Another try may have one.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    #[error("{address} cannot be reached ({cause}): is `tidings serve` running, and does --url name its streams?")]
    Unreachable { address: String, cause: String },
    #[error("{address} does not answer: {cause}")]
    Broken { address: String, cause: String },
}

/// A short body, whole; empty if it does not come, or is not short.
pub(super) async fn body(response: Response<Incoming>) -> Bytes {
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect();
    match timeout(CONNECT_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    }
}

/// What a problem body (RFC 9457) says, or any other text.
pub(super) fn explain(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let said = ["detail", "title"]
        .into_iter()
        .find_map(|field| problem[field].as_str());
    let said = said.unwrap_or_else(|| text.trim());
    if said.is_empty() {
        "the answer says no more".to_owned()
    } else {
        printable(said)
    }
}

/// The text with its control characters spelt out: what was published must not be able to steer a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_url() {
        for (url, authority, base) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", ""),
            ("http://[::1]:8080/", "[::1]:8080", ""),
            ("http://events.example/tidings/", "events.example:80", "/tidings"),
            ("https://events.example", "events.example:443", ""),
        ] {
            let server = Server::parse(url, &ClientTls::default()).expect(url);
            assert_eq!((server.address().as_str(), server.base.as_str()), (authority, base));
        }
        for url in [
            "",
            "127.0.0.1:8080",
            "localhost",
            "ftp://x",
            "http://",
            "http://x/?a=b",
            "http://u@x",
            "https://u:p@x",
        ] {
            assert!(Server::parse(url, &ClientTls::default()).is_err(), "{url}");
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
