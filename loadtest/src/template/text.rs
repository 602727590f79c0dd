//! Text with places that are filled in: `/sub/{topics}`, `{"channel":"{topic:json}"}`.

use std::fmt;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// What fills a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// All that a stream follows, each by its own text.
    Topics,
    /// One topic.
    Topic,
    /// The number of the user who asks.
    User,
    /// A bearer token.
    Token,
    /// The id of the last event that was seen.
    LastEventId,
    /// An event's payload.
    Payload,
    /// A key that is the same whenever the same event is published again.
    Key,
    /// The events of a batch, each by its own text.
    Items,
}

const PLACES: [(&str, Place); 8] = [
    ("topics", Place::Topics),
    ("topic", Place::Topic),
    ("user", Place::User),
    ("token", Place::Token),
    ("last_event_id", Place::LastEventId),
    ("payload", Place::Payload),
    ("key", Place::Key),
    ("items", Place::Items),
];

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::Topics => "topics",
            Self::Topic => "topic",
            Self::User => "user",
            Self::Token => "token",
            Self::LastEventId => "last_event_id",
            Self::Payload => "payload",
            Self::Key => "key",
            Self::Items => "items",
        }
    }
}

/// How what fills a place is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// `{topic}`: as it is.
    Raw,
    /// `{topic:json}`: as the inside of a JSON string.
    Json,
    /// `{topic:url}`: all but letters, digits and `-._~` as `%XX`.
    Url,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Place(Place, Spelling),
}

/// Text with places that are filled in. A brace that no name of a place follows is a brace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text {
    parts: Vec<Part>,
}

impl Text {
    /// Reads one.
    ///
    /// # Errors
    /// If a name in braces is none of a place, or it is to be spelled in a way that there is not.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(brace) = rest.find('{') {
            literal.push_str(&rest[..brace]);
            rest = &rest[brace..];
            let end = rest[1..].find(|c: char| !matches!(c, 'a'..='z' | '_' | ':'));
            match end.filter(|&end| end > 0 && rest[1 + end..].starts_with('}')) {
                Some(end) => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(place(&rest[1..=end])?);
                    rest = &rest[end + 2..];
                }
                None => {
                    literal.push('{');
                    rest = &rest[1..];
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// Whether it has this place.
    #[must_use]
    pub fn has(&self, wanted: Place) -> bool {
        self.places().any(|place| place == wanted)
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Place(place, _) => Some(*place),
        })
    }

    /// Demands that it has no other places than these. `name` is what the setting is called.
    ///
    /// # Errors
    /// If it has another.
    pub fn only(&self, name: &str, allowed: &[Place]) -> Result<()> {
        for place in self.places() {
            let names: Vec<_> = allowed.iter().map(|place| format!("{{{}}}", place.name())).collect();
            ensure!(
                allowed.contains(&place),
                "`{name}` cannot have {{{}}}: there {}",
                place.name(),
                if names.is_empty() {
                    "are no places to fill".to_owned()
                } else {
                    format!("may be {}", names.join(", "))
                }
            );
        }
        Ok(())
    }

    /// Adds it to `into`, with what `fill` has for each place, in the place's spelling. `None`, if there was nothing for a place: then
    /// nothing was added.
    pub fn fill<'a>(&self, into: &mut Vec<u8>, fill: impl Fn(Place) -> Option<&'a [u8]>) -> Option<()> {
        let before = into.len();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => into.extend_from_slice(literal.as_bytes()),
                Part::Place(place, spelling) => match fill(*place) {
                    Some(value) => spell(value, *spelling, into),
                    None => {
                        into.truncate(before);
                        return None;
                    }
                },
            }
        }
        Some(())
    }
}

fn place(text: &str) -> Result<Part> {
    let (name, spelling) = text.split_once(':').unwrap_or((text, ""));
    let Some((_, place)) = PLACES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = PLACES.iter().map(|(name, _)| *name).collect();
        bail!("there is no {{{name}}}: there are {}", known.join(", "));
    };
    let spelling = match spelling {
        "" => Spelling::Raw,
        "json" => Spelling::Json,
        "url" => Spelling::Url,
        other => bail!("{{{name}:{other}}} cannot be: `json` and `url` are how {{{name}}} can be spelled, or as it is"),
    };
    Ok(Part::Place(*place, spelling))
}

fn spell(value: &[u8], spelling: Spelling, into: &mut Vec<u8>) {
    match spelling {
        Spelling::Raw => into.extend_from_slice(value),
        Spelling::Json => {
            for &byte in value {
                match byte {
                    b'"' | b'\\' => into.extend_from_slice(&[b'\\', byte]),
                    0..0x20 => into.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                    _ => into.push(byte),
                }
            }
        }
        Spelling::Url => {
            for &byte in value {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => into.push(byte),
                    _ => into.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                }
            }
        }
    }
}

impl TryFrom<String> for Text {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.to_string()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(literal) => f.write_str(literal)?,
                Part::Place(place, spelling) => {
                    let spelling = match spelling {
                        Spelling::Raw => "",
                        Spelling::Json => ":json",
                        Spelling::Url => ":url",
                    };
                    write!(f, "{{{}{spelling}}}", place.name())?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Option<String> {
        let mut into = b"> ".to_vec();
        let value = |place| match place {
            Place::Topic => Some(&b"a/b \"c\""[..]),
            Place::Payload => Some(&b"1\n2"[..]),
            _ => None,
        };
        Text::parse(text).expect("a text").fill(&mut into, value)?;
        Some(String::from_utf8(into).expect("text"))
    }

    #[test]
    fn places_are_filled_as_they_are_spelled() {
        assert_eq!(filled("no place").as_deref(), Some("> no place"));
        assert_eq!(
            filled("/s/{topic:url}?{topic}").as_deref(),
            Some("> /s/a%2Fb%20%22c%22?a/b \"c\"")
        );
        assert_eq!(
            filled(r#"{"items":[{"channel":"{topic:json}","data":{"text":"{payload:json}"}}]}"#).as_deref(),
            Some(r#"> {"items":[{"channel":"a/b \"c\"","data":{"text":"1\u000a2"}}]}"#)
        );
        assert_eq!(filled("bearer {token}"), None);
    }

    #[test]
    fn what_is_read_is_written_as_it_was() {
        for text in [
            "",
            "{",
            "{}",
            "{}}{topic}{",
            "a{topic:url}b{payload:json}{items}",
            "{ topic }",
        ] {
            assert_eq!(Text::parse(text).expect("a text").to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        let error = Text::parse("{topik}").expect_err("no such place").to_string();
        assert!(error.contains("{topik}") && error.contains("last_event_id"), "{error}");
        let error = Text::parse("{topic:xml}").expect_err("no such spelling").to_string();
        assert!(error.contains("`json` and `url`"), "{error}");
        let text = Text::parse("{payload}").expect("a text");
        let error = text
            .only("stream.path", &[Place::Topics])
            .expect_err("elsewhere")
            .to_string();
        assert_eq!(error, "`stream.path` cannot have {payload}: there may be {topics}");
    }
}
