//! Fetching a stream from a sequence on: a pull consumer of one's own, and a short loop of requests.
//!
//! The position that lasts is the replica's, which is written with what it stands for. So the consumer is a throwaway: in memory, on one server,
//! without acknowledgements, gone half a minute after nobody asks any more. Whatever happens to it, the next one begins where the replica is.
//! That is faster after the loss of a server than a consumer that has to elect a leader, or one that is minded by the client.

use std::time::Duration;

use async_nats::{
    StatusCode, Subject, Subscriber,
    jetstream::{
        self,
        consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull},
    },
};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};

use super::stream::{Names, told};
use crate::model::Seq;

/// One request asks for so many messages at most, and the next is sent when half of them are still to come.
const MESSAGES: usize = 1_000;
/// And for so many bytes.
const BYTES: usize = 4 << 20;
/// How long the server holds a request for messages to come.
const EXPIRES: Duration = Duration::from_secs(1);
/// The server always answers by then, unless it hangs or is gone.
const SILENCE: Duration = Duration::from_secs(3);
/// The server forgets a consumer that nobody asks for so long.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// One message of the stream.
#[derive(Debug, Clone)]
pub(super) struct Delivered {
    pub(super) seq: Seq,
    pub(super) subject: Subject,
    pub(super) payload: Bytes,
    /// When the stream took it, in nanoseconds since 1970.
    pub(super) published_nanos: i128,
}

/// Fetches a stream from a sequence on.
pub(super) struct Pull {
    context: jetstream::Context,
    stream: String,
    consumer: String,
    inbox: String,
    answers: Subscriber,
    /// How many messages were asked for and are still to come.
    to_come: usize,
    max_bytes: usize,
}

impl Pull {
    /// Begins at a sequence, or at the first there is after it. `node`: whose it is, for whoever lists the consumers.
    pub(super) async fn begin(
        context: &jetstream::Context,
        names: &Names,
        node: &str,
        from: Seq,
    ) -> Result<Self, PullError> {
        let client = context.client();
        let stream = names.stream();
        let consumer = format!("{node}-{:08x}", rand::random::<u32>());
        let config = pull::Config {
            name: Some(consumer.clone()),
            description: Some(format!("what {node} applies to its replica")),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from.0.max(1),
            },
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            inactive_threshold: FORGOTTEN,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let made: Result<jetstream::consumer::Consumer<pull::Config>, _> =
            context.create_consumer_on_stream(config, stream.clone()).await;
        made.map_err(|error| PullError::NoConsumer { cause: told(&error) })?;
        let inbox = client.new_inbox();
        let answers = client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| PullError::NoConsumer { cause: told(&error) })?;
        let max_bytes = BYTES.max(client.max_payload() * 2);
        Ok(Self {
            context: context.clone(),
            stream,
            consumer,
            inbox,
            answers,
            to_come: 0,
            max_bytes,
        })
    }

    /// What has come, at least one message; nothing if for a second there was nothing.
    pub(super) async fn next(&mut self) -> Result<Vec<Delivered>, PullError> {
        let mut delivered = Vec::new();
        loop {
            if self.to_come <= MESSAGES / 2 {
                self.ask().await?;
            }
            let answer = if delivered.is_empty() {
                let answer = tokio::time::timeout(SILENCE, self.answers.next()).await;
                answer.map_err(|_| PullError::Silent)?
            } else {
                // Whatever is there already, and no waiting for more.
                match self.answers.next().now_or_never() {
                    Some(answer) => answer,
                    None => return Ok(delivered),
                }
            };
            let message = answer.ok_or(PullError::Closed)?;
            match message.status {
                None | Some(StatusCode::OK) => {
                    self.to_come = self.to_come.saturating_sub(1);
                    delivered.push(read(&self.context, message)?);
                    if delivered.len() >= MESSAGES {
                        return Ok(delivered);
                    }
                }
                Some(status) => {
                    self.ended(status, &message)?;
                    if delivered.is_empty() && status == StatusCode::TIMEOUT {
                        return Ok(delivered);
                    }
                }
            }
        }
    }

    /// Tells the server that it is not needed any more. If that does not come through, the server finds out by itself.
    pub(super) async fn end(self) {
        let _ = self
            .context
            .delete_consumer_from_stream(&self.consumer, &self.stream)
            .await;
    }

    async fn ask(&mut self) -> Result<(), PullError> {
        let request = serde_json::json!({
            "batch": MESSAGES,
            "max_bytes": self.max_bytes,
            "expires": u64::try_from(EXPIRES.as_nanos()).unwrap_or(u64::MAX),
        });
        let asked = async_nats::Request::new()
            .payload(request.to_string().into())
            .inbox(self.inbox.clone());
        let subject = format!("CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
        self.context
            .send_request(subject, asked)
            .await
            .map_err(|error| PullError::NoConsumer { cause: told(&error) })?;
        self.to_come += MESSAGES;
        Ok(())
    }

    /// A request has ended without all that it asked for.
    fn ended(&mut self, status: StatusCode, message: &async_nats::Message) -> Result<(), PullError> {
        let said = message.description.clone().unwrap_or_default();
        let left = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Pending-Messages"))
            .and_then(|left| left.as_str().parse().ok());
        // Newer servers say so of a request that got all it asked for, too.
        let is_full = status.as_u16() == 409 && (said.contains("MaxBytes") || said.contains("Batch Completed"));
        if status == StatusCode::TIMEOUT || is_full {
            self.to_come = self.to_come.saturating_sub(left.unwrap_or(0));
            return Ok(());
        }
        Err(PullError::Ended {
            cause: format!("{} {said}", status.as_u16()),
        })
    }
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull")
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}

fn read(context: &jetstream::Context, message: async_nats::Message) -> Result<Delivered, PullError> {
    let message = jetstream::Message {
        message,
        context: context.clone(),
    };
    let (seq, published_nanos) = match message.info() {
        Ok(info) => (Seq(info.stream_sequence), info.published.unix_timestamp_nanos()),
        Err(error) => {
            return Err(PullError::Ended {
                cause: format!("a message without its place in the stream: {error}"),
            });
        }
    };
    let (message, _) = message.split();
    Ok(Delivered {
        seq,
        subject: message.subject,
        payload: message.payload,
        published_nanos,
    })
}

/// Why fetching ended. It is begun again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PullError {
    #[error("no consumer can be had ({cause})")]
    NoConsumer { cause: String },
    #[error("the server does not answer")]
    Silent,
    #[error("the connection is closed")]
    Closed,
    #[error("the server ended it ({cause})")]
    Ended { cause: String },
}
