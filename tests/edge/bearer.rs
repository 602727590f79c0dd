//! Tokens, and edges that ask for them.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tidings::{
    auth::{
        Auth, Issuer, Pattern, Settings,
        keys::{Key, Keys},
    },
    model::UnixMillis,
};

use crate::world::Options;

const SECRET: &[u8] = b"a secret of more than 32 bytes, for tests alone";

/// An hour: longer than any test.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// What differs from the usual.
pub(crate) struct Asked {
    pub(crate) public: &'static [&'static str],
    pub(crate) leeway: Duration,
    pub(crate) notice: Duration,
    pub(crate) keys: Keys,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            public: &[],
            leeway: Duration::ZERO,
            notice: Duration::from_secs(30),
            keys: Keys::given(vec![Key::secret(SECRET).expect("long enough")]),
        }
    }
}

/// Asks everybody for a token of this module.
pub(crate) fn asking(asked: Asked) -> Arc<Auth> {
    let public = asked.public.iter().map(|text| Pattern::parse(text).expect("a pattern"));
    Arc::new(Auth::new(Settings {
        issuers: vec![Issuer {
            name: None,
            audience: vec!["tidings".into()],
            claim: "tidings".into(),
            keys: Arc::new(asked.keys),
        }],
        public: public.collect(),
        cookie: Some("tidings_token".to_owned()),
        leeway: asked.leeway,
        expiry_notice: asked.notice,
        ..Settings::default()
    }))
}

/// An edge that asks everybody.
pub(crate) fn options() -> Options {
    Options {
        auth: asking(Asked::default()),
        ..Options::default()
    }
}

/// A token with these claims, and the usual ones.
pub(crate) fn token_with(lives: Duration, more: &Value) -> String {
    let now = UnixMillis::now().0;
    let ends = now + u64::try_from(lives.as_millis()).expect("short");
    let mut claims = json!({ "aud": "tidings", "iat": now as f64 / 1e3, "exp": ends as f64 / 1e3 });
    let all = claims.as_object_mut().expect("an object");
    all.extend(more.as_object().expect("an object").clone());
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).expect("signs")
}

/// A user's token, and what they may follow beside their inbox.
pub(crate) fn token(user: &str, follow: &[&str]) -> String {
    token_with(HOUR, &json!({ "sub": user, "tidings": { "follow": follow } }))
}

/// A user's token that lives so long.
pub(crate) fn short(user: &str, lives: Duration) -> String {
    token_with(lives, &json!({ "sub": user }))
}

/// The header that brings it.
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
