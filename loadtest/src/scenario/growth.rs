//! Whether a stream, and a delivery, costs the same however many there are: more and more streams of one topic on one node, with the same
//! number of deliveries per second at each step.
//!
//! The more sockets are written to in turn, the less of them is in the processor's caches when its turn comes: a price of the kernel's, which the
//! smallest server that there can be pays too. It has as many streams at each step, and what a delivery costs is told in its terms as well.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::fanout::FanOut;
use crate::{
    Node, Report,
    fleet::Host,
    process::Memory,
    raw::Process,
    report::{Limit, Table},
};

/// How far to go.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Streams at each step, more each time; the server needs a file for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 2_000, 5_000, 10_000, 16_000])]
    pub streams: Vec<u32>,

    /// Deliveries per second, of all streams together.
    #[arg(long, default_value_t = 30_000.0)]
    pub deliveries: f64,

    /// Bytes of each payload, at least.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,

    /// Seconds for which each step is measured.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
}

/// Goes up the steps.
///
/// # Errors
/// If the server's process is not known, or it does not do as it should.
pub async fn run(node: &Node, host: &Host, options: &Options) -> Result<Report> {
    let pid = node.process()?;
    // What the first step takes is not compared with anything.
    let &[_, _, .., most] = &options.streams[..] else {
        anyhow::bail!("`--streams` names at least three numbers");
    };
    ensure!(
        options.streams.is_sorted_by(|less, more| less < more),
        "`--streams` goes up"
    );
    let mut report = Report::new("growth")
        .setting("streams", options.streams.clone())
        .setting("deliveries", options.deliveries)
        .setting("payload", options.payload)
        .setting("seconds", options.seconds);
    let mut table = Table::new(
        "what streams and deliveries cost",
        [
            "streams",
            "server, anonymous, MiB",
            "per stream more, bytes",
            "deliveries/s",
            "processor time per delivery, server, µs",
            "raw limit, µs",
            "server of raw limit, %",
            "p50, ms",
            "p99, ms",
        ],
    );
    let empty = Memory::of(pid)?.anonymous;
    let mut server = FanOut::start(node, host, most, options.payload).await?;
    let raw = Process::start(&std::env::current_exe()?).await?;
    let mut smallest = FanOut::start(raw.node(), host, most, options.payload).await?;
    let time = Duration::from_secs(options.seconds);
    let (mut before, mut memories, mut shares) = ((0, empty), Vec::new(), Vec::new());
    for &streams in &options.streams {
        server.grow(streams).await?;
        // Before the first event of this step: what is sent leaves its traces once.
        let memory = Memory::of(pid)?.anonymous;
        let per_stream = (memory as f64 - before.1 as f64) / f64::from(streams - before.0);
        let rate = options.deliveries / f64::from(streams);
        let found = server.at(rate, time).await?;
        server.settle().await?;
        smallest.grow(streams).await?;
        let least = smallest.at(rate, time).await?;
        smallest.settle().await?;
        let [own, raw] = [found, least].map(|found| 1e6 / found.per_processor_second);
        ensure!(
            own.is_finite() && raw.is_finite(),
            "nothing was delivered to {streams} streams while it was measured: more `--seconds`"
        );
        // Where the allocator gave something back meanwhile it takes less than nothing.
        memories.push(per_stream.max(1.0));
        shares.push(own / raw);
        table.row([
            u64::from(streams).into(),
            (memory as f64 / f64::from(1 << 20)).into(),
            per_stream.into(),
            found.delivered.into(),
            own.into(),
            raw.into(),
            (own / raw * 100.0).into(),
            found.latency[0].into(),
            found.latency[1].into(),
        ]);
        before = (streams, Memory::of(pid)?.anonymous);
    }
    report.table(table);
    // Of the first streams each pays for what is made once.
    report.goal(
        "memory of a stream more, over what it was with fewer",
        rise(&memories[1..]) * 100.0,
        Limit::AtMost(10.0),
        "%",
    );
    report.goal(
        "processor time of a delivery, of the raw limit's with as many streams, over what it was with fewer",
        rise(&shares) * 100.0,
        Limit::AtMost(10.0),
        "%",
    );
    let mut beside = Report::new("growth");
    smallest.finish(&mut beside).await?;
    ensure!(
        !beside.failed(),
        "the smallest server did not do as it should: {beside}"
    );
    server.finish(&mut report).await?;
    Ok(report)
}

/// By how much a cost is over the least that it was before, at most; below 0 if it fell each time. Of at least two, which are above 0.
fn rise(costs: &[f64]) -> f64 {
    let (mut least, mut most) = (costs[0], f64::NEG_INFINITY);
    for &cost in &costs[1..] {
        most = most.max(cost / least - 1.0);
        least = least.min(cost);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_rises_over_the_least_before() {
        let close = |costs: &[f64], want: f64| assert!((rise(costs) - want).abs() < 1e-9, "{costs:?}");
        close(&[10.0, 12.0, 11.0], 0.2);
        close(&[10.0, 5.0, 6.0, 4.0], 0.2);
        close(&[10.0, 9.0, 8.0], 0.9 - 1.0);
    }
}
