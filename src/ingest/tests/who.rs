//! Those who publish in these tests.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use crate::{
    auth::{
        Auth, Credential, Issuer, KnownPublisher, Pattern, Settings, TokenHash,
        keys::{Key, Keys},
    },
    model::UnixMillis,
};

const SECRET: &[u8] = b"a secret of thirty-two bytes ...";

/// The token of a publisher to `orders/*`.
pub(super) const ORDERS: &str = "the-token-of-orders";
/// The token of one who may publish everything, and revoke.
pub(super) const BOSS: &str = "the-token-of-the-boss";

/// Lets in these two, and whoever has a token of [`jwt`].
pub(super) fn some() -> Auth {
    let known = |name: &str, token, publish: &str, control| KnownPublisher {
        name: name.into(),
        credential: Credential::Token(TokenHash::of(token)),
        publish: [Pattern::parse(publish).unwrap()].into(),
        control,
    };
    Auth::new(Settings {
        issuers: vec![Issuer {
            name: None,
            audience: vec!["tidings".into()],
            claim: "tidings".into(),
            keys: Arc::new(Keys::given(vec![Key::secret(SECRET).unwrap()])),
        }],
        publishers: vec![
            known("orders", ORDERS, "orders/*", false),
            known("boss", BOSS, "**", true),
        ],
        ..Settings::default()
    })
}

/// A token of `sub` "carol", id "c1", who may publish to `orders/*`, for so long.
pub(super) fn jwt(lasts: Duration) -> String {
    jwt_of("carol", lasts)
}

/// The same for somebody of this name.
pub(super) fn jwt_of(name: &str, lasts: Duration) -> String {
    let now = UnixMillis::now().0 / 1_000;
    signed(&json!({
        "aud": "tidings", "sub": name, "jti": "c1", "iat": now, "exp": now + lasts.as_secs(), "tidings": {"publish": ["orders/*"]},
    }))
}

fn signed(claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

/// A call with a token.
pub(super) fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// The reason that an error gives.
pub(super) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
}
