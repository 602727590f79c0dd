//! A stream of drafts in, their answers out in the same order, with many under way at once.
//!
//! It has no task of its own: taking drafts and giving answers are one poll. So whoever does not read the answers is not read either, and what
//! is held is bounded by [`Settings::in_flight`](super::Settings) and [`Settings::in_flight_bytes`](super::Settings).
//!
//! Only the earliest answer is waited for, and every answer that is there is given before anything more is taken: where the journal answers
//! hundreds at once, they are one wake-up, and leave together.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{
    Stream, StreamExt as _,
    future::{BoxFuture, FutureExt as _},
};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{Caller, Draft, Ingest, IngestError, Pending, Published, publisher::Begun};
use crate::auth::Denied;

/// One answer, with the tag that its draft came with.
pub(super) type Answer<T> = (T, Result<Published, IngestError>);

/// Why a pipeline ended before its input did. Everything it had taken was answered, unless the deadline passed.
#[derive(Debug)]
pub(super) enum Ended<F> {
    /// The node drains, the caller may not go on, or its deadline passed.
    Stopped(IngestError),
    /// The input failed.
    Input(F),
}

/// See the module.
///
/// `S` yields tagged drafts, or why one could not be read, which is answered in its turn; its `Err` ends the pipeline.
pub(super) struct Pipeline<S, T, F> {
    ingest: Ingest,
    caller: Arc<Caller>,
    /// `None` once nothing more is taken.
    input: Option<S>,
    /// The draft that is waiting for its place in the journal; the next one is not taken before.
    placing: Option<BoxFuture<'static, UnderWay<T>>>,
    under_way: VecDeque<UnderWay<T>>,
    bytes: usize,
    ended: Option<Ended<F>>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Resolves when the caller may not go on.
    outstays: BoxFuture<'static, Denied>,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// A draft that was taken and has no answer yet.
struct UnderWay<T> {
    tag: T,
    bytes: usize,
    pending: Pending,
}

impl<T> UnderWay<T> {
    fn new(tag: T, bytes: usize, placed: Result<Pending, IngestError>) -> Self {
        Self {
            tag,
            bytes,
            pending: placed.unwrap_or_else(Pending::refused),
        }
    }
}

impl<S, T, F> Pipeline<S, T, F>
where
    S: Stream<Item = Result<(T, Result<Draft, IngestError>), F>> + Unpin,
    T: Send + Unpin + 'static,
    F: Unpin,
{
    pub(super) fn new(ingest: Ingest, caller: Arc<Caller>, input: S, deadline: Option<Instant>) -> Self {
        Self {
            outstays: caller.ends(),
            drain: Box::pin(ingest.drain().clone().cancelled_owned()),
            ingest,
            caller,
            input: Some(input),
            placing: None,
            under_way: VecDeque::new(),
            bytes: 0,
            ended: None,
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
        }
    }

    /// The answer that is due, if it is there.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer<T>> {
        let Some(first) = self.under_way.front_mut() else {
            return Poll::Pending;
        };
        let outcome = ready!(first.pending.poll_unpin(cx));
        match self.under_way.pop_front() {
            Some(UnderWay { tag, bytes, .. }) => {
                self.bytes -= bytes;
                Poll::Ready((tag, outcome))
            }
            None => Poll::Pending,
        }
    }

    /// Takes what may be taken now.
    fn poll_take(&mut self, cx: &mut Context<'_>) {
        if self.input.is_some() && self.drain.poll_unpin(cx).is_ready() {
            self.end(Ended::Stopped(IngestError::Draining));
        }
        if self.input.is_some()
            && let Poll::Ready(denied) = self.outstays.poll_unpin(cx)
        {
            self.end(Ended::Stopped(denied.into()));
        }
        loop {
            if let Some(placing) = &mut self.placing {
                let Poll::Ready(placed) = placing.poll_unpin(cx) else {
                    return;
                };
                self.placing = None;
                self.push(placed);
            }
            let settings = self.ingest.settings();
            if self.under_way.len() >= settings.in_flight || self.bytes >= settings.in_flight_bytes {
                return;
            }
            let Some(input) = &mut self.input else { return };
            let Poll::Ready(item) = input.poll_next_unpin(cx) else {
                return;
            };
            match item {
                Some(Ok((tag, Ok(draft)))) => self.place(tag, draft),
                Some(Ok((tag, Err(error)))) => self.push(UnderWay::new(tag, 0, Err(error))),
                Some(Err(error)) => self.end(Ended::Input(error)),
                None => self.input = None,
            }
        }
    }

    fn place(&mut self, tag: T, draft: Draft) {
        let bytes = draft.bytes();
        let deadline = self.deadline.as_ref().map(|at| at.deadline().into_std());
        match self.ingest.begin(&self.caller, draft, deadline) {
            Begun::Placed(placed) => self.push(UnderWay::new(tag, bytes, placed)),
            Begun::Waits(admission) => {
                let ingest = self.ingest.clone();
                self.placing = Some(Box::pin(async move {
                    UnderWay::new(tag, bytes, admission.place(ingest.journal()).await)
                }));
            }
        }
    }

    fn push(&mut self, taken: UnderWay<T>) {
        self.bytes += taken.bytes;
        self.under_way.push_back(taken);
    }

    fn end(&mut self, ended: Ended<F>) {
        self.input = None;
        self.ended = Some(ended);
    }
}

impl<S, T, F> Stream for Pipeline<S, T, F>
where
    S: Stream<Item = Result<(T, Result<Draft, IngestError>), F>> + Unpin,
    T: Send + Unpin + 'static,
    F: Unpin,
{
    type Item = Result<Answer<T>, Ended<F>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Poll::Ready(answer) = this.poll_answer(cx) {
            return Poll::Ready(Some(Ok(answer)));
        }
        this.poll_take(cx);
        // What was taken may be answered already; if not, this is what wakes whoever waits.
        if let Poll::Ready(answer) = this.poll_answer(cx) {
            return Poll::Ready(Some(Ok(answer)));
        }
        if this.under_way.is_empty() && this.input.is_none() && this.placing.is_none() {
            return Poll::Ready(this.ended.take().map(Err));
        }
        // Asked last: an answer that is known by now is given even so.
        if let Some(deadline) = &mut this.deadline
            && deadline.poll_unpin(cx).is_ready()
        {
            this.deadline = None;
            this.input = None;
            this.placing = None;
            this.under_way.clear();
            this.ended = None;
            return Poll::Ready(Some(Err(Ended::Stopped(IngestError::Deadline))));
        }
        Poll::Pending
    }
}
