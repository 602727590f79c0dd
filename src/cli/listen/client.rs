//! One request for a stream, and what its answer means.

use std::time::Duration;

use http::{StatusCode, header};
use hyper::body::Incoming;

use crate::cli::{
    bearer::{Bearer, BearerError, authorization},
    server::{GetError, Server, body, explain},
};

/// Where streams are.
const PATH: &str = "/v1/events";

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Get(#[from] GetError),
    #[error(transparent)]
    Token(#[from] BearerError),
    #[error("{address} is not ready ({status}): {explanation}")]
    NotReady {
        address: String,
        status: StatusCode,
        explanation: String,
    },
    #[error("{address} refuses ({status}): {explanation}")]
    Refused {
        address: String,
        status: StatusCode,
        explanation: String,
    },
    #[error("{address} does not speak Server-Sent Events: is this the address of a Tidings server's streams?")]
    NotAStream { address: String },
}

impl OpenError {
    /// Whether the same request can succeed later.
    pub(super) const fn is_retryable(&self) -> bool {
        match self {
            Self::Get(_) | Self::Token(_) | Self::NotReady { .. } => true,
            Self::Refused { .. } | Self::NotAStream { .. } => false,
        }
    }
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Opened {
    /// A stream.
    Stream(Incoming),
    /// The server asks never to come back.
    Stop,
}

/// Asks for a stream; `last_event_id` is sent as the header of that name. The token is read anew each time.
pub(super) async fn open(
    server: &Server,
    query: &[(&str, &str)],
    last_event_id: Option<&str>,
    bearer: &Bearer,
    patience: Duration,
) -> Result<Opened, OpenError> {
    let token = bearer.token()?;
    let authorization = token.as_ref().map(authorization);
    let mut headers = vec![("accept", "text/event-stream")];
    headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
    headers.extend(last_event_id.map(|id| ("last-event-id", id)));
    let response = server.get(PATH, query, &headers, patience).await?;
    let address = server.address();
    let status = response.status();
    match status {
        StatusCode::OK if is_event_stream(response.headers()) => Ok(Opened::Stream(response.into_body())),
        StatusCode::OK => Err(OpenError::NotAStream { address }),
        StatusCode::NO_CONTENT => Ok(Opened::Stop),
        _ => {
            let explanation = explain(&body(response).await);
            let again = status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
                // The file had a newer token by the time the old one was refused.
                || (status == StatusCode::UNAUTHORIZED && bearer.has_another(token.as_ref()));
            Err(if again {
                OpenError::NotReady {
                    address,
                    status,
                    explanation,
                }
            } else {
                OpenError::Refused {
                    address,
                    status,
                    explanation,
                }
            })
        }
    }
}

fn is_event_stream(headers: &http::HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}
