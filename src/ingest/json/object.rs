//! One event as a JSON object.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{ingest::Draft, model::json::compact};

/// Reads `{"topics":["user:42"],"type":"order","data":…,"key":"…","ephemeral":false}`; only `topics` must be there. `data` may be any JSON
/// value: a string is taken as it is, anything else as its JSON text without insignificant white space, numbers digit for digit.
///
/// # Errors
/// If it is something else.
pub fn parse(text: &[u8]) -> Result<Draft, Malformed> {
    let text = std::str::from_utf8(text).map_err(|error| Malformed::NotUtf8 {
        at: error.valid_up_to(),
    })?;
    let object: Object<'_> = serde_json::from_str(text).map_err(|error| Malformed::NotAnObject {
        cause: error.to_string(),
    })?;
    let mut draft = Draft::default();
    let mut seen: [Option<&str>; MEMBERS.len()] = [None; MEMBERS.len()];
    for (name, value) in object.0 {
        let Some(at) = MEMBERS.iter().position(|member| *member == name) else {
            return Err(Malformed::UnknownMember {
                name: name.into_owned(),
            });
        };
        if seen[at].replace(value.get()).is_some() {
            return Err(Malformed::RepeatedMember { name: MEMBERS[at] });
        }
    }
    let [topics, event_type, data, key, ephemeral] = seen;
    let topics = topics.ok_or(Malformed::NoTopics)?;
    let topics: Vec<&RawValue> = member("topics", topics, "a list of strings")?;
    for (index, topic) in topics.iter().enumerate() {
        draft
            .topics
            .push(member(&format!("topics[{index}]"), topic.get(), "a string")?);
    }
    if let Some(text) = event_type {
        draft.event_type = member("type", text, "a string")?;
    }
    if let Some(text) = data {
        draft.data = if text.starts_with('"') {
            member("data", text, "a string of whole characters")?
        } else {
            compact(text)
        };
    }
    if let Some(text) = key {
        draft.key = member("key", text, "a string")?;
    }
    if let Some(text) = ephemeral {
        draft.ephemeral = member("ephemeral", text, "true or false")?;
    }
    Ok(draft)
}

const MEMBERS: [&str; 5] = ["topics", "type", "data", "key", "ephemeral"];

fn member<'a, T: Deserialize<'a>>(field: &str, text: &'a str, expected: &'static str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|_| Malformed::Member {
        field: field.to_owned(),
        expected,
        found: excerpt(text),
    })
}

/// So much of a value as helps to find it.
fn excerpt(text: &str) -> String {
    const CHARACTERS: usize = 40;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The members of an object in their order, unread.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // More than these cannot all be known and different: enough to say which is not.
                const MOST: usize = MEMBERS.len() + 1;
                let mut members = Vec::with_capacity(MOST);
                while let Some((name, value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                    if members.len() == MOST {
                        return Err(A::Error::custom("too many members"));
                    }
                    members.push((name.0, value));
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// A member's name, borrowed where it holds no escape.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Why a text is not the JSON of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is too long to be looked at.
    #[error("the JSON of one event has at most {limit} bytes here; this has more and was not read")]
    TooLong {
        /// How long it may be.
        limit: usize,
    },
    /// It is not text.
    #[error("JSON is UTF-8; this is not, from byte {at} on")]
    NotUtf8 {
        /// Where it stops being UTF-8.
        at: usize,
    },
    /// It is not one JSON object.
    #[error("this is not one JSON object ({cause}); several go one per line, as `application/x-ndjson`")]
    NotAnObject {
        /// What is wrong with it.
        cause: String,
    },
    /// It has a member that events do not have.
    #[error("there is no member {name:?}: an event has `topics`, `type`, `data`, `key` and `ephemeral`")]
    UnknownMember {
        /// Its name.
        name: String,
    },
    /// It has a member twice.
    #[error("the member `{name}` is there twice")]
    RepeatedMember {
        /// Its name.
        name: &'static str,
    },
    /// It says nothing of where to go.
    #[error("`topics` is missing: a list of the topics that the event goes to")]
    NoTopics,
    /// A member is of the wrong kind.
    #[error("`{field}` must be {expected}; this is {found}")]
    Member {
        /// Which one.
        field: String,
        /// What it must be.
        expected: &'static str,
        /// What it begins with.
        found: String,
    },
}

impl Malformed {
    /// The field that is wrong, if it is one.
    #[must_use]
    pub fn field(&self) -> Option<String> {
        match self {
            Self::TooLong { .. } | Self::NotUtf8 { .. } | Self::NotAnObject { .. } => None,
            Self::UnknownMember { name } => Some(excerpt(name)),
            Self::RepeatedMember { name } => Some((*name).to_owned()),
            Self::NoTopics => Some("topics".to_owned()),
            Self::Member { field, .. } => Some(field.clone()),
        }
    }
}
