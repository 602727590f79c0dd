//! The processes that hold the streams of a run, and who commands them.
//!
//! One process may open only so many files (20,000 where containers leave it at their default): so there are as many as it takes, each with a
//! range of the streams and a source address of its own. A test holds its few streams on threads of its own process instead.

mod crew;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use tokio::time::Instant;

use self::crew::Crew;
pub use crate::swarm::{
    Comeback, Deliveries, Follows, How, Plan, Published, Slow,
    say::{Part, Streams},
};
use crate::{payload::Key, report::Ledger, swarm::Command};

/// Files that a process needs beside those of its streams.
const OTHER_FILES: u64 = 200;

/// Where the streams are held.
#[derive(Debug, Clone)]
pub enum Host {
    /// In processes of this program, `PROGRAM swarm`, each with at most so many.
    Processes {
        /// The load tester.
        program: PathBuf,
        /// Streams of each.
        most: u32,
    },
    /// On threads of this process, so many.
    Threads(u32),
}

impl Host {
    /// Processes of this program, each with as many streams as it may open files.
    ///
    /// # Errors
    /// If the system does not say what this program is, or how many files there may be.
    pub fn processes() -> Result<Self> {
        let files = crate::process::raise_file_limit()?;
        let most = files.saturating_sub(OTHER_FILES).clamp(1, 60_000);
        Ok(Self::Processes {
            program: std::env::current_exe()?,
            most: u32::try_from(most)?,
        })
    }

    fn parts(&self, streams: u32) -> Vec<Part> {
        let parts = match self {
            Self::Processes { most, .. } => streams.div_ceil((*most).max(1)),
            Self::Threads(threads) => *threads,
        };
        let parts = parts.clamp(1, streams.max(1));
        // Two make use of two cores.
        let each = streams.div_ceil(parts);
        (0..parts)
            .map(|number| {
                let first = number * each;
                Part {
                    first,
                    streams: each.min(streams.saturating_sub(first)),
                    source: source(number),
                }
            })
            .filter(|part| part.streams > 0)
            .collect()
    }
}

/// 127.1.0.1 and so on.
fn source(number: u32) -> Ipv4Addr {
    let [.., high, low] = (number / 250).to_be_bytes();
    let [.., last] = (number % 250).to_be_bytes();
    Ipv4Addr::new(127, 1 + high, low, 1 + last)
}

/// What all processes have seen so far.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Streams that are open now.
    pub open: u64,
    /// Streams that are being opened now.
    pub opening: u64,
    /// Streams that wait until they may come back.
    pub away: u64,
    /// What happened to streams.
    pub streams: Streams,
    /// What happened to events.
    pub events: Deliveries,
    /// Deliveries that are to come; none while it is not known how many there are to be.
    pub missing: Option<u64>,
    /// When the last event came, as [`now`](crate::payload::now) counts.
    pub last_event: u64,
    /// The first thing that was wrong.
    pub complaint: Option<String>,
}

impl Totals {
    /// What the ledger of a run says of these.
    #[must_use]
    pub fn ledger(&self, published: u64, acknowledged: u64) -> Ledger {
        Ledger {
            published,
            acknowledged,
            delivered: self.events.delivered,
            lost: self.missing.unwrap_or_default(),
            duplicated: self.events.duplicated,
            reordered: self.events.reordered,
            misdelivered: self.events.misdelivered,
            gaps: self.streams.gaps,
        }
    }
}

/// What was measured since it was last taken.
#[derive(Debug, Clone)]
pub struct Interval {
    /// From an event's due time to its delivery, in nanoseconds.
    pub latency: Histogram<u64>,
    /// From the begin of a connection until its stream was open, in nanoseconds.
    pub opened_in: Histogram<u64>,
}

impl Default for Interval {
    fn default() -> Self {
        let record = || Histogram::new(2).expect("2 digits are within what histograms have");
        Self {
            latency: record(),
            opened_in: record(),
        }
    }
}

/// What came of waiting for all deliveries.
#[derive(Debug, Clone)]
pub struct Settled {
    /// What was seen by then. If anything is missing it has not come in time.
    pub totals: Totals,
    /// When the last event came, as [`now`](crate::payload::now) counts.
    pub at: u64,
}

/// The streams of a run. They end with this value.
pub struct Fleet {
    crew: Arc<Crew>,
    streams: u32,
}

impl Fleet {
    /// Starts the processes. No stream is open yet.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn start(host: &Host, plan: &Plan, streams: u32) -> Result<Self> {
        if plan.edges.is_empty() {
            bail!("there is no server to open streams at");
        }
        let parts = host.parts(streams);
        let crew = Crew::start(host, &parts)?;
        for (worker, part) in parts.iter().enumerate() {
            crew.tell_one(worker, &Command::Hold(Box::new(plan.clone()), *part))?;
        }
        Ok(Self { crew, streams })
    }

    /// How many streams there are to be.
    #[must_use]
    pub const fn streams(&self) -> u32 {
        self.streams
    }

    /// The processes, to see what memory they take; none if they are threads of this one.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        self.crew.processes()
    }

    /// Has so many streams open, the first ones of each process, and waits until they are. `at_a_time` of them are opened at a time.
    ///
    /// # Errors
    /// If they are not open within a time in which nothing happens any more (half a minute).
    pub async fn open(&self, streams: u32, at_a_time: u32) -> Result<()> {
        self.open_after(&Published::default(), streams, at_a_time).await
    }

    /// The same, after so much was published, and while nothing is: those that are opened are not to get it.
    ///
    /// # Errors
    /// If they are not open within a time in which nothing happens any more (half a minute).
    pub async fn open_after(&self, published: &Published, streams: u32, at_a_time: u32) -> Result<()> {
        let parts = self.crew.parts();
        let at_a_time = at_a_time.div_ceil(u32::try_from(parts.len())?).max(1);
        let mut wanted = 0;
        for (worker, part) in parts.iter().enumerate() {
            // The same share of each.
            let share = u64::from(part.streams) * u64::from(streams);
            let share = u32::try_from(share.div_ceil(u64::from(self.streams.max(1))))?.min(part.streams);
            wanted += u64::from(share);
            let command = Command::Open {
                streams: share,
                at_a_time,
                after: own(published, *part),
            };
            self.crew.tell_one(worker, &command)?;
        }
        self.all_open(wanted).await
    }

    /// Waits until so many are open.
    ///
    /// # Errors
    /// If nothing happens for half a minute.
    pub async fn all_open(&self, streams: u64) -> Result<()> {
        const STILL: Duration = Duration::from_secs(30);
        let mut last = (0, Instant::now());
        loop {
            let totals = self.totals();
            if totals.open >= streams {
                return Ok(());
            }
            if totals.streams.opened != last.0 {
                last = (totals.streams.opened, Instant::now());
            }
            if last.1.elapsed() > STILL {
                bail!(
                    "only {} of {streams} streams are open and no more are being opened; {}; {:?}",
                    totals.open,
                    totals.complaint.as_deref().unwrap_or("nobody complains"),
                    totals.streams,
                );
            }
            self.crew.heard().await?;
        }
    }

    /// Cuts off a share of the open streams now. They come back.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn cut(&self, share: f64, how: How) -> Result<()> {
        self.crew.tell(&Command::Cut(share, how))
    }

    /// Cuts off so many of all streams every second, from now on; 0: none any more.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn cut_every(&self, per_second: f64, how: How) -> Result<()> {
        let share = per_second / self.crew.parts().len() as f64;
        self.crew.tell(&Command::CutEvery(share, how))
    }

    /// Whoever is cut off stays away, until told otherwise.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn stay_away(&self, stay_away: bool) -> Result<()> {
        self.crew.tell(&Command::StayAway(stay_away))
    }

    /// The servers are elsewhere now.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn edges(&self, edges: &[SocketAddr]) -> Result<()> {
        self.crew.tell(&Command::Edges(edges.to_vec()))
    }

    /// Waits until each stream has all that was published, or that long.
    ///
    /// # Errors
    /// If a process is gone.
    pub async fn settled(&self, published: &Published, within: Duration) -> Result<Settled> {
        for (worker, part) in self.crew.parts().iter().enumerate() {
            self.crew.tell_one(worker, &Command::Expect(own(published, *part)))?;
        }
        let until = Instant::now() + within;
        loop {
            let totals = self.totals();
            // What was told before it was known how much there is does not count.
            let is_known = self.crew.have_obeyed();
            if (is_known && totals.missing == Some(0)) || Instant::now() >= until {
                return Ok(Settled {
                    at: totals.last_event,
                    totals,
                });
            }
            self.crew.heard().await?;
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.crew.totals()
    }

    /// What was measured since this was last called.
    #[must_use]
    pub fn interval(&self) -> Interval {
        self.crew.interval()
    }

    /// Waits until more was seen: about four times a second from each process.
    ///
    /// # Errors
    /// If a process is gone.
    pub async fn heard(&self) -> Result<()> {
        self.crew.heard().await
    }

    /// Closes all streams, and tells what was seen to the end.
    ///
    /// # Errors
    /// If a process is gone.
    pub async fn close(self) -> Result<Totals> {
        self.crew.tell(&Command::Close)?;
        while !self.crew.are_done() {
            self.crew.heard().await.context("a process did not close its streams")?;
        }
        Ok(self.totals())
    }
}

/// What of it may be for streams of this part.
fn own(published: &Published, part: Part) -> Published {
    let streams = part.first..part.first + part.streams;
    let is_own = |&(key, _): &(Key, u32)| match key {
        Key::Inbox(stream) => streams.contains(&stream),
        Key::Shared(_) => true,
    };
    published.iter().filter(is_own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_shared_out_without_one_too_many() {
        let host = |most| Host::Processes {
            program: PathBuf::new(),
            most,
        };
        for (host, streams, parts) in [
            (host(19_800), 1_000_000, 51),
            (host(19_800), 19_800, 1),
            (host(10), 11, 2),
            (Host::Threads(4), 2, 2),
            (Host::Threads(2), 5, 2),
        ] {
            let shared = host.parts(streams);
            assert_eq!(shared.len(), parts);
            assert_eq!(shared.iter().map(|part| part.streams).sum::<u32>(), streams);
            assert!(
                shared
                    .windows(2)
                    .all(|two| two[0].first + two[0].streams == two[1].first)
            );
            assert!(shared.windows(2).all(|two| two[0].source != two[1].source));
        }
    }
}
