//! Publishers that are known by a token of their own, of which only the hash is kept, or by a name of their certificate.

use std::{fmt, sync::Arc};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Pattern, Patterns, Publisher};

/// The SHA-256 of a token. A token is long and random, so that there is nothing to be gained by hashing it slowly. Two are compared in the same
/// time whatever they are.
#[derive(Clone, Copy, Eq)]
pub struct TokenHash([u8; 32]);

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl TokenHash {
    /// The hash of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads a hash: 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// What a publisher shows of itself.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A token with this hash.
    Token(TokenHash),
    /// A certificate with this name among its subject alternative names: a URI or a DNS name, letter by letter.
    Certificate(String),
}

/// A publisher that is configured.
#[derive(Debug, Clone)]
pub struct KnownPublisher {
    /// Who it is.
    pub name: Arc<str>,
    /// How it is recognised.
    pub credential: Credential,
    /// What it may publish to.
    pub publish: Arc<[Pattern]>,
    /// Whether it may revoke.
    pub control: bool,
}

/// All that are configured.
#[derive(Debug, Default)]
pub(super) struct Publishers(Vec<KnownPublisher>);

impl Publishers {
    pub(super) const fn new(known: Vec<KnownPublisher>) -> Self {
        Self(known)
    }

    /// Whose token it is. All are compared, each in the same time, so that how long it takes tells nothing.
    pub(super) fn with_token(&self, token: &str) -> Option<Publisher> {
        if !self
            .0
            .iter()
            .any(|known| matches!(known.credential, Credential::Token(_)))
        {
            return None;
        }
        let hash = TokenHash::of(token);
        let mut found = None;
        for known in &self.0 {
            if let Credential::Token(theirs) = &known.credential
                && *theirs == hash
            {
                found = Some(known);
            }
        }
        found.map(KnownPublisher::publisher)
    }

    /// Whose certificate it is: the first of them that has one of its names.
    pub(super) fn with_certificate(&self, names: &[String]) -> Option<Publisher> {
        let has = |known: &&KnownPublisher| match &known.credential {
            Credential::Certificate(name) => names.contains(name),
            Credential::Token(_) => false,
        };
        self.0.iter().find(has).map(KnownPublisher::publisher)
    }
}

impl KnownPublisher {
    fn publisher(&self) -> Publisher {
        let publish = Patterns::new(self.publish.clone(), None);
        Publisher::known(self.name.clone(), publish, self.control, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Topic;

    #[test]
    fn a_hash_is_written_in_hexadecimal() {
        let hash = TokenHash::of("abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(TokenHash::parse(text), Some(hash));
        assert_eq!(TokenHash::parse(&text.to_uppercase()), Some(hash));
        let signed = format!("+{}", &text[1..]);
        for wrong in ["", &text[1..], &signed, "ä", &"g".repeat(64)] {
            assert_eq!(TokenHash::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn they_are_known_by_what_they_show() {
        let known = |name: &str, credential| KnownPublisher {
            name: name.into(),
            credential,
            publish: [Pattern::parse(&format!("{name}/*")).expect("a pattern")].into(),
            control: name == "b",
        };
        let publishers = Publishers::new(vec![
            known("a", Credential::Token(TokenHash::of("token-a"))),
            known("b", Credential::Token(TokenHash::of("token-b"))),
            known("c", Credential::Certificate("spiffe://example.org/c".to_owned())),
        ]);
        let b = publishers.with_token("token-b").expect("known");
        let topic = |text| Topic::parse(text).expect("a topic");
        assert_eq!(b.name().map(|name| &**name), Some("b"));
        assert!(b.may_control() && b.may_publish(&topic("b/1")) && !b.may_publish(&topic("a/1")));
        for token in ["", "token-", "token-c", "token-b "] {
            assert!(publishers.with_token(token).is_none(), "{token:?}");
        }
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let c = publishers.with_certificate(&names(&["x", "spiffe://example.org/c"]));
        assert_eq!(c.expect("known").name().map(|name| &**name), Some("c"));
        for of in [
            &[][..],
            &["spiffe://example.org/c/"],
            &["SPIFFE://example.org/c"],
            &["token-a"],
        ] {
            assert!(publishers.with_certificate(&names(of)).is_none(), "{of:?}");
        }
    }
}
