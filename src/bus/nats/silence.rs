//! When silence means that a server hangs.

use std::time::{Duration, Instant};

/// How long nothing is heard before the server is left.
const FIRST: Duration = Duration::from_secs(3);
/// The patience doubles with each server that is silent too, up to this.
const LAST: Duration = Duration::from_secs(30);

/// Watches for the digests that come about twice a second as long as anyone holds a shard.
#[derive(Debug)]
pub(super) struct Silence {
    since: Instant,
    patience: Duration,
}

impl Silence {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            since: now,
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
    }

    /// Whether it lasts too long. If so, it begins anew, with more patience.
    pub(super) fn lasts_too_long(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) < self.patience {
            return false;
        }
        self.since = now;
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
            if silence.lasts_too_long(start + Duration::from_secs(second)) {
                left.push(second);
            }
        }
        assert_eq!(left, [3, 9, 21, 45, 75]);
        silence.heard(start + Duration::from_secs(100));
        assert!(!silence.lasts_too_long(start + Duration::from_secs(102)));
        silence.excused(start + Duration::from_secs(103));
        assert!(!silence.lasts_too_long(start + Duration::from_secs(105)));
        assert!(silence.lasts_too_long(start + Duration::from_secs(106)));
    }
}
