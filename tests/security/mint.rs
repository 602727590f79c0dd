//! An issuer of tokens, and forgers of its tokens. Tokens are put together by hand here: no library makes bad ones.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://id.example/";

/// Signs with RS256, and has its public key in a file.
pub(crate) struct Issuer {
    pair: KeyPair,
    signs: EncodingKey,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
        let signs = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).expect("a key");
        Self { pair, signs }
    }

    pub(crate) fn public_pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// The setting that makes a node trust it.
    pub(crate) fn setting(&self, dir: &Path) -> String {
        let file = dir.join("issuer.pem");
        std::fs::write(&file, self.public_pem()).expect("a file");
        format!(
            "[{{ issuer = \"{ISSUER}\", audience = [\"tidings\"], key_file = \"{}\" }}]",
            file.display()
        )
    }

    /// A token of these claims and this header, signed as it should be.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = sign(message.as_bytes(), &self.signs, Algorithm::RS256).expect("signed");
        format!("{message}.{signature}")
    }

    /// A good token of a user, with what it grants.
    pub(crate) fn good(&self, user: &str, grants: &Value) -> String {
        self.sign(&header("RS256"), &claims(user, grants))
    }

    /// Tokens that must not be taken, all of them almost good ones of this user.
    pub(crate) fn bad(&self, user: &str, grants: &Value) -> Vec<(&'static str, String)> {
        let claims = claims(user, grants);
        let good = self.good(user, grants);
        let with = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            self.sign(&header("RS256"), &claims)
        };
        let without = |name: &str| {
            let mut claims = claims.clone();
            claims.as_object_mut().expect("an object").remove(name);
            self.sign(&header("RS256"), &claims)
        };
        let parts: Vec<&str> = good.split('.').collect();
        let (head, body, signature) = (parts[0], parts[1], parts[2]);
        let mut bad: Vec<(&'static str, String)> = ["none", "None", "NONE", "nOnE", ""]
            .into_iter()
            .map(|name| ("alg: none", format!("{}.", message(&header(name), &claims))))
            .collect();
        bad.push((
            "alg: none, with the signature of another",
            format!("{}.{signature}", message(&header("none"), &claims)),
        ));
        let pem = self.public_pem();
        let der = self.pair.subject_public_key_info();
        let modulus = modulus(&der);
        for secret in [
            pem.as_bytes(),
            pem.trim_end().as_bytes(),
            pem.replace('\n', "\r\n").as_bytes(),
            pem.replace('\n', "").as_bytes(),
            &der,
            URL_SAFE_NO_PAD.encode(&modulus).as_bytes(),
            &modulus,
            self.pair.public_key_raw(),
            b"",
            b"tidings",
        ] {
            bad.push(("HS256 by what is public", forged(secret, &header("HS256"), &claims)));
            bad.push((
                "RS256 by name, HS256 by nature",
                forged(secret, &header("RS256"), &claims),
            ));
        }
        let other = Self::new();
        let own_key = json!({"alg": "RS256", "typ": "JWT", "jwk": {"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(&modulus), "e": "AQAB"}});
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let ed25519 = EncodingKey::from_ed_pem(ed25519.serialize_pem().as_bytes()).expect("a key");
        let text = message(&header("EdDSA"), &claims);
        let by_ed25519 = sign(text.as_bytes(), &ed25519, Algorithm::EdDSA).expect("signed");
        bad.extend([
            ("another's key", other.good(user, grants)),
            ("another's key, brought along", other.sign(&own_key, &claims)),
            (
                "a key at an address",
                other.sign(
                    &json!({"alg": "RS256", "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}),
                    &claims,
                ),
            ),
            (
                "a key in a file",
                other.sign(&json!({"alg": "RS256", "kid": "../../../../dev/null"}), &claims),
            ),
            ("another way to sign", format!("{text}.{by_ed25519}")),
            (
                "something critical",
                self.sign(&json!({"alg": "RS256", "crit": ["exp2"], "exp2": 1}), &claims),
            ),
            ("another audience", with("aud", json!("others"))),
            ("another audience, much like it", with("aud", json!("tidings "))),
            ("no audience", without("aud")),
            ("another issuer", with("iss", json!("https://id.example"))),
            ("no issuer", without("iss")),
            ("over", with("exp", json!(now() - 3_600))),
            (
                "over, and more than a number",
                with("exp", json!(f64::from(u32::MAX) * 1e300)),
            ),
            ("over, as text", with("exp", json!((now() + 3_600).to_string()))),
            ("over before it began", with("exp", json!(-1))),
            ("without an end", without("exp")),
            ("not yet", with("nbf", json!(now() + 3_600))),
            ("of tomorrow", with("iat", json!(now() + 86_400))),
            ("of a user that is more than one", with("sub", json!([user, "bob"]))),
            ("of nobody's name", with("sub", json!(""))),
            ("cut off", good[..good.len() - 5].to_owned()),
            ("without a signature", format!("{head}.{body}.")),
            ("without a signature's dot", format!("{head}.{body}")),
            ("two signatures", format!("{good}.{signature}")),
            (
                "a signature of something else",
                format!(
                    "{}.{signature}",
                    message(&header("RS256"), &self::claims("bob", grants))
                ),
            ),
            ("a byte more", format!("{good}A")),
            ("padded", format!("{good}==")),
            (
                "no JSON",
                format!("{}.{}.{signature}", head, URL_SAFE_NO_PAD.encode("{\"sub\":")),
            ),
            ("nothing but dots", "..".to_owned()),
            ("a word", "token".to_owned()),
            ("a topic", "user:alice".to_owned()),
            ("15 KB", format!("{head}.{body}.{}", "A".repeat(15_000))),
        ]);
        bad
    }
}

pub(crate) fn header(algorithm: &str) -> Value {
    json!({"alg": algorithm, "typ": "JWT"})
}

pub(crate) fn claims(user: &str, grants: &Value) -> Value {
    json!({
        "iss": ISSUER, "aud": "tidings", "sub": user, "iat": now(), "exp": now() + 3_600, "jti": "one", "tidings": grants,
    })
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("soon")
}

fn message(header: &Value, claims: &Value) -> String {
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

fn forged(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let signature = sign(message.as_bytes(), &EncodingKey::from_secret(secret), Algorithm::HS256).expect("signed");
    format!("{message}.{signature}")
}

/// The modulus of a 2048-bit RSA key, from its DER: the 256 bytes before the exponent (02 03 01 00 01).
fn modulus(der: &[u8]) -> Vec<u8> {
    let end = der.len() - 5;
    assert_eq!(&der[end..], [2, 3, 1, 0, 1]);
    der[end - 256..end].to_vec()
}
