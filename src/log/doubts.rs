//! Positions that a replica was asked for and that lie beyond the end of its stream. Pure.
//!
//! Such a position is new, and the replica or the stream's leader has yet to be heard of it; or it was lost: the stream was put back from an
//! older copy, or nobody ever issued it. It counts as lost only when the leader, asked long enough after the position first came, still says
//! that the stream ends before it. Whatever was issued was in the stream before anybody could ask for what follows it; so a position that is
//! merely newer than the leader's last word is never lost.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::model::Seq;

/// So many are remembered at most.
const CAPACITY: usize = 4_096;
/// One that nobody has asked for for so long makes room for another.
const STALE: Duration = Duration::from_secs(60);

/// What is doubtful, and what is known to be lost.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Where the stream ends, in the leader's last word.
    end: Seq,
    /// None of them is at or below the end.
    positions: BTreeMap<Seq, Doubt>,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    first: Instant,
    latest: Instant,
    is_lost: bool,
}

impl Doubts {
    /// A position beyond the replica's end is asked for: whether it is known to be lost.
    pub(super) fn is_lost(&mut self, position: Seq, now: Instant) -> bool {
        if position <= self.end {
            return false;
        }
        if let Some(doubt) = self.positions.get_mut(&position) {
            doubt.latest = now;
            return doubt.is_lost;
        }
        if self.positions.len() >= CAPACITY {
            self.positions
                .retain(|_, doubt| now.saturating_duration_since(doubt.latest) < STALE);
        }
        let doubt = Doubt {
            first: now,
            latest: now,
            is_lost: false,
        };
        self.positions.insert(position, doubt);
        if self.positions.len() > CAPACITY {
            // What was issued once is near the end; what is made up may be anywhere.
            self.positions.pop_last();
        }
        false
    }

    /// The leader said where the stream ends, when it was asked then. Positions beyond it that came at least `confirmed_after` before are lost.
    pub(super) fn ends_at(&mut self, end: Seq, asked: Instant, confirmed_after: Duration) {
        self.end = end;
        self.positions = self.positions.split_off(&end.next());
        for doubt in self.positions.values_mut() {
            doubt.is_lost |= asked
                .checked_duration_since(doubt.first)
                .is_some_and(|since| since >= confirmed_after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(15);

    #[test]
    fn a_position_is_lost_when_the_leader_still_lacks_it_long_after_it_came() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut doubts = Doubts::default();
        doubts.ends_at(Seq(5), at(0), AFTER);
        assert!(!doubts.is_lost(Seq(25), at(10)));
        for asked in [1, 9, 10, 11, 24] {
            doubts.ends_at(Seq(5), at(asked), AFTER);
            assert!(!doubts.is_lost(Seq(25), at(60)), "asked at {asked}");
        }
        doubts.ends_at(Seq(6), at(25), AFTER);
        assert!(doubts.is_lost(Seq(25), at(60)));
        assert!(!doubts.is_lost(Seq(26), at(60)), "each has its own time");
        // As the stream comes to it, it is one of the stream's again.
        doubts.ends_at(Seq(25), at(61), AFTER);
        assert!(!doubts.is_lost(Seq(25), at(62)));
        assert!(!doubts.is_lost(Seq(26), at(62)));
    }

    #[test]
    fn what_is_newer_than_the_leaders_word_is_not_lost() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut doubts = Doubts::default();
        // The leader was not heard of for long: its old word says nothing of what came since.
        doubts.ends_at(Seq(5), at(0), AFTER);
        assert!(!doubts.is_lost(Seq(7), at(1)));
        assert!(!doubts.is_lost(Seq(7), at(1_000)));
        doubts.ends_at(Seq(7), at(1_001), AFTER);
        assert!(!doubts.is_lost(Seq(7), at(1_001)));
        // One that was cut off says less for a while, and then another says more.
        doubts.ends_at(Seq(3), at(1_002), AFTER);
        assert!(!doubts.is_lost(Seq(7), at(1_003)));
        doubts.ends_at(Seq(9), at(1_004), AFTER);
        doubts.ends_at(Seq(3), at(1_020), AFTER);
        assert!(!doubts.is_lost(Seq(7), at(1_020)), "it begins anew");
    }

    #[test]
    fn those_near_the_end_are_remembered_and_the_others_bounded() {
        let begin = Instant::now();
        let mut doubts = Doubts::default();
        assert!(!doubts.is_lost(Seq(10), begin));
        for position in (0..2 * CAPACITY as u64).rev() {
            assert!(!doubts.is_lost(Seq(1_000 + position), begin));
        }
        assert!(!doubts.is_lost(Seq(u64::MAX), begin));
        assert_eq!(doubts.positions.len(), CAPACITY);
        doubts.ends_at(Seq(5), begin + AFTER, AFTER);
        assert!(doubts.is_lost(Seq(10), begin + AFTER));
        assert!(doubts.is_lost(Seq(1_000), begin + AFTER));
        assert!(!doubts.is_lost(Seq(u64::MAX), begin + AFTER));
        // Those that nobody asks for any more make room.
        let later = begin + AFTER + STALE;
        assert!(!doubts.is_lost(Seq(u64::MAX), later));
        assert!(doubts.positions.contains_key(&Seq(u64::MAX)));
        doubts.ends_at(Seq(u64::MAX - 1), later, AFTER);
        assert_eq!(doubts.positions.len(), 1);
    }
}
