//! The side that connects.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, OnceLock},
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::ServerName,
        version::{TLS12, TLS13},
    },
};

use super::{
    TlsError,
    files::{Content, NamedFile},
    identity::Identity,
    kept::Kept,
    provider,
};

/// A version of HTTP, by the name that it has in a TLS handshake (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `h2`
    Http2,
    /// `http/1.1`
    Http1,
}

impl Protocol {
    pub(super) const fn name(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }

    /// All of them, the better ones first.
    pub(super) fn all() -> Vec<Vec<u8>> {
        [Self::Http2, Self::Http1]
            .map(|protocol| protocol.name().to_vec())
            .into()
    }
}

/// What a client is made from.
#[derive(Debug, Clone, Default)]
pub struct ClientFiles {
    /// The certificates that those of servers must come from; without it, those of the system.
    pub ca: Option<NamedFile>,
    /// What it shows to servers that ask: a certificate, and its key.
    pub identity: Option<(NamedFile, NamedFile)>,
}

/// A client's side of TLS: 1.2 and 1.3. Cheap to clone. By default it trusts whom the system trusts, and shows nothing.
#[derive(Debug, Clone, Default)]
pub struct ClientTls(Arc<Source>);

#[derive(Debug)]
enum Source {
    /// The system's certificates; read when they are first needed.
    System(OnceLock<Arc<Dialed>>),
    Files(Kept<Dialed>),
}

impl Default for Source {
    fn default() -> Self {
        Self::System(OnceLock::new())
    }
}

#[derive(Debug)]
struct Dialed {
    http2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    /// Whether there is anybody who may vouch for a server.
    trusts: bool,
}

impl ClientTls {
    /// Reads the files, if any are named.
    ///
    /// # Errors
    /// If they do not hold what they should; the error names the setting and the file.
    pub fn load(files: ClientFiles) -> Result<Self, TlsError> {
        let (has_ca, has_identity) = (files.ca.is_some(), files.identity.is_some());
        if !has_ca && !has_identity {
            return Ok(Self::default());
        }
        let (cert, key) = files.identity.unzip();
        let files = [files.ca, cert, key].into_iter().flatten().collect();
        let kept = Kept::load(files, move |contents| {
            let (ca, identity) = contents.split_at(usize::from(has_ca));
            dial(ca.first(), identity)
        })?;
        Ok(Self(Arc::new(Source::Files(kept))))
    }

    /// Whether it was told whom to trust, or what to show.
    pub(super) fn has_files(&self) -> bool {
        matches!(&*self.0, Source::Files(_))
    }

    /// Follows the files, for as long as it is polled.
    pub async fn keep(self) -> Infallible {
        match &*self.0 {
            Source::System(_) => std::future::pending().await,
            Source::Files(kept) => kept.keep().await,
        }
    }

    /// Goes on in TLS on a connection to this host, which has to prove that it is that.
    ///
    /// # Errors
    /// If it does not, or the connection breaks.
    pub async fn connect(&self, host: &str, stream: TcpStream, protocol: Protocol) -> io::Result<TlsStream<TcpStream>> {
        let dialed = self.dialed()?;
        if !dialed.trusts {
            return Err(io::Error::other(
                "the system has no certificates to check the server's by: name those that it comes from",
            ));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let config = match protocol {
            Protocol::Http2 => &dialed.http2,
            Protocol::Http1 => &dialed.http1,
        };
        TlsConnector::from(Arc::clone(config)).connect(name, stream).await
    }

    fn dialed(&self) -> io::Result<Arc<Dialed>> {
        match &*self.0 {
            Source::Files(kept) => Ok(kept.current()),
            Source::System(once) => {
                if let Some(dialed) = once.get() {
                    return Ok(Arc::clone(dialed));
                }
                let dialed = dial(None, &[]).map_err(io::Error::other)?;
                Ok(Arc::clone(once.get_or_init(|| Arc::new(dialed))))
            }
        }
    }
}

fn dial(ca: Option<&Content>, identity: &[Content]) -> Result<Dialed, TlsError> {
    let roots = match ca {
        Some(ca) => ca.roots()?,
        None => system(),
    };
    let trusts = !roots.is_empty();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider knows both versions")
        .with_root_certificates(roots);
    let mut http2 = match identity {
        [cert, key] => builder.with_client_cert_resolver(Identity::of(cert, key)?.shown),
        _ => builder.with_no_client_auth(),
    };
    let mut http1 = http2.clone();
    http2.alpn_protocols = vec![Protocol::Http2.name().to_vec()];
    http1.alpn_protocols = vec![Protocol::Http1.name().to_vec()];
    Ok(Dialed {
        http2: Arc::new(http2),
        http1: Arc::new(http1),
        trusts,
    })
}

/// Whom the system trusts. What of it cannot be read is passed over, as everybody does.
fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
