//! Telling seldom of what happens often.

use std::time::{Duration, Instant};

/// Counts what happens, and says when it is time to tell of it.
#[derive(Debug, Default)]
pub struct Seldom {
    untold: u64,
    told: Option<Instant>,
}

impl Seldom {
    /// The least time between two tellings.
    pub const EVERY: Duration = Duration::from_secs(10);

    /// It happened: how many times since it was told of, if it is time to tell again.
    pub fn happened(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now.duration_since(told) < Self::EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_at_first_and_then_of_all_since() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.happened(start), Some(1));
        assert_eq!(seldom.happened(start), None);
        assert_eq!(seldom.happened(start + Seldom::EVERY / 2), None);
        assert_eq!(seldom.happened(start + Seldom::EVERY), Some(3));
    }
}
