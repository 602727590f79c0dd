//! Who asks for a stream, and whether they may follow what they ask for.
//!
//! Decided once, on topics as they were decoded and as they are then followed: no text is read a second time, so no spelling can mean
//! one topic here and another there.

use std::borrow::Cow;

use http::{HeaderMap, header};

use crate::{
    auth::{Auth, Denied, Presented, Subscriber, User},
    model::{Topic, UnixMillis},
};

/// Who asks, by what the request brings.
///
/// # Errors
/// If what it brings is not good.
pub(super) fn subscriber(auth: &Auth, headers: &HeaderMap, query: &str, now: UnixMillis) -> Result<Subscriber, Denied> {
    if auth.is_open() {
        return Ok(Subscriber::unverified(None));
    }
    let token = token(headers, query)?;
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
    match subscriber.user() {
        None => Denied::Missing,
        Some(_) => Denied::Topic { topic: topic.clone() },
    }
}

fn token<'a>(headers: &'a HeaderMap, query: &'a str) -> Result<Option<Cow<'a, str>>, Denied> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    match (given.next(), given.next()) {
        (None, _) => {}
        (Some(_), Some(_)) => return Err(Denied::Ambiguous),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| Denied::Malformed)?;
            let (scheme, token) = text.split_once(' ').ok_or(Denied::Malformed)?;
            if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
                return Err(Denied::Malformed);
            }
            return Ok(Some(token.trim().into()));
        }
    }
    let mut given = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "token");
    match (given.next(), given.next()) {
        (_, Some(_)) => Err(Denied::Ambiguous),
        (first, None) => Ok(first.map(|(_, value)| value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Pattern, Patterns};

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
        Subscriber::granted(user, Patterns::new(patterns, subject), None)
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
