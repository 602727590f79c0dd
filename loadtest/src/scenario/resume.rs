//! Connections that are cut off at random while events flow: each stream comes back with its cursor, and gets each event once, in order.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use rand::Rng as _;
use tokio::time::sleep;

use super::{course::Course, run::plan};
use crate::{
    Report,
    fleet::{Comeback, Follows, Host, How},
    payload::Key,
    publish::Pace,
    report::Limit,
    target::{Tokens, server::Setup},
};

/// Streams that share each of the topics that are not everybody's.
const GROUP: u32 = 100;
const EVERYBODY: Key = Key::Shared(0);

/// How many, and how often.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Streams.
    #[arg(long, default_value_t = 5_000)]
    pub streams: u32,

    /// Connections that are cut off each second, chosen at random.
    #[arg(long, default_value_t = 500)]
    pub cuts: u32,

    /// How they are cut off.
    #[arg(long, value_enum, default_value_t = How::Reset)]
    pub how: How,

    /// Events per second: half of them to inboxes, the others to topics that a hundred share.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u32,

    /// Seconds for which that goes on.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,

    /// Times that the server is killed meanwhile, and started again.
    #[arg(long, default_value_t = 0)]
    pub kills: u32,

    /// Bytes of each payload.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,

    /// Have the server ask everybody who they are.
    #[arg(long)]
    pub tokens: bool,
}

/// Publishes and cuts. `tidings` is the program, `host` holds the clients.
///
/// # Errors
/// If the server does not start, or a stream cannot be opened.
pub async fn run(tidings: &Path, host: &Host, options: &Options) -> Result<Report> {
    let mut report = Report::new("resume")
        .setting("streams", options.streams)
        .setting("cuts", options.cuts)
        .setting("how", format!("{:?}", options.how).to_lowercase())
        .setting("rate", options.rate)
        .setting("seconds", options.seconds)
        .setting("kills", options.kills)
        .setting("payload", options.payload)
        .setting("tokens", options.tokens);
    let mut node = Setup {
        tokens: options.tokens.then(|| Tokens::new(&["**"])),
        ..Setup::default()
    }
    .start(tidings)?;
    let mut plan = plan(&node, follows());
    plan.comeback = Comeback {
        after: Duration::ZERO,
        within: Duration::from_millis(500),
        listens: false,
    };
    let (what, any) = ((node.to()?, options.payload), mixture(options.streams));
    let course = Course::start((&node, host), (&plan, options.streams), what, any).await?;
    let mut course = course.loud();

    course.phase("opening");
    course.run.open(options.streams, 256).await?;
    // Who never got an event has nothing to resume from.
    course.publish(vec![EVERYBODY]).await?;
    course.settle(Duration::from_secs(60)).await?;
    course.recorder().measure();
    course.phase("cutting");
    course.pace(Pace::rate(f64::from(options.rate)));
    course.run.fleet.cut_every(f64::from(options.cuts), options.how)?;
    let piece = Duration::from_secs(options.seconds) / (options.kills + 1);
    for kill in 0..=options.kills {
        let part = &mut node;
        course
            .wait_for(async {
                if kill > 0 {
                    part.kill().await?;
                    part.start_again().await?;
                }
                sleep(piece).await;
                Ok(())
            })
            .await?;
        course.recorder().watch("server", [node.process()?]);
    }
    course.run.fleet.cut_every(0.0, options.how)?;
    course.still().await?;
    course.phase("cutting no more");
    course
        .until("all come back", Duration::from_secs(60), |totals| {
            totals.open >= u64::from(options.streams)
        })
        .await?;
    course.recorder().measured();
    course.settle(Duration::from_secs(60)).await?;
    let totals = course.run.fleet.totals();
    ensure!(totals.streams.cut > 0, "nothing was cut off");
    report.goal(
        "streams resumed for each that was cut",
        ratio(totals.streams.reopened, totals.streams.cut),
        Limit::AtLeast(1.0),
        "",
    );
    report.measured("connections cut off", totals.streams.cut as f64, "times");
    course.end(&mut report).await?;
    Ok(report)
}

fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to as f64
}

/// An inbox, a topic of a hundred, and one of all.
pub(super) fn follows() -> Follows {
    Follows {
        inbox: true,
        shared: vec![0, GROUP],
    }
}

/// Random topics of so many streams: one in two an inbox, and hardly ever that of all.
pub(super) fn mixture(streams: u32) -> impl FnMut() -> Key + Send + 'static {
    let shared = follows().shared_keys(streams);
    move || {
        let mut random = rand::rng();
        match random.random_range(0..200) {
            0 => EVERYBODY,
            1..100 => shared[random.random_range(0..shared.len())],
            _ => Key::Inbox(random.random_range(0..streams)),
        }
    }
}
