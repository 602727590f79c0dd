//! The keys that tokens are verified with.
//!
//! A key is for one algorithm, which follows from what it is: a token that says another is not verified with it. So nobody can have a public key
//! taken for a secret, or have nothing verified at all (`none`).

mod endpoint;
mod file;
mod jwks;
mod pem;
mod refresh;
mod set;
mod source;

use std::fmt;

use jsonwebtoken::DecodingKey;

pub use self::{
    endpoint::{Endpoint, EndpointError, FetchError},
    jwks::{Jwks, JwksError, Skipped, SkippedBecause},
    set::{Keys, REFRESH_AT_MOST_EVERY},
    source::{Content, Keeper, Source, SourceError},
};

/// The fewest bits of an RSA key: RFC 7518, section 3.3.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
/// The fewest bytes of a secret: as many as HMAC-SHA-256 gives out (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: a secret that the issuer shares.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    /// The algorithm of this name, letter by letter.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        // What RFC 9864 calls it now.
        if name == "Ed25519" {
            return Some(Self::EdDsa);
        }
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Its name in a token.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Hs256 => Self::HS256,
            Algorithm::Rs256 => Self::RS256,
            Algorithm::Es256 => Self::ES256,
            Algorithm::EdDsa => Self::EdDSA,
        }
    }
}

/// A key, and what it is for.
#[derive(Clone)]
pub struct Key {
    /// Its name (`kid`), if it has one.
    id: Option<Box<str>>,
    algorithm: Algorithm,
    material: DecodingKey,
}

impl Key {
    /// A secret that the issuer shares.
    ///
    /// # Errors
    /// If it is too short to be one, or is a public key.
    pub fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < SECRET_BYTES {
            return Err(KeyError::ShortSecret { bytes: secret.len() });
        }
        let text = secret.trim_ascii_start();
        if text.starts_with(b"-----BEGIN") || text.starts_with(b"{") {
            return Err(KeyError::KeyAsSecret);
        }
        Ok(Self {
            id: None,
            algorithm: Algorithm::Hs256,
            material: DecodingKey::from_secret(secret),
        })
    }

    /// The public keys of a PEM text: at least one.
    ///
    /// # Errors
    /// If there is none, or one that cannot be used.
    pub fn from_pem(text: &[u8]) -> Result<Vec<Self>, KeyError> {
        pem::read(text)
    }

    /// An RSA key of this modulus and exponent, as big-endian numbers.
    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let modulus = without_zeros(modulus);
        let exponent = without_zeros(exponent);
        let bits = modulus
            .first()
            .map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::Rsa { bits });
        }
        let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
        if !is_odd || exponent == [1] || exponent.len() > 8 {
            return Err(KeyError::Exponent);
        }
        Ok(Self {
            id: None,
            algorithm: Algorithm::Rs256,
            material: DecodingKey::from_rsa_raw_components(modulus, exponent),
        })
    }

    /// A point on P-256, uncompressed: 4, x, y.
    fn p256(point: &[u8]) -> Result<Self, KeyError> {
        if point.len() != 65 || point[0] != 4 {
            return Err(KeyError::Malformed);
        }
        Ok(Self {
            id: None,
            algorithm: Algorithm::Es256,
            material: DecodingKey::from_ec_der(point),
        })
    }

    fn ed25519(point: &[u8]) -> Result<Self, KeyError> {
        if point.len() != 32 {
            return Err(KeyError::Malformed);
        }
        Ok(Self {
            id: None,
            algorithm: Algorithm::EdDsa,
            material: DecodingKey::from_ed_der(point),
        })
    }

    fn named(self, id: Option<&str>) -> Self {
        Self {
            id: id.map(Into::into),
            ..self
        }
    }

    /// Its name (`kid`), if it has one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// What it is for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether it made this signature (base64url) of a message.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.material, self.algorithm.into()).unwrap_or(false)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Why something cannot be a key. Nothing in it is, or quotes, a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret can be guessed.
    #[error("a secret has at least 32 bytes, and this one has {bytes}: `openssl rand -base64 48` makes one")]
    ShortSecret {
        /// How long it is.
        bytes: usize,
    },
    /// What everybody may know was given as a secret.
    #[error("this is a key, not a secret: a public key belongs in `key`, `key_file` or `jwks_file`")]
    KeyAsSecret,
    /// It is not PEM.
    #[error("there is no public key in it: PEM begins with `-----BEGIN PUBLIC KEY-----`")]
    NotPem,
    /// It is what tokens are signed with.
    #[error("this is a private key, which stays with the issuer: give the public one (`openssl pkey -pubout`)")]
    Private,
    /// An RSA key can be factored, or is larger than can be used.
    #[error("an RSA key has 2048 to 8192 bits, and this one has {bits}")]
    Rsa {
        /// How many it has.
        bits: usize,
    },
    /// An RSA key makes no sense.
    #[error("the exponent of the RSA key makes no sense")]
    Exponent,
    /// It is a key of another kind.
    #[error("a key is RSA, EC on the curve P-256, or Ed25519; this is none of them")]
    Kind,
    /// It is damaged.
    #[error("the key is damaged")]
    Malformed,
    /// There are too many of them.
    #[error("there are more keys than the {max} that an issuer may have")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
}

#[cfg(test)]
mod tests;
