//! What a stream's request asks for: query and `Last-Event-ID`, as topics and a place to begin.
//!
//! | parameter | meaning |
//! |---|---|
//! | `topic` | a topic to follow; may be repeated |
//! | `user` | who is asking; their inbox is followed too and does not count as a topic. Believed in open mode alone: elsewhere it is the token's user or refused |
//! | `token` | a token, for clients that cannot set a header; read by `auth` alone |
//! | `last_event_id` | where to go on, for clients that cannot set the header first; the header wins |
//! | `since` | where to begin without a cursor: a duration (`10m`) or `earliest` |
//! | `redirect` | `1`: the client can be sent to the edge where the stream belongs |
//! | `redirected` | when it was, in seconds since 1970; set by the edge that did so |
//!
//! The query is read as `URLSearchParams` reads it. Other parameters (`route`, cache busters) are ignored.

use std::{borrow::Cow, time::Duration};

use crate::{
    auth::User,
    hub::{Follow, Start},
    model::{Cursor, Topic, TopicError, UnixMillis},
};

/// A stream's request that makes sense, as far as it can be told without knowing whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRequest {
    /// What to follow, and from where; without the inbox of who is asking until that is known, and so perhaps nothing.
    pub follow: Follow,
    /// Who is asking, if they say.
    pub user: Option<User>,
    /// Whether the query holds a token: then it goes nowhere else.
    pub has_token: bool,
    /// Whether the client can be sent elsewhere: only if it says so. A browser's EventSource would go there for ever.
    pub redirect: bool,
    /// When it was sent here, in seconds since 1970, if it was.
    pub redirected: Option<u64>,
}

impl StreamRequest {
    /// The same as the request of this user: their inbox is followed too.
    ///
    /// # Errors
    /// If there is nothing to follow.
    pub fn of(mut self, user: Option<User>) -> Result<Self, RequestError> {
        let topics = &mut self.follow.topics;
        if let Some(inbox) = user.as_ref().map(User::inbox)
            && !topics.contains(inbox)
        {
            topics.push(inbox.clone());
        }
        if topics.is_empty() {
            return Err(RequestError::NoTopic);
        }
        self.user = user;
        Ok(self)
    }

    /// The topic whose slot decides where the stream belongs.
    #[must_use]
    pub fn routing_topic(&self) -> Option<&Topic> {
        self.user.as_ref().map(User::inbox).or(self.follow.topics.first())
    }

    /// Whether the client can be sent elsewhere, by way of an address that holds the whole query: never with a token in it.
    #[must_use]
    pub const fn is_movable(&self) -> bool {
        self.redirect && !self.has_token
    }

    /// Reads a request.
    ///
    /// `last_event_id` is the header's value as it came: UTF-8 if this service issued it, and [`Start::Unknown`] if it did not.
    ///
    /// # Errors
    /// If a parameter is wrong.
    pub fn parse(
        query: &str,
        last_event_id: Option<&[u8]>,
        max_topics: usize,
        now: UnixMillis,
    ) -> Result<Self, RequestError> {
        let mut topics = Vec::new();
        let (mut user, mut cursor, mut since) = (None, None, None);
        let (mut redirect, mut redirected, mut has_token) = (None, None, false);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "topic" => add(&mut topics, &value, max_topics)?,
                // Of a repeated parameter the first counts, as with `URLSearchParams.get`.
                "user" => user = user.or(Some(value)),
                "last_event_id" => cursor = cursor.or(Some(value)),
                "since" => since = since.or(Some(value)),
                "redirect" => redirect = redirect.or(Some(value)),
                "redirected" => redirected = redirected.or(Some(value)),
                "token" => has_token = true,
                _ => {}
            }
        }
        let user = user.map(|id| read_user(&id)).transpose()?;
        let since = since.map(|text| begin(&text, now)).transpose()?;
        let start = resume(last_event_id)
            .or_else(|| resume(cursor.as_deref().map(str::as_bytes)))
            .or(since)
            .unwrap_or(Start::Now);
        Ok(Self {
            follow: Follow { topics, start },
            user,
            has_token,
            redirect: redirect.as_deref() == Some("1"),
            redirected: redirected.and_then(|seconds| seconds.parse().ok()),
        })
    }
}

/// Who says they ask, of `user=42`: the first counts, as in [`StreamRequest::parse`].
///
/// # Errors
/// If it makes no sense.
pub(super) fn claimed_user(query: &str) -> Result<Option<User>, RequestError> {
    first(query, "user").map(|id| read_user(&id)).transpose()
}

/// The first topic, of `topic=orders&topic=news`.
///
/// # Errors
/// If there is none, or it makes no sense.
pub(super) fn first_topic(query: &str) -> Result<Topic, RequestError> {
    read_topic(&first(query, "topic").ok_or(RequestError::NoPlace)?)
}

fn first<'a>(query: &'a str, wanted: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == wanted)
        .map(|(_, value)| value)
}

fn read_user(id: &str) -> Result<User, RequestError> {
    User::unverified(id).map_err(|cause| RequestError::User { cause })
}

/// A topic that can be followed from outside.
fn read_topic(text: &str) -> Result<Topic, RequestError> {
    let topic = Topic::parse(text).map_err(|cause| RequestError::Topic {
        text: excerpt(text),
        cause,
    })?;
    if topic.is_reserved() {
        return Err(RequestError::Reserved { topic });
    }
    Ok(topic)
}

fn add(topics: &mut Vec<Topic>, text: &str, max_topics: usize) -> Result<(), RequestError> {
    let topic = read_topic(text)?;
    if topics.contains(&topic) {
        return Ok(());
    }
    if topics.len() == max_topics {
        return Err(RequestError::TooManyTopics { max: max_topics });
    }
    topics.push(topic);
    Ok(())
}

/// Where a cursor's text resumes; `None` if there is none.
pub(super) fn resume(text: Option<&[u8]>) -> Option<Start> {
    let text = text?.trim_ascii();
    if text.is_empty() {
        return None;
    }
    let cursor = std::str::from_utf8(text).ok().and_then(|text| Cursor::parse(text).ok());
    Some(cursor.map_or(Start::Unknown, Start::After))
}

fn begin(text: &str, now: UnixMillis) -> Result<Start, RequestError> {
    match text {
        "earliest" => Ok(Start::Earliest),
        _ => humantime::parse_duration(text)
            .map(|ago: Duration| Start::Since(now.before(ago)))
            .map_err(|_| RequestError::Since { text: excerpt(text) }),
    }
}

/// Enough of a wrong value to recognise it by.
fn excerpt(text: &str) -> String {
    const CHARS: usize = 80;
    let mut excerpt: String = text.chars().take(CHARS).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    excerpt
}

/// Why a stream's request makes no sense. Final: asking again is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is nothing to follow.
    #[error("name at least one topic: ?topic=orders&topic=quakes/ak")]
    NoTopic,
    /// Nobody's place is asked for.
    #[error("name the user or the first topic of the stream: ?user=42 or ?topic=orders")]
    NoPlace,
    /// A topic is none.
    #[error("{text:?} is not a topic: {cause}")]
    Topic {
        /// What came instead, or its beginning.
        text: String,
        /// What is wrong with it.
        cause: TopicError,
    },
    /// A topic is the service's own.
    #[error("{topic} is this service's own: topics that begin with `tidings.` cannot be followed")]
    Reserved {
        /// Which one.
        topic: Topic,
    },
    /// There are too many.
    #[error("one stream follows at most {max} topics: open a second one")]
    TooManyTopics {
        /// How many there may be.
        max: usize,
    },
    /// The user is none.
    #[error("not a user: {cause}")]
    User {
        /// What is wrong with the id.
        cause: TopicError,
    },
    /// The time to begin at is none.
    #[error("{text:?} is not a time to begin at: give a duration such as 30s, 10m, 2h or 7d, or earliest")]
    Since {
        /// What came instead, or its beginning.
        text: String,
    },
}

impl RequestError {
    /// The parameter that is wrong.
    #[must_use]
    pub const fn parameter(&self) -> &'static str {
        match self {
            Self::NoTopic | Self::Topic { .. } | Self::Reserved { .. } | Self::TooManyTopics { .. } => "topic",
            Self::User { .. } | Self::NoPlace => "user",
            Self::Since { .. } => "since",
        }
    }
}

/// `Last-Event-ID`, if it came. A header that is there twice is as good as none of this service's.
pub(super) fn last_event_id(headers: &http::HeaderMap) -> Option<Cow<'_, [u8]>> {
    let mut values = headers.get_all("last-event-id").iter();
    let first = values.next()?.as_bytes();
    Some(match values.next() {
        None => Cow::Borrowed(first),
        Some(_) => Cow::Borrowed(b"?"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn parse(query: &str, header: Option<&str>) -> Result<StreamRequest, RequestError> {
        let request = StreamRequest::parse(query, header.map(str::as_bytes), 4, NOW)?;
        let user = request.user.clone();
        request.of(user)
    }

    fn topics(query: &str) -> Vec<String> {
        let request = parse(query, None).expect("valid");
        request.follow.topics.iter().map(ToString::to_string).collect()
    }

    fn start(query: &str, header: Option<&str>) -> Start {
        parse(&format!("topic=t&{query}"), header).expect("valid").follow.start
    }

    fn after(text: &str) -> Start {
        Start::After(Cursor::parse(text).expect("a cursor"))
    }

    #[test]
    fn topics_are_decoded_and_merged() {
        assert_eq!(topics("topic=a&topic=b&topic=a&x=y&route=7&_=1"), ["a", "b"]);
        assert_eq!(topics("topic=quakes%2Fak&&topic=a%3Ab"), ["quakes/ak", "a:b"]);
        assert_eq!(topics("top%69c=a"), ["a"]);
        assert_eq!(topics("user=42&topic=a"), ["a", "user:42"]);
        assert_eq!(topics("user=42&topic=user:42&user=43"), ["user:42"]);
        assert_eq!(topics("user=42"), ["user:42"]);
        assert_eq!(topics("topic=a&topic=b&topic=c&topic=d&topic=d&user=1").len(), 5);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, parameter) in [
            ("", "topic"),
            ("topics=a", "topic"),
            ("topic=", "topic"),
            ("topic=a+b", "topic"),
            ("topic=a&topic=%ff", "topic"),
            ("topic=%zz", "topic"),
            ("topic=a&topic=tidings.revocations", "topic"),
            ("topic=tidings%2Erevocations", "topic"),
            ("topic=user:7%00", "topic"),
            ("topic=user%3A7%0d%0a", "topic"),
            ("topic=user%EF%BC%9A7", "topic"),
            ("topic=a&topic=b&topic=c&topic=d&topic=e", "topic"),
            ("topic=a&user=", "user"),
            ("topic=a&user=a%20b", "user"),
            ("topic=a&since=", "since"),
            ("topic=a&since=yesterday", "since"),
            ("topic=a&since=10", "since"),
            ("topic=a&since=-1m", "since"),
        ] {
            let error = parse(query, None).expect_err(query);
            assert_eq!(error.parameter(), parameter, "{query}: {error}");
        }
        let error = parse(&format!("topic={}", "ä".repeat(200)), None).expect_err("too long");
        assert!(error.to_string().len() < 400, "{error}");
    }

    #[test]
    fn where_it_begins() {
        let (one, two) = ("1-1.1", "1-1.2");
        assert_eq!(start("", None), Start::Now);
        assert_eq!(start("", Some(one)), after(one));
        assert_eq!(start("last_event_id=1-1.1", None), after(one));
        assert_eq!(start("last_event_id=1-1.1", Some(two)), after(two));
        assert_eq!(start("last_event_id=1-1.1", Some("")), after(one));
        assert_eq!(start("last_event_id=", Some("")), Start::Now);
        assert_eq!(start("last_event_id=&since=earliest", None), Start::Earliest);
        assert_eq!(start("since=10m", None), Start::Since(UnixMillis(400_000)));
        assert_eq!(start("since=10000d", None), Start::Since(UnixMillis(0)));
        assert_eq!(start("since=earliest", Some(one)), after(one));
        assert_eq!(start("", Some("42")), Start::Unknown);
        assert_eq!(start("last_event_id=1-1.1", Some("garbage")), Start::Unknown);
        let request = StreamRequest::parse("topic=t", Some(b"\xff\xfe"), 4, NOW).expect("never an error");
        assert_eq!(request.follow.start, Start::Unknown);
    }

    #[test]
    fn only_who_says_so_can_be_sent_elsewhere() {
        let asked = |query: &str| {
            let request = parse(query, None).expect("valid");
            let topic = request.routing_topic().expect("a topic").to_string();
            (topic, request.is_movable(), request.redirected)
        };
        assert_eq!(asked("topic=b&topic=a"), ("b".to_owned(), false, None));
        assert_eq!(asked("topic=b&user=7&redirect=1"), ("user:7".to_owned(), true, None));
        assert_eq!(
            asked("topic=b&redirect=true&redirected=x"),
            ("b".to_owned(), false, None)
        );
        assert_eq!(
            asked("topic=b&redirect=1&redirected=12"),
            ("b".to_owned(), true, Some(12))
        );
        // The address that it would be sent to would hold the token.
        assert_eq!(asked("topic=b&redirect=1&token=x"), ("b".to_owned(), false, None));
        assert_eq!(asked("topic=b&tok%65n=&redirect=1"), ("b".to_owned(), false, None));
    }

    #[test]
    fn a_place_is_a_users_or_a_topics() {
        for (query, want) in [
            ("user=42", Ok("user:42")),
            ("topic=a&user=42", Ok("user:42")),
            ("topic=quakes%2Fak&topic=b", Ok("quakes/ak")),
            ("slot=3", Err("user")),
            ("topic=a%20b", Err("topic")),
            ("topic=tidings.x", Err("topic")),
            ("user=&topic=a", Err("user")),
        ] {
            let place = || match claimed_user(query)? {
                Some(user) => Ok(user.inbox().clone()),
                None => first_topic(query),
            };
            let got = place()
                .map(|topic| topic.to_string())
                .map_err(|error: RequestError| error.parameter());
            assert_eq!(got.as_deref().map_err(|parameter| *parameter), want, "{query}");
        }
    }

    #[test]
    fn a_doubled_header_is_unknown() {
        let mut headers = http::HeaderMap::new();
        assert_eq!(last_event_id(&headers), None);
        headers.append("last-event-id", http::HeaderValue::from_static("1-1.1"));
        assert_eq!(last_event_id(&headers).as_deref(), Some(&b"1-1.1"[..]));
        headers.append("last-event-id", http::HeaderValue::from_static("1-1.1"));
        assert_eq!(resume(last_event_id(&headers).as_deref()), Some(Start::Unknown));
    }

    proptest! {
        #[test]
        fn any_query_is_a_request_or_an_error(query in any::<String>(), header in any::<Option<Vec<u8>>>()) {
            if let Ok(request) = StreamRequest::parse(&query, header.as_deref(), 4, NOW) {
                prop_assert!(request.follow.topics.len() <= 4);
                prop_assert!(request.follow.topics.iter().all(|topic| !topic.is_reserved()));
            }
        }

        #[test]
        fn hard_queries_are_requests_or_errors(
            parts in prop::collection::vec(prop::sample::select(vec![
                "topic", "user", "since", "last_event_id", "=", "&", "%", "%2", "%2F", "+", "a", "10m", "earliest", "1-1.1", "\u{0}", "ä", ";", "#",
            ]), 0..24),
        ) {
            let _ = StreamRequest::parse(&parts.concat(), None, 4, NOW);
        }

        #[test]
        fn encoding_round_trips(names in prop::collection::hash_set("[A-Za-z0-9._~:/@-]{1,20}", 1..=4)) {
            let mut query = form_urlencoded::Serializer::new(String::new());
            for name in &names {
                query.append_pair("topic", name);
            }
            let request = parse(&query.finish(), None).expect("valid");
            let got: std::collections::HashSet<String> = request.follow.topics.iter().map(ToString::to_string).collect();
            prop_assert_eq!(got, names);
        }
    }
}
