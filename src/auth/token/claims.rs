//! What a token says (RFC 7519, section 4.1), and what it grants.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use super::members::Members;
use crate::{
    auth::{Denied, Pattern},
    model::UnixMillis,
};

/// How many patterns a token may have of each kind.
const MAX_PATTERNS: usize = 100;
/// How long the names in a token may be, in bytes: `sub` and `jti`.
pub(in crate::auth) const NAME_BYTES: usize = 255;
/// Times lie before the year 10000, in seconds: what is beyond is a mistake (milliseconds, as a rule).
const LAST_SECOND: f64 = 253_402_300_799.0;

/// The claims that matter, each of them of its type. They are not checked against anything yet.
pub(in crate::auth) struct Claims<'a> {
    members: Members<'a>,
    /// Who issued it.
    pub(in crate::auth) issuer: Option<String>,
}

/// What a token grants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::auth) struct Granted {
    pub(in crate::auth) follow: Vec<Pattern>,
    pub(in crate::auth) publish: Vec<Pattern>,
    pub(in crate::auth) control: bool,
}

impl<'a> Claims<'a> {
    pub(in crate::auth) fn parse(json: &'a [u8]) -> Result<Self, Denied> {
        let members = Members::parse(json).ok_or(Denied::Malformed)?;
        let issuer = read(&members, "iss")?;
        Ok(Self { members, issuer })
    }

    /// A moment: `exp`, `nbf` or `iat`.
    pub(in crate::auth) fn time(&self, name: &'static str) -> Result<Option<UnixMillis>, Denied> {
        read::<Time>(&self.members, name).map(|time| time.map(|time| time.0))
    }

    /// A name: `sub` or `jti`. It is shown in logs and lists.
    pub(in crate::auth) fn name(&self, name: &'static str) -> Result<Option<Arc<str>>, Denied> {
        let text: Option<String> = read(&self.members, name)?;
        match text {
            Some(text) if text.is_empty() || text.len() > NAME_BYTES || text.contains(char::is_control) => {
                Err(wrong(name))
            }
            text => Ok(text.map(Into::into)),
        }
    }

    /// Whether it is for one of these: `aud` is a text or a list of them.
    pub(in crate::auth) fn is_for(&self, audience: &[Box<str>]) -> Result<bool, Denied> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Audience {
            One(String),
            Several(Vec<String>),
        }
        let is_ours = |name: &String| audience.iter().any(|ours| **ours == **name);
        Ok(match read(&self.members, "aud")? {
            Some(Audience::One(name)) => is_ours(&name),
            Some(Audience::Several(names)) => names.iter().any(is_ours),
            None => false,
        })
    }

    /// What the claim of this name grants; nothing if there is none.
    pub(in crate::auth) fn granted(&self, claim: &str) -> Result<Granted, Denied> {
        /// Members of a later version are not in the way: what is not known grants nothing.
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Written {
            follow: Vec<String>,
            publish: Vec<String>,
            control: bool,
        }
        let wrong = || Denied::Claim {
            claim: claim.to_owned().into(),
        };
        // Read from a map alone: serde would also take a list for an object.
        let object = |json: &str| json.trim_start().starts_with('{');
        let Some(json) = self.members.get(claim) else {
            return Ok(Granted::default());
        };
        let written = object(json).then(|| serde_json::from_str::<Written>(json));
        let written = written.and_then(Result::ok).ok_or_else(wrong)?;
        let patterns = |texts: Vec<String>| {
            if texts.len() > MAX_PATTERNS {
                return Err(wrong());
            }
            let read = texts.iter().map(|text| Pattern::parse(text).map_err(|_| wrong()));
            read.collect::<Result<Vec<_>, _>>()
        };
        Ok(Granted {
            follow: patterns(written.follow)?,
            publish: patterns(written.publish)?,
            control: written.control,
        })
    }
}

fn wrong(claim: &'static str) -> Denied {
    Denied::Claim { claim: claim.into() }
}

fn read<'a, T: Deserialize<'a>>(members: &Members<'a>, name: &'static str) -> Result<Option<T>, Denied> {
    members.read(name).map_err(|_| wrong(name))
}

/// A `NumericDate`: seconds since 1970, perhaps with a fraction.
struct Time(UnixMillis);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seconds;
        impl Visitor<'_> for Seconds {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970")
            }

            #[expect(
                clippy::cast_precision_loss,
                reason = "what is so large that it loses precision is refused"
            )]
            fn visit_u64<E: Error>(self, seconds: u64) -> Result<Time, E> {
                self.visit_f64(seconds as f64)
            }

            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it lies within the bounds by then"
            )]
            fn visit_f64<E: Error>(self, seconds: f64) -> Result<Time, E> {
                if (0.0..=LAST_SECOND).contains(&seconds) {
                    Ok(Time(UnixMillis((seconds * 1_000.0) as u64)))
                } else {
                    Err(E::custom("not a time"))
                }
            }
        }
        deserializer.deserialize_any(Seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims<'_> {
        Claims::parse(json.as_bytes()).unwrap_or_else(|denied| panic!("{json}: {denied}"))
    }

    #[test]
    fn times_are_seconds() {
        for (json, millis) in [
            ("0", 0),
            ("1.5", 1_500),
            ("1e3", 1_000_000),
            ("1700000000", 1_700_000_000_000),
            ("253402300799", 253_402_300_799_000),
        ] {
            let json = format!(r#"{{"exp":{json}}}"#);
            assert_eq!(claims(&json).time("exp"), Ok(Some(UnixMillis(millis))), "{json}");
        }
        for json in [
            "-1",
            "-0.5",
            "253402300800",
            "1700000000000",
            "18446744073709551616",
            "1e300",
            "\"1700000000\"",
            "null",
            "true",
            "[]",
            "{}",
        ] {
            let json = format!(r#"{{"exp":{json}}}"#);
            assert_eq!(claims(&json).time("exp"), Err(wrong("exp")), "{json}");
        }
        assert_eq!(claims("{}").time("exp"), Ok(None));
    }

    #[test]
    fn what_no_reader_agrees_on_is_no_token() {
        for json in [
            r#"{"exp":1,"exp":2}"#,
            r#"{"exp":1,"e\u0078p":2}"#,
            r#"{"x":1,"x":2}"#,
            r#"{"exp":NaN}"#,
            r#"{"exp":Infinity}"#,
            r#"{"exp":01}"#,
            "[]",
            "",
            "{",
            "null",
            "\u{feff}{}",
        ] {
            assert!(
                matches!(Claims::parse(json.as_bytes()), Err(Denied::Malformed)),
                "{json}"
            );
        }
        assert!(matches!(Claims::parse(b"{\"sub\":\"\xff\"}"), Err(Denied::Malformed)));
        assert!(matches!(Claims::parse(br#"{"iss":7}"#), Err(denied) if denied == wrong("iss")));
    }

    #[test]
    fn an_audience_is_a_text_or_a_list() {
        let ours: [Box<str>; 2] = ["a".into(), "b".into()];
        for (json, is_for) in [
            (r#"{"aud":"a"}"#, Ok(true)),
            (r#"{"aud":["x","b"]}"#, Ok(true)),
            (r#"{"aud":"A"}"#, Ok(false)),
            (r#"{"aud":"a b"}"#, Ok(false)),
            (r#"{"aud":[]}"#, Ok(false)),
            ("{}", Ok(false)),
            (r#"{"aud":null}"#, Err(wrong("aud"))),
            (r#"{"aud":7}"#, Err(wrong("aud"))),
            (r#"{"aud":["a",7]}"#, Err(wrong("aud"))),
            (r#"{"aud":{"a":1}}"#, Err(wrong("aud"))),
        ] {
            assert_eq!(claims(json).is_for(&ours), is_for, "{json}");
        }
    }

    #[test]
    fn names_can_be_shown() {
        assert_eq!(claims(r#"{"sub":"a\u0301"}"#).name("sub"), Ok(Some("a\u{301}".into())));
        let long = format!(r#"{{"sub":"{}"}}"#, "a".repeat(256));
        for json in [
            r#"{"sub":""}"#,
            r#"{"sub":"a\nb"}"#,
            r#"{"sub":"a\u0000"}"#,
            r#"{"sub":7}"#,
            r#"{"sub":null}"#,
            &long,
        ] {
            assert_eq!(claims(json).name("sub"), Err(wrong("sub")), "{json}");
        }
    }

    #[test]
    fn a_claim_grants_topics() {
        let granted = claims(r#"{"tidings":{"follow":["orders/*"],"later":1}}"#).granted("tidings");
        let granted = granted.expect("well formed");
        assert_eq!(granted.follow, [Pattern::parse("orders/*").expect("a pattern")]);
        assert!(granted.publish.is_empty() && !granted.control);
        let url = "https://example.org/tidings";
        let named = claims(r#"{"https://example.org/tidings":{"control":true,"publish":["a"]}}"#).granted(url);
        assert!(named.is_ok_and(|granted| granted.control && granted.publish.len() == 1));
        assert_eq!(
            claims(r#"{"other":{"control":true}}"#).granted(url),
            Ok(Granted::default())
        );
        let many = format!(r#"{{"follow":[{}"a"]}}"#, "\"a\",".repeat(MAX_PATTERNS));
        for json in [
            r#"{"follow":["a b"]}"#,
            r#"{"follow":"a"}"#,
            r#"{"follow":[7]}"#,
            r#"{"follow":null}"#,
            r#"{"control":"true"}"#,
            r#"{"control":1}"#,
            r#"{"control":false,"control":true}"#,
            r#"[[],[],true]"#,
            "null",
            "\"a\"",
            &many,
        ] {
            let json = format!(r#"{{"tidings":{json}}}"#);
            let denied = Denied::Claim {
                claim: "tidings".into(),
            };
            assert_eq!(claims(&json).granted("tidings"), Err(denied), "{json}");
        }
    }
}
