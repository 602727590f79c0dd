//! Why a publish failed, and the one table of what each failure is called outside.

use std::time::Duration;

use http::StatusCode;
use tonic::Code;

use super::{admit::Refusal, json::Malformed, quota::OverQuota};
use crate::{
    auth::{Denied, Revocations},
    journal::{AppendError, Placed, Unavailable},
    model::Topic,
};

/// Why an event was not published, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// It breaks a rule.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is not the JSON of an event.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Nobody knows who calls, or they may not go on.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The caller may not publish to one of its topics.
    #[error("{denied}")]
    Forbidden {
        /// The topic's place in the list, from 0.
        index: usize,
        /// Why.
        denied: Denied,
    },
    /// The caller publishes more than it may.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
    /// Too much is revoked.
    #[error(
        "there are {} revocations already: revoke users, or what was issued before a time, rather than tokens one by one",
        Revocations::MAX
    )]
    TooManyRevocations,
    /// The journal did not append it.
    #[error(transparent)]
    Append(AppendError),
    /// The journal appended it to some topics and not to others, which are of other shards.
    #[error(transparent)]
    Partly(#[from] Partly),
    /// The node takes nothing new.
    #[error("this node is draining and did not take the event: publish to another, or again when it is back")]
    Draining,
    /// The caller's deadline passed before the answer was known.
    #[error(
        "the deadline passed while the write was under way, the outcome is unknown: publish again with the same key"
    )]
    Deadline,
    /// It did not arrive in time.
    #[error(
        "the event did not arrive within {} and was not taken: send faster, or a blank line now and then",
        humantime::format_duration(*.within)
    )]
    Late {
        /// How long it was waited for.
        within: Duration,
    },
}

/// What became of an event, topic by topic, where it is not the same for all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of {} topics have the event, the others do not or may not: publish again with the same key", self.placed(), self.topics.len())]
pub struct Partly {
    /// In the order of the draft.
    pub topics: Vec<(Topic, Result<Placed, AppendError>)>,
}

impl Partly {
    fn placed(&self) -> usize {
        self.topics.iter().filter(|(_, outcome)| outcome.is_ok()).count()
    }

    /// After so long the others may have it too.
    fn wait(&self) -> Option<Duration> {
        let failures = self.topics.iter().filter_map(|(_, outcome)| outcome.as_ref().err());
        failures
            .filter_map(|error| IngestError::Append(error.clone()).verdict().retry_after)
            .max()
    }
}

/// What a failure is called on each boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Over gRPC.
    pub code: Code,
    /// Over HTTP.
    pub status: StatusCode,
    /// How long to wait before the same publish can succeed here; `None` if a wait alone does not help, or is not needed.
    pub retry_after: Option<Duration>,
    /// In metrics, and in upper case as the reason of a `google.rpc.ErrorInfo`.
    pub label: &'static str,
}

impl IngestError {
    /// What the journal says of an event of these topics.
    pub(super) fn of(error: AppendError, topics: Vec<Topic>) -> Self {
        match error {
            AppendError::Partly { outcomes } => Self::Partly(Partly {
                topics: topics.into_iter().zip(outcomes).collect(),
            }),
            error => Self::Append(error),
        }
    }

    /// The table.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        const fn row(code: Code, status: StatusCode, wait: Option<u64>, label: &'static str) -> Verdict {
            let retry_after = match wait {
                Some(seconds) => Some(Duration::from_secs(seconds)),
                None => None,
            };
            Verdict {
                code,
                status,
                retry_after,
                label,
            }
        }
        match self {
            Self::Refused(Refusal::DataTooLong { .. }) | Self::Malformed(Malformed::TooLong { .. }) => {
                row(Code::InvalidArgument, StatusCode::PAYLOAD_TOO_LARGE, None, "too_large")
            }
            Self::Refused(_) => row(Code::InvalidArgument, StatusCode::BAD_REQUEST, None, "refused"),
            Self::Malformed(_) => row(Code::InvalidArgument, StatusCode::BAD_REQUEST, None, "malformed"),
            Self::Denied(denied) | Self::Forbidden { denied, .. } => {
                let verdict = denied.verdict();
                Verdict {
                    retry_after: denied.retry_after(),
                    ..row(verdict.code, verdict.status, None, verdict.label)
                }
            }
            Self::OverQuota(over) => Verdict {
                retry_after: Some(over.wait),
                ..row(
                    Code::ResourceExhausted,
                    StatusCode::TOO_MANY_REQUESTS,
                    None,
                    "over_quota",
                )
            },
            Self::TooManyRevocations => row(
                Code::ResourceExhausted,
                StatusCode::TOO_MANY_REQUESTS,
                Some(60),
                "too_many_revocations",
            ),
            Self::Append(AppendError::DiskFull { .. }) => row(
                Code::ResourceExhausted,
                StatusCode::TOO_MANY_REQUESTS,
                Some(30),
                "disk_full",
            ),
            // Only an operator ends it, with a restart: soon is as good as late, but not at once.
            Self::Append(AppendError::ReadOnly { .. }) => row(
                Code::Unavailable,
                StatusCode::SERVICE_UNAVAILABLE,
                Some(30),
                "read_only",
            ),
            Self::Append(AppendError::Closed) => {
                row(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Some(1), "closed")
            }
            Self::Draining => row(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Some(1), "draining"),
            Self::Append(AppendError::Unavailable { cause, .. }) => {
                let (wait, label) = match cause {
                    Unavailable::NoHolder => (1, "no_holder"),
                    Unavailable::Unreachable { .. } => (1, "unreachable"),
                    Unavailable::Leaving { .. } => (1, "leaving"),
                    Unavailable::NotHeld { .. } => (1, "not_held"),
                    Unavailable::CatchingUp { .. } => (5, "catching_up"),
                    Unavailable::Diverged { .. } => (30, "diverged"),
                    Unavailable::NoNats { .. } => (1, "no_nats"),
                    Unavailable::Unusable { .. } => (30, "unusable_stream"),
                    Unavailable::NoQuorum { .. } => (1, "no_quorum"),
                };
                row(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Some(wait), label)
            }
            Self::Append(AppendError::StreamFull { .. }) => row(
                Code::ResourceExhausted,
                StatusCode::TOO_MANY_REQUESTS,
                Some(30),
                "stream_full",
            ),
            Self::Append(AppendError::TooSlow { .. }) => row(
                Code::ResourceExhausted,
                StatusCode::TOO_MANY_REQUESTS,
                Some(1),
                "too_slow",
            ),
            Self::Append(AppendError::StreamRefused { .. }) => row(
                Code::FailedPrecondition,
                StatusCode::UNPROCESSABLE_ENTITY,
                None,
                "stream_refused",
            ),
            // Over gRPC each topic's result says what became of it. Over HTTP it is not told as a success, nor as one of the failures that
            // some clients retry by themselves: without a key that would publish twice.
            Self::Partly(partly) => Verdict {
                retry_after: partly.wait(),
                ..row(Code::Ok, StatusCode::INTERNAL_SERVER_ERROR, None, "partly")
            },
            Self::Append(AppendError::Partly { .. }) => {
                row(Code::Ok, StatusCode::INTERNAL_SERVER_ERROR, None, "partly")
            }
            // Not UNAVAILABLE: clients retry that by themselves, and without a key a retry could publish twice.
            Self::Append(AppendError::Unknown { .. }) => row(
                Code::Unknown,
                StatusCode::INTERNAL_SERVER_ERROR,
                None,
                "unknown_outcome",
            ),
            Self::Deadline => row(Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT, None, "deadline"),
            Self::Late { .. } => row(Code::DeadlineExceeded, StatusCode::REQUEST_TIMEOUT, None, "late"),
        }
    }

    /// The field that is wrong, if it is one.
    #[must_use]
    pub fn field(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => Some(refusal.field()),
            Self::Malformed(malformed) => malformed.field(),
            Self::Forbidden { index, .. } => Some(format!("topics[{index}]")),
            Self::Denied(_)
            | Self::OverQuota(_)
            | Self::TooManyRevocations
            | Self::Append(_)
            | Self::Partly(_)
            | Self::Draining
            | Self::Deadline
            | Self::Late { .. } => None,
        }
    }
}
