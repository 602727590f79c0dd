//! Templates: how streams of a server are asked for and how it is published to, so that any event-stream server is measured by the same
//! tool. Tidings itself is the one that is built in; those of others are in `loadtest/peers/`.
//!
//! An event is always found by the `~` at both ends of its payload, whatever a server wraps around it.

mod text;

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

pub use self::text::{Place, Spelling, Text};
use crate::payload::Key;

/// How a server is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// What it is called.
    pub name: String,

    /// Where it listens, unless told otherwise.
    pub server: Server,

    /// What its topics are called.
    #[serde(default)]
    pub names: Names,

    /// How a stream is opened.
    pub stream: Stream,

    /// How an event is published.
    pub publish: Publish,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// For streams.
    pub streams: SocketAddr,

    /// For publishing.
    pub publish: SocketAddr,
}

/// What topics are called at the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Names {
    /// What comes before the number of a user, in the name of that user's inbox.
    pub inbox: String,

    /// What comes before the number of a shared topic.
    pub shared: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            inbox: "i".to_owned(),
            shared: "t".to_owned(),
        }
    }
}

/// How a stream is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// The method of the request.
    #[serde(default = "get")]
    pub method: String,

    /// Its path and query, with `{topics}` for all that is followed, or `{topic}` where it can be one only. `?` and `&` at its end, after
    /// which nothing came, are left out.
    pub path: Text,

    /// How several are written in place of `{topics}`.
    #[serde(default)]
    pub topics: Topics,

    /// Headers. One whose place has nothing (`{token}`, `{last_event_id}`) is left out.
    #[serde(default)]
    pub headers: Headers,

    /// What the answer has to be.
    #[serde(default)]
    pub answer: Answer,
}

/// How all that a stream follows is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// One, with `{topic}`.
    pub each: Text,

    /// What stands between two.
    pub join: String,

    /// How the user's own inbox is asked for, with `{user}`, where that is another way than for a topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox: Option<Text>,

    /// Whether a token says whose inbox is followed, so that nobody asks for it.
    #[serde(default)]
    pub inbox_by_token: bool,

    /// The most that one stream can follow; 0 for no limit.
    #[serde(default)]
    pub most: usize,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            each: literal("topic={topic:url}"),
            join: "&".to_owned(),
            inbox: None,
            inbox_by_token: false,
            most: 0,
        }
    }
}

/// What the answer to a stream's request has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    /// The status.
    pub status: u16,

    /// The media type: the content type without its parameters.
    pub content_type: String,

    /// How the body is framed.
    pub transfer: Transfer,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: 200,
            content_type: "text/event-stream".to_owned(),
            transfer: Transfer::Chunked,
        }
    }
}

/// How a stream's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transfer {
    /// In chunks.
    Chunked,
    /// Not at all: it ends with the connection.
    Identity,
}

/// How an event is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Publish {
    /// Over gRPC, as Tidings has it.
    Grpc,
    /// Over HTTP/1.1.
    Http(Box<Http>),
}

/// A publish request over HTTP/1.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The request for one event, with `{topic}` and `{payload}`.
    #[serde(flatten)]
    pub request: Request,

    /// The request for several, where the server has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,

    /// Statuses that mean: it has the event.
    #[serde(default = "ok")]
    pub acknowledged: Vec<u16>,

    /// What is in the body of an answer that refuses an event for all that its status says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,

    /// Connections over which publishing is spread, each kept alive.
    #[serde(default = "one")]
    pub connections: usize,

    /// Requests that one connection may have in flight: more than one only where the server takes pipelined requests.
    #[serde(default = "one")]
    pub pipelined: usize,
}

/// A request over HTTP/1.1. Its length and the host are added to its headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The method.
    #[serde(default = "post")]
    pub method: String,

    /// The path and query.
    pub path: Text,

    /// Headers. One whose place has nothing (`{token}`, `{key}`) is left out.
    #[serde(default)]
    pub headers: Headers,

    /// The body.
    pub body: Text,
}

/// A publish request for several events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The request, with `{items}` in its body.
    #[serde(flatten)]
    pub request: Request,

    /// One event of it, with `{topic}` and `{payload}`.
    pub each: Text,

    /// What stands between two.
    pub join: String,

    /// The most events of one request.
    pub most: usize,
}

/// Headers by their names.
pub type Headers = std::collections::BTreeMap<String, Text>;

/// What a stream is opened with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The user whose inbox is followed.
    pub user: Option<u32>,
    /// The numbers of the shared topics that are followed.
    pub shared: &'a [u32],
    /// The bearer token.
    pub token: Option<&'a str>,
    /// The id of the last event that was seen.
    pub last_event_id: Option<&'a [u8]>,
}

impl Template {
    /// Tidings: streams over HTTP, publishing over gRPC.
    #[must_use]
    pub fn tidings() -> Self {
        Self::parse(include_str!("../peers/tidings.toml")).expect("the template that is built in is one")
    }

    /// The smallest server that there can be: see [`raw`](crate::raw).
    #[must_use]
    pub fn raw() -> Self {
        Self::parse(include_str!("../peers/raw.toml")).expect("the template that is built in is one")
    }

    /// Reads the template of a file.
    ///
    /// # Errors
    /// If there is no such file, or it is no template.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no template", path.display()))
    }

    /// Reads a template.
    ///
    /// # Errors
    /// If it is none: an unknown key, a place that cannot be filled there.
    pub fn parse(text: &str) -> Result<Self> {
        let template: Self = toml::from_str(text)?;
        template.check()?;
        Ok(template)
    }

    fn check(&self) -> Result<()> {
        let Stream {
            path, topics, headers, ..
        } = &self.stream;
        const ASKED: [Place; 3] = [Place::User, Place::Token, Place::LastEventId];
        path.only("stream.path", &[&[Place::Topics, Place::Topic][..], &ASKED].concat())?;
        ensure!(
            path.has(Place::Topics) != path.has(Place::Topic),
            "`stream.path` has {{topics}} where a stream can follow several, or else {{topic}}: `{path}`"
        );
        topics.each.only("stream.topics.each", &[Place::Topic])?;
        ensure!(
            topics.each.has(Place::Topic),
            "`stream.topics.each` has {{topic}}: `{}`",
            topics.each
        );
        if let Some(inbox) = &topics.inbox {
            inbox.only("stream.topics.inbox", &[Place::User])?;
        }
        for (name, value) in headers {
            value.only(&format!("stream.headers.{name}"), &ASKED)?;
        }
        match &self.publish {
            Publish::Grpc => Ok(()),
            Publish::Http(http) => http.check(),
        }
    }

    /// What the server calls a topic.
    #[must_use]
    pub fn name(&self, key: Key) -> String {
        self.names.of(key)
    }

    /// The most topics that one stream can follow, the inbox among them.
    #[must_use]
    pub fn most_topics(&self) -> usize {
        match self.stream.topics.most {
            _ if self.stream.path.has(Place::Topic) => 1,
            0 => usize::MAX,
            most => most,
        }
    }

    /// Adds to `into` the request that opens a stream at this server.
    ///
    /// # Errors
    /// If one stream of this server cannot follow so many topics.
    pub fn ask(&self, host: SocketAddr, asked: &Asked<'_>, into: &mut Vec<u8>) -> Result<()> {
        let Stream {
            method,
            path,
            topics,
            headers,
            ..
        } = &self.stream;
        let user = asked.user.map(|user| user.to_string());
        let (mut followed, mut last, mut count) = (Vec::new(), String::new(), 0);
        let mut follow = |text: &Text, topic: &str| {
            if count > 0 {
                followed.extend_from_slice(topics.join.as_bytes());
            }
            let value = |place| match place {
                Place::User => user.as_deref().map(str::as_bytes),
                _ => Some(topic.as_bytes()),
            };
            text.fill(&mut followed, value);
            topic.clone_into(&mut last);
            count += 1;
        };
        match (asked.user, asked.token) {
            (Some(_), Some(_)) if topics.inbox_by_token => {}
            (Some(user), _) => {
                let text = topics.inbox.as_ref().unwrap_or(&topics.each);
                follow(text, &self.names.of(Key::Inbox(user)));
            }
            (None, _) => {}
        }
        for &number in asked.shared {
            follow(&topics.each, &self.names.of(Key::Shared(number)));
        }
        ensure!(
            count <= self.most_topics(),
            "a stream of {} follows {} topics at most, not {count}",
            self.name,
            self.most_topics()
        );
        let value = |place| match place {
            Place::Topics => Some(&followed[..]),
            Place::Topic => Some(last.as_bytes()),
            Place::User => user.as_deref().map(str::as_bytes),
            Place::Token => asked.token.map(str::as_bytes),
            Place::LastEventId => asked.last_event_id,
            _ => None,
        };
        into.extend_from_slice(method.as_bytes());
        into.push(b' ');
        path.fill(into, value)
            .with_context(|| format!("`stream.path` has places that nothing is there for: `{path}`"))?;
        while matches!(into.last(), Some(b'?' | b'&')) {
            into.pop();
        }
        into.extend_from_slice(b" HTTP/1.1\r\n");
        add_headers(headers, host, value, into);
        into.extend_from_slice(b"\r\n");
        Ok(())
    }
}

impl Names {
    /// What a topic is called.
    #[must_use]
    pub fn of(&self, key: Key) -> String {
        match key {
            Key::Inbox(user) => format!("{}{user}", self.inbox),
            Key::Shared(number) => format!("{}{number}", self.shared),
        }
    }
}

impl Http {
    fn check(&self) -> Result<()> {
        const EVENT: [Place; 3] = [Place::Topic, Place::Payload, Place::Key];
        let check = |name: &str, request: &Request, places: &[Place]| {
            request.path.only(&format!("{name}.path"), places)?;
            request.body.only(&format!("{name}.body"), places)?;
            for (header, value) in &request.headers {
                let places = [&[Place::Token, Place::Payload][..], places].concat();
                value.only(&format!("{name}.headers.{header}"), &places)?;
            }
            anyhow::Ok(())
        };
        check("publish.http", &self.request, &EVENT)?;
        let has = |place| self.request.path.has(place) || self.request.body.has(place);
        ensure!(
            has(Place::Topic) && has(Place::Payload),
            "`publish.http` has {{topic}} and {{payload}} in its path or its body"
        );
        if let Some(batch) = &self.batch {
            check("publish.http.batch", &batch.request, &[Place::Items])?;
            batch.each.only("publish.http.batch.each", &EVENT)?;
            ensure!(
                batch.request.body.has(Place::Items),
                "`publish.http.batch.body` has {{items}}: `{}`",
                batch.request.body
            );
            ensure!(batch.most > 0, "`publish.http.batch.most` is at least 1");
        }
        ensure!(
            self.connections > 0 && self.pipelined > 0,
            "`publish.http.connections` and `publish.http.pipelined` are at least 1"
        );
        ensure!(
            !self.acknowledged.is_empty(),
            "`publish.http.acknowledged` names at least one status"
        );
        Ok(())
    }
}

impl Request {
    /// Adds to `into` the request to this host. `scratch` is for its body, and left empty.
    pub fn render<'a>(
        &self,
        host: SocketAddr,
        value: impl Fn(Place) -> Option<&'a [u8]>,
        scratch: &mut Vec<u8>,
        into: &mut Vec<u8>,
    ) {
        scratch.clear();
        self.body.fill(scratch, &value);
        into.extend_from_slice(self.method.as_bytes());
        into.push(b' ');
        self.path.fill(into, &value);
        into.extend_from_slice(b" HTTP/1.1\r\n");
        add_headers(&self.headers, host, &value, into);
        into.extend_from_slice(format!("content-length: {}\r\n\r\n", scratch.len()).as_bytes());
        into.append(scratch);
    }
}

fn add_headers<'a>(headers: &Headers, host: SocketAddr, value: impl Fn(Place) -> Option<&'a [u8]>, into: &mut Vec<u8>) {
    if !headers.keys().any(|name| name.eq_ignore_ascii_case("host")) {
        into.extend_from_slice(format!("host: {host}\r\n").as_bytes());
    }
    for (name, text) in headers {
        let before = into.len();
        into.extend_from_slice(name.as_bytes());
        into.extend_from_slice(b": ");
        match text.fill(into, &value) {
            Some(()) => into.extend_from_slice(b"\r\n"),
            None => into.truncate(before),
        }
    }
}

fn literal(text: &str) -> Text {
    Text::parse(text).expect("a text of this file is one")
}

fn get() -> String {
    "GET".to_owned()
}

fn post() -> String {
    "POST".to_owned()
}

fn ok() -> Vec<u16> {
    vec![200]
}

const fn one() -> usize {
    1
}

#[cfg(test)]
mod tests;
