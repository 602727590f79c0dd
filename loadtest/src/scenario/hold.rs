//! Idle streams: what each costs the server.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::net::TcpStream;

use crate::{
    Node, Report,
    process::{Memory, processor_time},
    stream::{connect, read_head},
};

/// Streams that share the topics that are not a stream's own.
const GROUP: usize = 100;

/// What to hold.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Streams to hold. Both this process and the server need a file for each.
    #[arg(long, default_value_t = 15_000)]
    pub streams: usize,

    /// Streams to hold before the first measurement: what each costs is measured between the two.
    #[arg(long, default_value_t = 1_000)]
    pub first: usize,

    /// What each follows.
    #[command(flatten)]
    pub topics: Topics,

    /// Streams that are being opened at the same time.
    #[arg(long, default_value_t = 32)]
    pub opening: usize,

    /// Seconds for which to hold them, to see what that takes of the processor.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
}

/// What each stream follows.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Topics {
    /// Topics of each stream.
    #[arg(long = "topics", default_value_t = 1)]
    pub each: usize,

    /// How many of these nobody else follows, as an inbox; the others are each followed by 100 streams.
    #[arg(long, default_value_t = 1)]
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

/// What a stream costs the server, between two numbers of them.
fn per_stream(few: u64, many: u64, streams: usize) -> f64 {
    (many as f64 - few as f64) / streams as f64
}

/// Holds the streams and measures.
///
/// # Errors
/// If the server's process is not known, or a stream cannot be opened or does not stay.
pub async fn run(node: &Node, options: &Options) -> Result<Report> {
    let pid = node.process()?;
    let Options { streams, first, .. } = *options;
    ensure!(
        first < streams,
        "`--first` is to be less than `--streams`: memory is measured between them"
    );
    let empty = Memory::of(pid)?;
    let mut held = Held::new(node.streams(0), options.topics);
    held.grow(first, options.opening).await?;
    let few = Memory::of(pid)?;
    held.grow(streams, options.opening).await?;
    let many = Memory::of(pid)?;
    let before = processor_time(pid)?;
    let time = Duration::from_secs(options.seconds);
    tokio::time::sleep(time).await;
    let used = processor_time(pid)?.saturating_sub(before);
    let after = Memory::of(pid)?;
    let open = held.open();
    ensure!(open == streams, "{} streams ended by themselves", streams - open);

    let mut report = Report::new("hold")
        .setting("streams", streams)
        .setting("first", first)
        .setting("topics", options.topics.each)
        .setting("own", options.topics.own)
        .setting("opening", options.opening)
        .setting("seconds", options.seconds);
    let more = streams - first;
    report.measured("resident, no streams", mib(empty.resident), "MiB");
    report.measured(format!("resident, {first} streams"), mib(few.resident), "MiB");
    report.measured(format!("resident, {streams} streams"), mib(many.resident), "MiB");
    report.measured("resident, after the wait", mib(after.resident), "MiB");
    report.measured(
        "resident per stream",
        per_stream(few.resident, many.resident, more),
        "bytes",
    );
    report.measured(
        "proportional per stream",
        per_stream(few.proportional, many.proportional, more),
        "bytes",
    );
    report.measured(
        "anonymous per stream",
        per_stream(few.anonymous, many.anonymous, more),
        "bytes",
    );
    report.measured(
        "resident per stream, from none",
        per_stream(empty.resident, after.resident, streams),
        "bytes",
    );
    let idle = used.as_secs_f64() / time.as_secs_f64().max(f64::EPSILON);
    report.measured("processor while idle", idle * 100.0, "% of a core");
    Ok(report)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
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
