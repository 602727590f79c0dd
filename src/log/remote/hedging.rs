//! When the next holder is asked as well though the first one may yet answer. Pure.
//!
//! After as long as all but few answers take, so that a node that hangs costs little; and for a bounded share of the questions, so that nodes
//! that are slow because they have too much to do do not get twice as much.

use std::time::Duration;

/// How many of the last answers count.
const ANSWERS: usize = 128;
/// How many times as long as all but few.
const PATIENCE: u32 = 2;
/// However slow the answers are, so long is long.
const LONGEST: Duration = Duration::from_millis(500);
/// How many hedges there may be in a row, when there were none for a while.
const BURST: f64 = 8.0;

#[derive(Debug)]
pub(super) struct Hedging {
    /// At least so long.
    least: Duration,
    /// How many of these each question earns.
    share: f64,
    saved: f64,
    /// The last answers, the oldest of which is replaced next.
    took: Vec<Duration>,
    oldest: usize,
    after: Duration,
}

impl Hedging {
    pub(super) fn new(least: Duration, share: f64) -> Self {
        Self {
            least,
            share,
            saved: BURST,
            took: Vec::new(),
            oldest: 0,
            after: least,
        }
    }

    /// A question is put.
    pub(super) fn asked(&mut self) {
        self.saved = BURST.min(self.saved + self.share);
    }

    /// Whether one more may be put to another holder as well.
    pub(super) fn may_hedge(&mut self) -> bool {
        let may = self.saved >= 1.0;
        if may {
            self.saved -= 1.0;
        }
        may
    }

    /// A question that was answered took so long, since it was put to whoever answered it.
    pub(super) fn answered(&mut self, took: Duration) {
        if self.took.len() < ANSWERS {
            self.took.push(took);
        } else {
            self.took[self.oldest] = took;
            self.oldest = (self.oldest + 1) % ANSWERS;
        }
        let mut took = self.took.clone();
        let at = took.len() * 95 / 100;
        let (_, slow, _) = took.select_nth_unstable(at.min(self.took.len() - 1));
        self.after = (*slow * PATIENCE).clamp(self.least, LONGEST.max(self.least));
    }

    /// How long to wait for an answer before the next one is asked as well.
    pub(super) const fn after(&self) -> Duration {
        self.after
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEAST: Duration = Duration::from_millis(20);

    #[test]
    fn patience_follows_the_answers() {
        let mut hedging = Hedging::new(LEAST, 0.1);
        assert_eq!(hedging.after(), LEAST);
        for (took, after) in [(1, 20), (50, 100), (1, 20), (5_000, 500), (30, 60)] {
            for _ in 0..ANSWERS {
                hedging.answered(Duration::from_millis(took));
            }
            assert_eq!(hedging.after(), Duration::from_millis(after), "{took} ms each");
        }
        for _ in 0..ANSWERS / 25 {
            hedging.answered(Duration::from_millis(5_000));
        }
        assert_eq!(
            hedging.after(),
            Duration::from_millis(60),
            "a few slow ones change nothing"
        );
    }

    proptest! {
        #[test]
        fn no_more_than_the_share_is_hedged(wanted in prop::collection::vec(any::<bool>(), 1..2_000), percent in 0..=100_u32) {
            let share = f64::from(percent) / 100.0;
            let mut hedging = Hedging::new(LEAST, share);
            let mut hedged = 0.0;
            for (questions, wanted) in wanted.into_iter().enumerate() {
                hedging.asked();
                if wanted && hedging.may_hedge() {
                    hedged += 1.0;
                }
                prop_assert!(hedged <= BURST + share * (questions + 1) as f64 + 1e-6);
            }
        }
    }
}
