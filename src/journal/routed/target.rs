//! Who takes the events of a shard: a journal of this process, or another node.

use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures::StreamExt as _;
use tidings_proto::v1::{
    AppendRequest, AppendResponse, append_response::Outcome as WireOutcome, journal_client::JournalClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{order::Outcome, peers::Trusted};
use crate::{
    journal::{
        AppendError,
        lane::{Answer, Lane},
        wire,
    },
    model::{Publish, Shard},
};

/// What a target does.
#[derive(Debug)]
pub(super) enum Event {
    /// It has room for one more.
    Room,
    /// It answers the earliest append that is under way.
    Outcome(Outcome),
    /// It takes no more, and took nothing of what it has not answered.
    Ended(AppendError),
    /// It is gone. Nobody knows what became of what was sent.
    Broken { cause: String },
}

/// See the module.
pub(super) enum Target {
    Local(Lane),
    Remote(Remote),
}

impl Target {
    /// Whether it can be sent another one, with so many under way.
    pub(super) fn has_room(&self, under_way: usize) -> bool {
        match self {
            Self::Local(lane) => lane.is_free(),
            Self::Remote(remote) => under_way < remote.requests.max_capacity(),
        }
    }

    /// Sends it a publish. Only while it [has room](Self::has_room).
    pub(super) fn send(&mut self, publish: &Publish) {
        match self {
            Self::Local(lane) => lane.begin(publish.clone()),
            Self::Remote(remote) => {
                let request = wire::request(remote.shard, publish, Instant::now());
                // It has the room. If the stream is gone, that is the next event.
                let _ = remote.requests.try_send(request);
            }
        }
    }

    /// What it does next. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Event {
        match self {
            Self::Local(lane) => match lane.next().await {
                None => Event::Room,
                Some(Answer::Outcome(outcome)) => Event::Outcome(outcome),
                Some(Answer::Ended(error)) => Event::Ended(error),
            },
            Self::Remote(remote) => remote.next().await,
        }
    }

    /// Sends no more, and tells how many of the unanswered ones may have been sent.
    pub(super) fn cut(&self) -> usize {
        match self {
            // It is in this process: what it was given it has.
            Self::Local(lane) => lane.under_way(),
            Self::Remote(remote) => remote.cut(),
        }
    }
}

/// A stream of appends to another node.
pub(super) struct Remote {
    shard: Shard,
    pub(super) node: String,
    requests: mpsc::Sender<AppendRequest>,
    answers: Streaming<AppendResponse>,
    sent: Arc<Sent>,
    answered: u64,
}

impl Remote {
    /// Opens a stream. Nothing is sent before the other node has accepted it.
    pub(super) async fn open(channel: Trusted, node: String, shard: Shard, in_flight: usize) -> Result<Self, String> {
        let (requests, queue) = mpsc::channel(in_flight);
        let sent = Arc::new(Sent::default());
        let counted = {
            let sent = Arc::clone(&sent);
            ReceiverStream::new(queue).take_while(move |_| std::future::ready(sent.count()))
        };
        let answers = JournalClient::new(channel)
            .append(counted)
            .await
            .map_err(|status| cause(&status))?
            .into_inner();
        Ok(Self {
            shard,
            node,
            requests,
            answers,
            sent,
            answered: 0,
        })
    }

    async fn next(&mut self) -> Event {
        let outcome = match self.answers.message().await {
            Ok(Some(response)) => response.outcome,
            Ok(None) => {
                return Event::Broken {
                    cause: "it ended the stream without a word".to_owned(),
                };
            }
            Err(status) => return Event::Broken { cause: cause(&status) },
        };
        self.answered += 1;
        match outcome {
            Some(WireOutcome::Appended(appended)) => Event::Outcome(Ok(wire::receipt(&appended))),
            Some(WireOutcome::Failure(failure)) => Event::Outcome(Err(wire::error(failure, self.shard))),
            Some(WireOutcome::Ended(failure)) => Event::Ended(wire::error(failure, self.shard)),
            None => Event::Broken {
                cause: "its answer is of a later version".to_owned(),
            },
        }
    }

    fn cut(&self) -> usize {
        usize::try_from(self.sent.close().saturating_sub(self.answered)).unwrap_or(usize::MAX)
    }
}

/// Counts what the transport has taken to send: what it has not taken is certainly not sent.
#[derive(Debug, Default)]
struct Sent(AtomicU64);

impl Sent {
    /// Set once nothing more may be sent.
    const CLOSED: u64 = 1 << 63;

    /// Counts one more, unless nothing more may be sent.
    fn count(&self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) & Self::CLOSED == 0
    }

    /// Lets nothing more be sent, and tells how many were.
    fn close(&self) -> u64 {
        self.0.fetch_or(Self::CLOSED, Ordering::SeqCst) & !Self::CLOSED
    }
}

/// What is at the bottom of it: the outer errors only say "transport error".
fn cause(status: &Status) -> String {
    let mut text = status.message();
    if text.is_empty() {
        text = status.code().description();
    }
    let mut source = status.source();
    let mut deepest = None;
    while let Some(error) = source {
        deepest = Some(error.to_string());
        source = error.source();
    }
    match deepest {
        Some(deepest) if deepest != text => format!("{text}: {deepest}"),
        _ => text.to_owned(),
    }
}
