//! A stream of drafts in, their answers out in the same order, with many under way at once.
//!
//! It has no task of its own: taking drafts and giving answers are one poll. So whoever does not read the answers is not read either, and what
//! is held is bounded by [`Settings::in_flight`](super::Settings) and [`Settings::in_flight_bytes`](super::Settings).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    Stream, StreamExt as _,
    future::{BoxFuture, FutureExt as _},
    stream::FuturesOrdered,
};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{Caller, Draft, Ingest, IngestError, Pending, Published};
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
    placing: Option<BoxFuture<'static, Placed<T>>>,
    pending: FuturesOrdered<BoxFuture<'static, (usize, Answer<T>)>>,
    pending_bytes: usize,
    ended: Option<Ended<F>>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Resolves when the caller may not go on.
    outstays: BoxFuture<'static, Denied>,
    deadline: Option<Pin<Box<Sleep>>>,
}

struct Placed<T> {
    tag: T,
    bytes: usize,
    outcome: Result<Pending, IngestError>,
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
            pending: FuturesOrdered::new(),
            pending_bytes: 0,
            ended: None,
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
        }
    }

    /// Takes what may be taken now.
    fn poll_take(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(placing) = &mut self.placing {
                let Poll::Ready(placed) = placing.poll_unpin(cx) else {
                    return;
                };
                self.placing = None;
                self.push(placed);
            }
            if self.input.is_some() && self.drain.poll_unpin(cx).is_ready() {
                self.end(Ended::Stopped(IngestError::Draining));
            }
            if self.input.is_some()
                && let Poll::Ready(denied) = self.outstays.poll_unpin(cx)
            {
                self.end(Ended::Stopped(denied.into()));
            }
            let settings = self.ingest.settings();
            if self.pending.len() >= settings.in_flight || self.pending_bytes >= settings.in_flight_bytes {
                return;
            }
            let Some(input) = &mut self.input else { return };
            let Poll::Ready(item) = input.poll_next_unpin(cx) else {
                return;
            };
            match item {
                Some(Ok((tag, Ok(draft)))) => self.place(tag, draft),
                Some(Ok((tag, Err(error)))) => self.push(Placed {
                    tag,
                    bytes: 0,
                    outcome: Err(error),
                }),
                Some(Err(error)) => self.end(Ended::Input(error)),
                None => self.input = None,
            }
        }
    }

    fn place(&mut self, tag: T, draft: Draft) {
        let (ingest, caller) = (self.ingest.clone(), Arc::clone(&self.caller));
        let deadline = self.deadline.as_ref().map(|at| at.deadline().into_std());
        self.placing = Some(Box::pin(async move {
            Placed {
                tag,
                bytes: draft.bytes(),
                outcome: ingest.publish(&caller, draft, deadline).await,
            }
        }));
    }

    fn push(&mut self, Placed { tag, bytes, outcome }: Placed<T>) {
        self.pending_bytes += bytes;
        self.pending.push_back(match outcome {
            Ok(pending) => Box::pin(async move { (bytes, (tag, pending.await)) }),
            Err(error) => Box::pin(std::future::ready((bytes, (tag, Err(error))))),
        });
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
        this.poll_take(cx);
        match this.pending.poll_next_unpin(cx) {
            Poll::Ready(Some((bytes, answer))) => {
                this.pending_bytes -= bytes;
                return Poll::Ready(Some(Ok(answer)));
            }
            Poll::Ready(None) if this.input.is_none() && this.placing.is_none() => {
                return Poll::Ready(this.ended.take().map(Err));
            }
            _ => {}
        }
        // Asked last: an answer that is known by now is given even so.
        if let Some(deadline) = &mut this.deadline
            && deadline.poll_unpin(cx).is_ready()
        {
            this.deadline = None;
            this.input = None;
            this.placing = None;
            this.pending = FuturesOrdered::new();
            this.ended = None;
            return Poll::Ready(Some(Err(Ended::Stopped(IngestError::Deadline))));
        }
        Poll::Pending
    }
}
