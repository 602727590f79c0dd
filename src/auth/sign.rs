//! Making tokens: for trying things out, for tests, and for services that need no issuer but a key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, crypto::sign};
use serde_json::{Value, json};

use super::keys::{Algorithm, Key, KeyError};

/// The fewest bytes that a signature with an RSA key of 2048 bits has.
const RSA_SIGNATURE: usize = 256;

/// What tokens are signed with.
#[derive(Debug)]
pub struct SigningKey {
    algorithm: Algorithm,
    material: EncodingKey,
}

/// Why something cannot be signed with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// A secret cannot be one.
    #[error(transparent)]
    Secret(#[from] KeyError),
    /// It is not PEM, or not a private key.
    #[error("there is no private key in it: PEM begins with `-----BEGIN PRIVATE KEY-----`")]
    NotPem,
    /// It is in an older form.
    #[error("the key is in a form of its own kind: `openssl pkcs8 -topk8 -nodes -in FILE` makes the usual one of it")]
    OldForm,
    /// It is encrypted.
    #[error("the key is encrypted: `openssl pkey -in FILE` takes the password off")]
    Encrypted,
    /// It is of another kind, too small, or damaged.
    #[error("the key is neither RSA of 2048 bits or more, EC on the curve P-256, nor Ed25519")]
    Kind,
}

impl SigningKey {
    /// A secret that is shared with who verifies (HS256).
    ///
    /// # Errors
    /// If it is too short to be one, or is a key.
    pub fn secret(secret: &[u8]) -> Result<Self, SigningKeyError> {
        Key::secret(secret)?;
        Ok(Self {
            algorithm: Algorithm::Hs256,
            material: EncodingKey::from_secret(secret),
        })
    }

    /// A private key (PEM). What it is decides the algorithm.
    ///
    /// # Errors
    /// If it is none that can be used.
    pub fn from_pem(text: &[u8]) -> Result<Self, SigningKeyError> {
        let text = std::str::from_utf8(text).map_err(|_| SigningKeyError::NotPem)?;
        let is_there = |label: &str| text.contains(&format!("-----BEGIN {label}-----"));
        if is_there("ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(SigningKeyError::Encrypted);
        }
        if is_there("EC PRIVATE KEY") {
            return Err(SigningKeyError::OldForm);
        }
        if !is_there("PRIVATE KEY") && !is_there("RSA PRIVATE KEY") {
            return Err(SigningKeyError::NotPem);
        }
        let pem = text.as_bytes();
        let (algorithm, material) = if let Ok(key) = EncodingKey::from_rsa_pem(pem) {
            (Algorithm::Rs256, key)
        } else if let Ok(key) = EncodingKey::from_ec_pem(pem) {
            (Algorithm::Es256, key)
        } else if let Ok(key) = EncodingKey::from_ed_pem(pem) {
            (Algorithm::EdDsa, key)
        } else {
            return Err(SigningKeyError::Kind);
        };
        let key = Self { algorithm, material };
        // What it is good for shows when it is used.
        let signature = key.signature("").ok_or(SigningKeyError::Kind)?;
        let bytes = URL_SAFE_NO_PAD.decode(signature).map_or(0, |bytes| bytes.len());
        if algorithm == Algorithm::Rs256 && bytes < RSA_SIGNATURE {
            return Err(SigningKeyError::Kind);
        }
        Ok(key)
    }

    /// How it signs.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// A token with these claims; `key` is what it says of which key it is signed with (`kid`).
    #[must_use]
    pub fn mint(&self, claims: &Value, key: Option<&str>) -> Option<String> {
        let mut header = json!({ "typ": "JWT", "alg": self.algorithm.name() });
        if let Some(key) = key {
            header["kid"] = key.into();
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.signature(&message)?;
        Some(format!("{message}.{signature}"))
    }

    /// In base64url; nothing if the key cannot sign.
    pub(super) fn signature(&self, message: &str) -> Option<String> {
        sign(message.as_bytes(), &self.material, self.algorithm.into()).ok()
    }
}
