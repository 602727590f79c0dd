//! Frames: what goes over the wire, byte for byte.
//!
//! The rules are those of the WHATWG event-stream format and of the clients in use:
//!
//! - Lines end with LF alone. CR, LF and CRLF inside a payload each end a `data:` line, so that no payload can forge a field.
//! - `event:` comes first, then one `data:` line per line of the payload (at least one), then `id:`, then the blank line. Some clients note an id
//!   as soon as its line is there. One whose connection breaks within an event must not have it by then: it would come back past what it has not.
//! - What is left of an event without its id line is the same for everyone: it is rendered once, by [`Event::rendered`], and shared.
//! - What this service says itself is in events whose names begin with `tidings.`: `tidings.gap`, with an id, since it moves the cursor, and
//!   `tidings.token_expiring`, without one, since it does not.
//! - Heartbeats and `retry:` are single lines without a blank one after them, which some clients would take for an empty event.
//!
//! Over HTTP/1.1 each of these is a chunk of its own, so that whoever reads whole chunks has each at once ([`Coding`]).

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Version};
use smallvec::SmallVec;

use crate::{
    hub::{Delivery, GapReason},
    model::Event,
};

/// The content type, in lower case: npm `eventsource` compares it with care for case.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// Nobody on the way may keep, gather or rewrite the stream.
pub(super) const CACHE_CONTROL: &str = "no-cache, no-transform";

/// A comment: keeps the connection and whatever is in between from going idle, and means nothing.
pub(super) const HEARTBEAT: &[u8] = b":\n";

/// One delivery, ready to be written: what all share, and what only this connection gets.
#[derive(Debug)]
pub struct Frame {
    /// The lines that are the same for all.
    pub(super) body: Bytes,
    /// What ends it: the id line, unless it is an ephemeral event, and the blank line. Short enough, as a rule, to need no allocation.
    pub(super) end: End,
}

/// See [`Frame::end`]; and what a coding puts after it.
pub(super) type End = SmallVec<[u8; 144]>;

impl Frame {
    /// What a delivery is on the wire; `None` if it is nothing there.
    ///
    /// Becoming level is nothing: an id without an event is ignored by some clients and taken for an empty event by others.
    #[must_use]
    pub fn of(delivery: &Delivery<'_>) -> Option<Self> {
        match *delivery {
            Delivery::Event { event, cursor, .. } => Some(Self {
                body: event.rendered(body).clone(),
                end: end(cursor),
            }),
            Delivery::Gap { reason, cursor } => Some(Self {
                body: Bytes::from_static(gap(reason)),
                end: end(Some(cursor)),
            }),
            Delivery::Level { .. } => None,
        }
    }

    /// Its length, in bytes.
    pub(super) fn len(&self) -> usize {
        self.body.len() + self.end.len()
    }

    /// The frame in one piece.
    pub(super) fn into_bytes(self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.len());
        whole.put_slice(&self.body);
        whole.put_slice(&self.end);
        whole.freeze()
    }
}

/// How an HTTP/1 answer whose length nobody knows tells where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// With a last chunk: `transfer-encoding: chunked`, <https://www.rfc-editor.org/rfc/rfc9112#section-7.1>.
    Chunked,
    /// With the connection, for HTTP/1.0, which has no chunks.
    Identity,
}

impl Coding {
    /// What clients of this version understand.
    pub(super) fn of(version: Version) -> Self {
        if version == Version::HTTP_11 {
            Self::Chunked
        } else {
            Self::Identity
        }
    }

    /// What goes in front of so many bytes: a chunk's size. There is one byte at least: an empty chunk would be the last.
    pub(super) fn front(self, size: usize) -> SmallVec<[u8; 24]> {
        let mut front = SmallVec::new();
        if self == Self::Chunked {
            let digits = 1 + size.max(1).ilog2() / 4;
            for place in (0..digits).rev() {
                front.push(b"0123456789abcdef"[size >> (4 * place) & 0xf]);
            }
            front.extend_from_slice(b"\r\n");
        }
        front
    }

    /// What goes after them.
    pub(super) const fn back(self) -> &'static [u8] {
        match self {
            Self::Chunked => b"\r\n",
            Self::Identity => b"",
        }
    }

    /// The last that a stream says, and its end.
    pub(super) fn end(self, come_back_after: Duration) -> Bytes {
        let mut end = BytesMut::new();
        self.put(&mut end, &retry(come_back_after));
        if self == Self::Chunked {
            end.put_slice(b"0\r\n\r\n");
        }
        end.freeze()
    }

    /// A body as a chunk of its own.
    pub(super) fn whole(self, body: &[u8]) -> Bytes {
        const AROUND: usize = 2 * "\r\n".len() + size_of::<usize>();
        let mut whole = BytesMut::with_capacity(body.len() + AROUND);
        self.put(&mut whole, body);
        whole.freeze()
    }

    /// Adds a body as a chunk of its own.
    pub(super) fn put(self, whole: &mut BytesMut, body: &[u8]) {
        whole.put_slice(&self.front(body.len()));
        whole.put_slice(body);
        whole.put_slice(self.back());
    }
}

/// How long the client is to wait before it comes back.
pub(super) fn retry(after: Duration) -> Bytes {
    Bytes::from(format!("retry: {}\n", after.as_millis()))
}

/// Word that the caller's token is over so soon: time to get another. Without an id, so that the cursor stays what it was: a control event,
/// which is in no log and is never sent again.
pub(super) fn expiring(left: Duration) -> Bytes {
    let left = left.as_millis();
    Bytes::from(format!(
        "event: tidings.token_expiring\ndata: {{\"expires_in_ms\":{left}}}\n\n"
    ))
}

/// What a stream begins with, so that it is known to be open before there is any event.
pub(super) fn opening(retry_after: Duration) -> Bytes {
    let mut opening = BytesMut::from(&retry(retry_after)[..]);
    opening.put_slice(HEARTBEAT);
    opening.freeze()
}

/// The head of an HTTP/1 answer whose body is the stream, after which the connection ends; and the opening.
pub(super) fn http1_head<'a>(
    date: &str,
    headers: impl Iterator<Item = (&'a str, &'a HeaderValue)>,
    coding: Coding,
    retry_after: Duration,
) -> Bytes {
    let mut head = BytesMut::with_capacity(384);
    head.put_slice(b"HTTP/1.1 200 OK\r\n");
    for (name, value) in headers {
        line(&mut head, name, value.as_bytes());
    }
    line(&mut head, "date", date.as_bytes());
    if coding == Coding::Chunked {
        line(&mut head, "transfer-encoding", b"chunked");
    }
    line(&mut head, "connection", b"close");
    head.put_slice(b"\r\n");
    coding.put(&mut head, &opening(retry_after));
    head.freeze()
}

fn line(head: &mut BytesMut, name: &str, value: &[u8]) {
    head.put_slice(name.as_bytes());
    head.put_slice(b": ");
    head.put_slice(value);
    head.put_slice(b"\r\n");
}

fn end(cursor: Option<&str>) -> End {
    let mut end = End::new();
    if let Some(cursor) = cursor {
        end.extend_from_slice(b"id: ");
        end.extend_from_slice(cursor.as_bytes());
        end.push(b'\n');
    }
    end.push(b'\n');
    end
}

fn gap(reason: GapReason) -> &'static [u8] {
    match reason {
        GapReason::Expired => b"event: tidings.gap\ndata: {\"reason\":\"expired\"}\n",
        GapReason::Forked => b"event: tidings.gap\ndata: {\"reason\":\"forked\"}\n",
        GapReason::Unknown => b"event: tidings.gap\ndata: {\"reason\":\"unknown\"}\n",
    }
}

/// An event without its end.
fn body(event: &Event) -> Bytes {
    let mut body = BytesMut::with_capacity(event.data.len() + 64);
    if let Some(event_type) = &event.event_type {
        body.put_slice(b"event: ");
        body.put_slice(event_type.as_str().as_bytes());
        body.put_u8(b'\n');
    }
    let mut rest = event.data.as_bytes();
    loop {
        let end = rest.iter().position(|b| matches!(b, b'\r' | b'\n'));
        let line = &rest[..end.unwrap_or(rest.len())];
        body.put_slice(b"data:");
        if !line.is_empty() {
            // One space after the colon is the reader's to drop: it keeps a leading space of the payload from being it.
            body.put_u8(b' ');
            body.put_slice(line);
        }
        body.put_u8(b'\n');
        let Some(end) = end else { break };
        let break_bytes = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + break_bytes..];
    }
    body.freeze()
}

#[cfg(test)]
mod tests;
