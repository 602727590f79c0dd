//! The nodes of a cluster, restarted one after another under load: some in good order, some killed. Every event comes once, in order, to everybody.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{
    course::Course,
    resume::{follows, mixture},
    run::plan,
};
use crate::{
    Report,
    fleet::{Comeback, Host},
    payload::Key,
    publish::Pace,
    target::{
        Tokens,
        cluster::{self, Cluster, Member},
    },
};

const EVERYBODY: Key = Key::Shared(0);

/// Which cluster, and under which load.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The cluster.
    #[command(flatten)]
    pub cluster: cluster::Options,

    /// Streams.
    #[arg(long, default_value_t = 3_000)]
    pub streams: u32,

    /// Events per second: half of them to inboxes, the others to topics that a hundred share.
    #[arg(long, default_value_t = 300)]
    pub rate: u32,

    /// Times that all nodes are restarted.
    #[arg(long, default_value_t = 1)]
    pub rounds: u32,

    /// Every so many restarts a node is killed, not ended; 0: never.
    #[arg(long, default_value_t = 2)]
    pub kill_every: u32,

    /// Restart the servers of NATS as well.
    #[arg(long)]
    pub with_nats: bool,

    /// Seconds between a node that is back and the next one that goes.
    #[arg(long, default_value_t = 2)]
    pub between: u64,

    /// Bytes of each payload.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,

    /// Have the nodes ask everybody who they are.
    #[arg(long)]
    pub tokens: bool,
}

/// Restarts them all. `tidings` is the program, `host` holds the clients.
///
/// # Errors
/// If the cluster does not start, or a node does not start again, or a stream cannot be opened.
pub async fn run(tidings: &Path, host: &Host, options: &Options) -> Result<Report> {
    let mut wanted = cluster::Plan::of(&options.cluster, tidings)?.set("drain.window", "2s");
    if options.tokens {
        wanted = wanted.asking(Tokens::new(&["**"]));
    }
    let mut cluster = wanted.start().await?;
    let ran = on(&mut cluster, host, options).await;
    if ran.as_ref().map_or(true, Report::failed) {
        eprintln!("the logs of all nodes are in {}", cluster.keep_logs().display());
    }
    ran
}

async fn on(cluster: &mut Cluster, host: &Host, options: &Options) -> Result<Report> {
    let mut report = Report::new("rolling")
        .setting("streams", options.streams)
        .setting("edges", options.cluster.edges)
        .setting("ingest_nodes", options.cluster.ingest_nodes)
        .setting("nats_servers", options.cluster.nats_servers)
        .setting("journal", options.cluster.journal.name())
        .setting("rate", options.rate)
        .setting("rounds", options.rounds)
        .setting("kill_every", options.kill_every)
        .setting("with_nats", options.with_nats)
        .setting("payload", options.payload);
    let node = cluster.node();
    let mut plan = plan(&node, follows());
    plan.comeback = Comeback {
        after: Duration::from_millis(50),
        within: Duration::from_secs(1),
        listens: false,
    };
    let mut to = node.to()?;
    to.connections = node.grpc.len();
    let any = mixture(options.streams);
    let course = Course::start((&node, host), (&plan, options.streams), (to, options.payload), any).await?;
    let mut course = course.loud();
    watch(&mut course, cluster);

    course.phase("opening");
    course.run.open(options.streams, 256).await?;
    // Who never got an event has nothing to resume from.
    course.publish(vec![EVERYBODY]).await?;
    course.settle(Duration::from_secs(60)).await?;
    course.recorder().measure();
    course.pace(Pace::rate(f64::from(options.rate)));
    let (mut restarts, mut longest) = (0_u32, 0.0_f64);
    for _ in 0..options.rounds {
        for kind in 0..3 {
            for number in 0..members(cluster, kind, options).len() {
                restarts += 1;
                let kills = options.kill_every > 0 && restarts.is_multiple_of(options.kill_every);
                let member = &mut members(cluster, kind, options)[number];
                course.phase(&format!(
                    "{} {}",
                    member.part.name(),
                    if kills { "is killed" } else { "drains" }
                ));
                let begin = Instant::now();
                course.wait_for(restart(member, kills, kind == 2)).await?;
                course
                    .until("all streams are open", Duration::from_secs(120), |totals| {
                        totals.open >= u64::from(options.streams)
                    })
                    .await?;
                longest = longest.max(begin.elapsed().as_secs_f64());
                watch(&mut course, cluster);
                let between = Duration::from_secs(options.between);
                course
                    .wait_for(async {
                        sleep(between).await;
                        Ok(())
                    })
                    .await?;
            }
        }
    }
    course.still().await?;
    course.recorder().measured();
    course.phase("all nodes are restarted");
    course.settle(Duration::from_secs(60)).await?;
    let totals = course.run.fleet.totals();
    ensure!(totals.streams.reopened > 0, "no stream was ever interrupted");
    report.measured("nodes restarted", f64::from(restarts), "times");
    report.measured("until a node is back, and all streams are open, at most", longest, "s");
    course.end(&mut report).await?;
    Ok(report)
}

fn watch(course: &mut Course, cluster: &Cluster) {
    let [edges, ingest, nats] = cluster.pids();
    course.recorder().watch("edges", edges);
    course.recorder().watch("ingest", ingest);
    course.recorder().watch("nats", nats);
}

/// The nodes of a kind: edges first, as when a version is rolled out.
fn members<'a>(cluster: &'a mut Cluster, kind: usize, options: &Options) -> &'a mut [Member] {
    match kind {
        0 => &mut cluster.edges,
        1 => &mut cluster.ingest,
        _ if options.with_nats => &mut cluster.nats,
        _ => &mut [],
    }
}

async fn restart(member: &mut Member, kills: bool, is_nats: bool) -> Result<()> {
    match kills {
        true => member.part.kill().await?,
        false => {
            member.part.signal(Signal::TERM)?;
            member.part.ended().await?;
        }
    }
    match is_nats {
        true => member.part.start().await,
        false => member.start_again().await,
    }
}
