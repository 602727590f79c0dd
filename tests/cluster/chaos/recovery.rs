//! How long it takes from a fault until everything works again: an event to each shard, acknowledged, and with readers on every edge.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    Stage,
    publisher::{Event, Publisher},
    reader::Reader,
};
use crate::patiently;

/// How long it took, from the fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recovery {
    /// Until an event that was published after the fault was acknowledged, in the slowest shard.
    acknowledged: Duration,
    /// Until these events were with the readers at each edge, who leave an edge that is silent for three seconds.
    delivered: Duration,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (acknowledged, delivered) = (self.acknowledged.as_secs_f64(), self.delivered.as_secs_f64());
        write!(
            f,
            "acknowledged after {acknowledged:.1} s, delivered after {delivered:.1} s"
        )
    }
}

/// What was measured of each kind of fault, as a table.
#[derive(Debug, Default)]
pub(super) struct Recoveries(BTreeMap<String, Vec<Recovery>>);

impl Recoveries {
    pub(super) fn add(&mut self, fault: String, recovery: Recovery) {
        self.0.entry(fault).or_default().push(recovery);
    }

    /// How many there were.
    pub(super) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

impl fmt::Display for Recoveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  seconds from the fault, median and longest:")?;
        writeln!(
            f,
            "  {:15} {:>5}  {:>14}  {:>14}",
            "fault", "times", "acknowledged", "delivered"
        )?;
        for (fault, recoveries) in &self.0 {
            let column = |of: fn(&Recovery) -> Duration| {
                let mut times: Vec<_> = recoveries.iter().map(of).collect();
                times.sort_unstable();
                let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
                format!("{:.1}  {:>6.1}", median.as_secs_f64(), longest.as_secs_f64())
            };
            let (acknowledged, delivered) = (column(|it| it.acknowledged), column(|it| it.delivered));
            writeln!(
                f,
                "  {fault:15} {:>5}  {acknowledged:>14}  {delivered:>14}",
                recoveries.len()
            )?;
        }
        Ok(())
    }
}

/// Probes, and those who wait for them.
pub(super) struct Probing {
    stage: Arc<Stage>,
    readers: Vec<watch::Receiver<Vec<u64>>>,
    number: u64,
}

impl Probing {
    /// By these readers, each of which follows the probe of each shard.
    pub(super) fn new<'a>(stage: &Arc<Stage>, readers: impl Iterator<Item = &'a Reader>) -> Self {
        let readers = readers.map(|reader| reader.probes.clone()).collect();
        Self {
            stage: Arc::clone(stage),
            readers,
            number: 0,
        }
    }

    /// Begins to measure; the future that it gives ends when all has recovered. It goes on by itself meanwhile.
    pub(super) fn measure(&mut self) -> impl Future<Output = Recovery> + use<> {
        self.number += 1;
        let (number, begin) = (self.number, Instant::now());
        let mut publishing = JoinSet::new();
        for (shard, topic) in self.stage.probes.iter().enumerate() {
            let event = Event::keyed(format!("probe.{number}.{shard}"), topic);
            let rng = StdRng::seed_from_u64(number * 1_000 + shard as u64);
            let publisher = Publisher::of(Arc::clone(&self.stage), [event], rng);
            publishing.spawn(publisher.run(watch::channel(true).1));
        }
        let mut readers = self.readers.clone();
        let measured = tokio::spawn(patiently("the recovery", async move {
            let acknowledged = async {
                while let Some(published) = publishing.join_next().await {
                    published.expect("no panic");
                }
                begin.elapsed()
            };
            let delivered = async {
                for reader in &mut readers {
                    let all = |probes: &Vec<u64>| probes.iter().all(|&probe| probe >= number);
                    reader.wait_for(all).await.expect("a reader");
                }
                begin.elapsed()
            };
            let (acknowledged, delivered) = tokio::join!(acknowledged, delivered);
            Recovery {
                acknowledged,
                delivered,
            }
        }));
        async { measured.await.expect("no panic") }
    }
}
