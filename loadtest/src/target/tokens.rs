//! Tokens of users and publishers, for a server that knows the secret they are signed with.
//!
//! They are JWTs, HS256, and say `aud`, `sub`, `exp`, `iat`, `jti` and what they grant: enough that a server keeps an identity for each.

use std::{fmt, time::UNIX_EPOCH};

use anyhow::{Context as _, Result};
use jsonwebtoken::{EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// For how long they are good: longer than any run.
const SECONDS: u64 = 7 * 24 * 60 * 60;

/// What tokens are made from. It is sent to the processes that use them: a million tokens are shorter to sign than to send.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    secret: String,
    audience: String,
    /// Seconds since 1970.
    issued: u64,
    /// Patterns of the topics that every user may follow beside the inbox.
    follow: Vec<String>,
}

impl Tokens {
    /// Of a new issuer. Users may follow what these patterns say.
    #[must_use]
    pub fn new(follow: &[&str]) -> Self {
        Self::of(format!("{:032x}", rand::random::<u128>()), "tidings", follow)
    }

    /// Of an issuer that a server knows already: by this secret, of 32 bytes or more, for this audience.
    #[must_use]
    pub fn of(secret: String, audience: &str, follow: &[&str]) -> Self {
        Self {
            secret,
            audience: audience.to_owned(),
            issued: UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
            follow: follow.iter().map(|&pattern| pattern.to_owned()).collect(),
        }
    }

    /// The setting by which a server knows the issuer: `auth.issuers`, and its value.
    #[must_use]
    pub fn setting(&self) -> (&'static str, String) {
        let issuers = json!([{ "audience": [self.audience], "secret": self.secret }]);
        ("auth.issuers", issuers.to_string())
    }

    /// What signs them.
    #[must_use]
    pub fn signer(&self) -> Signer {
        Signer {
            key: EncodingKey::from_secret(self.secret.as_bytes()),
            header: Header::default(),
            tokens: self.clone(),
        }
    }

    /// The token of a publisher that may publish to all topics.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn publisher(&self) -> Result<String> {
        // Inboxes are granted only by a pattern that names them.
        let grants = Grants {
            follow: &[],
            publish: &["**", "user:**"],
        };
        self.signer().sign("loadtest", &grants)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("audience", &self.audience)
            .field("follow", &self.follow)
            .finish_non_exhaustive()
    }
}

/// Signs tokens, each in some microseconds.
pub struct Signer {
    key: EncodingKey,
    header: Header,
    tokens: Tokens,
}

impl Signer {
    /// The token of a user: of who follows the topic `user:<user>` without asking.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn user(&self, user: &str) -> Result<String> {
        let grants = Grants {
            follow: &self.tokens.follow,
            publish: &[],
        };
        self.sign(user, &grants)
    }

    fn sign(&self, subject: &str, grants: &Grants<'_>) -> Result<String> {
        let claims = Claims {
            aud: &self.tokens.audience,
            sub: subject,
            exp: self.tokens.issued + SECONDS,
            iat: self.tokens.issued,
            jti: format!("{subject:0>32}"),
            tidings: grants,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.key).context("a token cannot be signed")
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tokens.fmt(f)
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    sub: &'a str,
    exp: u64,
    iat: u64,
    jti: String,
    tidings: &'a Grants<'a>,
}

#[derive(Serialize)]
struct Grants<'a> {
    follow: &'a [String],
    publish: &'a [&'a str],
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    fn claims(tokens: &Tokens, token: &str) -> Value {
        let key = DecodingKey::from_secret(tokens.secret.as_bytes());
        let mut validation = Validation::default();
        validation.set_audience(&["tidings"]);
        jsonwebtoken::decode(token, &key, &validation).expect("signed").claims
    }

    #[test]
    fn a_token_says_who_and_what() {
        let tokens = Tokens::new(&["news", "orders/*"]);
        let user = claims(&tokens, &tokens.signer().user("7").expect("signed"));
        assert_eq!(
            (user["sub"].as_str(), user["aud"].as_str()),
            (Some("7"), Some("tidings"))
        );
        assert_eq!(user["jti"].as_str().map(str::len), Some(32));
        assert_eq!(user["tidings"]["follow"], json!(["news", "orders/*"]));
        assert_eq!(
            user["exp"]
                .as_u64()
                .zip(user["iat"].as_u64())
                .map(|(exp, iat)| exp - iat),
            Some(SECONDS)
        );
        let publisher = claims(&tokens, &tokens.publisher().expect("signed"));
        assert_eq!(publisher["tidings"]["publish"], json!(["**", "user:**"]));
    }

    #[test]
    fn another_process_signs_the_same_and_the_secret_shows_nowhere() {
        let tokens = Tokens::new(&["news"]);
        let sent = serde_json::to_string(&tokens).expect("JSON");
        let other: Tokens = serde_json::from_str(&sent).expect("the same");
        assert_eq!(
            other.signer().user("7").expect("signed"),
            tokens.signer().user("7").expect("signed")
        );
        assert!(!format!("{tokens:?} {:?}", tokens.signer()).contains(&tokens.secret));
        assert!(tokens.setting().1.contains(&tokens.secret));
    }
}
