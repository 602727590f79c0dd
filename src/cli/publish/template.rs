//! Templates: how the fields of a record become a topic, a type, a key and data.

use std::{borrow::Cow, collections::HashMap, str::FromStr};

use serde_json::value::RawValue;

use crate::model::json::compact;

/// Text with fields in braces: `quakes/{properties.net}`. A field is a path of names, and of numbers into lists; `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("a `{{` is not closed (a brace that is meant is written twice)")]
    Open,
    #[error("a `}}` closes nothing (a brace that is meant is written twice)")]
    Close,
    #[error("`{{{field}}}` does not name a field: `{{properties.net}}` does")]
    Field { field: String },
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.next_if_eq(&c).is_some() => literal.push(c),
                '{' => {
                    let mut field = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some('{') | None => return Err(TemplateError::Open),
                            Some(c) => field.push(c),
                        }
                    }
                    if field.split('.').any(str::is_empty) {
                        return Err(TemplateError::Field { field });
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Field(field));
                }
                '}' => return Err(TemplateError::Close),
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }
}

/// Why a record does not fill a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FieldError {
    #[error("the record has no field `{field}`")]
    Missing { field: String },
    #[error("the field `{field}` is {found}: only text, numbers, true and false can stand here")]
    NotPlain { field: String, found: &'static str },
}

impl Template {
    /// The text that this record makes, of fields that are plain values.
    pub(super) fn fill(&self, record: &RawValue) -> Result<String, FieldError> {
        self.fill_with(record, |path, value| match value.get().as_bytes().first() {
            Some(b'{') => Err(FieldError::not_plain(path, "an object")),
            Some(b'[') => Err(FieldError::not_plain(path, "a list")),
            Some(b'n') => Err(FieldError::not_plain(path, "null")),
            _ => Ok(plain(value)),
        })
    }

    /// Like [`Self::fill`], but a field may be any value: what is not plain stands as compact JSON.
    pub(super) fn fill_any(&self, record: &RawValue) -> Result<String, FieldError> {
        self.fill_with(record, |_, value| Ok(plain(value)))
    }

    fn fill_with(
        &self,
        record: &RawValue,
        text_of: impl Fn(&str, &RawValue) -> Result<String, FieldError>,
    ) -> Result<String, FieldError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(path) => {
                    let value = find(record, path).ok_or_else(|| FieldError::Missing { field: path.clone() })?;
                    out.push_str(&text_of(path, value)?);
                }
            }
        }
        Ok(out)
    }
}

impl FieldError {
    fn not_plain(field: &str, found: &'static str) -> Self {
        Self::NotPlain {
            field: field.to_owned(),
            found,
        }
    }
}

/// A string's text; anything else as compact JSON.
fn plain(value: &RawValue) -> String {
    serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| compact(value.get()))
}

fn find<'a>(record: &'a RawValue, path: &str) -> Option<&'a RawValue> {
    path.split('.').try_fold(record, |value, name| {
        if value.get().starts_with('[') {
            let list: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
            list.get(name.parse::<usize>().ok()?).copied()
        } else {
            let mut fields: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(value.get()).ok()?;
            fields.remove(name)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).expect("JSON")
    }

    fn fill(template: &str, json: &str) -> Result<String, FieldError> {
        template.parse::<Template>().expect("a template").fill(&record(json))
    }

    #[test]
    fn fields_are_found_by_path() {
        let json = r#"{"id": "uw1", "properties": {"net": "uw", "mag": 0.30, "a.b": 1}, "at": [-122.197, [1, true]], "\u0061": 7}"#;
        for (template, expected) in [
            ("{id}", "uw1"),
            ("quakes/{properties.net}", "quakes/uw"),
            ("{properties.mag}", "0.30"),
            ("{at.0}:{at.1.1}", "-122.197:true"),
            ("{a}", "7"),
            ("{{{id}}}", "{uw1}"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(fill(template, json).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_cannot_be_filled_names_the_field() {
        let json = r#"{"a": null, "b": {"c": 1}, "d": [1]}"#;
        for (template, told) in [
            ("{x}", "no field `x`"),
            ("{b.x}", "no field `b.x`"),
            ("{d.1}", "no field `d.1`"),
            ("{b.c.d}", "no field `b.c.d`"),
            ("{a}", "`a` is null"),
            ("{b}", "`b` is an object"),
            ("{d}", "`d` is a list"),
        ] {
            let error = fill(template, json).expect_err(template).to_string();
            assert!(error.contains(told), "{template}: {error}");
        }
        let any: Template = "{b}".parse().expect("a template");
        assert_eq!(any.fill_any(&record(json)).as_deref(), Ok(r#"{"c":1}"#));
    }

    #[test]
    fn what_is_not_a_template_is_refused() {
        for (text, error) in [
            ("{", TemplateError::Open),
            ("a{b", TemplateError::Open),
            ("a}b", TemplateError::Close),
            ("{}", TemplateError::Field { field: String::new() }),
            (
                "{a..b}",
                TemplateError::Field {
                    field: "a..b".to_owned(),
                },
            ),
        ] {
            assert_eq!(text.parse::<Template>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_an_error(text in any::<String>()) {
            let _ = text.parse::<Template>();
        }
    }
}
