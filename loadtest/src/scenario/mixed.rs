//! Life as it is: most events are for one user, some for a group, a few for everybody; and some readers are slow.
//!
//! A slow reader takes less than it is sent. What the server does not get rid of it may not keep for ever: it lets such a stream fall back to
//! the log, where it catches up. Nothing is lost by that, and nobody else is to feel it: times are those of the other readers.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::run::{Run, plan};
use crate::{
    Node, Report,
    fleet::{Follows, Host, Plan, Slow},
    payload::Key,
    publish::{Pace, Publisher, What},
};

/// How long the slow readers may take for the rest.
const LAST: Duration = Duration::from_secs(240);

/// What to publish, and to whom.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Users, each with a stream that follows an inbox, the topic of a group, and that of everybody.
    #[arg(long, default_value_t = 5_000)]
    pub streams: u32,

    /// Streams that are being opened at the same time.
    #[arg(long, default_value_t = 256)]
    pub opening: u32,

    /// Users of a group.
    #[arg(long, default_value_t = 100)]
    pub group: u32,

    /// Events per second.
    #[arg(long, default_value_t = 2_000.0)]
    pub rate: f64,

    /// The share of events for a group.
    #[arg(long, default_value_t = 0.05)]
    pub for_groups: f64,

    /// The share of events for everybody.
    #[arg(long, default_value_t = 0.001)]
    pub for_all: f64,

    /// Bytes of each payload, at least.
    #[arg(long, default_value_t = 1_024)]
    pub payload: usize,

    /// One in so many readers is slow; with 0 none.
    #[arg(long, default_value_t = 20)]
    pub slow_one_in: u32,

    /// How fast a slow reader reads, in bytes per second.
    #[arg(long, default_value_t = 2_000)]
    pub slow_reads: u32,

    /// Seconds before the measurement begins.
    #[arg(long, default_value_t = 3)]
    pub warm_up: u64,

    /// Seconds for which it is measured.
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,

    /// Chooses the same users again.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Options {
    fn follows(&self) -> Follows {
        Follows {
            inbox: true,
            shared: vec![0, self.group],
        }
    }

    /// Chooses whom each event is for.
    fn topics(&self) -> impl FnMut(u64) -> Key + Send + use<> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let (streams, follows) = (self.streams, self.follows());
        let (for_all, for_groups) = (self.for_all, self.for_groups);
        move |_| {
            let stream = random.random_range(0..streams);
            let share: f64 = random.random();
            let place = match share {
                all if all < for_all => 1,
                group if group < for_all + for_groups => 2,
                _ => 0,
            };
            follows.keys(stream).nth(place).unwrap_or(Key::Inbox(stream))
        }
    }
}

/// Publishes, receives and measures.
///
/// # Errors
/// If the server cannot be reached, or does not do as it should.
pub async fn run(node: &Node, host: &Host, options: &Options) -> Result<Report> {
    let streams = options.streams;
    ensure!(
        options.rate > 0.0 && streams > 0 && options.group > 0,
        "`--rate`, `--streams` and `--group` are more than 0"
    );
    let mut report = Report::new("mixed")
        .setting("streams", streams)
        .setting("group", options.group)
        .setting("rate", options.rate)
        .setting("for groups", options.for_groups)
        .setting("for all", options.for_all)
        .setting("payload", options.payload)
        .setting("slow, one in", options.slow_one_in)
        .setting("slow reads", options.slow_reads)
        .setting("warm up", options.warm_up)
        .setting("seconds", options.seconds)
        .setting("seed", options.seed);
    let slow = Slow {
        one_in: options.slow_one_in,
        bytes_per_second: options.slow_reads,
    };
    let plan = Plan {
        slow: (slow.one_in > 0).then_some(slow),
        ..plan(node, options.follows())
    };
    let mut run = Run::start(node, host, &plan, streams)?;
    run.open(streams, options.opening).await?;
    let publisher = Publisher::start(node.to()?, What::new(options.payload, options.topics())).await?;
    publisher.pace(Pace::rate(options.rate));
    run.publish(publisher);
    let [warm_up, time] = [options.warm_up, options.seconds].map(Duration::from_secs);
    run.measure(warm_up, time).await?;
    run.recorder.mark("the last event");
    run.finish(LAST, &mut report).await?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn events_are_shared_out_as_told() {
        let options = Arguments::parse_from(["mixed", "--streams=1000", "--for-groups=0.2", "--for-all=0.1"]).options;
        let follows = options.follows();
        let (mut inboxes, mut groups, mut all) = (0, 0, 0);
        let mut topics = options.topics();
        for number in 0..10_000 {
            match topics(number) {
                Key::Inbox(stream) => {
                    assert!(stream < 1_000);
                    inboxes += 1;
                }
                key if follows.place(0, key) == Some(1) => all += 1,
                _ => groups += 1,
            }
        }
        assert!((6_500..7_500).contains(&inboxes), "{inboxes}");
        assert!((1_700..2_300).contains(&groups), "{groups}");
        assert!((800..1_200).contains(&all), "{all}");
        let same: Vec<_> = (0..100).map(options.topics()).collect();
        assert_eq!(same, (0..100).map(options.topics()).collect::<Vec<_>>());
    }
}
