//! One topic, many streams: what a delivery costs, and how long it takes.
//!
//! The highest rate is looked for first: one that is kept up is raised, until one is not. What a delivery costs is measured at the
//! highest rate, how long it takes at half of it, where nothing waits for anything.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::run::{Run, plan};
use crate::{
    Node, Report,
    fleet::{Follows, Host},
    payload::{Key, now},
    publish::{Pace, Publisher, What},
};

/// The topic.
const TOPIC: Key = Key::Shared(0);

/// How long everything that was acknowledged may take to arrive.
const LAST: Duration = Duration::from_secs(60);

/// What to fan out.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Streams that follow the topic.
    #[arg(long, default_value_t = 15_000)]
    pub streams: u32,

    /// Streams that are being opened at the same time.
    #[arg(long, default_value_t = 256)]
    pub opening: u32,

    /// Bytes of each payload, at least.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,

    /// Events per second; without it the highest rate is looked for, and half of it measured too.
    #[arg(long)]
    pub rate: Option<f64>,

    /// Seconds for which each rate is measured.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
}

/// One topic and its streams, open.
pub struct FanOut {
    run: Run,
    publisher: usize,
    streams: u32,
    opening: u32,
    /// What all streams that were open were to get.
    due: u64,
    /// Events that are counted there.
    published: u64,
}

/// What was found at one rate.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Events per second that were published.
    pub offered: f64,
    /// Deliveries per second.
    pub delivered: f64,
    /// Deliveries per second of the server's processor time; not a number if its process is not known.
    pub per_processor_second: f64,
    /// Publish to receive, p50, p99 and p99.9, in milliseconds.
    pub latency: [f64; 3],
}

impl FanOut {
    /// Opens the streams.
    ///
    /// # Errors
    /// If the server cannot be reached, or a stream cannot be opened.
    pub async fn open(node: &Node, host: &Host, options: &Options) -> Result<Self> {
        let mut fan_out = Self::start(node, host, options.streams, options.payload).await?;
        fan_out.opening = options.opening;
        fan_out.grow(options.streams).await?;
        Ok(fan_out)
    }

    /// None is open yet of so many streams, and nothing published.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn start(node: &Node, host: &Host, streams: u32, payload: usize) -> Result<Self> {
        let plan = plan(node, Follows::one_topic());
        let mut run = Run::start(node, host, &plan, streams)?;
        let publisher = run.publish(Publisher::start(node.to()?, What::of(TOPIC, payload)).await?);
        Ok(Self {
            run,
            publisher,
            streams: 0,
            opening: 256,
            due: 0,
            published: 0,
        })
    }

    /// Opens more streams, up to so many, which are to get what is published from then on.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub async fn grow(&mut self, streams: u32) -> Result<()> {
        self.settle().await?;
        let published = self.run.publisher(self.publisher).tally().topics;
        self.run
            .open_after(&published.into_iter().collect(), streams, self.opening)
            .await?;
        self.streams = streams;
        self.run.recorder.mark("open");
        Ok(())
    }

    /// Publishes at a rate for so long, after a second in which nothing is measured.
    ///
    /// # Errors
    /// If the server does not do as it should.
    pub async fn at(&mut self, rate: f64, time: Duration) -> Result<Found> {
        self.run.publisher(self.publisher).pace(Pace::rate(rate));
        self.run.watch(Duration::from_secs(1)).await?;
        self.run.recorder.measure();
        self.run.watch(time).await?;
        self.run.recorder.measured();
        let summary = self.run.recorder.summary();
        Ok(Found {
            offered: summary.per_second(summary.counters.published),
            delivered: summary.per_second(summary.counters.delivered),
            per_processor_second: summary.deliveries_per_processor_second("server"),
            latency: [0.5, 0.99, 0.999].map(|quantile| summary.latency(quantile)),
        })
    }

    /// Publishes nothing until everything has arrived.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn settle(&mut self) -> Result<()> {
        self.run.publisher(self.publisher).settle().await?;
        let (published, _) = self.run.publisher(self.publisher).so_far();
        self.due += (published - self.published) * u64::from(self.streams);
        self.published = published;
        let end = tokio::time::Instant::now() + LAST;
        while self.run.fleet.totals().events.delivered < self.due {
            ensure!(tokio::time::Instant::now() < end, "what was published does not arrive");
            self.run.watch(Duration::from_millis(250)).await?;
        }
        Ok(())
    }

    /// The highest rate, in events per second, that was kept up: what was published took no more than a tenth of the time longer to arrive than to
    /// publish. It is raised by half until that is not so, and then looked for between the two, to a tenth.
    ///
    /// # Errors
    /// If the server does not do as it should.
    pub async fn highest(&mut self) -> Result<f64> {
        const LOOK: Duration = Duration::from_secs(4);
        // Thirty thousand deliveries per second are no trouble for anybody.
        let mut rate = 30_000.0 / f64::from(self.streams);
        let (mut kept, mut failed) = (0.0, None);
        loop {
            let (begin, published) = (now(), self.run.publisher(self.publisher).so_far().0);
            self.at(rate, LOOK).await?;
            let stopped = now();
            self.settle().await?;
            let arrived = self.run.fleet.totals().last_event.max(stopped);
            let published = self.run.publisher(self.publisher).so_far().0 - published;
            if seconds(arrived - stopped) > seconds(stopped - begin) / 10.0 {
                failed = Some(rate);
            } else {
                kept = published as f64 / seconds(stopped - begin);
            }
            rate = match failed {
                None => rate * 1.5,
                Some(_) if rate < 0.01 => bail!("no rate is kept up"),
                Some(failed) if kept == 0.0 => failed / 2.0,
                Some(failed) if failed < kept * 1.1 => return Ok(kept),
                Some(failed) => (kept * failed).sqrt(),
            };
        }
    }

    /// Waits until everything has arrived, and notes what became of it.
    ///
    /// # Errors
    /// If the server does not do as it should.
    pub async fn finish(self, report: &mut Report) -> Result<()> {
        self.run.finish(LAST, report).await?;
        Ok(())
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

/// Fans out and measures.
///
/// # Errors
/// If the server cannot be reached or does not do as it should.
pub async fn run(node: &Node, host: &Host, options: &Options) -> Result<Report> {
    let mut report = Report::new("fanout")
        .setting("server", node.template.name.as_str())
        .setting("streams", options.streams)
        .setting("payload", options.payload)
        .setting("seconds", options.seconds);
    let mut fan_out = FanOut::open(node, host, options).await?;
    let time = Duration::from_secs(options.seconds);
    let rate = match options.rate {
        Some(rate) => {
            ensure!(rate > 0.0, "`--rate` is more than 0");
            rate
        }
        None => {
            let highest = fan_out.highest().await?;
            report.measured("highest rate", highest, "events per second");
            let full = fan_out.at(highest, time).await?;
            fan_out.settle().await?;
            full.note("at the highest rate", &mut report);
            highest / 2.0
        }
    };
    fan_out.run.recorder.mark("measured");
    fan_out
        .at(rate, time)
        .await?
        .note(&format!("at {rate:.1} events per second"), &mut report);
    fan_out.finish(&mut report).await?;
    Ok(report)
}

impl Found {
    /// Adds its figures.
    pub fn note(&self, when: &str, report: &mut Report) {
        report.measured(format!("deliveries, {when}"), self.delivered, "per second");
        if !self.per_processor_second.is_nan() {
            let unit = "per second of the server's processor time";
            report.measured(
                format!("deliveries, {when}, processor"),
                self.per_processor_second,
                unit,
            );
        }
        for (name, latency) in ["p50", "p99", "p99.9"].into_iter().zip(self.latency) {
            report.measured(format!("publish to receive, {when}, {name}"), latency, "ms");
        }
    }
}
