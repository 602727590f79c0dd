//! The server of a key set: asked over HTTPS, and not trusted with more memory or time than a key set needs.

use std::{convert::Infallible, net::IpAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_blocking,
    time::timeout,
};
use tonic::codegen::Service as _;

use crate::tls::{ClientFiles, ClientTls, NamedFile, Protocol, TlsError};

/// How long the whole answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How large it may be.
const MAX_BYTES: usize = 1 << 20;

/// Where a key set is.
#[derive(Debug)]
pub struct Endpoint {
    url: Uri,
    ca: Option<PathBuf>,
    pub(super) patience: Duration,
}

/// Why a key set cannot be asked for there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is not a URL.
    #[error("{url:?} is not the URL of a key set: https://HOST/PATH")]
    Url {
        /// What it is.
        url: String,
    },
    /// Whoever is on the way could put keys of their own in.
    #[error("{url:?} can be changed on its way: key sets come over https://, or from this machine itself")]
    Insecure {
        /// The URL.
        url: String,
    },
}

/// Why a key set could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The certificates to trust cannot be read.
    #[error(transparent)]
    Ca(#[from] TlsError),
    /// The server cannot be reached, or is not who it should be.
    #[error("{host} cannot be asked: {cause}")]
    Unreachable {
        /// Which.
        host: String,
        /// What is at the bottom of it.
        cause: String,
    },
    /// The server takes too long.
    #[error("{host} has not answered in {patience:?}")]
    Slow {
        /// Which.
        host: String,
        /// How long it had.
        patience: Duration,
    },
    /// The server answers something else. Redirections are not followed.
    #[error("{host} answers {status}")]
    Status {
        /// Which.
        host: String,
        /// What.
        status: StatusCode,
    },
    /// The answer is too large.
    #[error("{host} answers more than the 1 MiB that a key set may have")]
    TooLarge {
        /// Which.
        host: String,
    },
}

impl Endpoint {
    /// A key set at this URL.
    ///
    /// # Errors
    /// If it is none that can be trusted.
    pub fn new(url: &str, ca: Option<PathBuf>) -> Result<Self, EndpointError> {
        let wrong = || EndpointError::Url { url: without_user(url) };
        let parsed: Uri = url.parse().map_err(|_| wrong())?;
        let host = parsed.authority().filter(|authority| !authority.as_str().contains('@'));
        let host = host.map(http::uri::Authority::host).filter(|host| !host.is_empty());
        let host = host.ok_or_else(wrong)?;
        match parsed.scheme_str() {
            Some("https") => {}
            Some("http") if is_here(host) => {}
            Some("http") => return Err(EndpointError::Insecure { url: url.to_owned() }),
            _ => return Err(wrong()),
        }
        Ok(Self {
            url: parsed,
            ca,
            patience: PATIENCE,
        })
    }

    fn host(&self) -> String {
        self.url.authority().map_or_else(String::new, ToString::to_string)
    }

    /// Asks for the key set.
    pub(super) async fn fetch(&self) -> Result<Bytes, FetchError> {
        let answer = timeout(self.patience, self.ask()).await;
        answer.unwrap_or_else(|_| {
            Err(FetchError::Slow {
                host: self.host(),
                patience: self.patience,
            })
        })
    }

    async fn ask(&self) -> Result<Bytes, FetchError> {
        let authority = self.host();
        let unreachable = |error: &dyn std::error::Error| FetchError::Unreachable {
            host: authority.clone(),
            cause: root(error),
        };
        // A connection of its own each time: certificates and addresses may have changed.
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        let socket = connector.call(self.url.clone()).await;
        let socket = socket.map_err(|error| unreachable(&error))?.into_inner();
        let io: Box<dyn Connection> = if self.url.scheme_str() == Some("https") {
            let host = self.url.host().unwrap_or_default();
            let connected = self.tls().await?.connect(host, socket, Protocol::Http1).await;
            Box::new(connected.map_err(|error| unreachable(&error))?)
        } else {
            Box::new(socket)
        };
        let connected = http1::handshake(TokioIo::new(io)).await;
        let (mut sender, connection) = connected.map_err(|error| unreachable(&error))?;
        let request = Request::get(self.url.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, &authority)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| unreachable(&error))?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| unreachable(&error))?;
            let status = response.status();
            if status != StatusCode::OK {
                let host = authority.clone();
                return Err(FetchError::Status { host, status });
            }
            match Limited::new(response.into_body(), MAX_BYTES).collect().await {
                Ok(body) => Ok(body.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge {
                    host: authority.clone(),
                }),
                Err(error) => Err(unreachable(&*error)),
            }
        };
        let driven = async {
            // What goes wrong with it the exchange is told.
            let _ = connection.await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            answer = exchange => answer,
            never = driven => match never {},
        }
    }

    async fn tls(&self) -> Result<ClientTls, FetchError> {
        let files = ClientFiles {
            ca: self.ca.as_ref().map(|path| NamedFile::new("jwks_ca", path)),
            identity: None,
        };
        let loaded = spawn_blocking(|| ClientTls::load(files)).await;
        // It ends early with the process alone.
        Ok(loaded.unwrap_or_else(|_| Ok(ClientTls::default()))?)
    }
}

/// A connection, encrypted or not.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<C: AsyncRead + AsyncWrite + Unpin + Send> Connection for C {}

/// Whether a host is this machine itself.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What is shown of a text that may hold a password.
fn without_user(url: &str) -> String {
    url.rsplit_once('@').map_or(url, |(_, rest)| rest).to_owned()
}

/// What is at the bottom of an error: the outer ones only say that something failed.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
