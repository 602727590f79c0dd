//! Idle streams of the tests of memory: held by the test itself, and closed one by one.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::net::TcpStream;

use crate::stream::{connect, read_head};

/// Streams that share the topics that are not a stream's own.
const GROUP: usize = 100;

/// What each stream follows.
#[derive(Debug, Clone, Copy)]
pub struct Topics {
    /// Topics of each stream.
    pub each: usize,
    /// How many of these nobody else follows, as an inbox; the others are each followed by 100 streams.
    pub own: usize,
}

impl Topics {
    fn query(self, stream: usize) -> String {
        let topics = (0..self.each).map(|topic| match topic {
            0 if self.own > 0 => format!("user={stream}"),
            own if own < self.own => format!("topic=device:{stream}/{own}"),
            _ => format!("topic=group:{}/{topic}", stream / GROUP),
        });
        topics.collect::<Vec<_>>().join("&")
    }
}

/// Streams that are open and otherwise left alone.
#[derive(Debug)]
pub struct Held {
    server: SocketAddr,
    topics: Topics,
    streams: Vec<TcpStream>,
}

impl Held {
    /// None yet.
    #[must_use]
    pub const fn new(server: SocketAddr, topics: Topics) -> Self {
        Self {
            server,
            topics,
            streams: Vec::new(),
        }
    }

    /// Opens more, `opening` at the same time, until there are so many.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub async fn grow(&mut self, to: usize, opening: usize) -> Result<()> {
        let &mut Self { server, topics, .. } = self;
        let open = |number| async move {
            let mut socket = connect(server, number, &topics.query(number)).await?;
            read_head(&mut socket).await?;
            anyhow::Ok(socket)
        };
        let opened = stream::iter(self.streams.len()..to)
            .map(open)
            .buffer_unordered(opening.max(1));
        let opened: Vec<_> = opened.try_collect().await.context("a stream cannot be opened")?;
        self.streams.extend(opened);
        Ok(())
    }

    /// Says goodbye on all, and waits until the server has let go of each.
    ///
    /// # Errors
    /// If the server resets a connection.
    pub async fn close(self) -> Result<()> {
        let close = |mut stream: TcpStream| async move {
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
            // Ready at the end of the stream: when the server has closed it, too.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        };
        let closed = stream::iter(self.streams).map(close).buffer_unordered(GROUP);
        closed.try_for_each(|_| async { Ok(()) }).await?;
        Ok(())
    }

    /// How many are still open.
    #[must_use]
    pub fn open(&self) -> usize {
        let is_open = |stream: &&TcpStream| {
            let mut heartbeats = [0; 4_096];
            match stream.try_read(&mut heartbeats) {
                Ok(bytes) => bytes > 0,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        };
        self.streams.iter().filter(is_open).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_topics_of_its_own_and_shared_ones() {
        let topics = Topics { each: 3, own: 2 };
        assert_eq!(topics.query(250), "user=250&topic=device:250/1&topic=group:2/2");
        let shared = Topics { each: 1, own: 0 };
        assert_eq!(shared.query(99), shared.query(0));
    }
}
