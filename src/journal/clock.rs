//! The clock of a shard, which never goes back.

use std::time::{Duration, Instant};

use tracing::warn;

use crate::model::UnixMillis;

/// Tells the time of events. It never goes back within a shard, not even over a restart: while the machine's clock is behind the last event's
/// time, that time stands still.
pub(super) struct Clock {
    machine: Box<dyn Fn() -> UnixMillis + Send>,
    warned: Option<Instant>,
}

impl Clock {
    /// So much behind the last event a clock may be without a word: clocks are set right by less.
    const SLACK: Duration = Duration::from_secs(60);
    /// How often it is told at most.
    const PAUSE: Duration = Duration::from_secs(60);

    pub(super) const fn new(machine: Box<dyn Fn() -> UnixMillis + Send>) -> Self {
        Self { machine, warned: None }
    }

    /// The time of what is appended now, after an event of this time.
    pub(super) fn after(&mut self, last: UnixMillis) -> UnixMillis {
        let machine = (self.machine)();
        if let Some(behind) = self.worth_telling(machine, last, Instant::now()) {
            warn!(
                ?behind,
                "the machine's clock is behind the last event's time: until it has caught up, publishers' keys and events are kept for longer"
            );
        }
        machine.max(last)
    }

    /// How far the clock is behind, if that should be told now.
    fn worth_telling(&mut self, machine: UnixMillis, last: UnixMillis, now: Instant) -> Option<Duration> {
        let behind = Duration::from_millis(last.0.saturating_sub(machine.0));
        let is_told = self
            .warned
            .is_some_and(|warned| now.duration_since(warned) < Self::PAUSE);
        if behind <= Self::SLACK || is_told {
            return None;
        }
        self.warned = Some(now);
        Some(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_rather_than_go_back() {
        let mut clock = Clock::new(Box::new(|| UnixMillis(5_000)));
        assert_eq!(clock.after(UnixMillis(4_000)), UnixMillis(5_000));
        assert_eq!(clock.after(UnixMillis(500_000)), UnixMillis(500_000));
    }

    #[test]
    fn a_clock_far_behind_is_told_once_a_minute() {
        let mut clock = Clock::new(Box::new(|| UnixMillis(0)));
        let begin = Instant::now();
        let mut told = |last, seconds| {
            let now = begin + Duration::from_secs(seconds);
            clock.worth_telling(UnixMillis(1_000), UnixMillis(last), now)
        };
        assert_eq!(told(0, 0), None);
        assert_eq!(told(61_000, 0), None);
        assert_eq!(told(61_001, 0), Some(Duration::from_millis(60_001)));
        assert_eq!(told(90_000, 59), None);
        assert_eq!(told(90_000, 60), Some(Duration::from_secs(89)));
        assert_eq!(told(2_000, 180), None);
    }
}
