//! `tidings.v1.Control`: taking back what was granted.
//!
//! A revocation is an event like any other, on a topic that nobody publishes to from outside: durable, ordered, and delivered without gaps to
//! every node by what delivers everything else.

use std::{sync::Arc, time::Duration};

use tidings_proto::v1::{
    self, ListRevocationsRequest, ListRevocationsResponse, RevokeRequest, RevokeResponse, UserTokens,
    control_server::{Control, ControlServer},
    revoke_request,
};
use tonic::{
    Code, Request, Response, Status,
    service::{Interceptor, interceptor::InterceptedService},
};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::warn;

use super::{Caller, Ingest, IngestError, audit, caller, grpc};
use crate::{
    auth::{Revocation, Target},
    model::{Publish, Topic, UnixMillis},
};

/// How long a revocation lasts if nothing is said.
const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it may last.
const LONGEST_LIFE: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// How far ahead the clock of whoever says "now" may be.
const CLOCKS: Duration = Duration::from_secs(60);
/// The longest name of a token or a user, and the longest reason, in bytes.
const LENGTH: usize = 255;
/// The longest message that is read: larger than any that makes sense, so that what is too long is refused by name.
const MESSAGE_BYTES: usize = 16 * 1024;

/// The service, ready to be served.
#[must_use]
pub fn control(
    ingest: Ingest,
) -> InterceptedService<ControlServer<impl Control>, impl Interceptor + Clone + Send + Sync> {
    let asked = caller::asked(&ingest);
    let server = ControlServer::new(Service { ingest }).max_decoding_message_size(MESSAGE_BYTES);
    InterceptedService::new(server, asked)
}

struct Service {
    ingest: Ingest,
}

#[tonic::async_trait]
impl Control for Service {
    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let caller = Self::caller(&request)?;
        self.ingest.check_open().map_err(|error| grpc::status(&error))?;
        let request = request.into_inner();
        let now = UnixMillis::now();
        let revocation = revocation(&request, now).map_err(invalid)?;
        let outcome = self.ingest.revoke(&revocation, now).await;
        audit::revocation(&caller, &revocation, now, &request.reason, outcome.as_ref().copied());
        outcome.map_err(|error| grpc::status(&error))?;
        if caller.name().is_none() {
            warn!(
                "something was revoked where nobody is asked who they are: it counts on nodes that ask, and is kept no longer than events are"
            );
        }
        Ok(Response::new(RevokeResponse {
            revocation: Some(wire(&revocation)),
        }))
    }

    async fn list_revocations(
        &self,
        request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        Self::caller(&request)?;
        let revocations = self.ingest.auth().revocations().list(UnixMillis::now());
        Ok(Response::new(ListRevocationsResponse {
            revocations: revocations.iter().map(wire).collect(),
        }))
    }
}

impl Service {
    /// Who calls, if they may revoke.
    fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
        let caller = caller::of(request)?;
        caller.check_control().map_err(|denied| {
            audit::refused(&caller, "revoke", &denied);
            grpc::status(&denied.into())
        })?;
        Ok(caller)
    }
}

impl Ingest {
    /// Takes something back. It is durable then, and counts here.
    async fn revoke(&self, revocation: &Revocation, now: UnixMillis) -> Result<(), IngestError> {
        if !self.auth().revocations().has_room(now) {
            return Err(IngestError::TooManyRevocations);
        }
        let topics = vec![Topic::revocations()];
        let publish = Publish {
            topics: topics.clone(),
            event_type: None,
            data: revocation.to_json().into(),
            key: None,
            deadline: None,
        };
        let appended = async { self.journal().append(publish).await?.await };
        appended.await.map_err(|error| IngestError::of(error, topics))?;
        self.auth().revocations().add(revocation.clone(), now);
        Ok(())
    }
}

/// A field that is wrong, and how.
type Wrong = (&'static str, String);

fn revocation(request: &RevokeRequest, now: UnixMillis) -> Result<Revocation, Wrong> {
    let target = match &request.target {
        None => {
            let problem = "say what to revoke: a token's id, a user, or what was issued before a time";
            return Err(("target", problem.to_owned()));
        }
        Some(revoke_request::Target::TokenId(id)) => Target::Token(name("token_id", id)?),
        Some(revoke_request::Target::User(UserTokens {
            user,
            issued_before_ms,
            block,
        })) => Target::User {
            subject: name("user.user", user)?,
            issued_before: match (block, issued_before_ms) {
                (true, 0) => UnixMillis(u64::MAX),
                (true, _) => {
                    let problem = "a user who is blocked is so whenever the token was issued: set one of the two";
                    return Err(("user.issued_before_ms", problem.to_owned()));
                }
                (false, 0) => now,
                (false, &time) => past("user.issued_before_ms", time, now)?,
            },
        },
        Some(revoke_request::Target::IssuedBeforeMs(time)) => Target::All {
            issued_before: past("issued_before_ms", *time, now)?,
        },
    };
    if request.reason.len() > LENGTH {
        let problem = format!("a reason has at most {LENGTH} bytes; this has {}", request.reason.len());
        return Err(("reason", problem));
    }
    let life = match request.for_ms {
        0 => DEFAULT_LIFE,
        millis => Duration::from_millis(millis),
    };
    if life > LONGEST_LIFE {
        let problem = format!("a revocation lasts at most {} days", LONGEST_LIFE.as_secs() / 86_400);
        return Err(("for_ms", problem));
    }
    Ok(Revocation {
        target,
        until: now.after(life),
    })
}

fn name(field: &'static str, text: &str) -> Result<Arc<str>, Wrong> {
    if text.is_empty() || text.len() > LENGTH || text.chars().any(char::is_control) {
        let problem = format!("must have 1 to {LENGTH} bytes and no control characters");
        return Err((field, problem));
    }
    Ok(text.into())
}

/// A time that is not ahead: what it was meant to be is not known then, and it would shut out whoever logs in again.
fn past(field: &'static str, millis: u64, now: UnixMillis) -> Result<UnixMillis, Wrong> {
    let time = UnixMillis(millis);
    if millis == 0 || time > now.after(CLOCKS) {
        let problem = "must be a time that is past, in milliseconds since 1970".to_owned();
        return Err((field, problem));
    }
    Ok(time)
}

fn invalid((field, problem): Wrong) -> Status {
    let message = format!("{field}: {problem}");
    let mut details = ErrorDetails::with_error_info("REFUSED", grpc::DOMAIN, []);
    details.add_bad_request_violation(field, problem);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn wire(revocation: &Revocation) -> v1::Revocation {
    use v1::revocation::Target as Wire;
    v1::Revocation {
        target: Some(match &revocation.target {
            Target::Token(id) => Wire::TokenId(id.to_string()),
            Target::User { subject, issued_before } => {
                let block = issued_before.0 == u64::MAX;
                Wire::User(UserTokens {
                    user: subject.to_string(),
                    issued_before_ms: if block { 0 } else { issued_before.0 },
                    block,
                })
            }
            Target::All { issued_before } => Wire::IssuedBeforeMs(issued_before.0),
        }),
        until_ms: revocation.until.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn asking(target: revoke_request::Target) -> RevokeRequest {
        RevokeRequest {
            target: Some(target),
            ..RevokeRequest::default()
        }
    }

    fn of_user(user: &str, issued_before_ms: u64, block: bool) -> RevokeRequest {
        asking(revoke_request::Target::User(UserTokens {
            user: user.to_owned(),
            issued_before_ms,
            block,
        }))
    }

    fn token(id: &str) -> RevokeRequest {
        asking(revoke_request::Target::TokenId(id.to_owned()))
    }

    fn before(time: u64) -> RevokeRequest {
        asking(revoke_request::Target::IssuedBeforeMs(time))
    }

    #[test]
    fn what_is_revoked_is_as_it_was_asked_for() {
        let until = NOW.after(DEFAULT_LIFE);
        let user = |issued_before| Target::User {
            subject: "7".into(),
            issued_before,
        };
        for (request, target) in [
            (token("a"), Target::Token("a".into())),
            (of_user("7", 0, false), user(NOW)),
            (of_user("7", 5, false), user(UnixMillis(5))),
            (of_user("7", 0, true), user(UnixMillis(u64::MAX))),
            (before(NOW.0), Target::All { issued_before: NOW }),
        ] {
            let revoked = revocation(&request, NOW).expect("valid");
            assert_eq!(revoked, Revocation { target, until });
            let sent = wire(&revoked);
            assert_eq!(sent.until_ms, until.0);
        }
        let short = RevokeRequest {
            for_ms: 1,
            ..token("a")
        };
        assert_eq!(revocation(&short, NOW).expect("valid").until, UnixMillis(NOW.0 + 1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = "x".repeat(256);
        let far = NOW.after(CLOCKS).0 + 1;
        for (request, field) in [
            (RevokeRequest::default(), "target"),
            (token(""), "token_id"),
            (token(&long), "token_id"),
            (token("a\nb"), "token_id"),
            (of_user("", 0, false), "user.user"),
            (of_user("7", 1, true), "user.issued_before_ms"),
            (of_user("7", far, false), "user.issued_before_ms"),
            (before(0), "issued_before_ms"),
            (before(far), "issued_before_ms"),
            (
                RevokeRequest {
                    for_ms: u64::MAX,
                    ..token("a")
                },
                "for_ms",
            ),
            (
                RevokeRequest {
                    reason: long.clone(),
                    ..token("a")
                },
                "reason",
            ),
        ] {
            assert_eq!(revocation(&request, NOW).expect_err("wrong").0, field, "{request:?}");
        }
    }
}
