//! One connection of the port: whom a proxy connects for, TLS where that is asked for, and which HTTP it speaks, each within its time; then served
//! until it ends.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    begun::Begun,
    entrance::{Guest, TOLD_WITHIN},
    parting::Parting,
};
use crate::{
    auth::ClientNames,
    tls::{self, ServerTls},
};

/// How long a connection may take to say its first word, and an HTTP/1.1 request to say its head.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What every HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait for the rest of it before looking again.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
/// How often an HTTP/2 connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// What one call may send ahead of its being read, and all calls of a connection together. h2 ends a connection that has too many small
/// frames waiting to be read, and counts each as 256 bytes against half of the connection's window. A stream of small events is one such frame
/// each, and is not read while its events wait for the disk: so its own window must be full before that, down to frames of about 8 bytes.
const CALL_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// A connection that was accepted.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// How long it may take to say which HTTP it speaks, and as long for each step before that.
    pub(super) first_word: Duration,
    pub(super) http: auto::Builder<TokioExecutor>,
    pub(super) router: Router,
}

impl Connection {
    /// Serves it until its end. What a proxy says comes before everything else, TLS too.
    pub(super) async fn enter(mut self, guest: Guest, tls: Option<Arc<ServerTls>>, drain: CancellationToken) {
        let guest = tokio::select! {
            introduced = timeout(self.first_word, guest.introduced(&self.stream)) => match introduced {
                Ok(Some(guest)) => guest,
                _ => return,
            },
            () = drain.cancelled() => return,
        };
        self.router = guest.router(&self.router);
        let served = self.serve(tls, drain);
        if guest.is_over() {
            // It has been told by then.
            let _ = timeout(TOLD_WITHIN, served).await;
        } else {
            served.await;
        }
    }

    async fn serve(self, tls: Option<Arc<ServerTls>>, drain: CancellationToken) {
        if let Err(error) = self.stream.set_nodelay(true) {
            debug!(%error, "a connection ended before it began");
            return;
        }
        match tls {
            Some(tls) => self.serve_encrypted(&tls, drain).await,
            None => self.serve_plain(drain).await,
        }
    }

    async fn serve_plain(self, drain: CancellationToken) {
        // Which version it speaks is only known by its first bytes, and hyper waits for them without a limit.
        tokio::select! {
            spoken = timeout(self.first_word, first_word_of(&self.stream)) => {
                if matches!(spoken, Ok(Ok(()))) {
                    serve_connection(self.stream, &self.http, self.router, drain).await;
                }
            }
            () = drain.cancelled() => {}
        }
    }

    async fn serve_encrypted(self, tls: &ServerTls, drain: CancellationToken) {
        let first_word = self.first_word;
        let opened = async {
            let stream = timeout(first_word, tls.accept(self.stream)).await??;
            let is_http2 = tls::speaks_http2(&stream);
            let preface = if is_http2 { PREFACE.len() } else { 0 };
            // The handshake has told which version it speaks; hyper waits for the beginning of HTTP/2 without a limit all the same.
            let stream = timeout(first_word, Begun::read(stream, preface)).await??;
            Ok::<_, io::Error>((stream, is_http2))
        };
        let (stream, is_http2) = tokio::select! {
            opened = opened => match opened {
                Ok(opened) => opened,
                Err(error) => return debug!(%error, "a connection is not let in"),
            },
            () = drain.cancelled() => return,
        };
        let router = match certified_names(stream.get_ref()) {
            Some(names) => self.router.layer(Extension(names)),
            None => self.router,
        };
        let http = if is_http2 {
            self.http.http2_only()
        } else {
            self.http.http1_only()
        };
        serve_connection(stream, &http, router, drain).await;
    }
}

/// The names of a client's certificate, which was found good; nothing if it has shown none.
fn certified_names(stream: &TlsStream<TcpStream>) -> Option<ClientNames> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    Some(ClientNames(tls::names(certificate).into()))
}

/// Waits until the first bytes tell which HTTP a connection speaks, and leaves them where they are.
async fn first_word_of(stream: &TcpStream) -> io::Result<()> {
    let mut begin = [0; PREFACE.len()];
    loop {
        stream.readable().await?;
        let bytes = stream.peek(&mut begin).await?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if begin[0] == tls::FIRST_BYTE {
            // No answer would be understood there.
            return Err(io::ErrorKind::InvalidData.into());
        }
        if bytes == PREFACE.len() || begin[..bytes] != PREFACE[..bytes] {
            return Ok(());
        }
        // What is there stays readable. Nobody sends the preface in pieces but by bad luck.
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

/// Serves one connection until it ends; once `drain` is cancelled, until the calls that are under way have ended.
pub(super) async fn serve_connection<IO>(
    io: IO,
    http: &auto::Builder<TokioExecutor>,
    router: Router,
    drain: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Parting::new(io));
    let mut connection = pin!(http.serve_connection(io, TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(error, "a connection ended early");
    }
}

/// HTTP, as it is spoken on the port.
pub(super) fn http(calls_per_connection: u32) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(calls_per_connection);
    http
}
