//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng as _;

/// Even a server that asks for none gets this much peace.
const LEAST: Duration = Duration::from_millis(50);

/// Waits that double from attempt to attempt up to a bound, each with jitter, so that many clients do not come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) const fn new(base: Duration, most: Duration) -> Self {
        Self {
            base,
            most,
            failures: 0,
        }
    }

    /// What the server asks for as the first wait.
    pub(super) fn set_base(&mut self, base: Duration) {
        self.base = base;
    }

    /// An attempt came to something: the next wait is the first one again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next wait: never shorter than what the server asked for, up to half as long again.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = self.base.saturating_mul(1 << self.failures.min(16));
        let wait = doubled.min(self.most.max(self.base));
        self.failures = self.failures.saturating_add(1);
        wait.max(LEAST).mul_f64(rand::rng().random_range(1.0..1.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_bound_and_begins_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        for expected in [1, 2, 4, 8, 10, 10, 1] {
            if expected == 1 {
                backoff.reset();
            }
            let wait = backoff.next();
            let least = Duration::from_secs(expected);
            assert!((least..least.mul_f64(1.5)).contains(&wait), "{wait:?} for {expected} s");
        }
    }

    #[test]
    fn what_the_server_asks_for_is_the_least() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        backoff.set_base(Duration::from_secs(60));
        for _ in 0..100 {
            assert!(backoff.next() >= Duration::from_secs(60));
        }
    }
}
