//! Why somebody is not let in, and the one table of what that is called outside.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;
use tonic::Code;

use crate::{model::Topic, problem::Problem};

/// Why a request is not served. Nothing in it is, or quotes, a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It brings nothing that says who sends it.
    #[error("who is asking? bring a token: `authorization: Bearer …`")]
    Missing,
    /// It brings more than one token, or the same twice, and they might be of different people.
    #[error("more than one token came with the request: send one")]
    Ambiguous,
    /// What it brings is no token.
    #[error("what came as a token is none")]
    Malformed,
    /// The token was signed in a way, or with a key, that is not accepted; or not at all.
    #[error("the token is not signed by anyone who is trusted here")]
    Untrusted,
    /// The key that the token names is not known yet: it is being asked for.
    #[error("the token's key is not known yet, and is being asked for: come back shortly")]
    KeyPending {
        /// After how long it makes sense to come back.
        retry_after: Duration,
    },
    /// What was taken back is not known yet, so no token can be trusted.
    #[error("what is revoked is not known here yet, and no token is accepted until it is: come back shortly")]
    NotReady {
        /// After how long it makes sense to come back.
        retry_after: Duration,
    },
    /// The token is for somebody else.
    #[error("the token is not meant for this service (`aud`), or not from an issuer that is trusted here (`iss`)")]
    Elsewhere,
    /// The token lacks something that it must have, or has it in a form that makes no sense.
    #[error("the token's claim `{claim}` is missing or makes no sense")]
    Claim {
        /// Which claim.
        claim: Cow<'static, str>,
    },
    /// The token is over.
    #[error("the token has expired: get a new one")]
    Expired,
    /// The token is not valid yet.
    #[error("the token is not valid yet (`nbf`, `iat`): see whether the clocks agree")]
    NotYetValid,
    /// The token was taken back.
    #[error("the token has been revoked")]
    Revoked,
    /// The client's certificate is good, and none of its names is anybody here.
    #[error("the client's certificate names nobody who may publish here (`auth.publishers`)")]
    Certificate,
    /// The caller is known, and may not do that.
    #[error("this caller may not use the topic {topic}")]
    Topic {
        /// The first topic that is not granted.
        topic: Topic,
    },
    /// The caller is known, and may not do that.
    #[error("this caller may not {action}")]
    Action {
        /// What was asked for.
        action: &'static str,
    },
}

/// What a denial is called on each boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Over gRPC.
    pub code: Code,
    /// Over HTTP.
    pub status: StatusCode,
    /// In metrics, and in upper case as the reason of a `google.rpc.ErrorInfo`.
    pub label: &'static str,
    /// What the `www-authenticate` header says of the error (RFC 6750), if there was a token.
    pub challenge: Option<&'static str>,
}

impl Denied {
    /// The table.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        const fn row(code: Code, status: StatusCode, label: &'static str, challenge: Option<&'static str>) -> Verdict {
            Verdict {
                code,
                status,
                label,
                challenge,
            }
        }
        const fn unauthenticated(label: &'static str) -> Verdict {
            row(
                Code::Unauthenticated,
                StatusCode::UNAUTHORIZED,
                label,
                Some("invalid_token"),
            )
        }
        match self {
            Self::Missing => row(Code::Unauthenticated, StatusCode::UNAUTHORIZED, "no_token", None),
            Self::Ambiguous => row(
                Code::InvalidArgument,
                StatusCode::BAD_REQUEST,
                "ambiguous_token",
                Some("invalid_request"),
            ),
            Self::Malformed => unauthenticated("malformed_token"),
            Self::Untrusted => unauthenticated("untrusted_token"),
            Self::KeyPending { .. } => row(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "key_pending", None),
            Self::NotReady { .. } => row(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "not_ready", None),
            Self::Elsewhere => unauthenticated("token_for_others"),
            Self::Claim { .. } => unauthenticated("bad_claim"),
            Self::Expired => unauthenticated("expired_token"),
            Self::NotYetValid => unauthenticated("token_not_yet_valid"),
            Self::Revoked => unauthenticated("revoked_token"),
            Self::Certificate => row(
                Code::Unauthenticated,
                StatusCode::UNAUTHORIZED,
                "unknown_certificate",
                None,
            ),
            Self::Topic { .. } => row(
                Code::PermissionDenied,
                StatusCode::FORBIDDEN,
                "forbidden_topic",
                Some("insufficient_scope"),
            ),
            Self::Action { .. } => row(
                Code::PermissionDenied,
                StatusCode::FORBIDDEN,
                "forbidden_action",
                Some("insufficient_scope"),
            ),
        }
    }

    /// After how long it makes sense to try again, if it does.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::KeyPending { retry_after } | Self::NotReady { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// The answer over HTTP, with its challenge.
    #[must_use]
    pub fn into_response(self) -> http::Response<bytes::Bytes> {
        let verdict = self.verdict();
        let mut problem = Problem::new(verdict.status, self.to_string());
        problem.retry_after = self.retry_after();
        let mut response = problem.into_response();
        if verdict.status == StatusCode::UNAUTHORIZED || verdict.challenge.is_some() {
            let challenge = match verdict.challenge {
                Some("invalid_token") => "Bearer realm=\"tidings\", error=\"invalid_token\"",
                Some("invalid_request") => "Bearer realm=\"tidings\", error=\"invalid_request\"",
                Some(_) => "Bearer realm=\"tidings\", error=\"insufficient_scope\"",
                None => "Bearer realm=\"tidings\"",
            };
            let challenge = http::HeaderValue::from_static(challenge);
            response.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_let_in_is_told_what_to_bring() {
        let response = Denied::Missing.into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"tidings\"");
        let response = Denied::Expired.into_response();
        assert_eq!(
            response.headers()["www-authenticate"],
            "Bearer realm=\"tidings\", error=\"invalid_token\""
        );
        let topic = Topic::parse("orders").expect("a topic");
        let response = Denied::Topic { topic }.into_response();
        assert_eq!(response.status(), 403);
        let retry_after = Duration::from_secs(2);
        let response = Denied::KeyPending { retry_after }.into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (503, &2.into())
        );
    }
}
