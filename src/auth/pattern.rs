//! Patterns of topics: what a claim, a publisher's entry or the public list grants.
//!
//! | in a pattern | stands for |
//! |---|---|
//! | `*` | one or more characters, without `/` |
//! | `**` | one or more characters, with `/` |
//! | `{sub}` | the user of the token, letter by letter |
//! | anything else | itself |
//!
//! `{sub}` and a star do not touch: `user:{sub}*` would grant to `bo` what belongs to `bob`.
//!
//! An inbox (`user:<id>`) is granted only by a pattern that begins with `user:`: `**` grants every topic but those. Topics of this service
//! itself (`tidings.…`) are granted by nothing.

use std::{fmt, sync::Arc};

use crate::model::Topic;

/// What stands for the user of the token.
const SUBJECT: &str = "{sub}";
/// What every inbox begins with.
const INBOX: &str = "user:";

/// A pattern of topics; `{sub}` is still to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<[Piece]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Subject,
    /// `*`
    Segment,
    /// `**`
    Rest,
}

impl Pattern {
    /// The longest a pattern may be, in bytes.
    pub const MAX_BYTES: usize = Topic::MAX_BYTES;

    /// Reads a pattern.
    ///
    /// # Errors
    /// If it is empty or too long, or holds what neither a topic nor a pattern has.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(PatternError::Length { bytes: text.len() });
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, bytes) = if rest.starts_with(SUBJECT) {
                (Piece::Subject, SUBJECT.len())
            } else if rest.starts_with("**") {
                (Piece::Rest, 2)
            } else if rest.starts_with('*') {
                (Piece::Segment, 1)
            } else {
                let bytes = rest.find(['*', '{']).unwrap_or(rest.len());
                // A brace that is no `{sub}` is found to be no topic.
                let bytes = bytes.max(usize::from(rest.starts_with('{')));
                let literal = &rest[..bytes];
                Topic::parse(literal).map_err(|_| PatternError::Character { text: text.to_owned() })?;
                (Piece::Text(literal.into()), bytes)
            };
            let is_wild = |piece: &Piece| matches!(piece, Piece::Segment | Piece::Rest);
            if is_wild(&piece) && pieces.last().is_some_and(is_wild) {
                return Err(PatternError::Stars { text: text.to_owned() });
            }
            let touches = |last: &Piece| match last {
                Piece::Subject => is_wild(&piece),
                last => is_wild(last) && piece == Piece::Subject,
            };
            if pieces.last().is_some_and(touches) {
                return Err(PatternError::Subject { text: text.to_owned() });
            }
            pieces.push(piece);
            rest = &rest[bytes..];
        }
        Ok(Self(pieces.into()))
    }

    /// Whether it grants a topic to a user; without one, a pattern with `{sub}` grants nothing.
    #[must_use]
    pub fn matches(&self, topic: &Topic, subject: Option<&str>) -> bool {
        let names_inboxes = matches!(self.0.first(), Some(Piece::Text(text)) if text.starts_with(INBOX));
        if topic.is_reserved() || (topic.as_str().starts_with(INBOX) && !names_inboxes) {
            return false;
        }
        matches(&self.0, topic.as_str(), subject)
    }
}

/// Goes through the pieces once, with all the places that those before may have come to: so many steps at most as there are pieces times letters,
/// whatever the pattern.
fn matches(pieces: &[Piece], text: &str, subject: Option<&str>) -> bool {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for piece in pieces {
        let mut next = vec![false; text.len() + 1];
        match piece {
            Piece::Text(literal) => step(&reached, &mut next, text, literal),
            Piece::Subject => match subject {
                Some(subject) => step(&reached, &mut next, text, subject),
                None => return false,
            },
            Piece::Segment | Piece::Rest => {
                let mut open = false;
                for (at, byte) in text.bytes().enumerate() {
                    open |= reached[at];
                    open &= *piece == Piece::Rest || byte != b'/';
                    next[at + 1] = open;
                }
            }
        }
        reached = next;
    }
    reached[text.len()]
}

fn step(reached: &[bool], next: &mut [bool], text: &str, literal: &str) {
    for at in (0..text.len()).filter(|&at| reached[at]) {
        if text[at..].starts_with(literal) {
            next[at + literal.len()] = true;
        }
    }
}

/// What was granted: patterns, and the user whom `{sub}` stands for. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    patterns: Arc<[Pattern]>,
    subject: Option<Arc<str>>,
}

impl Patterns {
    /// These patterns, of this user.
    #[must_use]
    pub fn new(patterns: impl Into<Arc<[Pattern]>>, subject: Option<Arc<str>>) -> Self {
        Self {
            patterns: patterns.into(),
            subject,
        }
    }

    /// Whether one of them grants a topic.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        let subject = self.subject.as_deref();
        self.patterns.iter().any(|pattern| pattern.matches(topic, subject))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| {
            f.write_str(match piece {
                Piece::Text(text) => text,
                Piece::Subject => SUBJECT,
                Piece::Segment => "*",
                Piece::Rest => "**",
            })
        })
    }
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is empty or too long.
    #[error("a pattern has 1 to 255 bytes; this one has {bytes}")]
    Length {
        /// How long it is.
        bytes: usize,
    },
    /// It holds a character that it may not.
    #[error("{text:?} is not a pattern of topics: it has only `A-Z a-z 0-9 . _ ~ - : / @`, `*`, `**` and `{{sub}}`")]
    Character {
        /// The pattern.
        text: String,
    },
    /// A star touches `{sub}`.
    #[error(
        "{text:?} would grant what belongs to users whose names are alike: put something between `{{sub}}` and `*`"
    )]
    Subject {
        /// The pattern.
        text: String,
    },
    /// Stars follow each other.
    #[error("{text:?} is not a pattern of topics: `***` means nothing that `**` does not")]
    Stars {
        /// The pattern.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grants(pattern: &str, topic: &str) -> bool {
        let topic = Topic::parse(topic).expect("a topic");
        Pattern::parse(pattern).expect("a pattern").matches(&topic, Some("7"))
    }

    #[test]
    fn stars_and_subjects() {
        for (pattern, yes, no) in [
            (
                "orders",
                &["orders"][..],
                &["order", "orders/", "orders/1", "Orders"][..],
            ),
            (
                "orders/*",
                &["orders/1", "orders/a.b"],
                &["orders", "orders/", "orders/1/2"],
            ),
            (
                "orders/**",
                &["orders/1", "orders/1/2"],
                &["orders", "orders/", "order/1"],
            ),
            ("*", &["a", "tidings"], &["a/b", "user:7", "tidings.x"]),
            (
                "**",
                &["a", "a/b"],
                &["user:7", "user:", "user:7/x", "tidings.revocations"],
            ),
            ("user:{sub}", &["user:7"], &["user:77", "user:8", "user:7/", "User:7"]),
            ("user:*", &["user:7", "user:8"], &["user:", "user:7/8", "users"]),
            ("a/*/c", &["a/b/c"], &["a//c", "a/b/d/c", "a/b/c/"]),
            ("a/**/c", &["a/b/c", "a/b/d/c", "a/c/c/c"], &["a/c", "a/b/c/d"]),
            ("t/{sub}/*", &["t/7/x"], &["t/8/x", "t/7/", "t/7/x/y"]),
            ("u*", &["ux"], &["user:7"]),
            ("tidings.*", &[], &["tidings.x"]),
        ] {
            for topic in yes {
                assert!(grants(pattern, topic), "{pattern} grants {topic}");
            }
            for topic in no {
                assert!(!grants(pattern, topic), "{pattern} does not grant {topic}");
            }
        }
        let topic = Topic::parse("user:").expect("a topic");
        assert!(!Pattern::parse("user:{sub}").expect("a pattern").matches(&topic, None));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            "a b",
            "{sub",
            "{user}",
            "sub}",
            "***",
            "a***b",
            "user:{sub}*",
            "user:{sub}**",
            "a/*{sub}",
            "**{sub}/a",
            "*\u{e4}",
            "%2a",
            "a\0",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
        assert!(Pattern::parse(&"a".repeat(256)).is_err());
    }

    proptest! {
        #[test]
        fn a_topic_grants_itself_alone(topic in "[a-t/.:]{1,20}", other in "[a-t/.:]{1,20}") {
            let topic = Topic::parse(&topic).expect("a topic");
            let pattern = Pattern::parse(topic.as_str()).expect("a pattern");
            let other = Topic::parse(&other).expect("a topic");
            prop_assert!(topic.is_reserved() || pattern.matches(&topic, None));
            prop_assert_eq!(pattern.matches(&other, None), !topic.is_reserved() && other == topic);
        }

        #[test]
        fn it_agrees_with_the_plain_meaning(pattern in "([ab/]|\\*|\\*\\*){1,8}", topic in "[ab/]{1,10}") {
            let Ok(parsed) = Pattern::parse(&pattern) else { return Ok(()) };
            let topic = Topic::parse(&topic).expect("a topic");
            prop_assert_eq!(parsed.matches(&topic, None), plain(&parsed.0, topic.as_str()), "{} {}", parsed, topic);
        }

        #[test]
        fn it_shows_as_it_was_written(pattern in "([ab/:]|\\*|\\{sub\\}){1,8}") {
            if let Ok(parsed) = Pattern::parse(&pattern) {
                prop_assert_eq!(parsed.to_string(), pattern);
            }
        }
    }

    fn plain(pieces: &[Piece], text: &str) -> bool {
        let Some((first, rest)) = pieces.split_first() else {
            return text.is_empty();
        };
        match first {
            Piece::Text(literal) => text.strip_prefix(&**literal).is_some_and(|left| plain(rest, left)),
            Piece::Subject => false,
            wild => (1..=text.len())
                .take_while(|&at| *wild == Piece::Rest || !text[..at].contains('/'))
                .any(|at| plain(rest, &text[at..])),
        }
    }
}
