//! What an event of a run carries: which one it is, and when it was due.
//!
//! ```text
//! ~<topic> <number> <nanoseconds> xxxxxxxxxxxx~
//! ```
//!
//! The same for every server: whatever one wraps around a payload, its reader finds the marks. Numbers begin with 1 in each topic, so that a
//! reader tells by them alone what was lost, repeated or out of order. The time is [`now`] when the event was to be sent, not when
//! it was: one who publishes late has that counted as delay.

use std::fmt;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What stands around a payload.
const MARK: u8 = b'~';

/// A topic of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// The inbox of the stream of this number: `i7`.
    Inbox(u32),
    /// A topic that streams share, by its number: `t7`.
    Shared(u32),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbox(stream) => write!(f, "i{stream}"),
            Self::Shared(index) => write!(f, "t{index}"),
        }
    }
}

/// The event that a payload is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// Its topic.
    pub key: Key,
    /// Its number in the topic, from 1.
    pub number: u32,
    /// When it was due, as [`now`] counts.
    pub due: u64,
}

impl Payload {
    /// Its text, of at least so many bytes.
    #[must_use]
    pub fn text(&self, bytes: usize) -> String {
        let Self { key, number, due } = self;
        let mut text = format!("~{key} {number} {due} ");
        text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len() + 1)));
        text.push(char::from(MARK));
        text
    }

    /// The first payload within these bytes, if there is a whole one.
    #[must_use]
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let begin = memchr::memchr(MARK, bytes)? + 1;
        let end = begin + memchr::memchr(MARK, &bytes[begin..])?;
        let mut parts = bytes[begin..end].split(|&byte| byte == b' ');
        let (&kind, index) = parts.next()?.split_first()?;
        let index = digits(index)?;
        Some(Self {
            key: match kind {
                b'i' => Key::Inbox(u32::try_from(index).ok()?),
                b't' => Key::Shared(u32::try_from(index).ok()?),
                _ => return None,
            },
            number: u32::try_from(digits(parts.next()?)?).ok()?,
            due: digits(parts.next()?)?,
        })
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    let add = |number: u64, &digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    (!text.is_empty()).then(|| text.iter().try_fold(0, add)).flatten()
}

/// The time that all processes of this machine share, in nanoseconds from some moment on: `CLOCK_MONOTONIC`.
#[must_use]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let nanoseconds = time.tv_sec * 1_000_000_000 + time.tv_nsec;
    u64::try_from(nanoseconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_found_whatever_is_around_it() {
        for key in [Key::Inbox(0), Key::Inbox(999_999), Key::Shared(7)] {
            let payload = Payload {
                key,
                number: 3,
                due: now(),
            };
            for bytes in [0, 256, 70_000] {
                let text = payload.text(bytes);
                assert!(text.len() >= bytes && text.len() <= bytes.max(60));
                assert_eq!(Payload::find(text.as_bytes()), Some(payload));
                let wrapped = format!("{{\"pub\":{{\"data\":\"{text}\",\"offset\":1}}}}");
                assert_eq!(Payload::find(wrapped.as_bytes()), Some(payload));
                assert_eq!(Payload::find(&text.as_bytes()[..text.len() - 1]), None, "not whole");
            }
        }
        for other in [
            "",
            "~",
            "~~",
            "~x1 1 1 ~",
            "~i1 1~",
            "~i 1 1 ~",
            "~i1 -1 1 ~",
            "~i1 1 99999999999999999999 ~",
        ] {
            assert_eq!(Payload::find(other.as_bytes()), None, "{other}");
        }
    }
}
