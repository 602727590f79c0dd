//! The answers to one question: which of them is passed on. Pure.

use std::sync::Arc;

use super::{
    ask::{Answer, Question},
    view::{Known, View, Worth},
};
use crate::log::{ReadError, Replay};

/// What the holders of a shard have answered to one question so far.
#[derive(Debug, Clone)]
pub(crate) struct Weighing {
    question: Question,
    /// When the question was put.
    known: Known,
    /// Those who can be asked.
    holders: Vec<Arc<str>>,
    /// The best of what is passed on if nobody knows better.
    poor: Option<Answer>,
    /// Whoever answered with another epoch, and what.
    disputed: Vec<(usize, Answer)>,
    /// Why the others have no answer.
    causes: Vec<String>,
}

impl Weighing {
    /// A question that is put now, to some or all of these holders.
    pub(crate) const fn new(view: &View, question: Question, holders: Vec<Arc<str>>) -> Self {
        Self {
            question,
            known: view.known(),
            holders,
            poor: None,
            disputed: Vec::new(),
            causes: Vec::new(),
        }
    }

    /// Whether there is an answer that is passed on if nobody knows better.
    pub(crate) const fn has_an_answer(&self) -> bool {
        self.poor.is_some()
    }

    /// A holder answers. The answer, if it counts.
    pub(crate) fn answered(&mut self, view: &mut View, holder: usize, answer: Answer) -> Option<Answer> {
        match self.worth(view, holder, &answer) {
            Worth::Good => return Some(answer),
            Worth::Poor => self.keep(answer),
            Worth::Behind => self.no_answer(holder, "it is behind what was known"),
            Worth::Disputed => {
                self.no_answer(holder, &format!("it is of epoch {}", answer.epoch()));
                self.disputed.push((holder, answer));
            }
        }
        None
    }

    /// A holder cannot be asked.
    pub(crate) fn failed(&mut self, view: &mut View, holder: usize, why: &str) {
        view.silent(&self.holders[holder]);
        self.no_answer(holder, why);
    }

    /// A holder has no answer now.
    pub(super) fn no_answer(&mut self, holder: usize, why: &str) {
        self.causes.push(format!("{}: {why}", self.holders[holder]));
    }

    /// Nobody answers any more: what counts now?
    pub(crate) fn settle(mut self, view: &mut View) -> Result<Answer, ReadError> {
        // Whoever stood against another epoch may have gone on to it, or fallen silent, while the others were asked.
        for (holder, answer) in std::mem::take(&mut self.disputed) {
            match self.worth(view, holder, &answer) {
                Worth::Good => return Ok(answer),
                Worth::Poor => self.keep(answer),
                Worth::Behind => {}
                Worth::Disputed => self.disputed.push((holder, answer)),
            }
        }
        let knows_the_position =
            |answer: &Answer| matches!(answer, Answer::Replay(Replay::Page(_) | Replay::Gone { .. }));
        // Of an epoch that may yet turn out to be the present one.
        let better = self
            .disputed
            .iter()
            .any(|(_, answer)| knows_the_position(answer) && !view.is_past(answer.epoch()));
        match self.poor {
            Some(answer) if knows_the_position(&answer) || !better => Ok(answer),
            _ => Err(ReadError::Failed {
                cause: format!(
                    "shard {}, of those that hold it: {}",
                    self.question.shard(),
                    self.causes.join("; ")
                ),
            }),
        }
    }

    fn worth(&self, view: &mut View, holder: usize, answer: &Answer) -> Worth {
        view.answered(&self.holders[holder], &self.holders, self.known, &self.question, answer)
    }

    /// Keeps the better of two answers: a page, of pages the one that goes further; then what says that the least is gone.
    fn keep(&mut self, answer: Answer) {
        let rank = |answer: &Answer| match answer {
            Answer::Replay(Replay::Page(page)) => (2, page.up_to.0),
            Answer::Replay(Replay::Gone { floor, .. }) => (1, u64::MAX - floor.0),
            _ => (0, 0),
        };
        if self.poor.as_ref().is_none_or(|poor| rank(poor) < rank(&answer)) {
            self.poor = Some(answer);
        }
    }
}
