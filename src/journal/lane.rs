//! Many appends under way in one journal, each placed after the one before it, answered in the same order.

use std::{
    collections::VecDeque,
    future::{poll_fn, ready},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::{FutureExt as _, future::BoxFuture};

use super::{AppendError, Attempt, Journal, Receipt, Ticket, Unavailable};
use crate::model::Publish;

/// What comes out of a lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What became of the earliest append that has no answer.
    Outcome(Result<Receipt, AppendError>),
    /// The journal takes nothing more here: everything that it took is answered, and the one that it refused, whose answer this is not, may be
    /// brought elsewhere.
    Ended(AppendError),
}

/// See the module. It has no task of its own: it moves while it is polled.
pub(super) struct Lane {
    journal: Arc<dyn Journal>,
    /// The append that waits for its place; the next one is not begun before it has it.
    placing: Option<BoxFuture<'static, Result<Ticket, AppendError>>>,
    /// Only the earliest is waited for: the journal answers them in about their order.
    pending: VecDeque<Ticket>,
    ended: Option<AppendError>,
}

impl Lane {
    pub(super) fn new(journal: Arc<dyn Journal>) -> Self {
        Self {
            journal,
            placing: None,
            pending: VecDeque::new(),
            ended: None,
        }
    }

    /// How many appends have no answer yet.
    pub(super) fn under_way(&self) -> usize {
        self.pending.len() + usize::from(self.placing.is_some())
    }

    /// Whether the next append may begin.
    pub(super) fn is_free(&self) -> bool {
        self.placing.is_none() && self.ended.is_none()
    }

    /// Whether there is something to wait for: an answer, or the word that there will be no more.
    pub(super) fn has_more(&self) -> bool {
        self.under_way() > 0 || self.ended.is_some()
    }

    /// Begins an append. Only while it [is free](Self::is_free).
    pub(super) fn begin(&mut self, publish: Publish) {
        debug_assert!(self.is_free(), "one at a time");
        // As a rule there is room, and the next one may follow at once. If not, whoever waits for the next answer waits for that too.
        match self.journal.try_append(publish) {
            Attempt::Done(placed) => self.placed(placed),
            Attempt::Waits(publish) => {
                let journal = Arc::clone(&self.journal);
                self.placing = Some(Box::pin(async move { journal.append(publish).await }));
                self.poll_placing(&mut Context::from_waker(Waker::noop()));
            }
        }
    }

    /// The next answer, or `None` once the next append may begin. While it [has no more](Self::has_more) it waits for ever; cancelling loses
    /// nothing.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        poll_fn(|cx| {
            let was_free = self.is_free();
            match self.poll_next(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if !was_free && self.is_free() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn poll_placing(&mut self, cx: &mut Context<'_>) {
        if let Some(placing) = &mut self.placing
            && let Poll::Ready(placed) = placing.poll_unpin(cx)
        {
            self.placing = None;
            self.placed(placed);
        }
    }

    fn placed(&mut self, placed: Result<Ticket, AppendError>) {
        match placed {
            Ok(ticket) => self.pending.push_back(ticket),
            Err(error) if is_for_another(&error) => self.ended = Some(error),
            Err(error) => self.pending.push_back(Ticket::new(ready(Err(error)))),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        self.poll_placing(cx);
        match self.pending.front_mut() {
            Some(ticket) => ticket.poll_unpin(cx).map(|outcome| {
                self.pending.pop_front();
                Answer::Outcome(outcome)
            }),
            None => match self.ended.clone() {
                Some(error) if self.placing.is_none() => Poll::Ready(Answer::Ended(error)),
                _ => Poll::Pending,
            },
        }
    }
}

/// Whether another holder of the shard may take what this one refuses so.
pub(super) const fn is_for_another(error: &AppendError) -> bool {
    match error {
        AppendError::Closed | AppendError::ReadOnly { .. } | AppendError::DiskFull(_) => true,
        AppendError::Unavailable { cause, .. } => !matches!(cause, Unavailable::NoQuorum { .. }),
        AppendError::StreamFull { .. }
        | AppendError::StreamRefused { .. }
        | AppendError::TooSlow { .. }
        | AppendError::Unknown { .. }
        | AppendError::Partly { .. } => false,
    }
}
