//! What a token says of itself before it is verified (RFC 7515, section 4.1).

use super::members::Members;
use crate::auth::{Denied, keys::Algorithm};

/// How long the name of a key may be, in bytes.
const KEY_ID_BYTES: usize = 512;

/// The header of a token.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::auth) struct Header {
    /// How it says that it is signed.
    pub(in crate::auth) algorithm: Algorithm,
    /// The key that it says it is signed with.
    pub(in crate::auth) key: Option<String>,
}

impl Header {
    pub(super) fn parse(json: &[u8]) -> Result<Self, Denied> {
        let members = Members::parse(json).ok_or(Denied::Malformed)?;
        // Keys are not taken from tokens, nor from where a token says; and what must be understood (`crit`) is not.
        if ["crit", "jwk", "jku", "x5c", "x5u"]
            .iter()
            .any(|name| members.get(name).is_some())
        {
            return Err(Denied::Untrusted);
        }
        let text = |name| members.read::<String>(name).map_err(|_| Denied::Malformed);
        // A token that says it is of another kind is not for this (RFC 8725, section 3.11).
        let is_access = |kind: &str| {
            let kind = kind.to_ascii_lowercase();
            matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
        };
        if text("typ")?.is_some_and(|kind| !is_access(&kind)) {
            return Err(Denied::Untrusted);
        }
        let algorithm = text("alg")?.ok_or(Denied::Malformed)?;
        let key = text("kid")?;
        if key.as_ref().is_some_and(|key| key.len() > KEY_ID_BYTES) {
            return Err(Denied::Malformed);
        }
        Ok(Self {
            algorithm: Algorithm::parse(&algorithm).ok_or(Denied::Untrusted)?,
            key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Header, Denied> {
        Header::parse(json.as_bytes())
    }

    #[test]
    fn says_how_it_is_signed() {
        let header = parse(r#"{"alg":"ES256","typ":"JWT","kid":"k","x5t":"AA"}"#).expect("a header");
        assert_eq!((header.algorithm, header.key.as_deref()), (Algorithm::Es256, Some("k")));
        for typ in ["jwt", "at+jwt", "application/at+JWT"] {
            assert!(parse(&format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#)).is_ok(), "{typ}");
        }
    }

    #[test]
    fn what_is_not_accepted_is_refused() {
        for (json, denied) in [
            (r#"{"alg":"none"}"#, Denied::Untrusted),
            (r#"{"alg":"None"}"#, Denied::Untrusted),
            (r#"{"alg":"hs256"}"#, Denied::Untrusted),
            (r#"{"alg":"HS512"}"#, Denied::Untrusted),
            (r#"{"alg":""}"#, Denied::Untrusted),
            (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, Denied::Untrusted),
            (r#"{"alg":"HS256","crit":null}"#, Denied::Untrusted),
            (r#"{"alg":"HS256","jwk":{}}"#, Denied::Untrusted),
            (
                r#"{"alg":"HS256","jku":"https://evil.example/jwks.json"}"#,
                Denied::Untrusted,
            ),
            (r#"{"alg":"RS256","x5u":"https://evil.example"}"#, Denied::Untrusted),
            (r#"{"alg":"RS256","x5c":[]}"#, Denied::Untrusted),
            (r#"{"alg":"RS256","typ":"logout+jwt"}"#, Denied::Untrusted),
            ("{}", Denied::Malformed),
            ("[]", Denied::Malformed),
            ("null", Denied::Malformed),
            ("", Denied::Malformed),
            (r#"{"alg":null}"#, Denied::Malformed),
            (r#"{"alg":["HS256"]}"#, Denied::Malformed),
            (r#"{"alg":"HS256","kid":7}"#, Denied::Malformed),
            (r#"{"alg":"HS256","alg":"none"}"#, Denied::Malformed),
            (r#"{"alg":"none","\u0061lg":"HS256"}"#, Denied::Malformed),
            (r#"{"alg":"HS256"} x"#, Denied::Malformed),
        ] {
            assert_eq!(parse(json), Err(denied), "{json}");
        }
    }
}
