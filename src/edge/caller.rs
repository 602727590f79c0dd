//! Who asks for a stream, and whether they may follow what they ask for.
//!
//! Decided once, on topics as they were decoded and as they are then followed: no text is read a second time, so no spelling can mean
//! one topic here and another there.

use std::borrow::Cow;

use http::HeaderMap;

use crate::{
    auth::{Auth, Denied, Presented, Subscriber, User, presented},
    model::{Topic, UnixMillis},
};

/// Who asks for a stream, by what the request brings.
///
/// # Errors
/// If what it brings is not good, or it brings nothing and nothing is public.
pub(super) fn of_stream(auth: &Auth, headers: &HeaderMap, query: &str, now: UnixMillis) -> Result<Subscriber, Denied> {
    // A browser's EventSource can bring its token in the query or a cookie alone.
    verified(auth, || presented(headers, Some(query), auth.cookie()), now)
}

/// The same, of a call.
///
/// # Errors
/// As [`of_stream`].
pub(super) fn of_call(auth: &Auth, metadata: &HeaderMap, now: UnixMillis) -> Result<Subscriber, Denied> {
    verified(auth, || presented(metadata, None, None), now)
}

fn verified<'a>(
    auth: &Auth,
    token: impl FnOnce() -> Result<Option<Cow<'a, str>>, Denied>,
    now: UnixMillis,
) -> Result<Subscriber, Denied> {
    // Where nobody is asked it does not matter what comes.
    let token = if auth.is_open() { None } else { token()? };
    let presented = Presented {
        token: token.as_deref(),
        ..Presented::default()
    };
    auth.subscriber(&presented, now)
}

/// The user whose inbox is followed: the token's. Who they say they are counts in an open node alone; elsewhere it may only say the same.
///
/// # Errors
/// If they say that they are somebody else.
pub(super) fn user(auth: &Auth, subscriber: &Subscriber, claimed: Option<User>) -> Result<Option<User>, Denied> {
    let user = subscriber.user();
    match claimed {
        claimed if auth.is_open() => Ok(claimed),
        Some(claimed) if user != Some(&claimed) => Err(refused(subscriber, claimed.inbox())),
        _ => Ok(user.cloned()),
    }
}

/// Whether all of these may be followed.
///
/// # Errors
/// Names the first that may not.
pub(super) fn may_follow(subscriber: &Subscriber, topics: &[Topic]) -> Result<(), Denied> {
    match topics.iter().find(|topic| !subscriber.may_follow(topic)) {
        None => Ok(()),
        Some(topic) => Err(refused(subscriber, topic)),
    }
}

/// Whoever is anonymous might be let in with a token; whoever has brought one is not.
fn refused(subscriber: &Subscriber, topic: &Topic) -> Denied {
    match subscriber.lease() {
        None => Denied::Missing,
        Some(_) => Denied::Topic { topic: topic.clone() },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::{Lease, Pattern, Patterns, TokenFacts};

    fn topic(text: &str) -> Topic {
        Topic::parse(text).expect("a topic")
    }

    fn caller(user: Option<&str>, follow: &[&str]) -> Subscriber {
        let user = user.map(|id| User::unverified(id).expect("valid"));
        let patterns: Vec<_> = follow
            .iter()
            .map(|text| Pattern::parse(text).expect("a pattern"))
            .collect();
        let subject = user.as_ref().map(|user| user.id().into());
        let lease = user.as_ref().map(|_| {
            Arc::new(Lease {
                notice: UnixMillis(0),
                ends: UnixMillis(0),
                token: TokenFacts::default(),
            })
        });
        Subscriber::granted(user, Patterns::new(patterns, subject), lease)
    }

    #[test]
    fn a_user_follows_their_inbox_and_what_was_granted() {
        let caller = caller(Some("7"), &["orders/*"]);
        assert_eq!(may_follow(&caller, &[topic("user:7"), topic("orders/1")]), Ok(()));
        for other in [
            "user:8",
            "user:77",
            "User:7",
            "user:7/",
            "user:7.",
            "orders",
            "orders/1/2",
            "user:",
        ] {
            let denied = Denied::Topic { topic: topic(other) };
            assert_eq!(
                may_follow(&caller, &[topic("user:7"), topic(other)]),
                Err(denied),
                "{other}"
            );
        }
    }

    #[test]
    fn the_anonymous_follow_what_is_public_and_are_asked_for_a_token() {
        let caller = caller(None, &["news/*"]);
        assert_eq!(may_follow(&caller, &[topic("news/a")]), Ok(()));
        for other in ["user:7", "orders", "news/a/b"] {
            assert_eq!(
                may_follow(&caller, &[topic("news/a"), topic(other)]),
                Err(Denied::Missing)
            );
        }
    }
}
