//! When silence means that a server hangs, or that one who holds a shard is cut off.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::model::Shard;

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
    /// Since when there is reason to wonder about each shard that was ever heard of.
    shards: HashMap<Shard, Instant>,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            untried: now,
            patience: FIRST,
            shards: HashMap::new(),
        }
    }

    /// A digest of a shard came.
    pub(super) fn heard(&mut self, now: Instant, shard: Shard) {
        (self.since, self.untried, self.patience) = (now, now, FIRST);
        self.shards.insert(shard, now);
    }

    /// There is no reason to expect digests: no connection, or nobody who listens.
    pub(super) fn excused(&mut self, now: Instant) {
        (self.since, self.untried) = (now, now);
        self.shards.values_mut().for_each(|since| *since = now);
    }

    /// Whether it is so long that what is announced may not arrive: all of it, or that of one shard, whose holder may be there and cut off
    /// from NATS.
    pub(super) fn is_long(&self, now: Instant) -> bool {
        let mut shards = self.shards.values();
        now.duration_since(self.since) >= FIRST || shards.any(|since| now.duration_since(*since) >= FIRST)
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
        silence.heard(start + Duration::from_secs(100), Shard(0));
        assert!(!silence.is_too_long(start + Duration::from_secs(102)));
        silence.excused(start + Duration::from_secs(103));
        assert!(!silence.is_too_long(start + Duration::from_secs(105)));
        assert!(silence.is_too_long(start + Duration::from_secs(106)));
    }

    #[test]
    fn the_silence_of_one_shard_is_long_though_others_are_heard_of() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut silence = Silence::new(start);
        silence.heard(start, Shard(1));
        for second in 1..10 {
            silence.heard(at(second), Shard(2));
            assert_eq!(silence.is_long(at(second)), second >= 3);
            assert!(
                !silence.is_too_long(at(second)),
                "there is nothing wrong with the server"
            );
        }
        silence.heard(at(10), Shard(1));
        assert!(!silence.is_long(at(10)));
        silence.excused(at(20));
        silence.heard(at(22), Shard(2));
        assert!(!silence.is_long(at(22)), "until then there was an excuse");
        silence.heard(at(23), Shard(2));
        assert!(silence.is_long(at(23)));
    }
}
