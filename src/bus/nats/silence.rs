//! When silence means that a server hangs.

use std::time::{Duration, Instant};

/// How long nothing is heard before the server is left.
const FIRST: Duration = Duration::from_secs(3);
/// The patience doubles with each server that is silent too, up to this.
const LAST: Duration = Duration::from_secs(30);

/// Watches for the digests that come about twice a second as long as anyone holds a shard.
#[derive(Debug)]
pub(super) struct Silence {
    /// Since when there is reason to wonder.
    since: Instant,
    /// Since when it was not acted on.
    untried: Instant,
    patience: Duration,
}

impl Silence {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            since: now,
            untried: now,
            patience: FIRST,
        }
    }

    /// A digest came.
    pub(super) const fn heard(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// There is no reason to expect digests: no connection, or nobody who listens.
    pub(super) const fn excused(&mut self, now: Instant) {
        self.since = now;
        self.untried = now;
    }

    /// Whether it is so long that what is announced may not arrive.
    pub(super) fn is_long(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= FIRST
    }

    /// Whether it is time to leave the server for another. If so, the next one is given more time.
    pub(super) fn is_too_long(&mut self, now: Instant) -> bool {
        if now.duration_since(self.untried) < self.patience {
            return false;
        }
        self.untried = now;
        self.patience = LAST.min(self.patience * 2);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_while_silence_lasts_and_is_short_after_a_word() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        let mut left = Vec::new();
        for second in 0..100 {
            assert_eq!(silence.is_long(start + Duration::from_secs(second)), second >= 3);
            if silence.is_too_long(start + Duration::from_secs(second)) {
                left.push(second);
            }
        }
        assert_eq!(left, [3, 9, 21, 45, 75]);
        silence.heard(start + Duration::from_secs(100));
        assert!(!silence.is_too_long(start + Duration::from_secs(102)));
        silence.excused(start + Duration::from_secs(103));
        assert!(!silence.is_too_long(start + Duration::from_secs(105)));
        assert!(silence.is_too_long(start + Duration::from_secs(106)));
    }
}
