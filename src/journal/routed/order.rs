//! The parts of publishes that one shard has to take, in order, and what is known of each. Pure but for the answers, which it sends.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::{
    journal::{AppendError, Receipt},
    model::Publish,
};

/// What is answered to whoever waits for a part.
pub(super) type Outcome = Result<Receipt, AppendError>;

/// The part of a publish that is of one shard.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) publish: Publish,
    reply: oneshot::Sender<Outcome>,
    /// Its share of the room, given back when it is answered.
    _room: [OwnedSemaphorePermit; 2],
    arrived: Instant,
    /// Nothing is tried for it after this.
    expires: Option<Instant>,
    /// Whether it was sent to somebody who may have appended it.
    tried: bool,
}

impl Part {
    pub(super) fn new(
        publish: Publish,
        expires: Option<Instant>,
        room: [OwnedSemaphorePermit; 2],
    ) -> (Self, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let part = Self {
            publish,
            reply,
            _room: room,
            arrived: Instant::now(),
            expires,
            tried: false,
        };
        (part, outcome)
    }

    fn settle(self, outcome: Outcome) {
        // Nobody waits any more: it is appended or not all the same.
        let _ = self.reply.send(outcome);
    }

    /// Gives it up: it was not appended for this reason, unless it was sent before.
    fn refuse(self, error: &AppendError) {
        let outcome = if self.tried && !error.may_be_appended() {
            AppendError::Unknown {
                cause: format!("the connection broke before the answer, and then: {error}"),
            }
        } else {
            error.clone()
        };
        self.settle(Err(outcome));
    }
}

/// What waits and what is under way.
///
/// The order of the parts never changes: what comes back from one target goes to the next before everything that came later.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Sent to the present target and not answered, with the time when.
    under_way: VecDeque<(Part, Instant)>,
    waiting: VecDeque<Part>,
    /// No part that waits expires before this.
    expires: Option<Instant>,
}

impl Order {
    pub(super) fn push(&mut self, part: Part) {
        self.expires = earlier(self.expires, part.expires);
        self.waiting.push_back(part);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Since when the target owes an answer.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.under_way.front().map(|(_, since)| *since)
    }

    /// The next publish for the target: it is under way from now on.
    pub(super) fn next(&mut self, now: Instant) -> Option<&Publish> {
        let part = self.waiting.pop_front()?;
        self.under_way.push_back((part, now));
        self.under_way.back().map(|(part, _)| &part.publish)
    }

    /// Settles the earliest one that is under way. False if there is none.
    pub(super) fn answer(&mut self, outcome: Outcome) -> bool {
        let Some((part, _)) = self.under_way.pop_front() else {
            return false;
        };
        part.settle(outcome);
        true
    }

    /// The target said that it took nothing of what it has not answered.
    pub(super) fn not_taken(&mut self) {
        self.back_to_waiting(self.under_way.len());
    }

    /// The target is gone, and may have appended the first `sent` of what it has not answered. Those without a key are given up, since to send
    /// them again could append them twice; the others wait for the next target.
    pub(super) fn broken(&mut self, sent: usize, cause: &str) {
        self.back_to_waiting(self.under_way.len().saturating_sub(sent));
        let mut kept = VecDeque::new();
        for (mut part, since) in std::mem::take(&mut self.under_way) {
            if part.publish.key.is_some() {
                part.tried = true;
                kept.push_back((part, since));
            } else {
                part.settle(Err(AppendError::Unknown {
                    cause: cause.to_owned(),
                }));
            }
        }
        self.under_way = kept;
        self.back_to_waiting(self.under_way.len());
    }

    /// The last `count` of what is under way wait again, before everything that came later.
    fn back_to_waiting(&mut self, count: usize) {
        for _ in 0..count {
            let Some((part, _)) = self.under_way.pop_back() else {
                return;
            };
            self.expires = earlier(self.expires, part.expires);
            self.waiting.push_front(part);
        }
    }

    /// Gives up everything that waits.
    pub(super) fn refuse_waiting(&mut self, error: &AppendError) {
        for part in self.waiting.drain(..) {
            part.refuse(error);
        }
        self.expires = None;
    }

    /// The time at which something that waits may have to be given up, if there is one.
    pub(super) const fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// Gives up what nobody waits for any more; `error` says why, to one that has waited so long.
    pub(super) fn expire(&mut self, now: Instant, error: impl Fn(Duration) -> AppendError) {
        if self.expires.is_none_or(|at| at > now) {
            return;
        }
        self.expires = None;
        for part in std::mem::take(&mut self.waiting) {
            if part.expires.is_some_and(|at| at <= now) {
                let waited = now.saturating_duration_since(part.arrived);
                part.refuse(&error(waited));
            } else {
                self.push(part);
            }
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
