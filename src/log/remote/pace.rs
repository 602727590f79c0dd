//! A pace in bytes per second. Pure.

use std::time::{Duration, Instant};

/// How long what was not spent is kept.
const KEPT: Duration = Duration::from_millis(250);

/// What may be spent is earned with time, and kept for a moment. What a read brings is known only afterwards: so much as it may bring at most
/// is spent before it begins, and what it did not bring is given back. That may be more than there is, and then the next one waits until it
/// is made up for.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes per second; 0 for no bound.
    rate: u64,
    /// Below 0: what has been spent ahead of time.
    left: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        Self {
            rate,
            left: most(rate),
            at: now,
        }
    }

    /// How long to wait before the next read.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * per_second(self.rate);
        self.left = (self.left + earned).min(most(self.rate));
        self.at = now;
        if self.left >= 0.0 {
            return Duration::ZERO;
        }
        // At least a tick of the clock, so that nobody spins.
        Duration::from_secs_f64(-self.left / per_second(self.rate)).max(Duration::from_millis(1))
    }

    /// So much may be read.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.left -= per_second(bytes);
    }

    /// So much was not read after all.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.left += per_second(bytes);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a byte in 2^53 does not matter")]
const fn per_second(bytes: u64) -> f64 {
    bytes as f64
}

fn most(rate: u64) -> f64 {
    per_second(rate) * KEPT.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_read_over_time_is_what_the_pace_allows(
            rate in 1_000..100_000_000_u64,
            reads in prop::collection::vec((0..2_000_000_u64, 0..2_000_000_u64, 0..50_u64), 1..200),
        ) {
            let begin = Instant::now();
            let (mut now, mut pace, mut read) = (begin, Pace::new(rate, begin), 0);
            for (at_most, bytes, pause) in reads {
                now += Duration::from_millis(pause);
                let before = read;
                loop {
                    let wait = pace.wait(now);
                    if wait.is_zero() {
                        break;
                    }
                    now += wait;
                }
                // What was read before this one may be over by no more than the read itself.
                let allowed = (now - begin + KEPT).as_secs_f64() * rate as f64;
                prop_assert!(before as f64 <= allowed + 1.0, "{before} of {allowed}");
                let bytes = bytes.min(at_most);
                pace.spend(at_most);
                pace.give_back(at_most - bytes);
                read += bytes;
            }
        }
    }

    #[test]
    fn nobody_waits_longer_than_it_takes_to_make_up_for_what_was_read() {
        let begin = Instant::now();
        let mut pace = Pace::new(1_000, begin);
        pace.spend(1_250);
        assert_eq!(pace.wait(begin), Duration::from_secs(1));
        assert_eq!(
            pace.wait(begin + Duration::from_millis(400)),
            Duration::from_millis(600)
        );
        assert_eq!(pace.wait(begin + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn without_a_bound_nobody_waits() {
        let begin = Instant::now();
        let mut pace = Pace::new(0, begin);
        pace.spend(u64::MAX);
        assert_eq!(pace.wait(begin), Duration::ZERO);
    }
}
