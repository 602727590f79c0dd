//! What a process that holds streams is told, and what it tells: a JSON object on a line each.

use std::net::{Ipv4Addr, SocketAddr};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{
    check::Deliveries,
    plan::{Plan, Published},
};

/// What a process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Command {
    /// What its streams are: comes first.
    Hold(Box<Plan>, Part),
    /// So many of its streams are to be open; of those that are to be opened, so many at a time.
    Open {
        /// How many of its streams, the first ones.
        streams: u32,
        /// How many at a time.
        at_a_time: u32,
        /// What was published before, which those that are opened are not to get.
        after: Published,
    },
    /// This share of its open streams, chosen at random, is cut off now.
    Cut(f64, How),
    /// So many of its open streams are cut off every second, from now on.
    CutEvery(f64, How),
    /// Whoever is cut off stays away, until told otherwise.
    StayAway(bool),
    /// The servers are elsewhere now.
    Edges(Vec<SocketAddr>),
    /// So much was published in all.
    Expect(Published),
    /// Close all streams and end.
    Close,
}

/// Which streams a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The number of the first.
    pub first: u32,
    /// How many.
    pub streams: u32,
    /// The address that they come from, with a server on the loopback. Each process has its own: ports are told apart by address.
    pub source: Ipv4Addr,
}

/// How a stream is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum How {
    /// With a reset, as when a device has lost its network and comes back with another.
    Reset,
    /// With an end, as when a page is closed.
    Goodbye,
}

/// What a process has seen since it began, but for the times, which are those since it last told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// How many commands it had carried out.
    pub told: u64,
    /// Streams that are open now.
    pub open: u32,
    /// Streams that are being opened now.
    pub opening: u32,
    /// Streams that wait until they may come back.
    pub away: u32,
    /// What happened to streams.
    pub streams: Streams,
    /// What happened to events.
    pub events: Deliveries,
    /// Deliveries that are to come, if it was told how many there are to be.
    pub missing: Option<u64>,
    /// When the last event came.
    pub last_event: u64,
    /// From an event's due time to its delivery, in nanoseconds.
    pub latency: Times,
    /// From the begin of the connection until the stream was open, in nanoseconds.
    pub opened_in: Times,
    /// The first thing that was wrong.
    pub complaint: Option<String>,
    /// This is the last.
    pub is_last: bool,
}

/// What happened to streams, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// They were opened, the first time or again.
    pub opened: u64,
    /// Those of them that were open before.
    pub reopened: u64,
    /// Cut off from this side, on purpose.
    pub cut: u64,
    /// Ended by the server, in order.
    pub ended: u64,
    /// Broke off.
    pub broken: u64,
    /// Connections that were not accepted.
    pub refused: u64,
    /// Told to come back later.
    pub shed: u64,
    /// Answered otherwise than with a stream.
    pub failed: u64,
    /// Gaps that were announced.
    pub gaps: u64,
    /// What went against the format, or what the server promises of it.
    pub violations: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Comments and the like.
    pub lines: u64,
}

impl std::ops::AddAssign for Streams {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.reopened += other.reopened;
        self.cut += other.cut;
        self.ended += other.ended;
        self.broken += other.broken;
        self.refused += other.refused;
        self.shed += other.shed;
        self.failed += other.failed;
        self.gaps += other.gaps;
        self.violations += other.violations;
        self.bytes += other.bytes;
        self.lines += other.lines;
    }
}

/// Times as they are sent: each different one with its count.
pub type Times = Vec<(u64, u64)>;

/// A record of times, in nanoseconds, to two digits: small, since every process has some.
pub(super) fn record() -> Histogram<u64> {
    Histogram::new(2).expect("2 digits are within what histograms have")
}

/// Records a time, so often. (`saturating_record` would not let the record grow, and note every time as a few microseconds.)
pub(crate) fn note(times: &mut Histogram<u64>, time: u64, count: u64) {
    let noted = times.record_n(time, count);
    noted.expect("a record that may grow has a place for every time");
}

/// Takes what was recorded, and begins anew.
pub(super) fn take(times: &mut Histogram<u64>) -> Times {
    let taken = times
        .iter_recorded()
        .map(|step| (step.value_iterated_to(), step.count_at_value()))
        .collect();
    times.reset();
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_a_place_for_every_time_and_none_is_told_twice() {
        let mut times = record();
        for time in [1_000, 40_000_000, 90_000_000_000, u64::MAX] {
            note(&mut times, time, 2);
        }
        let taken = take(&mut times);
        assert_eq!(taken.len(), 4);
        assert!(taken.iter().all(|&(_, count)| count == 2));
        assert!((39_000_000..41_000_000).contains(&taken[1].0), "{taken:?}");
        assert!(take(&mut times).is_empty());
    }
}
