//! What this machine can do at best: the smallest server that there can be, one write for each delivery and nothing else, with the same
//! clients; and what share of that the server reaches.
//!
//! Both are open one after the other, with the same number of streams. What a delivery costs is compared at the highest rate that each keeps up;
//! how long it takes, at the same rate: half of the lower of the two.

use std::time::Duration;

use anyhow::Result;

use super::fanout::{FanOut, Found, Options};
use crate::{
    Node, Report,
    fleet::Host,
    raw::Process,
    report::{Cell, Limit, Table},
};

/// Measures both and compares.
///
/// # Errors
/// If the server cannot be reached or does not do as it should.
pub async fn run(node: &Node, host: &Host, options: &Options) -> Result<Report> {
    let mut report = Report::new("rawlimit")
        .setting("streams", options.streams)
        .setting("payload", options.payload)
        .setting("seconds", options.seconds);
    let raw = Process::start(&std::env::current_exe()?).await?;
    let time = Duration::from_secs(options.seconds);

    let mut smallest = FanOut::open(raw.node(), host, options).await?;
    let raw_highest = smallest.highest().await?;
    let raw_full = smallest.at(raw_highest, time).await?;
    smallest.settle().await?;

    let mut server = FanOut::open(node, host, options).await?;
    let highest = server.highest().await?;
    let full = server.at(highest, time).await?;
    server.settle().await?;

    let rate = options.rate.unwrap_or(highest.min(raw_highest) / 2.0);
    let raw_half = smallest.at(rate, time).await?;
    smallest.settle().await?;
    let half = server.at(rate, time).await?;

    let row = |name: &str, highest: f64, full: Found, half: Found| {
        [name.into(), highest.into(), full.delivered.into()]
            .into_iter()
            .chain([full.per_processor_second.into()])
            .chain(half.latency.map(Cell::from))
            .collect::<Vec<Cell>>()
    };
    let mut table = Table::new(
        format!("the server beside the smallest there can be; times at {rate:.1} events per second"),
        [
            "",
            "highest rate, events/s",
            "deliveries/s",
            "deliveries per processor second",
            "p50, ms",
            "p99, ms",
            "p99.9, ms",
        ],
    );
    table.row(row("raw limit", raw_highest, raw_full, raw_half));
    table.row(row("server", highest, full, half));
    report.table(table);
    let share = full.per_processor_second / raw_full.per_processor_second * 100.0;
    let share_at_half = half.per_processor_second / raw_half.per_processor_second * 100.0;
    report.goal(
        "deliveries per processor second, at the highest rate, of the raw limit's",
        share,
        Limit::AtLeast(80.0),
        "%",
    );
    report.goal(
        "deliveries per processor second, at half of it, of the raw limit's",
        share_at_half,
        Limit::AtLeast(80.0),
        "%",
    );
    report.goal(
        "publish to receive, p99, of the raw limit's",
        half.latency[1] / raw_half.latency[1],
        Limit::AtMost(1.5),
        "times",
    );
    smallest.finish(&mut Report::new("rawlimit")).await?;
    server.finish(&mut report).await?;
    Ok(report)
}
