//! What a body is: one object, or one per line. The content type says, or else the body.

use http::{HeaderMap, StatusCode, header};

use crate::problem::Problem;

/// What a body is, as far as its content type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One object per line.
    Lines,
    /// The body says: [`FirstObject`].
    Either,
}

/// The content type that `curl -d` gives to everything, and that a browser's form has.
const FORM: &str = "application/x-www-form-urlencoded";

impl Shape {
    /// What the headers say of the body.
    ///
    /// # Errors
    /// If it is something else, or if it may be from a page: without a content type, or with a form's, a page of any origin can have a browser
    /// post unasked; with one of ours the browser must ask first, and is refused. Browsers say where such a request comes from, and
    /// cannot be kept from it.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return refuse_pages(headers);
        };
        let media_type = value.to_str().unwrap_or_default().split(';').next();
        let media_type = media_type.unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            Ok(Self::Either)
        } else if media_type.eq_ignore_ascii_case("application/x-ndjson") {
            Ok(Self::Lines)
        } else if media_type.eq_ignore_ascii_case(FORM) {
            refuse_pages(headers)
        } else {
            let detail = format!(
                "the content type is `application/json`, or `application/x-ndjson` for one event per line; this is {value:?}"
            );
            Err(unsupported(detail))
        }
    }
}

fn refuse_pages(headers: &HeaderMap) -> Result<Shape, Problem> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        let detail = "a browser's request needs the content type `application/json` or `application/x-ndjson`";
        Err(unsupported(detail))
    } else {
        Ok(Shape::Either)
    }
}

fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).with_field("content-type")
}

/// Finds the end of a body's first object, and what follows it, while the body arrives. It knows brackets and strings and no more: whether that
/// is JSON is for others to say.
#[derive(Debug, Default)]
pub(super) struct FirstObject {
    scanned: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// Before it.
    #[default]
    Before,
    /// In it, so many brackets deep.
    Within { depth: usize, string: Option<Escape> },
    /// After it; a line break came.
    After { line_break: bool },
}

/// Whether the next character of a string is escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    No,
    Next,
}

/// What a body turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// One object, or nothing that makes sense.
    Object,
    /// An object on one line, and something on the next.
    Lines,
}

impl FirstObject {
    /// Looks at what was not looked at before of all that has arrived; `None` if more must be seen.
    pub(super) fn find(&mut self, arrived: &[u8]) -> Option<Found> {
        for &byte in arrived.get(self.scanned..).unwrap_or_default() {
            if let Some(found) = self.step(byte) {
                return Some(found);
            }
            self.scanned += 1;
        }
        None
    }

    fn step(&mut self, byte: u8) -> Option<Found> {
        match &mut self.state {
            State::Before => match byte {
                b'{' => self.state = State::Within { depth: 1, string: None },
                byte if byte.is_ascii_whitespace() => {}
                _ => return Some(Found::Object),
            },
            // JSON strings hold no line breaks, and an object over several lines is none of one per line.
            State::Within { .. } if byte == b'\n' => return Some(Found::Object),
            State::Within {
                string: Some(escape), ..
            } if *escape == Escape::Next => *escape = Escape::No,
            State::Within { string, .. } if string.is_some() => match byte {
                b'"' => *string = None,
                b'\\' => *string = Some(Escape::Next),
                _ => {}
            },
            State::Within { depth, string } => match byte {
                b'"' => *string = Some(Escape::No),
                b'{' | b'[' => *depth += 1,
                b'}' | b']' => {
                    *depth -= 1;
                    if *depth == 0 {
                        self.state = State::After { line_break: false };
                    }
                }
                _ => {}
            },
            State::After { line_break } => match byte {
                b'\n' => *line_break = true,
                byte if byte.is_ascii_whitespace() => {}
                _ => return Some(if *line_break { Found::Lines } else { Found::Object }),
            },
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(text: &[u8]) -> Option<Found> {
        FirstObject::default().find(text)
    }

    #[test]
    fn a_second_object_must_begin_a_line() {
        for (text, found) in [
            (r#"{"a":1}"#, None),
            ("{\"a\":1}\n \r\n", None),
            ("{\"a\":1}\n{", Some(Found::Lines)),
            (" \n{\"a\":{\"}\":[\"\\\"}\"]}} \r\n\n x", Some(Found::Lines)),
            (r#"{"a":1} {"a":2}"#, Some(Found::Object)),
            ("{\"a\":\n1}\n{\"a\":2}", Some(Found::Object)),
            ("[{}]\n{}", Some(Found::Object)),
            ("", None),
            ("{\"a\": \"\\\\\"}\n{}", Some(Found::Lines)),
        ] {
            assert_eq!(find(text.as_bytes()), found, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_depend_on_how_the_body_is_cut(text in r#"[{}\[\]"\\ a\n]{0,40}"#, cut in 1..9_usize) {
            let mut piecewise = FirstObject::default();
            let found = (0..=text.len())
                .filter(|end| end % cut == 0 || *end == text.len())
                .find_map(|end| piecewise.find(&text.as_bytes()[..end]));
            prop_assert_eq!(found, find(text.as_bytes()));
        }

        #[test]
        fn two_objects_on_two_lines_are_lines(first in object(), second in object(), gap in "[ \r]{0,3}\n[ \r\n]{0,3}") {
            prop_assert_eq!(find(first.as_bytes()), None);
            prop_assert_eq!(find(format!("{first}{gap}{second}").as_bytes()), Some(Found::Lines));
        }
    }

    fn object() -> impl Strategy<Value = String> {
        prop::collection::btree_map(any::<String>(), prop::collection::vec(any::<String>(), 0..3), 0..4)
            .prop_map(|members| serde_json::json!(members).to_string())
    }
}
