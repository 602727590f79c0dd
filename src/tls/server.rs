//! The side that serves.

use std::{
    convert::Infallible,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{net::TcpStream, time::sleep};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs::Ticketer,
        server::{NoServerSessionStorage, WebPkiClientVerifier},
        version::{TLS12, TLS13},
    },
    server::TlsStream,
};
use tracing::warn;

use super::{
    Problem, TlsError,
    client::Protocol,
    files::{Content, NamedFile},
    identity::{Identity, Term},
    kept::Kept,
    plain, provider,
};

/// What one connection may have waiting, encrypted, for a socket that takes nothing: enough for a whole record.
const BUFFER: usize = 16 * 1024;

/// How often a certificate is warned of that should have been renewed.
const REMIND: Duration = Duration::from_secs(24 * 60 * 60);

/// What a server is made from.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// Its certificate, and those between it and the root.
    pub cert: NamedFile,
    /// The certificate's key.
    pub key: NamedFile,
    /// The certificates that those of clients must come from; without it, clients are asked for none.
    pub client_ca: Option<NamedFile>,
}

/// A server's side of TLS: 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
#[derive(Debug)]
pub struct ServerTls(Kept<Served>);

struct Served {
    config: Arc<ServerConfig>,
    term: Term,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// If they do not hold what they should; the error names the setting and the file.
    pub fn load(files: ServerFiles) -> Result<Self, TlsError> {
        let files = [Some(files.cert), Some(files.key), files.client_ca];
        Kept::load(files.into_iter().flatten().collect(), serve).map(Self)
    }

    /// Until when the certificate that is shown now is good.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.0.current().term.not_after
    }

    /// Follows the files, for as long as it is polled; and warns once a day of a certificate that should have been renewed.
    pub async fn keep(self: Arc<Self>) -> Infallible {
        let remind = async {
            loop {
                sleep(REMIND).await;
                self.0.current().term.remind(SystemTime::now());
            }
        };
        tokio::select! {
            never = self.0.keep() => never,
            never = remind => never,
        }
    }

    /// Lets a connection in. It may take as long as the other side likes: the deadline is the caller's. One that does not speak TLS is told
    /// so, in plain HTTP.
    ///
    /// # Errors
    /// If there is no connection to serve. There is nobody left to tell.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        if !plain::begins_with_tls(&stream).await? {
            plain::refuse(stream).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak TLS"));
        }
        let config = Arc::clone(&self.0.current().config);
        let handshake =
            TlsAcceptor::from(config).accept_with(stream, |connection| connection.set_buffer_limit(Some(BUFFER)));
        match handshake.into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, stream)) => {
                // What is wrong was told, in the words of TLS.
                plain::close(stream).await?;
                Err(error)
            }
        }
    }
}

/// Whether a connection has agreed on HTTP/2.
#[must_use]
pub fn speaks_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(Protocol::Http2.name())
}

fn serve(contents: &[Content]) -> Result<Served, TlsError> {
    let identity = Identity::of(&contents[0], &contents[1])?;
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider knows both versions");
    let client_ca = contents.get(2);
    let builder = match client_ca {
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()?), provider)
                // Who comes without one may have a token.
                .allow_unauthenticated()
                .build()
                .map_err(|error| ca.wrong(Problem::UnusableCertificate(error.to_string())))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(identity.shown);
    config.alpn_protocols = Protocol::all();
    config.max_early_data_size = 0;
    // Nothing is kept here of those who were here before: what they need to come back faster is in their own tickets.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match client_ca {
        // Whoever comes back with a ticket shows no certificate: it could have expired by then.
        Some(_) => config.send_tls13_tickets = 0,
        None => match Ticketer::new() {
            Ok(ticketer) => config.ticketer = ticketer,
            Err(error) => warn!(%error, "no session tickets: each connection takes a whole handshake"),
        },
    }
    Ok(Served {
        config: Arc::new(config),
        term: identity.term,
    })
}
