//! A connection from its first byte: has it encrypted where that is asked for, and finds out which HTTP it speaks. In clear text that is
//! told by those bytes, which hyper is given back.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures::{FutureExt as _, future::LocalBoxFuture};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use tracing::debug;

use super::{
    entrance, http1, http2, https1,
    limits::{ConnectionPermit, Over},
    worker::Worker,
};
use crate::{
    gate::Place,
    proxies::Client,
    tls::{self, ServerTls},
};

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a connection that is over a limit may last at most: so many can be told to come back later only while none of them stays.
const SHED_TIME: Duration = Duration::from_secs(3);

/// A connection that was accepted.
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    /// Who connected; perhaps a proxy, whose requests are from others.
    pub(super) client: Client,
    pub(super) permit: ConnectionPermit,
    /// Its place among those without a stream.
    pub(super) place: Arc<Place>,
    /// The limit that it is over: every stream that it asks for is shed.
    pub(super) over: Option<Over>,
}

impl Connection {
    /// How long it may take until its first request is there; if it is over a limit, until its end.
    pub(super) fn patience(&self) -> Duration {
        let patience = self.worker.settings.header_timeout;
        match self.over {
            Some(_) => patience.min(SHED_TIME),
            None => patience,
        }
    }
}

/// Serves a connection until its end, or until its socket has become a stream's.
pub(super) async fn serve(connection: Connection, stream: TcpStream) {
    let deadline = Instant::now() + connection.patience();
    // What a proxy says comes before everything else, TLS too.
    let Some((connection, deadline)) = entrance::enter(connection, &stream, deadline).await else {
        return;
    };
    match connection.worker.tls.clone() {
        Some(tls) => serve_encrypted(connection, stream, &tls, deadline).await,
        None => serve_plain(connection, stream, deadline).await,
    }
}

/// What the handshake takes is given back before the connection is served.
async fn serve_encrypted(connection: Connection, stream: TcpStream, tls: &ServerTls, deadline: Instant) {
    if let Some(served) = Box::pin(let_in(connection, stream, tls, deadline)).await {
        served.await;
    }
}

/// Shakes hands; what is left of the deadline then is for the first request.
async fn let_in(
    connection: Connection,
    stream: TcpStream,
    tls: &ServerTls,
    deadline: Instant,
) -> Option<LocalBoxFuture<'static, ()>> {
    let peer = connection.client;
    let stream = match timeout_at(deadline, tls.accept(stream)).await {
        // It is large, and moved about.
        Ok(Ok(stream)) => Box::new(stream),
        Ok(Err(error)) => {
            debug!(%peer, %error, "a connection is not let in");
            return None;
        }
        Err(_) => {
            debug!(%peer, "a connection is cut off: its handshake took too long");
            return None;
        }
    };
    Some(if tls::speaks_http2(&stream) {
        http2::serve(connection, TokioIo::new(stream), deadline).boxed_local()
    } else {
        https1::serve(connection, stream, deadline).boxed_local()
    })
}

async fn serve_plain(connection: Connection, stream: TcpStream, deadline: Instant) {
    // Too slow, gone, or broken: there is nobody to answer.
    let Ok(Ok((begin, is_http2))) = timeout_at(deadline, sniff(&stream)).await else {
        // Its share is given back before its peer can see that it is over, and come again.
        return drop(connection);
    };
    let io = Io {
        stream: TokioIo::new(stream),
        begin,
        blocked: Rc::default(),
    };
    if is_http2 {
        http2::serve(connection, io, deadline).await;
    } else {
        http1::serve(connection, io, deadline).await;
    }
}

/// Reads until it is clear whether this is HTTP/2: with most requests, one read.
async fn sniff(stream: &TcpStream) -> io::Result<(Bytes, bool)> {
    let mut begin = Vec::new();
    loop {
        stream.readable().await?;
        let mut chunk = [0; 1_024];
        match stream.try_read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => begin.extend_from_slice(&chunk[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if begin[0] == tls::FIRST_BYTE {
            // Nobody here understands it, and no answer would be understood there.
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks TLS"));
        }
        let common = begin.len().min(PREFACE.len());
        if begin[..common] != PREFACE[..common] {
            return Ok((begin.into(), false));
        }
        if common == PREFACE.len() {
            return Ok((begin.into(), true));
        }
    }
}

/// A socket whose first bytes were read already, for hyper.
pub(super) struct Io {
    stream: TokioIo<TcpStream>,
    begin: Bytes,
    /// Whether the last write waits for the socket.
    pub(super) blocked: Rc<Cell<bool>>,
}

impl Io {
    /// The socket. What of its first bytes was not read again is dropped.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.blocked.set(written.is_pending());
        written
    }
}

impl Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.begin.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let bytes = self.begin.len().min(buf.remaining());
        buf.put_slice(&self.begin[..bytes]);
        self.begin.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(written)
    }
}
