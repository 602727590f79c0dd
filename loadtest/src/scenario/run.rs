//! What all scenarios are made of: streams that are held, publishers, and samples of both until the run is over.

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    Node, Report,
    fleet::{Fleet, Follows, Host, Interval, Plan, Published, Totals},
    publish::{Publisher, Times},
    report::{Counters, Ledger, Progress, Recorder},
    template::Template,
};

/// How often a sample is taken.
pub(super) const SAMPLE: Duration = Duration::from_millis(250);

/// A run under way.
pub struct Run {
    /// The streams.
    pub fleet: Fleet,
    /// What is seen.
    pub recorder: Recorder,
    publishers: Vec<Publisher>,
    /// What publishers had published and had acknowledged that are no more.
    stopped: (u64, u64),
    /// What was measured since the last sample.
    since: Interval,
    /// Memory that is to be left on this machine, in bytes.
    spare: u64,
}

impl Run {
    /// Starts what holds so many streams; none is open yet. The server's memory and processor time are watched, as the part `server`, if its
    /// process is known; those of the processes that hold the streams are the part `clients`, and memory that is the kernel's own `kernel`.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn start(node: &Node, host: &Host, plan: &Plan, streams: u32) -> Result<Self> {
        let mut recorder = Recorder::new();
        let processes = node.processes();
        if !processes.is_empty() {
            recorder.watch("server", processes);
        }
        let fleet = Fleet::start(host, plan, streams)?;
        recorder.watch("clients", fleet.processes());
        recorder.watch_kernel();
        Ok(Self {
            fleet,
            recorder,
            publishers: Vec::new(),
            stopped: (0, 0),
            since: Interval::default(),
            spare: 0,
        })
    }

    /// Opens so many streams, so many at a time, and samples meanwhile.
    ///
    /// # Errors
    /// If they cannot be opened.
    pub async fn open(&mut self, streams: u32, at_a_time: u32) -> Result<()> {
        self.open_after(&Published::default(), streams, at_a_time).await
    }

    /// The same, after so much was published, and while nothing is: those that are opened are not to get it.
    ///
    /// # Errors
    /// If they cannot be opened.
    pub async fn open_after(&mut self, published: &Published, streams: u32, at_a_time: u32) -> Result<()> {
        let progress = Progress::here();
        progress.phase("connecting", streams.into());
        let opening = async |fleet: &Fleet| {
            let mut opened = pin!(fleet.open_after(published, streams, at_a_time));
            let mut interval = interval(SAMPLE);
            loop {
                tokio::select! {
                    opened = &mut opened => return opened,
                    _ = interval.tick() => progress.at(fleet.totals().open),
                }
            }
        };
        self.during(opening).await
    }

    /// Takes samples while something is done.
    ///
    /// # Errors
    /// If it fails, or a publisher has failed.
    pub async fn during<T>(&mut self, doing: impl AsyncFnOnce(&Fleet) -> Result<T>) -> Result<T> {
        let Self {
            fleet,
            recorder,
            publishers,
            stopped,
            since,
            spare,
        } = self;
        let mut doing = pin!(doing(fleet));
        let mut interval = interval(SAMPLE);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                biased;
                _ = interval.tick() => None,
                done = &mut doing => Some(done),
            };
            sample(fleet, recorder, publishers, *stopped, since)?;
            enough_memory(*spare)?;
            if let Some(done) = done {
                return done;
            }
        }
    }

    /// Ends the run where less memory than this would be left on this machine, in bytes.
    pub const fn spare(&mut self, bytes: u64) {
        self.spare = bytes;
    }

    /// Takes on a publisher; its place among them is returned.
    pub fn publish(&mut self, publisher: Publisher) -> usize {
        self.publishers.push(publisher);
        self.publishers.len() - 1
    }

    /// A publisher.
    pub fn publisher(&mut self, place: usize) -> &mut Publisher {
        &mut self.publishers[place]
    }

    /// Takes samples for so long.
    ///
    /// # Errors
    /// If a publisher has failed, or a process that holds streams.
    pub async fn watch(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            tokio::time::sleep_until(end.min(Instant::now() + SAMPLE)).await;
            self.sample()?;
        }
        Ok(())
    }

    /// Takes samples for so long, and then for so long those that count.
    ///
    /// # Errors
    /// If a publisher has failed, or a process that holds streams.
    pub async fn measure(&mut self, warm_up: Duration, time: Duration) -> Result<()> {
        Progress::here().phase_for("warming up", warm_up);
        self.watch(warm_up).await?;
        self.sample()?;
        self.recorder.measure();
        Progress::here().phase_for("publishing", time);
        self.watch(time).await?;
        self.recorder.measured();
        Ok(())
    }

    /// Takes a sample.
    ///
    /// # Errors
    /// If a publisher has failed.
    pub fn sample(&mut self) -> Result<()> {
        sample(
            &self.fleet,
            &mut self.recorder,
            &mut self.publishers,
            self.stopped,
            &mut self.since,
        )?;
        enough_memory(self.spare)
    }

    /// How long streams took to open since this was last asked, in nanoseconds.
    pub fn opened_in(&mut self) -> Times {
        let interval = self.fleet.interval();
        self.since.opened_in += interval.opened_in;
        std::mem::take(&mut self.since).opened_in
    }

    /// Publishes no more, waits until every stream has everything, or for so long, and notes what became of it in the report.
    ///
    /// # Errors
    /// If an event was not acknowledged, or a process that holds streams has failed.
    pub async fn finish(mut self, within: Duration, report: &mut Report) -> Result<Totals> {
        Progress::here().phase("settling", 0);
        let (mut published, mut acknowledged) = (Published::default(), 0);
        for publisher in std::mem::take(&mut self.publishers) {
            self.recorder.acknowledged(&publisher.interval());
            let tally = publisher.stop().await?;
            acknowledged += tally.acknowledged;
            self.stopped.0 += tally.published;
            self.stopped.1 += tally.acknowledged;
            published.add(&tally.topics.into_iter().collect());
        }
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now()).min(SAMPLE);
            let settled = self.fleet.settled(&published, left).await?;
            self.sample()?;
            if settled.totals.missing == Some(0) || Instant::now() >= end {
                break;
            }
        }
        let totals = self.fleet.close().await?;
        self.recorder.report(report);
        note(report, &totals, totals.ledger(published.total(), acknowledged));
        Ok(totals)
    }
}

/// Notes what became of the events, and what went wrong with streams.
pub fn note(report: &mut Report, totals: &Totals, ledger: Ledger) {
    report.ledger(ledger);
    let streams = &totals.streams;
    for (what, count) in [
        ("went against the format or its promises", streams.violations),
        ("were answered with something else than a stream", streams.failed),
    ] {
        if count > 0 {
            let complaint = totals.complaint.as_deref().unwrap_or_default();
            report.fail(format!("{count} {what}: {complaint}"));
        }
    }
}

/// The plan of streams that follow this at a node, with everything demanded that it promises.
#[must_use]
pub fn plan(node: &Node, follows: Follows) -> Plan {
    Plan {
        strict: node.template == Template::tidings(),
        template: node.template.clone(),
        tokens: node.tokens.clone(),
        ..Plan::new(node.http.clone(), follows)
    }
}

fn sample(
    fleet: &Fleet,
    recorder: &mut Recorder,
    publishers: &mut [Publisher],
    stopped: (u64, u64),
    since: &mut Interval,
) -> Result<()> {
    for publisher in &mut *publishers {
        publisher.check()?;
        recorder.acknowledged(&publisher.interval());
    }
    let interval = fleet.interval();
    recorder.sample(tell(&fleet.totals(), so_far(stopped, publishers)), &interval.latency);
    since.opened_in += interval.opened_in;
    Ok(())
}

/// Memory that can still be had on this machine, in bytes.
///
/// # Errors
/// If the system does not say.
pub fn available_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kib = crate::process::kib(&text, "MemAvailable:").context("/proc/meminfo does not say what is available")?;
    Ok(kib * 1_024)
}

fn enough_memory(spare: u64) -> Result<()> {
    // Read only where it matters.
    ensure!(
        spare == 0 || available_memory()? >= spare,
        "stopped: less than {} MiB of memory is left on this machine",
        spare >> 20
    );
    Ok(())
}

fn so_far(stopped: (u64, u64), publishers: &[Publisher]) -> (u64, u64) {
    publishers
        .iter()
        .map(Publisher::so_far)
        .fold(stopped, |(published, acknowledged), own| {
            (published + own.0, acknowledged + own.1)
        })
}

/// What is to be noted of a sample, told on a terminal on the way.
fn tell(totals: &Totals, so_far: (u64, u64)) -> Counters {
    let counters = counters(totals, so_far);
    Progress::here().tell(&counters, &totals.ledger(so_far.0, so_far.1));
    counters
}

fn counters(totals: &Totals, (published, acknowledged): (u64, u64)) -> Counters {
    Counters {
        open: totals.open,
        opening: totals.opening,
        connected: totals.streams.opened,
        reconnects: totals.streams.reopened,
        delivered: totals.events.delivered,
        bytes: totals.streams.bytes,
        published,
        acknowledged,
    }
}
