//! A run with phases: a publisher that follows a script and persists, and waiting for things to come to pass.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::run::{Run, SAMPLE};
use crate::{
    Node, Report,
    fleet::{Host, Plan, Published, Settled, Totals},
    payload::Key,
    publish::{Pace, Publisher, To, What},
    report::{Ledger, Recorder},
};

/// How often it is looked whether something has come to pass.
const LOOK: Duration = Duration::from_millis(10);
/// How long it may take until all is acknowledged: a deadline, never waited for in full.
const PATIENCE: Duration = Duration::from_secs(120);
/// Events that are published at the same time, where nothing else is said.
const IN_FLIGHT: u64 = 256;

/// The topics to publish to, in order.
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

/// A run with phases.
pub(crate) struct Course {
    /// Its streams, and what is seen of them.
    pub(crate) run: Run,
    /// The place of the publisher.
    publisher: usize,
    script: Script,
    /// Whether it is told what happens.
    loud: bool,
}

impl Course {
    /// Of so many streams by this plan, and of a publisher that sends each event until it is acknowledged. What is not in a script goes to topics
    /// that `otherwise` says.
    ///
    /// # Errors
    /// If a process cannot be started, or nobody takes what is published.
    pub(crate) async fn start(
        (node, host): (&Node, &Host),
        (plan, streams): (&Plan, u32),
        (to, payload): (To, usize),
        mut otherwise: impl FnMut() -> Key + Send + 'static,
    ) -> Result<Self> {
        let mut run = Run::start(node, host, plan, streams)?;
        let script = Script::default();
        let written = script.clone();
        let what = What::new(payload, move |_| written.next().unwrap_or_else(&mut otherwise));
        let publisher = run.publish(Publisher::start(to, what.persisting()).await?);
        Ok(Self {
            run,
            publisher,
            script,
            loud: false,
        })
    }

    /// With a word on standard error for each phase.
    pub(crate) const fn loud(mut self) -> Self {
        self.loud = true;
        self
    }

    pub(crate) const fn recorder(&mut self) -> &mut Recorder {
        &mut self.run.recorder
    }

    /// A phase begins: a line across the plots.
    pub(crate) fn phase(&mut self, name: &str) {
        self.run.recorder.mark(name);
        if self.loud {
            let totals = self.run.fleet.totals();
            let (at, open, delivered) = (self.run.recorder.elapsed(), totals.open, totals.events.delivered);
            eprintln!("{at:8.1} s  {name} ({open} open, {delivered} delivered)");
        }
    }

    /// Waits until this is so.
    pub(crate) async fn until(&mut self, what: &str, within: Duration, is_so: impl Fn(&Totals) -> bool) -> Result<()> {
        let waiting = async |fleet: &crate::fleet::Fleet| {
            let end = Instant::now() + within;
            while !is_so(&fleet.totals()) {
                let totals = fleet.totals();
                ensure!(Instant::now() < end, "{what}: not within {within:?}; {totals:?}");
                sleep(LOOK).await;
            }
            Ok(())
        };
        self.run.during(waiting).await
    }

    /// Waits for something else.
    pub(crate) async fn wait_for<T>(&mut self, doing: impl Future<Output = Result<T>>) -> Result<T> {
        self.run.during(async |_| doing.await).await
    }

    /// Publishes at this pace from now on.
    pub(crate) fn pace(&mut self, pace: Pace) {
        self.run.publisher(self.publisher).pace(pace);
    }

    /// Publishes an event to each of these topics, and waits until all are acknowledged.
    pub(crate) async fn publish(&mut self, keys: Vec<Key>) -> Result<()> {
        let (published, _) = self.run.publisher(self.publisher).so_far();
        let events = keys.len() as u64;
        self.script.write(keys);
        self.pace(Pace::Window {
            in_flight: IN_FLIGHT,
            events: Some(events),
        });
        self.acknowledged(published + events).await
    }

    /// Publishes no more for now, and waits until all is acknowledged that was published.
    pub(crate) async fn still(&mut self) -> Result<()> {
        self.pace(Pace::Still);
        let (published, _) = self.run.publisher(self.publisher).so_far();
        self.acknowledged(published).await
    }

    async fn acknowledged(&mut self, events: u64) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut next = Instant::now();
        while self.run.publisher(self.publisher).so_far().1 < events {
            ensure!(
                Instant::now() < end,
                "not all events are acknowledged within {PATIENCE:?}"
            );
            if Instant::now() >= next {
                next += SAMPLE;
                self.run.sample()?;
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until each stream has all that was published, or so long.
    pub(crate) async fn settle(&mut self, within: Duration) -> Result<Settled> {
        let topics = self.run.publisher(self.publisher).tally().topics;
        let published: Published = topics.into_iter().collect();
        self.run
            .during(async |fleet| fleet.settled(&published, within).await)
            .await
    }

    /// Ends it: closes the streams, and adds to the report what was seen. What did not come by then is lost.
    pub(crate) async fn end(mut self, report: &mut Report) -> Result<Ledger> {
        self.still().await?;
        let tally = self.run.publisher(self.publisher).tally();
        let totals = self.run.finish(Duration::ZERO, report).await?;
        report.measured("publishes repeated", tally.retried as f64, "events");
        report.measured("of these, taken before", tally.repeated as f64, "events");
        report.measured("streams resumed", totals.streams.reopened as f64, "times");
        report.measured("streams told to come back later", totals.streams.shed as f64, "times");
        report.measured("connections refused", totals.streams.refused as f64, "times");
        Ok(totals.ledger(tally.published, tally.acknowledged))
    }
}
