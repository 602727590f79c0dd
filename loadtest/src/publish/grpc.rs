//! A connection over gRPC: one pipelined call, or a call for each event.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::{
    FutureExt as _, StreamExt as _,
    channel::mpsc::{UnboundedSender, unbounded},
    stream::FuturesUnordered,
};
use tidings_proto::v1::{
    PublishRequest, PublishStreamResponse, publish_stream_response::Outcome, publisher_client::PublisherClient,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::{Backoff, Call, Shared, queue::Queue};
use crate::{Node, payload::Payload};

/// Answers, or events, that are looked at in one go.
const BATCH: usize = 256;

/// The least time before an event that was refused is sent again.
const LEAST: Duration = Duration::from_millis(10);

/// Connects the publisher of this number.
pub(crate) async fn connect(node: &Node, number: usize) -> Result<PublisherClient<Channel>> {
    dial(node.publishing(number)).await
}

async fn dial(address: SocketAddr) -> Result<PublisherClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        // Nothing here is kept waiting by a window: how much is under way is for the one who measures to say.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20);
    let channel = endpoint.connect().await;
    Ok(PublisherClient::new(
        channel.with_context(|| format!("cannot connect to {address}"))?,
    ))
}

/// Demands that an event was accepted.
pub(crate) fn accepted(answer: PublishStreamResponse) -> Result<()> {
    match Answer::of(answer) {
        Answer::Accepted { .. } => Ok(()),
        Answer::Again { why, .. } | Answer::Refused(why) => bail!("an event was refused: {why}"),
    }
}

/// What an answer means.
enum Answer {
    Accepted { is_repeated: bool },
    Again { why: String, after: Duration },
    Refused(String),
}

impl Answer {
    fn of(answer: PublishStreamResponse) -> Self {
        match answer.outcome {
            Some(Outcome::Published(published)) => {
                let failed = published.results.iter().find_map(|result| result.error.as_ref());
                failed.map_or_else(
                    || Self::Accepted {
                        is_repeated: published.results.iter().any(|result| result.repeated),
                    },
                    |error| Self::error(error.code, &error.message, error.retry_after_ms),
                )
            }
            Some(Outcome::Error(error)) => Self::error(error.code, &error.message, error.retry_after_ms),
            None => Self::Refused("an answer without an outcome".to_owned()),
        }
    }

    fn status(status: &Status) -> Self {
        Self::error(status.code().into(), status.message(), 0)
    }

    fn error(code: i32, message: &str, retry_after_ms: u64) -> Self {
        let code = Code::from_i32(code);
        let why = format!("{code:?}: {message}");
        match code {
            Code::ResourceExhausted
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Cancelled
            | Code::Aborted
            | Code::Internal => Self::Again {
                why,
                after: Duration::from_millis(retry_after_ms).max(LEAST),
            },
            _ => Self::Refused(why),
        }
    }
}

/// One connection, and the events that go over it.
pub(super) struct Lane {
    shared: Arc<Shared>,
    /// Which of the addresses it is connected to.
    address: usize,
    client: PublisherClient<Channel>,
    waiting: UnboundedReceiver<Payload>,
    queue: Queue,
    /// Events that are sent again at some time.
    later: Vec<(tokio::time::Instant, Payload)>,
    bearer: Option<MetadataValue<Ascii>>,
}

/// Why a connection is to be used no more.
enum Over {
    /// The publisher ends.
    End,
    /// It failed.
    Failed(anyhow::Error),
}

impl Lane {
    pub(super) async fn open(shared: Arc<Shared>, number: usize, waiting: UnboundedReceiver<Payload>) -> Result<Self> {
        let to = &shared.sending.to;
        let bearer = to.token.as_ref().map(|token| format!("Bearer {token}").parse());
        let bearer = bearer.transpose().context("the token cannot be in a header")?;
        let address = number % to.addresses.len();
        let client = dial(to.addresses[address]).await?;
        let is_one_per_topic = shared.sending.persists || to.call == Call::Unary;
        Ok(Self {
            address,
            client,
            waiting,
            queue: Queue::new(is_one_per_topic),
            later: Vec::new(),
            bearer,
            shared,
        })
    }

    pub(super) async fn run(mut self) -> Result<()> {
        loop {
            let over = match self.shared.sending.to.call {
                Call::Stream => self.stream().await,
                Call::Unary => self.unary().await,
            };
            match over {
                Ok(Over::End) => return Ok(()),
                Ok(Over::Failed(error)) if self.shared.sending.persists => self.reconnect(error).await?,
                Ok(Over::Failed(error)) | Err(error) => return Err(error),
            }
        }
    }

    /// Connects to the next address that answers.
    async fn reconnect(&mut self, mut error: anyhow::Error) -> Result<()> {
        let mut backoff = Backoff::new();
        loop {
            backoff.wait(error).await?;
            let addresses = &self.shared.sending.to.addresses;
            self.address = (self.address + 1) % addresses.len();
            match dial(addresses[self.address]).await {
                Ok(client) => {
                    self.client = client;
                    return Ok(());
                }
                Err(failed) => error = failed,
            }
        }
    }

    fn request(&self, event: &Payload) -> PublishRequest {
        let sending = &self.shared.sending;
        PublishRequest {
            topics: vec![sending.to.template.name(event.key)],
            data: event.text(sending.payload),
            key: sending.key(event).unwrap_or_default(),
            ephemeral: sending.ephemeral,
            ..PublishRequest::default()
        }
    }

    fn call<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        request
    }

    /// What was to be sent again by now is ready.
    fn requeue_due(&mut self) {
        let now = tokio::time::Instant::now();
        let queue = &mut self.queue;
        self.later.retain(|&(at, event)| {
            let is_due = at <= now;
            if is_due {
                queue.again(event);
            }
            !is_due
        });
    }

    /// What is ready goes out.
    fn send(&mut self, requests: &UnboundedSender<PublishRequest>, sent: &mut VecDeque<Payload>) {
        self.requeue_due();
        while let Some(event) = self.queue.pop() {
            // The other end is there until the call is over, and that is told by the answers.
            let _ = requests.unbounded_send(self.request(&event));
            sent.push_back(event);
        }
    }

    /// What is sent again at some time: when the first is. Far away, if nothing is.
    fn soonest(&self) -> tokio::time::Instant {
        let soonest = self.later.iter().map(|&(at, _)| at).min();
        soonest.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3_600))
    }

    /// An answer came to this event. An error ends the publisher.
    fn answered(&mut self, event: Payload, answer: Answer, acknowledged: &mut Vec<Payload>) -> Result<()> {
        match answer {
            Answer::Accepted { is_repeated } => {
                if is_repeated {
                    self.shared.repeated.fetch_add(1, Ordering::Relaxed);
                }
                self.queue.acknowledged(event);
                acknowledged.push(event);
            }
            Answer::Again { after, .. } if self.shared.sending.persists => {
                self.shared.retried.fetch_add(1, Ordering::Relaxed);
                self.later.push((tokio::time::Instant::now() + after, event));
            }
            Answer::Again { why, .. } | Answer::Refused(why) => bail!("an event was refused: {why}"),
        }
        Ok(())
    }

    /// One pipelined call, until it is over. What was not answered by then is sent again.
    async fn stream(&mut self) -> Result<Over> {
        let mut sent = VecDeque::new();
        let over = self.pipeline(&mut sent).await;
        let retried = sent.len() as u64;
        self.shared.retried.fetch_add(retried, Ordering::Relaxed);
        self.queue.all_again(sent.into_iter());
        over
    }

    async fn pipeline(&mut self, sent: &mut VecDeque<Payload>) -> Result<Over> {
        let (requests, receiver) = unbounded();
        let mut client = self.client.clone();
        let mut answers = match client.publish_stream(self.call(receiver)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return self.over(status),
        };
        let mut events = Vec::with_capacity(BATCH);
        let mut acknowledged = Vec::with_capacity(BATCH);
        loop {
            self.send(&requests, sent);
            let soonest = self.soonest();
            tokio::select! {
                count = self.waiting.recv_many(&mut events, BATCH) => {
                    if count == 0 {
                        return Ok(Over::End);
                    }
                    events.drain(..).for_each(|event| self.queue.push(event));
                }
                answer = answers.message() => {
                    let mut next = Some(answer);
                    // What has come with it is there already.
                    while let Some(answer) = next {
                        let over = match answer {
                            Ok(Some(answer)) => {
                                let event = sent.pop_front().context("an answer to nothing")?;
                                self.answered(event, Answer::of(answer), &mut acknowledged)?;
                                None
                            }
                            Ok(None) => Some(Ok(Over::Failed(anyhow::anyhow!("the server ended the call")))),
                            Err(status) => Some(self.over(status)),
                        };
                        if let Some(over) = over {
                            self.shared.acknowledge(acknowledged.drain(..));
                            return over;
                        }
                        next = if acknowledged.len() < BATCH { answers.message().now_or_never() } else { None };
                    }
                    self.shared.acknowledge(acknowledged.drain(..));
                }
                () = tokio::time::sleep_until(soonest) => {}
            }
        }
    }

    /// A call that ended with a status: whether another one may do better.
    #[allow(clippy::unused_self, reason = "it stands beside what is asked of this connection")]
    fn over(&self, status: Status) -> Result<Over> {
        match Answer::status(&status) {
            Answer::Refused(why) => bail!("the call was refused: {why}"),
            _ => Ok(Over::Failed(status.into())),
        }
    }

    /// A call for each event.
    async fn unary(&mut self) -> Result<Over> {
        let mut calls = FuturesUnordered::new();
        let mut events = Vec::with_capacity(BATCH);
        let mut acknowledged = Vec::new();
        loop {
            self.requeue_due();
            while let Some(event) = self.queue.pop() {
                let mut client = self.client.clone();
                let request = self.call(self.request(&event));
                calls.push(async move { (event, client.publish(request).await) });
            }
            let soonest = self.soonest();
            tokio::select! {
                count = self.waiting.recv_many(&mut events, BATCH) => {
                    if count == 0 {
                        return Ok(Over::End);
                    }
                    events.drain(..).for_each(|event| self.queue.push(event));
                }
                Some((event, answer)) = calls.next(), if !calls.is_empty() => {
                    let answer = match answer {
                        Ok(answer) => Answer::of(PublishStreamResponse {
                            outcome: Some(Outcome::Published(answer.into_inner())),
                        }),
                        Err(status) => Answer::status(&status),
                    };
                    self.answered(event, answer, &mut acknowledged)?;
                    self.shared.acknowledge(acknowledged.drain(..));
                }
                () = tokio::time::sleep_until(soonest) => {}
            }
        }
    }
}
