//! A shard's history: which epochs it has had, and where each begins.
//!
//! Every start of a store begins an epoch, drawn at random, after the last event that the store then holds. A position of an epoch is one of
//! this history if the epoch is known here and the position is not past where the next one begins: up to there both have the same events.
//! So a restart is no break for anybody, while a store that was put back from an older copy, or lost what it had acknowledged, is known by
//! the positions that it cannot have issued.

use crate::model::{Epoch, Seq};

/// The oldest epochs are forgotten beyond so many; a position of one that was forgotten counts as another history's.
const KNOWN: usize = 4_096;

/// The epochs of a shard, in the order they began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct History {
    epochs: Vec<(Epoch, Seq)>,
}

impl History {
    /// A history as it was stored: epochs, each with the sequence after which it begins.
    pub(super) fn of(epochs: impl IntoIterator<Item = (Epoch, Seq)>) -> Self {
        Self {
            epochs: epochs.into_iter().collect(),
        }
    }

    /// Its epochs, each with the sequence after which it begins.
    pub(super) fn epochs(&self) -> impl ExactSizeIterator<Item = (Epoch, Seq)> + DoubleEndedIterator + '_ {
        self.epochs.iter().copied()
    }

    /// Begins another epoch after this sequence, the last that there is.
    pub(super) fn begin(&mut self, epoch: Epoch, last: Seq) {
        let too_many = (self.epochs.len() + 1).saturating_sub(KNOWN);
        self.epochs.drain(..too_many);
        self.epochs.push((epoch, last));
    }

    /// Whether a position is of this history, which has come to `last`.
    pub(super) fn has(&self, epoch: Epoch, position: Seq, last: Seq) -> bool {
        let Some(at) = self.epochs.iter().rposition(|&(known, _)| known == epoch) else {
            return false;
        };
        let end = self.epochs.get(at + 1).map_or(last, |&(_, next)| next);
        position <= end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_is_known_up_to_where_the_next_epoch_begins() {
        let mut history = History::default();
        history.begin(Epoch(7), Seq(0));
        history.begin(Epoch(9), Seq(10));
        history.begin(Epoch(8), Seq(10));
        for (epoch, position, known) in [
            (7, 0, true),
            (7, 10, true),
            (7, 11, false),
            (9, 10, true),
            (9, 11, false),
            (8, 11, true),
            (8, 20, true),
            (8, 21, false),
            (1, 0, false),
        ] {
            assert_eq!(
                history.has(Epoch(epoch), Seq(position), Seq(20)),
                known,
                "{epoch}.{position}"
            );
        }
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut history = History::default();
        for epoch in 1..=5_000 {
            history.begin(Epoch(epoch), Seq(u64::from(epoch)));
        }
        assert_eq!(history.epochs().len(), KNOWN);
        assert!(!history.has(Epoch(904), Seq(1), Seq(9_000)) && history.has(Epoch(905), Seq(906), Seq(9_000)));
    }

    proptest! {
        /// Starts, appends and restores of older copies: a position counts if and only if what it has seen is what there is.
        #[test]
        fn what_a_copy_cannot_have_issued_is_told(
            steps in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), 1..20_u64), 1..40),
        ) {
            // Each event by who appended it, which no two histories share.
            let (mut history, mut events, mut epochs) = (History::default(), Vec::<u32>::new(), 0);
            let mut start = |history: &mut History, events: &[u32]| {
                epochs += 1;
                history.begin(Epoch(epochs), Seq(events.len() as u64));
                epochs
            };
            let mut epoch = start(&mut history, &events);
            let (mut copies, mut positions) = (Vec::new(), Vec::new());
            for (step, which, count) in steps {
                match step {
                    0 => events.extend(std::iter::repeat_n(epoch, count as usize)),
                    1 => epoch = start(&mut history, &events),
                    _ => {
                        copies.push((history.clone(), events.clone()));
                        (history, events) = which.get(&copies).clone();
                        epoch = start(&mut history, &events);
                    }
                }
                positions.push((Epoch(epoch), events.clone()));
                for (of, seen) in &positions {
                    let known = history.has(*of, Seq(seen.len() as u64), Seq(events.len() as u64));
                    prop_assert_eq!(known, events.starts_with(seen) && history.epochs().any(|(epoch, _)| epoch == *of));
                }
            }
        }
    }
}
