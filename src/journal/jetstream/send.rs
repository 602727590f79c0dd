//! One try at appending: what is sent, and what the answer says of it.

use std::time::Duration;

use async_nats::{
    Client, Request,
    client::{PublishErrorKind, RequestErrorKind},
    connection::State as Link,
    jetstream::{ErrorCode, publish::PublishAck, response::Response},
};

use super::{message::Outgoing, stream::told};
use crate::model::Seq;

/// What became of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is in the stream, the first message at this sequence.
    Appended { first: Seq },
    /// The one message is in the stream since an earlier time.
    Duplicate { seq: Seq },
    /// At least one of the messages is in the stream or on its way into it since an earlier time, and this try appended nothing.
    Collided,
    /// This try appended nothing.
    Refused(Refusal),
    /// Nobody knows.
    Lost { cause: String },
}

/// Why a try appended nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no connection.
    NoLink,
    /// Nobody takes it now: another try may do better.
    NotNow { cause: String },
    /// The stream has no room.
    Full { cause: String },
    /// The stream would never take it.
    Never { cause: String },
}

/// Sends messages so that they are appended whole and next to each other, or not at all.
///
/// Several go as an atomic batch, which is whole when its last message, the commit, is there. That one alone is answered.
pub(super) async fn send(client: &Client, messages: &[Outgoing], patience: Duration) -> Outcome {
    let Some((commit, others)) = messages.split_last() else {
        return Outcome::Refused(Refusal::Never {
            cause: "there is nothing to append".to_owned(),
        });
    };
    if client.connection_state() != Link::Connected {
        return Outcome::Refused(Refusal::NoLink);
    }
    let of = messages.len();
    // Every try is a batch of its own: what is left of another does not get in its way.
    let batch = format!("{:032x}", rand::random::<u128>());
    for (message, place) in others.iter().zip(1..) {
        let headers = message.headers(Some((&batch, place, of)));
        let sent = client.publish_with_headers(message.subject.clone(), headers, message.payload.clone());
        // Without its commit nothing of the batch is appended.
        match tokio::time::timeout(patience, sent).await {
            Ok(Ok(())) => {}
            // The client holds up whoever sends when it has too much to send.
            Err(_) => return Outcome::Refused(Refusal::NoLink),
            Ok(Err(error)) => {
                let cause = told(&error);
                return Outcome::Refused(match error.kind() {
                    PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => Refusal::Never { cause },
                    PublishErrorKind::Send => Refusal::NotNow { cause },
                });
            }
        }
    }
    let request = Request::new()
        .headers(commit.headers((of > 1).then_some((&batch, of, of))))
        .payload(commit.payload.clone())
        .timeout(Some(patience));
    let answer = client.send_request(commit.subject.clone(), request);
    let Ok(answer) = tokio::time::timeout(patience * 2, answer).await else {
        return Outcome::Lost {
            cause: "it could not be handed to the connection in time".to_owned(),
        };
    };
    match answer {
        Ok(reply) => read(&reply.payload, of),
        Err(error) => match error.kind() {
            RequestErrorKind::NoResponders => Outcome::Refused(Refusal::NotNow {
                cause: "nobody takes messages for the stream".to_owned(),
            }),
            RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                Outcome::Refused(Refusal::Never { cause: told(&error) })
            }
            RequestErrorKind::TimedOut => Outcome::Lost {
                cause: format!("no answer within {patience:?}"),
            },
            RequestErrorKind::Other => Outcome::Lost { cause: told(&error) },
        },
    }
}

/// Reads an answer to so many messages.
fn read(payload: &[u8], messages: usize) -> Outcome {
    match serde_json::from_slice::<Response<PublishAck>>(payload) {
        Ok(Response::Ok(ack)) if ack.duplicate => Outcome::Duplicate { seq: Seq(ack.sequence) },
        Ok(Response::Ok(ack)) => match (ack.sequence + 1).checked_sub(messages as u64) {
            Some(first) if first > 0 => Outcome::Appended { first: Seq(first) },
            _ => Outcome::Lost {
                cause: format!("an answer that cannot be: {messages} messages end at {}", ack.sequence),
            },
        },
        Ok(Response::Err { error }) => {
            let cause = error.to_string();
            match error.error_code() {
                ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE | ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => {
                    Outcome::Collided
                }
                ErrorCode::STREAM_STORE_FAILED
                | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
                | ErrorCode::INSUFFICIENT_RESOURCES
                | ErrorCode::MEMORY_RESOURCES_EXCEEDED
                | ErrorCode::STORAGE_RESOURCES_EXCEEDED => Outcome::Refused(Refusal::Full { cause }),
                // The commit came to a leader that the rest of the batch had not come to; or too many batches are on their way.
                ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH | ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT => {
                    Outcome::Refused(Refusal::NotNow { cause })
                }
                _ if error.code() >= 500 => Outcome::Refused(Refusal::NotNow { cause }),
                _ => Outcome::Refused(Refusal::Never { cause }),
            }
        }
        Err(error) => Outcome::Lost {
            cause: format!("an answer that cannot be read: {error}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let refused = |payload: &str| match read(payload.as_bytes(), 1) {
            Outcome::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        let error = |code: u16, err_code: u16| {
            format!(r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"x"}},"stream":"s","seq":0}}"#)
        };
        assert_eq!(
            read(br#"{"stream":"s","seq":9,"batch":"b","count":3}"#, 3),
            Outcome::Appended { first: Seq(7) }
        );
        assert_eq!(
            read(br#"{"stream":"s","seq":2,"duplicate":true}"#, 1),
            Outcome::Duplicate { seq: Seq(2) }
        );
        assert_eq!(read(error(400, 10_201).as_bytes(), 3), Outcome::Collided);
        assert!(matches!(refused(&error(503, 10_077)), Refusal::Full { .. }));
        assert!(matches!(refused(&error(400, 10_176)), Refusal::NotNow { .. }));
        assert!(matches!(refused(&error(503, 10_008)), Refusal::NotNow { .. }));
        assert!(matches!(refused(&error(400, 10_054)), Refusal::Never { .. }));
        assert!(matches!(read(b"?", 1), Outcome::Lost { .. }));
        assert!(matches!(read(br#"{"stream":"s","seq":0}"#, 1), Outcome::Lost { .. }));
    }
}
