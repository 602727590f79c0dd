//! Tokens as they come: good ones, and those of whoever tries.

mod hostile;
mod keys;
mod rules;

use std::sync::{Arc, LazyLock};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use super::{
    keys::{Algorithm, Key, Keys},
    *,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
/// The same in seconds, as tokens have it.
const NOW_S: u64 = 1_700_000_000;

/// A pair of keys: to sign with and, as PEM, to verify with.
struct Pair {
    signing: SigningKey,
    public: String,
}

/// One of each kind. RSA takes a while to make.
static RSA: LazyLock<Pair> =
    LazyLock::new(|| pair(&KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key")));
static EC: LazyLock<Pair> = LazyLock::new(|| pair(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")));
static ED: LazyLock<Pair> = LazyLock::new(|| pair(&KeyPair::generate_for(&PKCS_ED25519).expect("a key")));
static HMAC: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::secret(SECRET.as_bytes()).expect("a secret"));

fn pair(pair: &KeyPair) -> Pair {
    Pair {
        signing: SigningKey::from_pem(pair.serialize_pem().as_bytes()).expect("a key"),
        public: pair.public_key_pem(),
    }
}

fn public(pair: &Pair) -> Vec<Key> {
    Key::from_pem(pair.public.as_bytes()).expect("a key")
}

fn secret() -> Vec<Key> {
    vec![Key::secret(SECRET.as_bytes()).expect("a secret")]
}

fn issuer(name: &str, keys: Vec<Key>) -> Issuer {
    Issuer {
        name: (!name.is_empty()).then(|| name.into()),
        audience: vec!["tidings".into(), "events".into()],
        claim: "tidings".into(),
        keys: Arc::new(Keys::given(keys)),
    }
}

fn settings(issuers: Vec<Issuer>) -> Settings {
    Settings {
        issuers,
        leeway: Duration::from_secs(30),
        expiry_notice: Duration::from_secs(60),
        ..Settings::default()
    }
}

/// Trusts one issuer, `https://id.example`, with these keys.
fn auth(keys: Vec<Key>) -> Auth {
    Auth::new(settings(vec![issuer("https://id.example", keys)]))
}

/// The claims of a good token of ann's.
fn claims() -> Value {
    json!({
        "iss": "https://id.example", "aud": "tidings", "sub": "ann", "jti": "t1", "iat": NOW_S - 10, "exp": NOW_S + 600,
        "tidings": { "follow": ["orders/{sub}/*"], "publish": ["orders/**"] },
    })
}

/// The same with a claim changed, or taken out.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().expect("an object").remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

fn mint(key: &SigningKey, claims: &Value) -> String {
    key.mint(claims, None).expect("signed")
}

fn bring(token: &str) -> Presented<'_> {
    Presented {
        token: Some(token),
        certificate: &[],
    }
}

fn follow(auth: &Auth, token: &str) -> Result<Subscriber, Denied> {
    auth.subscriber(&bring(token), NOW)
}

fn denied(auth: &Auth, token: &str) -> Option<Denied> {
    follow(auth, token).err()
}

fn claim(claim: &'static str) -> Denied {
    Denied::Claim { claim: claim.into() }
}

fn topic(text: &str) -> crate::model::Topic {
    crate::model::Topic::parse(text).expect("a topic")
}
