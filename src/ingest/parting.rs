//! A connection whose last answers arrive although its peer still sends.
//!
//! To close a socket while bytes of the peer's are unread resets it, and a reset takes back what the peer has not been sent yet: the answers to
//! lines that were taken, when the body of them ends early. So such bytes are read for a while after the end, to no purpose, until the peer is done.

use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long it stays open after its end at most.
const LINGER: Duration = Duration::from_secs(2);
/// How much is read meanwhile. What comes after that waits, and is reset in the end.
const MOST: usize = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Parting<S> {
    stream: S,
    /// Once nothing more is written: until when it is waited for the peer, and how much is read.
    parting: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Parting<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, parting: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Parting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Parting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, parting } = &mut *self;
        let (over, left) = match parting {
            Some(parting) => parting,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                parting.insert((Box::pin(sleep(LINGER)), MOST))
            }
        };
        let mut bytes = [0; 8 * 1024];
        while *left > 0 {
            let mut unread = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(cx, &mut unread) {
                Poll::Ready(Ok(())) if !unread.filled().is_empty() => {
                    *left = left.saturating_sub(unread.filled().len());
                }
                // The peer is done, or gone.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        over.as_mut().poll(cx).map(Ok)
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
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_reads_on_until_the_peer_is_done_or_its_time_is_over() {
        for is_done in [true, false] {
            let (near, mut far) = duplex(16);
            let mut near = Parting::new(near);
            let began = Instant::now();
            let closing = tokio::spawn(async move { near.shutdown().await });
            far.write_all(&[7; 1_000]).await.expect("read");
            let mut rest = Vec::new();
            assert_eq!(far.read_to_end(&mut rest).await.expect("the end"), 0);
            let far = (!is_done).then_some(far);
            closing.await.expect("no panic").expect("closed");
            assert_eq!(began.elapsed() >= LINGER, !is_done);
            drop(far);
        }
    }
}
