//! What a delivery costs with one edge and with several. On few cores the time that deliveries take says nothing; what is compared is the processor
//! time for each.
//!
//! Several edges have as many streams each as one has alone: so many times as much to do. And one alone has as many as the several together: then
//! as many sockets pass through the processor's caches, which is a price of the kernel's, and what is left is the price of being several.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{course::Course, run::plan};
use crate::{
    Report,
    fleet::{Follows, Host},
    payload::Key,
    publish::Pace,
    report::{Cell, Limit, Table},
    target::cluster,
};

const EVERYBODY: Key = Key::Shared(0);

/// How much of what.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The cluster; its edges are the most that are compared with one.
    #[command(flatten)]
    pub cluster: cluster::Options,

    /// Streams of each edge.
    #[arg(long, default_value_t = 5_000)]
    pub streams: u32,

    /// Events per second. Each goes to all streams.
    #[arg(long, default_value_t = 4)]
    pub rate: u32,

    /// Seconds that are measured each time.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,

    /// Times that all are measured, one after the other: what is compared is the middle of each.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,

    /// Bytes of each payload.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,
}

/// What was measured once.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Processor time of the edges, in nanoseconds per delivery.
    edges: f64,
    /// That of NATS and ingest nodes.
    others: f64,
}

/// Measures all three. `tidings` is the program, `host` holds the clients.
///
/// # Errors
/// If a cluster does not start, or a stream cannot be opened.
pub async fn run(tidings: &Path, host: &Host, options: &Options) -> Result<Report> {
    ensure!(
        options.cluster.edges > 1 && options.rounds > 0,
        "compared are one edge and several"
    );
    let mut report = Report::new("edges")
        .setting("edges", options.cluster.edges)
        .setting("streams", options.streams)
        .setting("rate", options.rate)
        .setting("seconds", options.seconds)
        .setting("rounds", options.rounds)
        .setting("payload", options.payload);
    let columns = [
        "edges",
        "streams",
        "edges, ns per delivery",
        "NATS and ingest, ns per delivery",
    ];
    let mut table = Table::new("Processor time per delivery", columns);
    let (several, each) = (options.cluster.edges, options.streams);
    let all = each * u32::try_from(several)?;
    let worlds = [(1, each), (1, all), (several, all)];
    let mut costs = worlds.map(|_| Vec::new());
    for _ in 0..options.rounds {
        for (&(edges, streams), costs) in worlds.iter().zip(&mut costs) {
            let cost = measure(tidings, host, options, (edges, streams), &mut report).await?;
            table.row([
                Cell::from(edges as u64),
                u64::from(streams).into(),
                cost.edges.into(),
                cost.others.into(),
            ]);
            costs.push(cost.edges);
        }
    }
    report.table(table);
    let [one, crowded, apart] = costs.map(middle);
    report.measured(format!("one edge, {each} streams"), one, "ns per delivery");
    report.measured(format!("one edge, {all} streams"), crowded, "ns per delivery");
    report.measured(format!("{several} edges, {all} streams"), apart, "ns per delivery");
    report.measured(
        "several edges, to one with a share of the streams",
        apart / one,
        "times",
    );
    let to_one = "several edges, to one with as many streams";
    report.goal(to_one, apart / crowded, Limit::AtMost(1.1), "times");
    report.goal(
        format!("{to_one}, at least"),
        apart / crowded,
        Limit::AtLeast(0.9),
        "times",
    );
    Ok(report)
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure(
    tidings: &Path,
    host: &Host,
    options: &Options,
    (edges, streams): (usize, u32),
    report: &mut Report,
) -> Result<Cost> {
    let wanted = cluster::Options {
        edges,
        ..options.cluster.clone()
    };
    let cluster = cluster::Plan::of(&wanted, tidings)?
        .set("http.workers", "1")
        .start()
        .await?;
    let node = cluster.node();
    let plan = plan(&node, Follows::one_topic());
    let what = (node.to()?, options.payload);
    let mut course = Course::start((&node, host), (&plan, streams), what, || EVERYBODY).await?;
    let [edges, ingest, nats] = cluster.pids();
    course.recorder().watch("edges", edges);
    course.recorder().watch("others", ingest.into_iter().chain(nats));
    course.run.open(streams, 512).await?;
    course.publish(vec![EVERYBODY]).await?;
    course.settle(Duration::from_secs(60)).await?;
    course.recorder().measure();
    course.pace(Pace::rate(f64::from(options.rate)));
    let time = Duration::from_secs(options.seconds);
    course
        .wait_for(async {
            tokio::time::sleep(time).await;
            Ok(())
        })
        .await?;
    course.still().await?;
    course.settle(Duration::from_secs(60)).await?;
    course.recorder().measured();
    let summary = course.recorder().summary();
    let cost = |part: &str| -> Result<f64> {
        let part = summary.part(part).context("it is watched")?;
        Ok(part.processor.as_secs_f64() * 1e9 / summary.counters.delivered as f64)
    };
    let cost = Cost {
        edges: cost("edges")?,
        others: cost("others")?,
    };
    // Of each measurement the ledger alone: the figures have the same names.
    let mut unused = Report::new("edges");
    let ledger = course.end(&mut unused).await?;
    report.ledger(ledger);
    Ok(cost)
}
