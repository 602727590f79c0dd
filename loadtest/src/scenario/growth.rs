//! Whether a stream, and a delivery, costs the same however many there are: more and more streams of one topic on one node, with the same
//! number of deliveries per second at each step.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::fanout::FanOut;
use crate::{
    Node, Report,
    fleet::Host,
    process::Memory,
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
    let Some(&most) = options.streams.last() else {
        anyhow::bail!("`--streams` names at least one number");
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
            "server's processor time per delivery, µs",
            "p50, ms",
            "p99, ms",
        ],
    );
    let empty = Memory::of(pid)?.anonymous;
    let mut fan_out = FanOut::start(node, host, most, options.payload).await?;
    let (mut before, mut costs) = ((0, empty), Vec::new());
    for &streams in &options.streams {
        fan_out.grow(streams).await?;
        // Before the first event of this step: what is sent leaves its traces once.
        let memory = Memory::of(pid)?.anonymous;
        let per_stream = (memory as f64 - before.1 as f64) / f64::from(streams - before.0);
        let rate = options.deliveries / f64::from(streams);
        let found = fan_out.at(rate, Duration::from_secs(options.seconds)).await?;
        fan_out.settle().await?;
        let per_delivery = 1e6 / found.per_processor_second;
        costs.push((per_stream, per_delivery));
        table.row([
            u64::from(streams).into(),
            (memory as f64 / f64::from(1 << 20)).into(),
            per_stream.into(),
            found.delivered.into(),
            per_delivery.into(),
            found.latency[0].into(),
            found.latency[1].into(),
        ]);
        before = (streams, Memory::of(pid)?.anonymous);
    }
    report.table(table);
    let spread = |of: fn(&(f64, f64)) -> f64, from: usize| {
        let costs: Vec<f64> = costs.iter().skip(from).map(of).collect();
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = costs.iter().copied().fold(0.0, f64::max);
        (most / least - 1.0) * 100.0
    };
    // Of the first streams each pays for what is made once.
    report.goal(
        "memory of a stream, from the second step on: most over least",
        spread(|cost| cost.0, 1),
        Limit::AtMost(10.0),
        "%",
    );
    report.goal(
        "processor time of a delivery: most over least",
        spread(|cost| cost.1, 0),
        Limit::AtMost(10.0),
        "%",
    );
    fan_out.finish(&mut report).await?;
    Ok(report)
}
