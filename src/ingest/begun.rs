//! A connection whose first bytes were read already.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// See the module. They are read again first.
#[derive(Debug)]
pub(super) struct Begun<S> {
    begin: Vec<u8>,
    /// How many of them have been read again.
    again: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Waits until so many bytes are there.
    pub(super) async fn read(mut stream: S, bytes: usize) -> io::Result<Self> {
        let mut begin = vec![0; bytes];
        stream.read_exact(&mut begin).await?;
        Ok(Self {
            begin,
            again: 0,
            stream,
        })
    }
}

impl<S> Begun<S> {
    /// The connection itself.
    pub(super) const fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = &self.begin[self.again..];
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let bytes = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..bytes]);
        self.again += bytes;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_lost_or_repeated() {
        let mut begun = Begun::read(&b"PRI * and the rest"[..], 5).await.expect("there");
        let mut first = [0; 3];
        begun.read_exact(&mut first).await.expect("there");
        let mut rest = Vec::new();
        begun.read_to_end(&mut rest).await.expect("there");
        assert_eq!((&first[..], &rest[..]), (&b"PRI"[..], &b" * and the rest"[..]));
        assert!(Begun::read(&b"PRI"[..], 5).await.is_err());
    }
}
