//! How fast streams are sent to the edge they belong on: in random order, and no faster than was allowed.

use std::time::Duration;

use rand::seq::SliceRandom as _;

use super::{Settings, streams::Key, wheel::Tick};

/// How often to look for more of them after that.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The misplaced streams of one worker, waiting for their turn.
pub(super) struct Moves {
    per_tick: f64,
    allowance: f64,
    waiting: Vec<Key>,
    settle: Duration,
    look_at: Tick,
}

impl Moves {
    /// Nobody yet. The workers of an edge share what it may move a second.
    pub(super) fn new(settings: &Settings, workers: usize) -> Self {
        let share = f64::from(settings.moves_per_second) / f64::from(u32::try_from(workers.max(1)).unwrap_or(u32::MAX));
        Self {
            per_tick: share * Tick::STEP.as_secs_f64(),
            allowance: 0.0,
            waiting: Vec::new(),
            settle: settings.settle,
            look_at: Tick::default().after(settings.settle),
        }
    }

    /// The cluster has changed, or what is seen of it is in doubt: nobody is moved for now.
    pub(super) fn pause(&mut self, now: Tick) {
        self.waiting = Vec::new();
        self.allowance = 0.0;
        self.look_at = now.after(self.settle);
    }

    /// One tick: calls `send` with one stream after the other as long as more may be moved now. `find` gives all that are misplaced;
    /// `send` says whether it moved this one.
    pub(super) fn tick(&mut self, now: Tick, find: impl FnOnce() -> Vec<Key>, mut send: impl FnMut(Key) -> bool) {
        if self.per_tick <= 0.0 {
            return;
        }
        if now >= self.look_at {
            self.look_at = now.after(LOOK_AGAIN);
            self.waiting = find();
            self.waiting.shuffle(&mut rand::rng());
        }
        if self.waiting.is_empty() {
            self.allowance = 0.0;
            return;
        }
        // What was not used does not gather: those who are moved come evenly.
        self.allowance = (self.allowance + self.per_tick).min(self.per_tick.max(1.0));
        while self.allowance >= 1.0 {
            let Some(key) = self.waiting.pop() else { return };
            if send(key) {
                self.allowance -= 1.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves(per_second: u32, workers: usize) -> Moves {
        let settings = Settings {
            moves_per_second: per_second,
            ..Settings::default()
        };
        Moves::new(&settings, workers)
    }

    /// Moves from so many keys for so long; returns the ticks at which one was moved, and the order.
    fn run(per_second: u32, keys: u32, ticks: u32) -> (Vec<u32>, Vec<Key>) {
        let mut moves = moves(per_second, 2);
        let mut left: Vec<Key> = (0..keys).map(Key::test).collect();
        let (mut at, mut order) = (Vec::new(), Vec::new());
        for now in 1..=ticks {
            let all = left.clone();
            moves.tick(
                Tick(now),
                || all,
                |key| {
                    left.retain(|one| *one != key);
                    at.push(now);
                    order.push(key);
                    true
                },
            );
        }
        (at, order)
    }

    #[test]
    fn no_more_than_the_share_in_any_second() {
        for per_second in [1, 2, 10, 300, 1_000] {
            let (at, _) = run(per_second, 5_000, 2_000);
            let share = usize::try_from(per_second.div_ceil(2)).expect("small");
            assert!(at[0] >= 100, "nobody before it has settled");
            for window in at.windows(share + 2) {
                assert!(window[share + 1] - window[0] >= 20, "{per_second} a second: {window:?}");
            }
            let least = (per_second as usize * 90 / 2).min(5_000);
            assert!(at.len() >= least, "{per_second} a second: {}", at.len());
        }
        assert_eq!(run(0, 10, 1_000).0, [0; 0]);
    }

    #[test]
    fn the_order_is_none() {
        let (_, order) = run(1_000, 100, 400);
        assert_eq!(order.len(), 100);
        assert_ne!(order, (0..100).rev().map(Key::test).collect::<Vec<_>>());
        assert_ne!(order, (0..100).map(Key::test).collect::<Vec<_>>());
    }

    #[test]
    fn a_change_stops_it() {
        let mut moves = moves(100, 1);
        let mut moved = 0;
        for now in 1..=1_000 {
            if now > 100 && now % 50 == 0 {
                moves.pause(Tick(now));
            }
            moves.tick(
                Tick(now),
                || (0..1_000).map(Key::test).collect(),
                |_| {
                    moved += 1;
                    true
                },
            );
        }
        assert!((1..=260).contains(&moved), "{moved}");
    }
}
