//! Topics.

use std::{fmt, sync::Arc};

/// What events are published to and followed by: 1 to 255 bytes of `A-Z a-z 0-9 . _ ~ - : / @`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The longest a topic may be, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks a topic's text.
    ///
    /// # Errors
    /// If it is empty, too long, or holds a character that topics do not have.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(TopicError::TooLong { bytes: text.len() });
        }
        if text.bytes().all(Self::allows) {
            return Ok(Self(text.into()));
        }
        let mut characters = text.char_indices();
        let other = characters.find(|&(_, c)| !u8::try_from(c).is_ok_and(Self::allows));
        let (at, found) = other.unwrap_or_default();
        Err(TopicError::Character { found, at })
    }

    /// The inbox of a user: `user:<id>`.
    ///
    /// # Errors
    /// If the id holds a character that topics do not have, is empty, or is too long.
    pub fn inbox(user: &str) -> Result<Self, TopicError> {
        if user.is_empty() {
            return Err(TopicError::Empty);
        }
        Self::parse(&format!("user:{user}"))
    }

    /// Where revocations are: a topic of the service itself.
    #[must_use]
    pub fn revocations() -> Self {
        Self("tidings.revocations".into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of the service's own, `tidings.…`: nobody publishes to these or follows them from outside.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with("tidings.")
    }

    const fn allows(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-' | b':' | b'/' | b'@')
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It is empty.
    #[error("a topic has 1 to 255 bytes; this one is empty")]
    Empty,
    /// It is too long.
    #[error("a topic has 1 to 255 bytes; this one has {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It holds a character that topics do not have.
    #[error("a topic has only `A-Z a-z 0-9 . _ ~ - : / @`; this one has {found:?} at byte {at}")]
    Character {
        /// The first such character.
        found: char,
        /// Where it is, in bytes.
        at: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn accepts_exactly_the_alphabet(text in "[A-Za-z0-9._~:/@-]{1,255}") {
            let topic = Topic::parse(&text).expect("in the alphabet");
            prop_assert_eq!(topic.as_str(), text.as_str());
        }

        #[test]
        fn never_accepts_anything_else(text in any::<String>()) {
            if let Ok(topic) = Topic::parse(&text) {
                prop_assert!((1..=255).contains(&text.len()));
                prop_assert!(topic.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-:/@".contains(&b)));
            }
        }
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(Topic::parse(""), Err(TopicError::Empty));
        assert_eq!(Topic::parse(&"a".repeat(256)), Err(TopicError::TooLong { bytes: 256 }));
        assert_eq!(Topic::parse("a b"), Err(TopicError::Character { found: ' ', at: 1 }));
        assert_eq!(Topic::inbox(""), Err(TopicError::Empty));
        let own = Topic::revocations();
        assert!(own.is_reserved() && Topic::parse(own.as_str()) == Ok(own.clone()));
    }
}
