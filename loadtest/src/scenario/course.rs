//! What scenarios with phases share: streams, a publisher that follows a script, and samples of both all the while.

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    fleet::{Fleet, Published, Settled, Totals},
    payload::Key,
    publish::{Pace, Publisher, To, What},
    report::{Counters, Ledger, Recorder, Report},
};

/// How often a sample is taken.
const SAMPLE: Duration = Duration::from_millis(250);
/// How often it is looked whether something has come to pass.
const LOOK: Duration = Duration::from_millis(20);
/// Events that are published at the same time, where nothing else is said.
const IN_FLIGHT: u64 = 256;

/// The topics to publish to, in order. When it is at its end, the random ones.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<VecDeque<Key>>>);

impl Script {
    fn write(&self, keys: impl IntoIterator<Item = Key>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
    }

    fn next(&self) -> Option<Key> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// A run under way.
pub(crate) struct Course {
    /// Its streams.
    pub(crate) fleet: Fleet,
    /// Who publishes: each event until it is acknowledged.
    pub(crate) publisher: Publisher,
    /// What is seen.
    pub(crate) recorder: Recorder,
    script: Script,
    /// Memory that is to be left on this machine, in bytes.
    spare: u64,
    /// Whether it is told what happens.
    loud: bool,
}

impl Course {
    /// Of these streams. What is not in a script goes to topics that `otherwise` says.
    ///
    /// # Errors
    /// If nobody takes what is published.
    pub(crate) async fn new(
        fleet: Fleet,
        to: To,
        payload: usize,
        mut otherwise: impl FnMut() -> Key + Send + 'static,
    ) -> Result<Self> {
        let script = Script::default();
        let written = script.clone();
        let what = What::new(payload, move |_| written.next().unwrap_or_else(&mut otherwise));
        Ok(Self {
            publisher: Publisher::start(to, what.persisting()).await?,
            fleet,
            recorder: Recorder::new(),
            script,
            spare: 0,
            loud: false,
        })
    }

    /// With so many bytes of memory left free on this machine: a run that would take them ends.
    pub(crate) const fn sparing(mut self, spare: u64) -> Self {
        self.spare = spare;
        self
    }

    /// With a word on standard error for each phase.
    pub(crate) const fn loud(mut self) -> Self {
        self.loud = true;
        self
    }

    /// A phase begins: a line across the plots.
    pub(crate) fn phase(&mut self, name: &str) {
        self.recorder.mark(name);
        if self.loud {
            let totals = self.fleet.totals();
            eprintln!(
                "{:8.1} s  {name} ({} open, {} delivered)",
                self.recorder.elapsed(),
                totals.open,
                totals.events.delivered
            );
        }
    }

    /// Takes samples while something is done.
    pub(crate) async fn during<T>(&mut self, doing: impl AsyncFnOnce(&Fleet) -> Result<T>) -> Result<T> {
        let Self {
            fleet,
            publisher,
            recorder,
            spare,
            ..
        } = self;
        let mut doing = pin!(doing(fleet));
        let mut sample = interval(SAMPLE);
        sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = sample.tick() => {
                    take_sample(recorder, fleet, publisher);
                    publisher.check()?;
                    enough_memory(*spare)?;
                }
                done = &mut doing => {
                    take_sample(recorder, fleet, publisher);
                    return done;
                }
            }
        }
    }

    /// Opens streams until so many are open.
    pub(crate) async fn open(&mut self, streams: u32, at_a_time: u32) -> Result<()> {
        self.during(async |fleet| fleet.open(streams, at_a_time).await).await
    }

    /// Waits until this is so.
    pub(crate) async fn until(&mut self, what: &str, within: Duration, is_so: impl Fn(&Totals) -> bool) -> Result<()> {
        self.during(async |fleet| {
            let end = Instant::now() + within;
            while !is_so(&fleet.totals()) {
                ensure!(
                    Instant::now() < end,
                    "{what}: not within {within:?}; {:?}",
                    fleet.totals()
                );
                sleep(LOOK).await;
            }
            Ok(())
        })
        .await
    }

    /// Waits for something else.
    pub(crate) async fn wait_for<T>(&mut self, doing: impl Future<Output = Result<T>>) -> Result<T> {
        self.during(async |_| doing.await).await
    }

    /// Publishes an event to each of these topics, and waits until all are acknowledged.
    pub(crate) async fn publish(&mut self, keys: Vec<Key>) -> Result<()> {
        let (published, _) = self.publisher.so_far();
        let events = keys.len() as u64;
        self.script.write(keys);
        self.publisher.pace(Pace::Window {
            in_flight: IN_FLIGHT,
            events: Some(events),
        });
        self.acknowledged(published + events).await
    }

    /// Publishes no more for now, and waits until all is acknowledged that was published.
    pub(crate) async fn still(&mut self) -> Result<()> {
        self.publisher.pace(Pace::Still);
        let (published, _) = self.publisher.so_far();
        self.acknowledged(published).await
    }

    async fn acknowledged(&mut self, events: u64) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(120);
        let end = Instant::now() + PATIENCE;
        let mut next = Instant::now();
        while self.publisher.so_far().1 < events {
            ensure!(
                Instant::now() < end,
                "not all events are acknowledged within {PATIENCE:?}"
            );
            if Instant::now() >= next {
                next += SAMPLE;
                take_sample(&mut self.recorder, &self.fleet, &self.publisher);
                self.publisher.check()?;
                enough_memory(self.spare)?;
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// What was published so far, by topic.
    pub(crate) fn published(&self) -> Published {
        self.publisher.tally().topics.into_iter().collect()
    }

    /// Waits until each stream has all that was published, or so long.
    pub(crate) async fn settle(&mut self, within: Duration) -> Result<Settled> {
        let published = self.published();
        self.during(async |fleet| fleet.settled(&published, within).await).await
    }

    /// Ends it: closes the streams, and adds to the report what was seen. What did not come by then is lost.
    pub(crate) async fn end(self, report: &mut Report) -> Result<Ledger> {
        let Self {
            fleet,
            publisher,
            recorder,
            ..
        } = self;
        let tally = publisher.stop().await?;
        let totals = fleet.close().await.context("the streams do not end")?;
        let ledger = totals.ledger(tally.published, tally.acknowledged);
        recorder.report(report);
        report.ledger(ledger);
        if let Some(complaint) = &totals.complaint {
            report.fail(format!("the first thing that was wrong: {complaint}"));
        }
        if totals.streams.violations > 0 {
            report.fail(format!("{} violations of the format", totals.streams.violations));
        }
        report.measured("publishes repeated", tally.retried as f64, "events");
        report.measured("of these, taken before", tally.repeated as f64, "events");
        report.measured("streams resumed", totals.streams.reopened as f64, "times");
        report.measured("streams told to come back later", totals.streams.shed as f64, "times");
        report.measured("connections refused", totals.streams.refused as f64, "times");
        Ok(ledger)
    }
}

fn take_sample(recorder: &mut Recorder, fleet: &Fleet, publisher: &Publisher) {
    let totals = fleet.totals();
    let (published, acknowledged) = publisher.so_far();
    recorder.acknowledged(&publisher.interval());
    recorder.sample(
        Counters {
            open: totals.open,
            opening: totals.opening,
            connected: totals.streams.opened,
            reconnects: totals.streams.reopened,
            delivered: totals.events.delivered,
            bytes: totals.streams.bytes,
            published,
            acknowledged,
        },
        &fleet.interval().latency,
    );
}

/// Memory that can still be had on this machine, in bytes.
///
/// # Errors
/// If the system does not say.
pub(crate) fn available_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .context("/proc/meminfo does not say what is available")?;
    Ok(kib * 1_024)
}

fn enough_memory(spare: u64) -> Result<()> {
    // Read only where it matters.
    if spare > 0 && available_memory()? < spare {
        bail!(
            "stopped: less than {} MiB of memory is left on this machine",
            spare >> 20
        );
    }
    Ok(())
}
