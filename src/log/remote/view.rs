//! What is known of a shard that several nodes hold: its epoch, how far it had come, and who is behind. Pure.
//!
//! Holders may differ: each applies what was appended a little later than another, and when a shard begins a new epoch (its stream was made
//! anew, say) some of them notice before others. Epochs have no order, so which of two is the present one is told by these rules:
//!
//! 1. The first epoch that is heard of is the present one.
//! 2. A holder never goes back. When one that said the present epoch says another, that one is the present one from then on, and the one
//!    before is past.
//! 3. Another epoch than the present one does not count while some other holder's last word is the present one: whoever says it is behind, or
//!    ahead of what is known; rule 2 will tell. Once nobody stands by the present one any more, it counts. A word stands until its holder says
//!    another, cannot be asked, or holds the shard no more.
//! 4. An epoch that is past counts again only if every holder says it. (A stream that was put back from a copy has its old epoch.)
//!
//! With one holder, that is simply its word.
//!
//! An answer of another epoch than the present one is passed on to nobody. Neither are heads that go back: that are less than what was known
//! when they were asked for. Bad news (that the history forked, or that events are gone) counts when no other holder that can be asked knows
//! better: a holder that is behind does not know the positions of an epoch that it has yet to notice, and one whose copy was rebuilt may have
//! less than others have kept.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::ask::{Answer, Question};
use crate::{
    log::Replay,
    model::{Epoch, Seq},
};

/// How many epochs that are past are remembered.
const PAST: usize = 64;
/// How often holders are compared without another reason.
const COMPARE: Duration = Duration::from_secs(1);

/// One shard, as its holders have told of it.
#[derive(Debug, Default)]
pub(crate) struct View {
    present: Option<Epoch>,
    last: Seq,
    past: VecDeque<Epoch>,
    words: HashMap<Arc<str>, Epoch>,
    compared: Option<Instant>,
}

/// How far a shard had come for sure when a question was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    epoch: Option<Epoch>,
    last: Seq,
}

/// What an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is passed on.
    Good,
    /// It is passed on if nobody knows better.
    Poor,
    /// The holder lags behind what is known.
    Behind,
    /// It is of another epoch than the present one.
    Disputed,
}

impl View {
    /// What is known now.
    pub(super) const fn known(&self) -> Known {
        Known {
            epoch: self.present,
            last: self.last,
        }
    }

    /// A holder answers. `holders`: all there are, this one among them; `known`: when the question was put.
    pub(super) fn answered(
        &mut self,
        node: &Arc<str>,
        holders: &[Arc<str>],
        known: Known,
        question: &Question,
        answer: &Answer,
    ) -> Worth {
        if !self.is_present(node, holders, answer.epoch()) {
            return Worth::Disputed;
        }
        // Of what was known of another epoch, nothing holds.
        let known = if known.epoch == self.present {
            known.last
        } else {
            Seq::ZERO
        };
        match answer {
            Answer::Heads(heads) => {
                self.last = self.last.max(heads.last);
                if heads.last < known { Worth::Behind } else { Worth::Good }
            }
            Answer::Replay(Replay::Page(page)) => {
                self.last = self.last.max(page.up_to);
                let asked = match question {
                    Question::Replay { request, .. } => request.topics.iter().map(|&(_, after)| after).max(),
                    Question::Heads(_) | Question::Locate(..) => None,
                };
                // Nothing new, and there is something newer: in it may be what is asked for.
                let lags = page.events.is_empty() && page.up_to < known.max(asked.unwrap_or_default());
                if lags { Worth::Poor } else { Worth::Good }
            }
            Answer::Replay(Replay::Gone { .. } | Replay::Forked { .. }) => Worth::Poor,
            Answer::Located(_) => Worth::Good,
        }
    }

    /// Whether it is time to ask how far the shard has come, when there is no other reason to; if so, it is done now.
    pub(super) fn should_compare(&mut self, now: Instant) -> bool {
        let due = self
            .compared
            .is_none_or(|compared| now.saturating_duration_since(compared) >= COMPARE);
        if due {
            self.compared = Some(now);
        }
        due
    }

    /// Whether another epoch is known to have come after this one.
    pub(super) fn is_past(&self, epoch: Epoch) -> bool {
        self.past.contains(&epoch)
    }

    /// A holder cannot be asked: its word does not stand any more.
    pub(super) fn silent(&mut self, node: &str) {
        self.words.remove(node);
    }

    fn is_present(&mut self, node: &Arc<str>, holders: &[Arc<str>], epoch: Epoch) -> bool {
        self.words.retain(|node, _| holders.contains(node));
        let before = self.words.insert(Arc::clone(node), epoch);
        let Some(present) = self.present else {
            self.begin(epoch);
            return true;
        };
        if epoch == present {
            return true;
        }
        let went_on = before == Some(present);
        let stood_by = self.words.values().any(|&word| word == present);
        let all_say = holders.iter().all(|node| self.words.get(node) == Some(&epoch));
        let counts = went_on || all_say || (!stood_by && !self.past.contains(&epoch));
        if counts {
            self.begin(epoch);
        }
        counts
    }

    fn begin(&mut self, epoch: Epoch) {
        self.past.retain(|&past| past != epoch);
        if let Some(present) = self.present.replace(epoch) {
            self.past.push_back(present);
            if self.past.len() > PAST {
                self.past.pop_front();
            }
        }
        self.last = Seq::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        log::{Heads, Page, ReplayRequest},
        model::{Shard, Topic},
    };

    fn names(count: usize) -> Vec<Arc<str>> {
        (0..count).map(|node| format!("n{node}").into()).collect()
    }

    fn heads(epoch: u32, last: u64) -> Answer {
        Answer::Heads(Heads {
            shard: Shard(0),
            epoch: Epoch(epoch),
            last: Seq(last),
            floor: Seq(1),
            slots: Arc::default(),
        })
    }

    fn say(view: &mut View, holders: &[Arc<str>], node: usize, epoch: u32, last: u64) -> Worth {
        let known = view.known();
        view.answered(
            &holders[node],
            holders,
            known,
            &Question::Heads(Shard(0)),
            &heads(epoch, last),
        )
    }

    #[test]
    fn the_word_of_a_single_holder_counts() {
        let (mut view, holders) = (View::default(), names(1));
        for (epoch, last) in [(7, 10), (9, 10), (8, 1), (7, 3)] {
            assert_eq!(say(&mut view, &holders, 0, epoch, last), Worth::Good);
            assert_eq!(view.known().epoch, Some(Epoch(epoch)));
        }
    }

    #[test]
    fn who_has_yet_to_notice_a_new_epoch_does_not_count() {
        let (mut view, holders) = (View::default(), names(2));
        assert_eq!(say(&mut view, &holders, 0, 1, 10), Worth::Good);
        assert_eq!(say(&mut view, &holders, 1, 1, 10), Worth::Good);
        assert_eq!(say(&mut view, &holders, 1, 2, 0), Worth::Good, "it went on");
        assert_eq!(say(&mut view, &holders, 0, 1, 11), Worth::Disputed);
        view.silent("n1");
        assert_eq!(say(&mut view, &holders, 0, 1, 12), Worth::Disputed, "it is past");
        assert_eq!(say(&mut view, &holders, 0, 2, 1), Worth::Good);
    }

    #[test]
    fn who_comes_late_waits_for_the_one_that_is_behind() {
        let (mut view, holders) = (View::default(), names(2));
        assert_eq!(say(&mut view, &holders, 0, 1, 10), Worth::Good);
        assert_eq!(say(&mut view, &holders, 1, 2, 3), Worth::Disputed);
        assert_eq!(say(&mut view, &holders, 0, 1, 10), Worth::Good);
        assert_eq!(say(&mut view, &holders, 0, 2, 1), Worth::Good, "it went on");
        assert_eq!(say(&mut view, &holders, 1, 2, 3), Worth::Good);
    }

    #[test]
    fn a_word_stands_as_long_as_its_holder_can_be_asked() {
        let (mut view, holders) = (View::default(), names(2));
        assert_eq!(say(&mut view, &holders, 0, 1, 10), Worth::Good);
        assert_eq!(say(&mut view, &holders, 1, 2, 3), Worth::Disputed);
        view.silent("n0");
        assert_eq!(say(&mut view, &holders, 1, 2, 3), Worth::Good);
        assert_eq!(say(&mut view, &holders, 0, 1, 10), Worth::Disputed);
        // It left, and another came.
        let holders: Vec<Arc<str>> = vec!["n1".into(), "n2".into()];
        assert_eq!(say(&mut view, &holders, 1, 3, 1), Worth::Disputed);
    }

    #[test]
    fn an_epoch_that_is_past_counts_when_all_say_it() {
        let (mut view, holders) = (View::default(), names(2));
        assert_eq!(say(&mut view, &holders, 0, 1, 10), Worth::Good);
        assert_eq!(say(&mut view, &holders, 0, 2, 10), Worth::Good);
        view.silent("n0");
        assert_eq!(say(&mut view, &holders, 0, 1, 5), Worth::Disputed);
        assert_eq!(say(&mut view, &holders, 1, 1, 5), Worth::Good);
    }

    #[test]
    fn what_goes_back_or_may_be_known_better_is_told_apart() {
        let (mut view, holders) = (View::default(), names(2));
        let before = view.known();
        assert_eq!(say(&mut view, &holders, 0, 1, 10), Worth::Good);
        assert_eq!(say(&mut view, &holders, 1, 1, 9), Worth::Behind);
        let question = Question::Heads(Shard(0));
        // Asked before anything was known.
        let late = view.answered(&holders[1], &holders, before, &question, &heads(1, 9));
        assert_eq!(late, Worth::Good);
        let request = Arc::new(ReplayRequest {
            shard: Shard(0),
            epoch: Epoch(1),
            topics: vec![(Topic::parse("a").unwrap(), Seq(12))],
            max_events: 1,
            max_bytes: 1,
        });
        let question = Question::Replay { request, live: false };
        let known = view.known();
        for (up_to, worth) in [(11, Worth::Poor), (12, Worth::Good), (13, Worth::Good)] {
            let (epoch, up_to) = (Epoch(1), Seq(up_to));
            let page = Answer::Replay(Replay::Page(Page {
                epoch,
                events: Vec::new(),
                up_to,
            }));
            let found = view.answered(&holders[0], &holders, known, &question, &page);
            assert_eq!(found, worth, "up to {up_to}");
        }
        let gone = Answer::Replay(Replay::Gone {
            epoch: Epoch(1),
            floor: Seq(20),
        });
        assert_eq!(
            view.answered(&holders[0], &holders, known, &question, &gone),
            Worth::Poor
        );
    }

    proptest! {
        /// Holders that go on to later epochs, each in its own time: what is passed on never goes back, neither to an earlier epoch nor within
        /// one; and once all have come to the last one, all count.
        #[test]
        fn what_counts_never_goes_back(
            count in 1..4_usize,
            steps in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8), 1..200),
        ) {
            let (mut view, holders) = (View::default(), names(count));
            // Epochs are later the greater they are here; the view does not know.
            let (mut at, mut lasts) = (vec![(0_u32, 0_u64); count], vec![0_u64]);
            let mut passed_on = (0, 0);
            for (which, step) in steps {
                let node = which.index(count);
                let (epoch, last) = at[node];
                match step {
                    0 if epoch as usize + 1 == lasts.len() => {
                        lasts.push(0);
                        at[node] = (epoch + 1, 0);
                    }
                    0 => at[node] = (epoch + 1, 0),
                    1 if epoch as usize + 1 == lasts.len() => {
                        lasts[epoch as usize] += 1;
                        at[node].1 = lasts[epoch as usize];
                    }
                    1 => at[node].1 = last.max(lasts[epoch as usize]),
                    _ => {
                        if say(&mut view, &holders, node, epoch, last) == Worth::Good {
                            prop_assert!((epoch, last) >= passed_on, "{epoch}.{last} after {passed_on:?}");
                            passed_on = (epoch, last);
                        }
                    }
                }
            }
            let epoch = lasts.len() as u32 - 1;
            let last = lasts[epoch as usize];
            let mut worth = Vec::new();
            for _ in 0..2 {
                worth = (0..count).map(|node| say(&mut view, &holders, node, epoch, last)).collect();
            }
            prop_assert!(worth.iter().all(|&worth| worth == Worth::Good), "{worth:?}");
        }
    }
}
