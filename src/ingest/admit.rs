//! What is let in: a draft becomes a [`Publish`], or is refused whole with the field that is wrong. Pure.

use std::collections::HashMap;

use super::Settings;
use crate::model::{EventType, EventTypeError, Publish, PublishKey, PublishKeyError, Topic, TopicError};

/// An event as its publisher sent it, whatever the protocol. Nothing is checked but that text is UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Draft {
    /// Where it shall go.
    pub topics: Vec<String>,
    /// Its type; empty for none.
    pub event_type: String,
    /// Its payload.
    pub data: String,
    /// The publisher's key; empty for none.
    pub key: String,
    /// Whether it is not to be kept.
    pub ephemeral: bool,
}

impl Draft {
    /// How much memory it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let topics: usize = self.topics.iter().map(|topic| topic.len() + size_of::<String>()).sum();
        size_of::<Self>() + topics + self.event_type.len() + self.data.len() + self.key.len()
    }
}

/// An event that may go on.
#[derive(Debug, Clone)]
pub enum Admitted {
    /// To the journal.
    Durable(Publish),
    /// To the bus: it is not kept.
    Ephemeral(Publish),
}

/// Checks a draft against the rules and the limits.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn admit(draft: Draft, settings: &Settings) -> Result<Admitted, Refusal> {
    let topics = admit_topics(&draft.topics, settings.topics)?;
    let event_type = none_if_empty(&draft.event_type)
        .map(EventType::parse)
        .transpose()
        .map_err(Refusal::EventType)?;
    if draft.data.len() > settings.data_bytes {
        return Err(Refusal::DataTooLong {
            bytes: draft.data.len(),
            limit: settings.data_bytes,
        });
    }
    // Many times as fast as to look for the place at once.
    if draft.data.as_bytes().contains(&0) {
        let at = draft.data.bytes().take_while(|&byte| byte != 0).count();
        return Err(Refusal::DataNul { at });
    }
    let key = none_if_empty(&draft.key)
        .map(PublishKey::parse)
        .transpose()
        .map_err(Refusal::Key)?;
    if draft.ephemeral && key.is_some() {
        return Err(Refusal::EphemeralKey);
    }
    let publish = Publish {
        topics,
        event_type,
        data: draft.data.into(),
        key,
        deadline: None,
    };
    Ok(if draft.ephemeral {
        Admitted::Ephemeral(publish)
    } else {
        Admitted::Durable(publish)
    })
}

fn admit_topics(texts: &[String], limit: usize) -> Result<Vec<Topic>, Refusal> {
    if texts.is_empty() {
        return Err(Refusal::NoTopics { limit });
    }
    if texts.len() > limit {
        return Err(Refusal::TooManyTopics {
            count: texts.len(),
            limit,
        });
    }
    let mut firsts = Firsts::of(texts);
    let mut topics = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let topic = Topic::parse(text).map_err(|error| Refusal::Topic { index, error })?;
        if topic.is_reserved() {
            return Err(Refusal::ReservedTopic { index, topic });
        }
        if let Some(first) = firsts.before(index) {
            return Err(Refusal::RepeatedTopic { index, first, topic });
        }
        topics.push(topic);
    }
    Ok(topics)
}

/// Which texts were there before.
enum Firsts<'t> {
    /// Few: they are compared with each other.
    Few(&'t [String]),
    /// Many, by what they are.
    Many(&'t [String], HashMap<&'t str, usize>),
}

impl<'t> Firsts<'t> {
    /// Up to so many are compared.
    const FEW: usize = 8;

    fn of(texts: &'t [String]) -> Self {
        if texts.len() <= Self::FEW {
            Self::Few(texts)
        } else {
            Self::Many(texts, HashMap::with_capacity(texts.len()))
        }
    }

    /// The place of the text before this one that is the same. To be asked of one after the other.
    fn before(&mut self, index: usize) -> Option<usize> {
        match self {
            Self::Few(texts) => texts[..index].iter().position(|text| *text == texts[index]),
            Self::Many(texts, first_at) => first_at.insert(texts[index].as_str(), index),
        }
    }
}

fn none_if_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Why a draft is refused. Nothing of it was published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It names no topic.
    #[error("an event goes to 1 to {limit} topics; this one names none")]
    NoTopics {
        /// How many there may be.
        limit: usize,
    },
    /// It names too many topics.
    #[error("an event goes to 1 to {limit} topics; this one names {count}")]
    TooManyTopics {
        /// How many it names.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A topic is not valid.
    #[error("{error}")]
    Topic {
        /// Its place in the list, from 0.
        index: usize,
        /// What is wrong with it.
        error: TopicError,
    },
    /// A topic is named twice.
    #[error("the topic \"{topic}\" is there twice, at {first} and {index}: name each topic once")]
    RepeatedTopic {
        /// The place of the second, from 0.
        index: usize,
        /// The place of the first, from 0.
        first: usize,
        /// The topic.
        topic: Topic,
    },
    /// A topic is one of the service's own.
    #[error("the topic \"{topic}\" is reserved: `tidings.…` is not for publishers")]
    ReservedTopic {
        /// Its place in the list, from 0.
        index: usize,
        /// The topic.
        topic: Topic,
    },
    /// The type is not valid.
    #[error(transparent)]
    EventType(EventTypeError),
    /// The payload is too long.
    #[error("data has at most {limit} bytes (a setting of the server); this has {bytes}")]
    DataTooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The payload holds a NUL, which the event stream cannot carry.
    #[error("data has no NUL; this has one at byte {at}")]
    DataNul {
        /// The first one's place, in bytes.
        at: usize,
    },
    /// The key is not valid.
    #[error(transparent)]
    Key(PublishKeyError),
    /// An event that is not kept cannot be recognised when it comes again.
    #[error("an ephemeral event takes no key: it is not kept, so a repeat of it cannot be told")]
    EphemeralKey,
}

impl Refusal {
    /// The field that is wrong, as publishers call it: `topics[3]`, `data`.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::NoTopics { .. } | Self::TooManyTopics { .. } => "topics".to_owned(),
            Self::Topic { index, .. } | Self::RepeatedTopic { index, .. } | Self::ReservedTopic { index, .. } => {
                format!("topics[{index}]")
            }
            Self::EventType(_) => "type".to_owned(),
            Self::DataTooLong { .. } | Self::DataNul { .. } => "data".to_owned(),
            Self::Key(_) | Self::EphemeralKey => "key".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Settings = Settings {
        topics: 4,
        data_bytes: 16,
        in_flight: 1,
        in_flight_bytes: 1,
        body_within: std::time::Duration::from_secs(60),
        rates: crate::ingest::Rates { events: 0, bytes: 0 },
    };

    fn draft() -> Draft {
        Draft {
            topics: vec!["a".into(), "b".into()],
            ..Draft::default()
        }
    }

    fn refused(draft: Draft) -> (String, String) {
        let refusal = admit(draft, &SETTINGS).expect_err("must be refused");
        (refusal.field(), refusal.to_string())
    }

    #[test]
    fn names_the_field_the_limit_and_what_was_found() {
        let cases = [
            (
                Draft::default(),
                "topics",
                "an event goes to 1 to 4 topics; this one names none",
            ),
            (
                Draft {
                    topics: ["a", "b", "c", "d", "e"].map(String::from).into(),
                    ..draft()
                },
                "topics",
                "an event goes to 1 to 4 topics; this one names 5",
            ),
            (
                Draft {
                    topics: ["a", "b c"].map(String::from).into(),
                    ..draft()
                },
                "topics[1]",
                "a topic has only `A-Z a-z 0-9 . _ ~ - : / @`; this one has ' ' at byte 1",
            ),
            (
                Draft {
                    topics: ["a", "b", "a"].map(String::from).into(),
                    ..draft()
                },
                "topics[2]",
                "the topic \"a\" is there twice, at 0 and 2: name each topic once",
            ),
            (
                Draft {
                    topics: ["a", "tidings.revocations"].map(String::from).into(),
                    ..draft()
                },
                "topics[1]",
                "the topic \"tidings.revocations\" is reserved: `tidings.…` is not for publishers",
            ),
            (
                Draft {
                    event_type: "open".into(),
                    ..draft()
                },
                "type",
                "the event type \"open\" is reserved: `open`, `message`, `error` and `tidings.…` are not for publishers",
            ),
            (
                Draft {
                    data: "x".repeat(17),
                    ..draft()
                },
                "data",
                "data has at most 16 bytes (a setting of the server); this has 17",
            ),
            (
                Draft {
                    data: "ab\0".into(),
                    ..draft()
                },
                "data",
                "data has no NUL; this has one at byte 2",
            ),
            (
                Draft {
                    key: "ü".into(),
                    ..draft()
                },
                "key",
                "a key has only printable ASCII",
            ),
            (
                Draft {
                    key: "k".into(),
                    ephemeral: true,
                    ..draft()
                },
                "key",
                "an ephemeral event takes no key: it is not kept, so a repeat of it cannot be told",
            ),
        ];
        for (draft, field, message) in cases {
            assert_eq!(
                refused(draft.clone()),
                (field.to_owned(), message.to_owned()),
                "{draft:?}"
            );
        }
    }

    #[test]
    fn the_limits_themselves_are_within() {
        let full = Draft {
            topics: ["a", "b", "c", "d"].map(String::from).into(),
            event_type: "t".repeat(255),
            data: "x".repeat(16),
            key: "k".repeat(255),
            ephemeral: false,
        };
        assert!(matches!(admit(full, &SETTINGS), Ok(Admitted::Durable(_))));
    }

    #[test]
    fn settings_out_of_range_are_all_named() {
        assert_eq!(Settings::default().validate(), Ok(()));
        let wrong = Settings {
            topics: 0,
            data_bytes: 1024 * 1024 + 1,
            ..Settings::default()
        }
        .validate()
        .expect_err("two are wrong");
        let texts: Vec<_> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "`topics` is 0; it must be 1 to 1000",
                "`data_bytes` is 1048577; it must be 1 to 1048576"
            ]
        );
    }

    proptest! {
        #[test]
        fn what_is_admitted_is_what_was_sent_and_keeps_the_rules(
            topics in prop::collection::vec("[a-c ]{0,2}", 0..6),
            event_type in "[a-z\n]{0,3}|open|tidings.x",
            data in "[a-z\0]{0,18}",
            key in "[a-zü]{0,3}",
            ephemeral in any::<bool>(),
        ) {
            let draft = Draft { topics, event_type, data, key, ephemeral };
            let distinct: std::collections::HashSet<_> = draft.topics.iter().collect();
            let legal = (1..=4).contains(&draft.topics.len())
                && distinct.len() == draft.topics.len()
                && draft.topics.iter().all(|topic| Topic::parse(topic).is_ok())
                && (draft.event_type.is_empty() || EventType::parse(&draft.event_type).is_ok())
                && draft.data.len() <= 16
                && !draft.data.contains('\0')
                && draft.key.is_ascii()
                && (!draft.ephemeral || draft.key.is_empty());
            match admit(draft.clone(), &SETTINGS) {
                Ok(admitted) => {
                    prop_assert!(legal);
                    let (publish, ephemeral) = match admitted {
                        Admitted::Durable(publish) => (publish, false),
                        Admitted::Ephemeral(publish) => (publish, true),
                    };
                    prop_assert_eq!(ephemeral, draft.ephemeral);
                    prop_assert!(publish.topics.iter().map(Topic::as_str).eq(draft.topics.iter().map(String::as_str)));
                    prop_assert_eq!(publish.event_type.as_ref().map_or("", EventType::as_str), draft.event_type);
                    prop_assert_eq!(&*publish.data, draft.data.as_str());
                    prop_assert_eq!(publish.key.as_ref().map_or("", PublishKey::as_str), draft.key);
                }
                Err(_) => prop_assert!(!legal),
            }
        }
    }
}
