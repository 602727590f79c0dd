//! A timer wheel: one per worker carries the times of all its streams, so that no stream has a timer of its own.
//!
//! Pure: time is a count of ticks that the caller moves on. Adding is a push, and no item is ever looked for: what has become of no
//! interest is recognised, and dropped, when it comes up, or with all that is so when there is much of it ([`Wheel::retain`]).

use std::time::Duration;

/// A moment, in steps of [`Tick::STEP`] since the worker began: enough for six years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Tick(pub(super) u32);

impl Tick {
    /// How fine time is.
    pub(super) const STEP: Duration = Duration::from_millis(50);

    /// The last moment at or before this much time has passed.
    pub(super) fn at(since_begin: Duration) -> Self {
        Self(u32::try_from(since_begin.as_millis() / Self::STEP.as_millis()).unwrap_or(u32::MAX))
    }

    /// This moment, so much later; at least one step.
    pub(super) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(Self::at(duration).0.max(1)))
    }
}

/// Items, each due at a tick.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    /// What is due at tick `t` is in bucket `t mod BUCKETS`, together with what is due whole turns later.
    buckets: Box<[Vec<(Tick, T)>]>,
    now: Tick,
}

impl<T> Wheel<T> {
    /// One turn is 25 seconds: a heartbeat's usual time is within it.
    const BUCKETS: u32 = 512;

    /// Buckets larger than this do not keep their memory when they are empty.
    const KEPT: usize = 64;

    /// An empty wheel, at tick 0.
    pub(super) fn new() -> Self {
        Self {
            buckets: std::iter::repeat_with(Vec::new).take(Self::BUCKETS as usize).collect(),
            now: Tick::default(),
        }
    }

    /// Notes that `item` is due at a tick; at the next one if that is past.
    pub(super) fn add(&mut self, due: Tick, item: T) {
        let due = due.max(Tick(self.now.0.saturating_add(1)));
        self.buckets[Self::bucket(due)].push((due, item));
    }

    /// Moves time on and returns what became due, in the order of its ticks as long as that is less than a turn.
    pub(super) fn advance(&mut self, to: Tick) -> Vec<T> {
        let mut due = Vec::new();
        let turns = to.0.saturating_sub(self.now.0).min(Self::BUCKETS);
        for step in 1..=turns {
            let bucket = &mut self.buckets[Self::bucket(Tick(self.now.0.wrapping_add(step)))];
            due.extend(bucket.extract_if(.., |(at, _)| *at <= to).map(|(_, item)| item));
            if bucket.is_empty() && bucket.capacity() > Self::KEPT {
                *bucket = Vec::new();
            }
        }
        self.now = self.now.max(to);
        due
    }

    /// Forgets what is of no interest any more.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for bucket in &mut self.buckets {
            bucket.retain(|(_, item)| keep(item));
            if bucket.capacity() > Self::KEPT.max(4 * bucket.len()) {
                bucket.shrink_to_fit();
            }
        }
    }

    /// How many items wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }

    fn bucket(tick: Tick) -> usize {
        (tick.0 % Self::BUCKETS) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a test does: add an item due so many ticks from now, or let time pass.
    #[derive(Debug, Clone)]
    enum Step {
        Add(u32),
        Pass(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..2_000_u32).prop_map(Step::Add),
            1 => (0..40_u32).prop_map(Step::Pass),
            1 => (0..3_000_u32).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn everything_comes_up_once_and_in_time(steps in steps()) {
            let mut wheel = Wheel::new();
            let (mut now, mut waiting) = (0_u32, Vec::new());
            for (item, step) in steps.into_iter().chain([Step::Pass(5_000)]).enumerate() {
                match step {
                    Step::Add(from_now) => {
                        wheel.add(Tick(now + from_now), item);
                        waiting.push((now + from_now.max(1), item));
                    }
                    Step::Pass(ticks) => {
                        now += ticks;
                        let mut want: Vec<usize> = waiting.extract_if(.., |(due, _)| *due <= now).map(|(_, item)| item).collect();
                        let mut got = wheel.advance(Tick(now));
                        want.sort_unstable();
                        got.sort_unstable();
                        prop_assert_eq!(got, want);
                    }
                }
            }
            prop_assert!(waiting.is_empty());
        }
    }

    #[test]
    fn ticks_are_durations() {
        assert_eq!(Tick::at(Duration::from_millis(149)), Tick(2));
        assert_eq!(Tick(7).after(Duration::from_secs(15)), Tick(307));
        assert_eq!(Tick(7).after(Duration::ZERO), Tick(8));
    }

    #[test]
    fn a_crowd_does_not_keep_its_memory() {
        let mut wheel = Wheel::new();
        for item in 0..1_000 {
            wheel.add(Tick(5), item);
        }
        assert_eq!(wheel.advance(Tick(5)).len(), 1_000);
        assert_eq!(wheel.buckets.iter().map(Vec::capacity).sum::<usize>(), 0);
    }
}
