//! Public keys as PEM: `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`, one or several.

use x509_parser::{
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519},
    pem::Pem,
    prelude::FromDer as _,
    public_key::RSAPublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::{Key, KeyError, set::MAX_KEYS};

/// Reads all of them.
pub(super) fn read(text: &[u8]) -> Result<Vec<Key>, KeyError> {
    if std::str::from_utf8(text).is_err() {
        return Err(KeyError::NotPem);
    }
    let mut keys = Vec::new();
    for block in Pem::iter_from_buffer(text) {
        if keys.len() == MAX_KEYS {
            return Err(KeyError::TooMany { max: MAX_KEYS });
        }
        keys.push(key(&block.map_err(|_| KeyError::Malformed)?)?);
    }
    if keys.is_empty() {
        return Err(KeyError::NotPem);
    }
    Ok(keys)
}

fn key(block: &Pem) -> Result<Key, KeyError> {
    match block.label.as_str() {
        "PUBLIC KEY" => match SubjectPublicKeyInfo::from_der(&block.contents) {
            Ok(([], info)) => from_info(&info),
            _ => Err(KeyError::Malformed),
        },
        "RSA PUBLIC KEY" => rsa(&block.contents),
        "CERTIFICATE" => {
            let certificate = block.parse_x509().map_err(|_| KeyError::Malformed)?;
            from_info(&certificate.tbs_certificate.subject_pki)
        }
        label if label.ends_with("PRIVATE KEY") => Err(KeyError::Private),
        _ => Err(KeyError::NotPem),
    }
}

fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Key, KeyError> {
    let bytes: &[u8] = &info.subject_public_key.data;
    let kind = &info.algorithm.algorithm;
    if *kind == OID_PKCS1_RSAENCRYPTION {
        rsa(bytes)
    } else if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let parameters = info.algorithm.parameters.as_ref();
        let curve = parameters.and_then(|parameters| parameters.as_oid().ok());
        if curve != Some(OID_EC_P256) {
            return Err(KeyError::Kind);
        }
        Key::p256(bytes)
    } else if *kind == OID_SIG_ED25519 {
        Key::ed25519(bytes)
    } else {
        Err(KeyError::Kind)
    }
}

/// `RSAPublicKey` of RFC 8017.
fn rsa(der: &[u8]) -> Result<Key, KeyError> {
    match RSAPublicKey::from_der(der) {
        Ok(([], key)) => Key::rsa(key.modulus, key.exponent),
        _ => Err(KeyError::Malformed),
    }
}
