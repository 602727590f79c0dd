//! Each event to one of many users: how long it takes from publish to receive, at a rate that does not wait for anything.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::run::{Run, plan};
use crate::{
    Node, Report,
    fleet::{Follows, Host},
    payload::Key,
    publish::{Pace, Publisher, What},
    report::Limit,
};

/// How long the last events may take to arrive.
const LAST: Duration = Duration::from_secs(60);

/// What to publish, and to whom.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Users, each with a stream.
    #[arg(long, default_value_t = 15_000)]
    pub streams: u32,

    /// Streams that are being opened at the same time.
    #[arg(long, default_value_t = 256)]
    pub opening: u32,

    /// Events per second, each for a user chosen at random.
    #[arg(long, default_value_t = 20_000.0)]
    pub rate: f64,

    /// Bytes of each payload, at least.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,

    /// Connections over which they are published.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,

    /// Seconds before the measurement begins.
    #[arg(long, default_value_t = 3)]
    pub warm_up: u64,

    /// Seconds for which it is measured.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,

    /// Chooses the same users again.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Publishes, receives and measures.
///
/// # Errors
/// If the server cannot be reached, or does not do as it should.
pub async fn run(node: &Node, host: &Host, options: &Options) -> Result<Report> {
    let streams = options.streams;
    ensure!(
        options.rate > 0.0 && streams > 0,
        "`--rate` and `--streams` are more than 0"
    );
    let mut report = Report::new("inboxes")
        .setting("streams", streams)
        .setting("rate", options.rate)
        .setting("payload", options.payload)
        .setting("connections", options.connections)
        .setting("warm up", options.warm_up)
        .setting("seconds", options.seconds)
        .setting("seed", options.seed);
    let mut run = Run::start(node, host, &plan(node, Follows::inbox()), streams)?;
    run.open(streams, options.opening).await?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let what = What::new(options.payload, move |_| Key::Inbox(random.random_range(0..streams)));
    let mut to = node.to()?;
    to.connections = options.connections;
    let publisher = Publisher::start(to, what).await?;
    publisher.pace(Pace::rate(options.rate));
    run.publish(publisher);
    let [warm_up, time] = [options.warm_up, options.seconds].map(Duration::from_secs);
    run.measure(warm_up, time).await?;
    let summary = run.recorder.summary();
    run.finish(LAST, &mut report).await?;
    report.goal(
        "published",
        summary.per_second(summary.counters.published),
        Limit::AtLeast(options.rate * 0.99),
        "per second",
    );
    report.goal(
        "publish to receive, p99",
        summary.latency(0.99),
        Limit::AtMost(5.0),
        "ms",
    );
    Ok(report)
}
