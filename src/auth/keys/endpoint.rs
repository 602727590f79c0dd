//! The server of a key set: asked over HTTPS, and not trusted with more memory or time than a key set needs.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{task::spawn_blocking, time::timeout};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};

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
    #[error("{} has no certificates to trust: {cause}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// There are no certificates to trust.
    #[error("the system has no certificates to trust: install them (`ca-certificates`), or name a file (`jwks_ca`)")]
    NoRoots,
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
        let host = || self.host();
        let unreachable = |error: &dyn std::error::Error| FetchError::Unreachable {
            host: host(),
            cause: root(error),
        };
        // A connection of its own each time: certificates and addresses may have changed.
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(self.connector().await?);
        let request = Request::get(self.url.clone())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| unreachable(&error))?;
        let response = client.request(request).await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(FetchError::Status { host: host(), status });
        }
        match Limited::new(response.into_body(), MAX_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge { host: host() }),
            Err(error) => Err(unreachable(&*error)),
        }
    }

    async fn connector(&self) -> Result<HttpsConnector<HttpConnector>, FetchError> {
        let ca = self.ca.clone();
        let roots = spawn_blocking(move || match ca {
            Some(path) => roots_of(&path),
            None => system_roots(),
        });
        let roots = roots.await.map_err(|_| FetchError::NoRoots)??;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| FetchError::Unreachable {
                host: self.host(),
                cause: error.to_string(),
            })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build())
    }
}

/// Whether a host is this machine itself.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What is shown of a text that may hold a password.
fn without_user(url: &str) -> String {
    url.rsplit_once('@').map_or(url, |(_, rest)| rest).to_owned()
}

fn roots_of(path: &Path) -> Result<RootCertStore, FetchError> {
    let wrong = |cause: String| FetchError::Ca {
        path: path.to_owned(),
        cause,
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong(io::Error::from(io::ErrorKind::UnexpectedEof).to_string()));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(FetchError::NoRoots);
    }
    Ok(roots)
}

/// What is at the bottom of an error: the outer ones only say that something failed.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
