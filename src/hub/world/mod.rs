//! Random worlds: edges, readers, logs that lag, fail, forget and fork, a bus that loses, repeats and reorders. Whatever
//! happens, each reader gets each event of its topics once, in order, or is told of a gap.
//!
//! A world is one seed: virtual time, one thread, every choice from one generator. It fails with its seed;
//! `TIDINGS_WORLD_SEED=N cargo test --lib world::` lives through it again, and `TIDINGS_WORLDS=N` through N times as many as usual.

mod cluster;
mod journal;
mod process;
mod reader;
mod schedule;

use proptest::prelude::*;

use super::GapReason;

/// In the time of a world.
const SECOND: u64 = 1_000;

/// Which faults a world has.
#[derive(Debug, Clone, Copy)]
struct Faults {
    /// Announcements and digests are lost, doubled and late; logs lag, fail and restart; nodes and connections die.
    losses: bool,
    /// Logs drop their oldest events while readers are behind.
    retention: bool,
    /// A shard is put back to an older copy of itself, or to nothing.
    forks: bool,
}

impl Faults {
    const NONE: Self = Self {
        losses: false,
        retention: false,
        forks: false,
    };
    const LOSSES: Self = Self {
        losses: true,
        ..Self::NONE
    };
    const RETENTION: Self = Self {
        retention: true,
        ..Self::LOSSES
    };
    const ALL: Self = Self {
        forks: true,
        ..Self::RETENTION
    };

    /// Whether readers may be told of such a gap.
    const fn explain(self, reason: GapReason) -> bool {
        match reason {
            GapReason::Expired => self.retention,
            GapReason::Forked => self.forks,
            GapReason::Unknown => false,
        }
    }
}

/// The verdict on a world when all that is under way has come. Two minutes are enough, but for who reads the log an event at a time.
fn in_the_end(mut verdict: impl FnMut(u64) -> Result<(), String>) -> Result<(), String> {
    let mut now = 120 * SECOND;
    loop {
        let verdict = verdict(now);
        if verdict.is_ok() || now >= 600 * SECOND {
            return verdict;
        }
        now += 10 * SECOND;
    }
}

/// Lives through random worlds: so many, or as many times that as `TIDINGS_WORLDS` says, or the one of `TIDINGS_WORLD_SEED`.
fn worlds(cases: u32, live: impl Fn(u64) -> Result<(), String>) {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    if let Some(seed) = number("TIDINGS_WORLD_SEED") {
        assert_eq!(live(seed).err(), None, "seed {seed}");
        return;
    }
    let times = number("TIDINGS_WORLDS").map_or(1, |times| u32::try_from(times).expect("not that many"));
    let config = ProptestConfig {
        cases: cases * times,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(seed in any::<u64>())| {
        let verdict = live(seed);
        prop_assert!(verdict.is_ok(), "TIDINGS_WORLD_SEED={seed}: {}", verdict.unwrap_err());
    });
}
