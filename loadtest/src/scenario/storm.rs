//! A storm: the server is killed with all its streams open, and when it is back all of them resume at once, each over events that it missed,
//! while others are published to as before.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use rand::Rng as _;
use tokio::sync::oneshot;

use super::{course::Course, run::plan};
use crate::{
    Node, Report,
    fleet::{Comeback, Follows, Host},
    payload::{Key, now},
    publish::{Pace, To},
    report::Limit,
    target::{Tokens, server::Setup},
    template::Template,
};

/// Streams that share each of the topics that are not everybody's.
const GROUP: u32 = 100;
/// How long a baseline is, before the storm.
const CALM: Duration = Duration::from_secs(2);
const EVERYBODY: Key = Key::Shared(0);

/// How large a storm.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Streams that are dropped at once.
    #[arg(long, default_value_t = 15_000)]
    pub streams: u32,

    /// Events that each of them misses: one in five in its own inbox, one in the topic of all, the others in topics that a hundred share.
    #[arg(long, default_value_t = 20)]
    pub missed: u32,

    /// Others, who stay level meanwhile.
    #[arg(long, default_value_t = 100)]
    pub others: u32,

    /// Events that are published to others, each second.
    #[arg(long, default_value_t = 200)]
    pub rate: u32,

    /// Streams that are being opened at the same time, of those that come back.
    #[arg(long, default_value_t = 4_000)]
    pub at_a_time: u32,

    /// Bytes of each payload.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,

    /// Have the server ask everybody who they are.
    #[arg(long)]
    pub tokens: bool,
}

/// Opens the streams, kills the server, publishes what they miss, and lets them come back. `tidings` is the program, `host` holds the clients.
///
/// # Errors
/// If the server does not start, or a stream cannot be opened.
pub async fn run(tidings: &Path, host: &Host, options: &Options) -> Result<Report> {
    let mut report = Report::new("storm")
        .setting("streams", options.streams)
        .setting("missed", options.missed)
        .setting("others", options.others)
        .setting("rate", options.rate)
        .setting("tokens", options.tokens)
        .setting("payload", options.payload);
    let mut node = Setup {
        tokens: options.tokens.then(|| Tokens::new(&["**"])),
        ..Setup::default()
    }
    .start(tidings)?;
    let mut course = prepare(&node, host, options).await?;
    course.phase("opening");
    course.run.open(options.streams, options.at_a_time).await?;
    // Who never got an event has nothing to resume from.
    course.publish(vec![EVERYBODY]).await?;
    course.settle(Duration::from_secs(60)).await?;

    course.phase("the server is killed");
    course.run.fleet.stay_away(true)?;
    node.kill().await?;
    course
        .until("all notice", Duration::from_secs(60), |totals| totals.open == 0)
        .await?;
    node.start_again().await?;
    course.phase("what they miss is published");
    for keys in missed(options) {
        course.publish(keys).await?;
    }
    // From here on nothing of it is in memory any more: they resume from the disk.
    node.kill().await?;
    node.start_again().await?;
    course.recorder().watch("server", [node.process()?]);

    let others = Others::start(&node, host, options).await?;
    course.phase("they come back");
    let begin = now();
    let others = others.storm_begins();
    course.run.fleet.stay_away(false)?;
    let settled = course.settle(Duration::from_secs(60)).await?;
    let level = settled.at.saturating_sub(begin) as f64 / 1e9;
    let others = others.storm_is_over().await?;
    course.phase("all are level");
    course
        .until("all are open", Duration::from_secs(60), |totals| {
            totals.open >= u64::from(options.streams)
        })
        .await?;

    let reopened = course.run.fleet.totals().streams.reopened;
    ensure!(
        reopened >= u64::from(options.streams),
        "only {reopened} streams came back: this was no storm"
    );
    report.goal("all level again after", level, Limit::AtMost(3.0), "s");
    let missed = f64::from(options.streams) * f64::from(options.missed);
    report.measured("events that were missed", missed, "deliveries");
    report.measured("caught up", missed / level, "deliveries per second");
    let summary = others.recorder.summary();
    let (before, during) = (others.before, [summary.acknowledged(0.99), summary.latency(0.99)]);
    report.goal(
        "published to others meanwhile, acknowledged, p99",
        during[0],
        Limit::AtMost(50.0),
        "ms",
    );
    report.goal(
        "published to others meanwhile, received, p99",
        during[1],
        Limit::AtMost(50.0),
        "ms",
    );
    report.measured("before, acknowledged, p99", before[0], "ms");
    report.measured("before, received, p99", before[1], "ms");
    report.measured(
        "published to others meanwhile",
        summary.counters.acknowledged as f64,
        "events",
    );
    report.ledger(others.ledger);
    course.end(&mut report).await?;
    Ok(report)
}

async fn prepare(node: &Node, host: &Host, options: &Options) -> Result<Course> {
    let follows = Follows {
        inbox: true,
        shared: vec![0, GROUP],
    };
    let mut plan = plan(node, follows);
    plan.comeback = Comeback {
        after: Duration::ZERO,
        within: Duration::ZERO,
        listens: false,
    };
    let what = (node.to()?, options.payload);
    let course = Course::start((node, host), (&plan, options.streams), what, || EVERYBODY).await?;
    Ok(course.loud())
}

/// What each of the streams misses, an event of each topic at a time.
fn missed(options: &Options) -> Vec<Vec<Key>> {
    let follows = Follows {
        inbox: false,
        shared: vec![0, GROUP],
    };
    let groups: Vec<_> = follows.shared_keys(options.streams);
    let groups: Vec<_> = groups.into_iter().filter(|&key| key != EVERYBODY).collect();
    let round = |number: u32| match number % 5 {
        0 => (0..options.streams).map(Key::Inbox).collect(),
        1 if number == 1 => vec![EVERYBODY],
        _ => groups.clone(),
    };
    (0..options.missed).map(round).collect()
}

/// Those who have nothing to do with it.
struct Others {
    begins: oneshot::Sender<()>,
    over: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<Seen>>,
}

/// What they saw.
struct Seen {
    recorder: crate::report::Recorder,
    ledger: crate::report::Ledger,
    /// Acknowledged and received before the storm, p99, in milliseconds.
    before: [f64; 2],
}

/// They, in a storm.
struct InStorm {
    over: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<Seen>>,
}

impl Others {
    /// They are open and published to when this returns.
    async fn start(node: &Node, host: &Host, options: &Options) -> Result<Self> {
        // Topics of their own.
        let mut template = Template::tidings();
        "others/".clone_into(&mut template.names.shared);
        let follows = Follows {
            inbox: false,
            shared: vec![1],
        };
        let count = options.others.max(1);
        let mut plan = plan(node, follows);
        plan.template = template.clone();
        let to = To { template, ..node.to()? };
        let any = move || Key::Shared(rand::rng().random_range(0..count));
        let mut course = Course::start((node, host), (&plan, count), (to, options.payload), any).await?;
        course.run.open(count, count).await?;
        let all = (0..count).map(Key::Shared).collect();
        course.publish(all).await?;
        let rate = f64::from(options.rate.max(1));
        course.pace(Pace::rate(rate));
        course.wait_for(calm()).await?;
        course.recorder().measure();
        course.wait_for(calm()).await?;
        let before = course.recorder().summary();
        let before = [before.acknowledged(0.99), before.latency(0.99)];
        let (begins, has_begun) = oneshot::channel();
        let (over, is_over) = oneshot::channel();
        let task = tokio::spawn(async move {
            course.wait_for(told(has_begun)).await?;
            course.recorder().measure();
            course.wait_for(told(is_over)).await?;
            course.recorder().measured();
            course.still().await?;
            course.settle(Duration::from_secs(60)).await?;
            let recorder = std::mem::take(course.recorder());
            let mut unused = Report::new("others");
            let ledger = course.end(&mut unused).await?;
            Ok(Seen {
                recorder,
                ledger,
                before,
            })
        });
        Ok(Self { begins, over, task })
    }

    fn storm_begins(self) -> InStorm {
        let _ = self.begins.send(());
        InStorm {
            over: self.over,
            task: self.task,
        }
    }
}

impl InStorm {
    async fn storm_is_over(self) -> Result<Seen> {
        let _ = self.over.send(());
        self.task.await?
    }
}

async fn calm() -> Result<()> {
    tokio::time::sleep(CALM).await;
    Ok(())
}

async fn told(by: oneshot::Receiver<()>) -> Result<()> {
    // If nobody will tell any more, the run has failed elsewhere.
    Ok(by.await?)
}
