//! How much one publisher may publish: two token buckets each, of events and of bytes, in a bounded table.
//!
//! A bucket holds what may come in one second. What costs more than that is let through by a full bucket, which then owes the rest: so a
//! publish to many topics is not shut out by a low rate, and the rate holds all the same.
//!
//! Who is told to wait has nothing taken until then, be it as small as it may. So what was sent right behind a refused event, before its sender
//! knew, is refused too, and is not published before it when both are sent again.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::caller::Caller;

/// What one publisher may publish a second; 0: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Events: a publish to several topics is as many.
    pub events: u64,
    /// Bytes of payload, once for each topic.
    pub bytes: u64,
}

/// Whose buckets they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Payer {
    /// A publisher of the configuration, by name.
    Name(Arc<str>),
    /// Whoever an issuer calls so: who has the name of a publisher uses up nothing of it.
    Subject(Arc<str>),
    /// Whoever calls from an address, where nobody is asked who they are; of IPv6 from a network of 64 bits.
    Address(IpAddr),
    /// Whoever calls from nowhere.
    Nobody,
}

impl Payer {
    pub(super) fn of(caller: &Caller) -> Self {
        if let Some(name) = caller.name() {
            let payer = if caller.is_issued() { Self::Subject } else { Self::Name };
            return payer(Arc::clone(name));
        }
        match caller.peer().map(|peer| peer.ip().to_canonical()) {
            Some(IpAddr::V6(address)) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Self::Address(Ipv6Addr::from(network).into())
            }
            Some(address) => Self::Address(address),
            None => Self::Nobody,
        }
    }
}

/// The shortest wait that is told: what was sent in one go, and its refusal, are on their way for a while.
const LEAST_WAIT: Duration = Duration::from_millis(200);

/// The buckets of all publishers.
#[derive(Debug)]
pub(super) struct Quotas {
    rates: Rates,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    accounts: HashMap<Payer, Account>,
    swept: Instant,
    /// Shared by those who find the table full.
    overflow: Account,
}

#[derive(Debug, Clone)]
struct Account {
    events: Bucket,
    bytes: Bucket,
    at: Instant,
    /// What was told last, and until when that counts.
    told: Option<(OverQuota, Instant)>,
}

/// What is left of one second's worth, in billionths of one of what is counted: so that nothing is lost to rounding. Less than nothing is owed.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: u64,
    left: i128,
}

impl Quotas {
    /// At most this many publishers have buckets of their own.
    const ACCOUNTS: usize = 65_536;

    /// Quotas of these rates; none if there is no limit.
    pub(super) fn new(rates: Rates, now: Instant) -> Option<Self> {
        if rates == Rates::default() {
            return None;
        }
        let table = Table {
            accounts: HashMap::new(),
            swept: now,
            overflow: Account::full(rates, now),
        };
        Some(Self {
            rates,
            table: Mutex::new(table),
        })
    }

    /// Takes the cost of a publish of so many bytes to so many topics.
    ///
    /// # Errors
    /// If that is more than is left now. Nothing was taken then.
    pub(super) fn take(&self, payer: Payer, topics: usize, bytes: usize, now: Instant) -> Result<(), OverQuota> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.sweep(now);
        let room = table.accounts.len() < Self::ACCOUNTS;
        let account = if room || table.accounts.contains_key(&payer) {
            table
                .accounts
                .entry(payer)
                .or_insert_with(|| Account::full(self.rates, now))
        } else {
            &mut table.overflow
        };
        account.fill(now);
        account.take(topics as u64, (bytes as u64).saturating_mul(topics as u64))
    }
}

impl Table {
    /// Drops the accounts that are full again: they say no more than none.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= Duration::from_secs(1) {
            self.swept = now;
            self.accounts.retain(|_, account| {
                account.fill(now);
                !account.is_full()
            });
        }
    }
}

impl Account {
    fn full(rates: Rates, now: Instant) -> Self {
        Self {
            events: Bucket::full(rates.events),
            bytes: Bucket::full(rates.bytes),
            at: now,
            told: None,
        }
    }

    fn is_full(&self) -> bool {
        self.events.left >= self.events.holds() && self.bytes.left >= self.bytes.holds() && self.told.is_none()
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.events.fill(passed);
        self.bytes.fill(passed);
        self.at = self.at.max(now);
        self.told.take_if(|(_, until)| *until <= self.at);
    }

    fn take(&mut self, events: u64, bytes: u64) -> Result<(), OverQuota> {
        let over = [
            (Measure::Events, self.events.rate, self.events.wait(events)),
            (Measure::Bytes, self.bytes.rate, self.bytes.wait(bytes)),
        ];
        let longest = over.into_iter().max_by_key(|&(.., wait)| wait);
        let over = longest.filter(|(.., wait)| !wait.is_zero());
        let over = over.map(|(measure, per_second, wait)| OverQuota {
            measure,
            per_second,
            wait: wait.max(LEAST_WAIT),
        });
        if let Some((told, until)) = &self.told {
            let left = until.saturating_duration_since(self.at);
            let told = OverQuota {
                wait: whole_millis(left),
                ..told.clone()
            };
            return Err(over.filter(|over| over.wait > told.wait).unwrap_or(told));
        }
        if let Some(over) = over {
            self.told = Some((over.clone(), self.at + over.wait));
            return Err(over);
        }
        self.events.take(events);
        self.bytes.take(bytes);
        Ok(())
    }
}

/// Rounded up to what can be told: whoever comes back then finds enough.
fn whole_millis(time: Duration) -> Duration {
    let millis = time.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

impl Bucket {
    const ONE: i128 = 1_000_000_000;

    const fn full(rate: u64) -> Self {
        let mut bucket = Self { rate, left: 0 };
        bucket.left = bucket.holds();
        bucket
    }

    const fn holds(&self) -> i128 {
        self.rate as i128 * Self::ONE
    }

    fn fill(&mut self, passed: Duration) {
        let nanos = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX);
        let more = nanos.saturating_mul(self.rate.into());
        self.left = self.left.saturating_add(more).min(self.holds());
    }

    /// How long it takes until so much can be taken.
    fn wait(&self, cost: u64) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let missing = (i128::from(cost) * Self::ONE).min(self.holds()) - self.left;
        // Rounded up to what can be told: whoever comes back then finds enough.
        let per_milli = i128::from(self.rate) * (Self::ONE / 1_000);
        let millis = missing.max(0).unsigned_abs().div_ceil(per_milli.unsigned_abs());
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    fn take(&mut self, cost: u64) {
        if self.rate > 0 {
            self.left -= i128::from(cost) * Self::ONE;
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Events.
    Events,
    /// Bytes.
    Bytes,
}

impl std::fmt::Display for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Events => "events",
            Self::Bytes => "bytes",
        })
    }
}

/// A publisher publishes more than it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this publisher may publish {per_second} {measure} a second, once for each topic: wait {wait:?}")]
pub struct OverQuota {
    /// Of what there was too much.
    pub measure: Measure,
    /// How much of it there may be.
    pub per_second: u64,
    /// After how long there is room for this publish, if nothing else comes before it.
    pub wait: Duration,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quotas(events: u64, bytes: u64, now: Instant) -> Quotas {
        Quotas::new(Rates { events, bytes }, now).expect("a limit")
    }

    fn name(name: &str) -> Payer {
        Payer::Name(name.into())
    }

    #[test]
    fn the_wait_is_as_long_as_it_has_to_be_and_no_longer() {
        let begin = Instant::now();
        let quotas = quotas(10, 1_000, begin);
        let take = |topics, bytes, ms| quotas.take(name("a"), topics, bytes, begin + Duration::from_millis(ms));
        assert_eq!(take(10, 1, 0), Ok(()));
        let over = take(3, 1, 0).expect_err("empty");
        assert_eq!((over.measure, over.wait), (Measure::Events, Duration::from_millis(300)));
        assert!(take(3, 1, 299).is_err());
        assert_eq!(take(3, 1, 300), Ok(()));
        let over = take(1, 1_000, 2_000)
            .map(|()| take(1, 500, 2_000))
            .expect("full again")
            .expect_err("empty");
        assert_eq!((over.measure, over.wait), (Measure::Bytes, Duration::from_millis(500)));
        assert_eq!(quotas.take(name("b"), 10, 1, begin), Ok(()), "others have their own");
    }

    /// As `tidings publish` sends, in one go until it hears of a refusal, and then again what was refused.
    #[test]
    fn what_is_sent_again_after_a_refusal_is_published_in_order() {
        const EVENTS: usize = 5_000;

        let begin = Instant::now();
        let quotas = quotas(400, 0, begin);
        let mut at = begin;
        let mut waiting: std::collections::VecDeque<usize> = (0..EVENTS).collect();
        let mut published = Vec::new();
        while !waiting.is_empty() {
            let (mut refused, mut wait) = (Vec::new(), Duration::ZERO);
            for number in waiting.drain(..waiting.len().min(256)) {
                at += Duration::from_micros(100);
                match quotas.take(name("a"), 1, 1, at) {
                    Ok(()) => published.push(number),
                    Err(over) => {
                        refused.push(number);
                        wait = wait.max(over.wait);
                    }
                }
            }
            refused.into_iter().rev().for_each(|number| waiting.push_front(number));
            at += wait;
        }
        assert_eq!(published, (0..EVENTS).collect::<Vec<_>>());
        // No slower for it than the rate has it, but for the last wait.
        assert!(at - begin < Duration::from_millis(11_500 + 500), "{:?}", at - begin);
    }

    #[test]
    fn whoever_was_told_to_wait_has_nothing_taken_until_then() {
        let begin = Instant::now();
        let quotas = quotas(10, 1_000, begin);
        let take = |bytes, ms| quotas.take(name("a"), 1, bytes, begin + Duration::from_millis(ms));
        assert_eq!(take(600, 0), Ok(()));
        let over = take(700, 0).expect_err("400 are left");
        assert_eq!((over.measure, over.wait), (Measure::Bytes, Duration::from_millis(300)));
        let behind = take(1, 100).expect_err("it comes behind");
        assert_eq!(
            (behind.measure, behind.wait),
            (Measure::Bytes, Duration::from_millis(200))
        );
        assert_eq!(take(700, 300), Ok(()));
        assert_eq!(
            take(1, 300),
            Err(OverQuota {
                wait: LEAST_WAIT,
                ..over
            })
        );
    }

    #[test]
    fn what_costs_more_than_a_second_is_let_through_and_paid_for() {
        let begin = Instant::now();
        let quotas = quotas(10, 0, begin);
        let take = |topics, ms| quotas.take(name("a"), topics, 1 << 30, begin + Duration::from_millis(ms));
        assert_eq!(take(1_000, 0), Ok(()));
        assert_eq!(take(1, 0).expect_err("owes 990").wait, Duration::from_millis(99_100));
        assert!(take(1, 99_099).is_err());
        assert_eq!(take(1, 99_100), Ok(()));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_those_who_are_quiet() {
        let begin = Instant::now();
        let quotas = quotas(5, 0, begin);
        let address = |n: u32| Payer::Address(IpAddr::V4(n.into()));
        let taken = (0..80_000)
            .filter(|&n| quotas.take(address(n), 1, 1, begin).is_ok())
            .count();
        assert_eq!(taken, Quotas::ACCOUNTS + 5);
        assert!(
            quotas
                .take(address(79_999), 1, 1, begin + Duration::from_secs(1))
                .is_ok()
        );
        assert_eq!(quotas.table.lock().expect("whole").accounts.len(), 1);
    }

    #[test]
    fn no_rates_no_quotas() {
        assert!(Quotas::new(Rates::default(), Instant::now()).is_none());
    }

    proptest! {
        #[test]
        fn never_more_than_a_burst_and_the_rate_and_who_waits_as_told_is_served(
            rate in 1_u64..50, asks in prop::collection::vec((0_u64..400, 1_usize..20), 1..200),
        ) {
            let begin = Instant::now();
            let quotas = quotas(rate, 0, begin);
            let (mut at, mut granted) = (0, 0_usize);
            for (gap, topics) in asks {
                at += gap;
                if let Err(over) = quotas.take(name("a"), topics, 0, begin + Duration::from_millis(at)) {
                    at += u64::try_from(over.wait.as_millis()).expect("short");
                    prop_assert_eq!(quotas.take(name("a"), topics, 0, begin + Duration::from_millis(at)), Ok(()));
                }
                // The last one may owe what it costs beyond a second's worth.
                let most = rate as f64 * (1.0 + at as f64 / 1_000.0) + topics as f64;
                granted += topics;
                prop_assert!(granted as f64 <= most + 1e-6, "{granted} in {at} ms");
            }
        }
    }
}
