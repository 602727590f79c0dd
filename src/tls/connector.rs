//! gRPC channels, over TLS where their address says so.

use std::{
    io,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::{
    codegen::Service,
    transport::{Channel, Endpoint, Error},
};

use super::{ClientTls, client::Protocol};

/// A channel to an endpoint, connected when it is first used and again whenever it broke; each time with the certificates of then.
#[must_use]
pub fn channel(endpoint: &Endpoint, tls: &ClientTls) -> Channel {
    if is_encrypted(endpoint, tls) {
        endpoint.connect_with_connector_lazy(Connector { tls: tls.clone() })
    } else {
        endpoint.connect_lazy()
    }
}

/// A channel to an endpoint, connected now.
///
/// # Errors
/// If it cannot be connected.
pub async fn connect(endpoint: &Endpoint, tls: &ClientTls) -> Result<Channel, Error> {
    if is_encrypted(endpoint, tls) {
        endpoint.connect_with_connector(Connector { tls: tls.clone() }).await
    } else {
        endpoint.connect().await
    }
}

/// Addresses of other nodes are what somebody says on the bus: whoever is told whom to trust speaks to nobody else, and gives no secret to an
/// address that says `http`.
fn is_encrypted(endpoint: &Endpoint, tls: &ClientTls) -> bool {
    tls.has_files() || endpoint.uri().scheme_str() == Some("https")
}

/// Makes the connections of one channel.
struct Connector {
    tls: ClientTls,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move {
            let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
            let stream = TcpStream::connect((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            tls.connect(host, stream, Protocol::Http2).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;
    use crate::tls::{ClientFiles, NamedFile};

    #[tokio::test]
    async fn whoever_is_told_whom_to_trust_does_not_speak_in_clear_text() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("a certificate");
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, ca.pem()).expect("a file");
        let files = ClientFiles {
            ca: Some(NamedFile::new("cluster.tls_ca", file)),
            identity: None,
        };
        for (tls, begin) in [
            (ClientTls::load(files).expect("good files"), &[0x16][..]),
            (ClientTls::default(), b"P"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            let url = format!("http://{}", listener.local_addr().expect("bound"));
            let endpoint = Endpoint::from_shared(url)
                .expect("a URL")
                .timeout(Duration::from_secs(60));
            let connecting = tokio::spawn(async move { connect(&endpoint, &tls).await.is_ok() });
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut first = [0; 1];
            socket.read_exact(&mut first).await.expect("a first byte");
            assert_eq!(first, begin);
            drop(socket);
            connecting.abort();
        }
    }
}
