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
    if is_encrypted(endpoint) {
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
    if is_encrypted(endpoint) {
        endpoint.connect_with_connector(Connector { tls: tls.clone() }).await
    } else {
        endpoint.connect().await
    }
}

fn is_encrypted(endpoint: &Endpoint) -> bool {
    endpoint.uri().scheme_str() == Some("https")
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
