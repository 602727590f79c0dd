//! Key sets (JWKS, RFC 7517). What is in them that is of no use here is left out, so that one odd key does not take the others with it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Algorithm, Key, KeyError, set::MAX_KEYS};

/// A key set, read.
#[derive(Debug)]
pub struct Jwks {
    /// The keys that can be used: at least one.
    pub keys: Vec<Key>,
    /// Those that should have been usable and are not.
    pub skipped: Vec<Skipped>,
}

/// A key that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its name, if it has one.
    pub id: Option<String>,
    /// Why.
    pub problem: SkippedBecause,
}

/// Why a key of a set is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkippedBecause {
    /// It cannot be a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A secret stands where everybody can read it.
    #[error("it is a secret, and this set is public: who signs with it is known to nobody")]
    PublishedSecret,
    /// The private part stands in the set.
    #[error("its private part is in the set: whoever has read it can sign")]
    PublishedPrivateKey,
}

/// Why a text is no key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is something else.
    #[error("is not a key set: `{{\"keys\":[…]}}` is one")]
    NotASet,
    /// It has no key that can be used.
    #[error("has no key that tokens could be verified with (HS256, RS256, ES256 or EdDSA, for signatures)")]
    Empty,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The members that matter (RFC 7517, 7518 and 8037).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    #[serde(default, rename = "d", deserialize_with = "is_there")]
    has_private_part: bool,
}

/// Whatever it is, it is not kept.
fn is_there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl Jwks {
    /// Reads a set. `is_public`: whether everybody can read it, so that there must be no secrets in it.
    ///
    /// # Errors
    /// If it is none, or has no key that can be used.
    pub fn parse(text: &[u8], is_public: bool) -> Result<Self, JwksError> {
        let document: Document<'_> = serde_json::from_slice(text).map_err(|_| JwksError::NotASet)?;
        let mut read = Self {
            keys: Vec::new(),
            skipped: Vec::new(),
        };
        for (at, text) in document.keys.iter().enumerate() {
            let skip = |id, problem| Skipped { id, problem };
            if at == MAX_KEYS {
                let problem = KeyError::TooMany { max: MAX_KEYS };
                read.skipped.push(skip(None, problem.into()));
                break;
            }
            let Ok(jwk) = serde_json::from_str::<Jwk>(text.get()) else {
                read.skipped.push(skip(None, KeyError::Malformed.into()));
                continue;
            };
            match key(&jwk, is_public) {
                Ok(Some(key)) => read.keys.push(key),
                Ok(None) => {}
                Err(problem) => read.skipped.push(skip(jwk.kid, problem)),
            }
        }
        if read.keys.is_empty() {
            return Err(JwksError::Empty);
        }
        Ok(read)
    }
}

/// The key; nothing if it is for something else: for encryption, or of an algorithm that is not one of these.
fn key(jwk: &Jwk, is_public: bool) -> Result<Option<Key>, SkippedBecause> {
    let for_signatures = jwk.r#use.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk
            .key_ops
            .as_ref()
            .is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    let algorithm = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => Algorithm::Rs256,
        ("EC", Some("P-256")) => Algorithm::Es256,
        ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
        ("oct", _) => Algorithm::Hs256,
        _ => return Ok(None),
    };
    let is_meant = jwk
        .alg
        .as_deref()
        .is_none_or(|name| Algorithm::parse(name) == Some(algorithm));
    if !for_signatures || !is_meant {
        return Ok(None);
    }
    if jwk.has_private_part {
        return Err(SkippedBecause::PublishedPrivateKey);
    }
    let key = match algorithm {
        Algorithm::Hs256 if is_public => return Err(SkippedBecause::PublishedSecret),
        Algorithm::Hs256 => Key::secret(&bytes(jwk.k.as_deref())?)?,
        Algorithm::Rs256 => Key::rsa(&bytes(jwk.n.as_deref())?, &bytes(jwk.e.as_deref())?)?,
        Algorithm::Es256 => {
            let (x, y) = (bytes(jwk.x.as_deref())?, bytes(jwk.y.as_deref())?);
            if x.len() != 32 {
                return Err(KeyError::Malformed.into());
            }
            Key::p256(&[&[4], &*x, &*y].concat())?
        }
        Algorithm::EdDsa => Key::ed25519(&bytes(jwk.x.as_deref())?)?,
    };
    Ok(Some(key.named(jwk.kid.as_deref())))
}

fn bytes(text: Option<&str>) -> Result<Vec<u8>, KeyError> {
    let text = text.ok_or(KeyError::Malformed)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Malformed)
}
