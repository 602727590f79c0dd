//! `tidings.v1.Publisher`: publishing over gRPC.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use tidings_proto::v1::{
    PublishError, PublishRequest, PublishResponse, PublishStreamResponse, TopicResult,
    publish_stream_response::Outcome,
    publisher_server::{Publisher, PublisherServer},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming, codec::CompressionEncoding, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    Caller, Draft, Ingest, IngestError, Partly, Published, Settings,
    pipeline::{Ended, Pipeline},
};

/// The domain of every `google.rpc.ErrorInfo` of this service.
pub(super) const DOMAIN: &str = "tidings";

/// The service, ready to be served.
#[must_use]
pub fn publisher(ingest: Ingest) -> PublisherServer<impl Publisher> {
    PublisherServer::new(Service { ingest })
        .max_decoding_message_size(Settings::MESSAGE_BYTES)
        .accept_compressed(CompressionEncoding::Gzip)
}

struct Service {
    ingest: Ingest,
}

#[tonic::async_trait]
impl Publisher for Service {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let deadline = deadline(request.metadata());
        let caller = caller(&self.ingest, &request)?;
        self.ingest.check_open().map_err(|error| status(&error))?;
        let publish = self
            .ingest
            .publish(&caller, request.into_inner().into(), deadline.map(Instant::into_std));
        let outcome = async { publish.await?.await };
        let outcome = match deadline {
            Some(at) => tokio::time::timeout_at(at, outcome)
                .await
                .unwrap_or(Err(IngestError::Deadline)),
            None => outcome.await,
        };
        match outcome {
            Ok(published) => Ok(Response::new(published.into())),
            Err(IngestError::Partly(partly)) => Ok(Response::new(partly.into())),
            Err(error) => Err(status(&error)),
        }
    }

    type PublishStreamStream = BoxStream<'static, Result<PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let deadline = deadline(request.metadata());
        let caller = caller(&self.ingest, &request)?;
        self.ingest.check_open().map_err(|error| status(&error))?;
        let drafts = request
            .into_inner()
            .map(|message| message.map(|message| ((), Ok(message.into()))));
        let answers = Pipeline::new(self.ingest.clone(), caller, drafts, deadline).map(|answer| match answer {
            Ok(((), outcome)) => Ok(PublishStreamResponse {
                outcome: Some(match outcome {
                    Ok(published) => Outcome::Published(published.into()),
                    Err(IngestError::Partly(partly)) => Outcome::Published(partly.into()),
                    Err(error) => Outcome::Error(publish_error(&error)),
                }),
            }),
            Err(Ended::Stopped(error)) => Err(status(&error)),
            Err(Ended::Input(status)) => Err(status),
        });
        Ok(Response::new(answers.boxed()))
    }
}

impl From<PublishRequest> for Draft {
    fn from(request: PublishRequest) -> Self {
        Self {
            topics: request.topics,
            event_type: request.r#type,
            data: request.data,
            key: request.key,
            ephemeral: request.ephemeral,
        }
    }
}

impl From<Published> for PublishResponse {
    fn from(published: Published) -> Self {
        let results = published.landed.into_iter().map(|landed| TopicResult {
            topic: landed.topic.as_str().to_owned(),
            sequence: landed.seq.map_or(0, |seq| seq.0),
            repeated: landed.repeated,
            error: None,
        });
        Self {
            results: results.collect(),
        }
    }
}

impl From<Partly> for PublishResponse {
    fn from(partly: Partly) -> Self {
        let results = partly.topics.into_iter().map(|(topic, outcome)| {
            let topic = topic.as_str().to_owned();
            match outcome {
                Ok(placed) => TopicResult {
                    topic,
                    sequence: placed.seq.0,
                    repeated: placed.repeated,
                    error: None,
                },
                Err(error) => TopicResult {
                    topic,
                    sequence: 0,
                    repeated: false,
                    error: Some(publish_error(&IngestError::Append(error))),
                },
            }
        });
        Self {
            results: results.collect(),
        }
    }
}

/// Who makes a call.
fn caller<T>(ingest: &Ingest, request: &Request<T>) -> Result<Arc<Caller>, Status> {
    let caller = ingest.caller(request.metadata().as_ref(), request.extensions());
    caller.map_err(|denied| status(&denied.into()))
}

/// The error as the status of a call.
pub(super) fn status(error: &IngestError) -> Status {
    let verdict = error.verdict();
    let message = error.to_string();
    let mut details = ErrorDetails::with_error_info(verdict.label.to_uppercase(), DOMAIN, []);
    if let Some(field) = error.field() {
        details.add_bad_request_violation(field, &message);
    }
    if let Some(wait) = verdict.retry_after {
        details.set_retry_info(Some(wait));
    }
    Status::with_error_details(verdict.code, message, details)
}

/// The error as an answer of a stream.
fn publish_error(error: &IngestError) -> PublishError {
    let verdict = error.verdict();
    PublishError {
        code: verdict.code.into(),
        message: error.to_string(),
        field: error.field().unwrap_or_default(),
        retry_after_ms: verdict
            .retry_after
            .map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// When the caller's deadline passes. tonic would enforce it too, but only until the head of the answer, and as CANCELLED.
fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    Instant::now().checked_add(parse_timeout(value)?)
}

/// `grpc-timeout`: 1 to 8 digits and a unit (gRPC over HTTP/2, "Requests"). What is not of this form counts as absent, as in other
/// implementations.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, seconds) in [
            ("1H", 3_600.0),
            ("2M", 120.0),
            ("3S", 3.0),
            ("4m", 0.004),
            ("5u", 5e-6),
            ("99999999n", 0.099_999_999),
        ] {
            assert_eq!(parse_timeout(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "S", "1", "+1S", "123456789S", "1s", "1ü", "ü"] {
            assert_eq!(parse_timeout(text), None, "{text}");
        }
    }
}
