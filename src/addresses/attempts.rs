//! Attempts per second and address: a token bucket each, in a bounded table.

use std::{collections::HashMap, time::Instant};

use super::Address;

/// The buckets of those who tried within the last second. The time is the caller's.
#[derive(Debug)]
pub(super) struct Attempts {
    per_second: f64,
    buckets: HashMap<Address, Bucket>,
    swept: Instant,
    /// Shared by those who find the table full.
    overflow: Bucket,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Attempts {
    /// At most this many addresses have a bucket of their own.
    const ADDRESSES: usize = 65_536;

    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self {
            per_second,
            buckets: HashMap::new(),
            swept: now,
            overflow: Bucket {
                tokens: per_second,
                at: now,
            },
        }
    }

    /// Takes a token of this address; false if it has none.
    pub(super) fn take(&mut self, address: Address, now: Instant) -> bool {
        self.sweep(now);
        let full = Bucket {
            tokens: self.per_second,
            at: now,
        };
        let room = self.buckets.len() < Self::ADDRESSES;
        let bucket = match self.buckets.get_mut(&address) {
            Some(bucket) => bucket,
            None if room => self.buckets.entry(address).or_insert(full),
            None => &mut self.overflow,
        };
        bucket.take(self.per_second, now)
    }

    /// Drops the buckets that are full again: they say no more than none. A bucket holds one second's tokens, so that is all that
    /// were not touched for a second.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept).as_secs() >= 1 {
            self.swept = now;
            self.buckets
                .retain(|_, bucket| now.saturating_duration_since(bucket.at).as_secs() < 1);
        }
    }
}

impl Bucket {
    fn take(&mut self, per_second: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * per_second).min(per_second);
        self.at = self.at.max(now);
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let begin = Instant::now();
        let mut attempts = Attempts::new(10, begin);
        let granted = |attempts: &mut Attempts, after_ms: u64| {
            let now = begin + Duration::from_millis(after_ms);
            (0..100).filter(|_| attempts.take(Address::V4(1), now)).count()
        };
        assert_eq!(granted(&mut attempts, 0), 10);
        assert_eq!(granted(&mut attempts, 0), 0);
        assert_eq!(granted(&mut attempts, 501), 5);
        assert_eq!(granted(&mut attempts, 60_000), 10);
    }

    #[test]
    fn the_table_is_bounded() {
        let begin = Instant::now();
        let mut attempts = Attempts::new(5, begin);
        let granted = (0..80_000).filter(|&n| attempts.take(Address::V4(n), begin)).count();
        assert_eq!(attempts.buckets.len(), Attempts::ADDRESSES);
        assert_eq!(granted, Attempts::ADDRESSES + 5);
        assert!(attempts.take(Address::V4(79_999), begin + Duration::from_secs(1)));
        assert_eq!(attempts.buckets.len(), 1);
    }

    proptest! {
        #[test]
        fn never_more_than_a_burst_and_the_rate(rate in 1_u32..50, gaps in prop::collection::vec(0_u64..400, 1..300)) {
            let begin = Instant::now();
            let mut attempts = Attempts::new(rate, begin);
            let (mut at, mut granted) = (0, 0_u32);
            for gap in gaps {
                at += gap;
                granted += u32::from(attempts.take(Address::V6(7), begin + Duration::from_millis(at)));
                let most = f64::from(rate) * (1.0 + at as f64 / 1_000.0);
                prop_assert!(f64::from(granted) <= most + 1e-6, "{granted} in {at} ms");
            }
        }
    }
}
