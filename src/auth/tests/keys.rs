//! Which of an issuer's keys a token is verified with, and what can be a key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;
use crate::auth::keys::{Jwks, JwksError, KeyError, SkippedBecause};

/// The public key as a member of a key set.
fn jwk(pair: &Pair, id: &str) -> Value {
    let material = match pair.signing.algorithm() {
        Algorithm::Rs256 => jsonwebtoken::DecodingKey::from_rsa_pem(pair.public.as_bytes()),
        Algorithm::Es256 => jsonwebtoken::DecodingKey::from_ec_pem(pair.public.as_bytes()),
        _ => jsonwebtoken::DecodingKey::from_ed_pem(pair.public.as_bytes()),
    };
    let jwk = jsonwebtoken::jwk::Jwk::from_decoding_key(&material.expect("a key"), None).expect("a key");
    let mut jwk = serde_json::to_value(jwk).expect("JSON");
    jwk["kid"] = id.into();
    jwk
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

#[test]
fn a_set_has_keys_for_all_algorithms() {
    let text = set(&[jwk(&RSA, "r"), jwk(&EC, "e"), jwk(&ED, "d")]);
    let read = Jwks::parse(&text, true).expect("a set");
    assert!(read.skipped.is_empty(), "{:?}", read.skipped);
    let auth = auth(read.keys);
    for (pair, id) in [(&*RSA, "r"), (&*EC, "e"), (&*ED, "d")] {
        let token = |id| pair.signing.mint(&claims(), id).expect("signed");
        assert_eq!(denied(&auth, &token(Some(id))), None);
        assert_eq!(denied(&auth, &token(None)), None, "it need not say which");
        assert_eq!(
            denied(&auth, &token(Some("x"))),
            Some(Denied::Untrusted),
            "it must not say another"
        );
    }
}

#[test]
fn an_odd_key_does_not_take_the_others_with_it() {
    let good = jwk(&EC, "good");
    let changed = |name: &str, value: Value| {
        let mut key = jwk(&EC, "odd");
        key[name] = value;
        key
    };
    let weak = json!({ "kty": "RSA", "kid": "odd", "n": URL_SAFE_NO_PAD.encode([0xff; 128]), "e": "AQAB" });
    let exponent = json!({ "kty": "RSA", "kid": "odd", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": "AQ" });
    for (odd, told) in [
        (json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }), false),
        (json!({ "kty": "future" }), false),
        (changed("use", json!("enc")), false),
        (changed("key_ops", json!(["encrypt"])), false),
        (changed("alg", json!("ECDH-ES")), false),
        (changed("x", json!("AA")), true),
        (changed("x", Value::Null), true),
        (changed("x", json!("not base64")), true),
        (changed("kid", json!(7)), true),
        (changed("d", json!("AA")), true),
        (weak, true),
        (exponent, true),
        (json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode([1; 64]) }), true),
        (json!("key"), true),
        (Value::Null, true),
    ] {
        let read = Jwks::parse(&set(&[odd.clone(), good.clone()]), true).expect("one is good");
        assert_eq!((read.keys.len(), read.skipped.len()), (1, usize::from(told)), "{odd}");
        assert_eq!(Jwks::parse(&set(&[odd]), true).err(), Some(JwksError::Empty));
    }
    let published = Jwks::parse(&set(&[changed("d", json!("AA")), good.clone()]), true).expect("a set");
    assert_eq!(published.skipped[0].problem, SkippedBecause::PublishedPrivateKey);
    assert_eq!(published.skipped[0].id.as_deref(), Some("odd"));
    let private = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET) });
    assert_eq!(
        Jwks::parse(&set(std::slice::from_ref(&private)), false)
            .expect("a set")
            .keys
            .len(),
        1
    );
    let short = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(&SECRET[1..]) });
    let read = Jwks::parse(&set(&[short, private]), false).expect("a set");
    assert_eq!(read.skipped[0].problem, KeyError::ShortSecret { bytes: 31 }.into());
}

#[test]
fn what_is_no_set_is_refused() {
    for text in [
        "",
        "{}",
        "[]",
        "null",
        "{\"keys\":7}",
        "{\"keys\":[",
        "<html>",
        "{\"keys\":[],\"keys\":[]}",
    ] {
        assert_eq!(
            Jwks::parse(text.as_bytes(), true).err(),
            Some(JwksError::NotASet),
            "{text}"
        );
    }
    assert_eq!(Jwks::parse(b"{\"keys\":[]}", true).err(), Some(JwksError::Empty));
    let many = set(&vec![jwk(&EC, "k"); 200]);
    let read = Jwks::parse(&many, true).expect("a set");
    assert_eq!((read.keys.len(), read.skipped.len()), (64, 1));
}

#[test]
fn public_keys_are_read_from_pem() {
    let both = format!("# two keys\n{}\n{}", RSA.public, ED.public);
    let keys = Key::from_pem(both.as_bytes()).expect("keys");
    assert_eq!(
        keys.iter().map(Key::algorithm).collect::<Vec<_>>(),
        [Algorithm::Rs256, Algorithm::EdDsa]
    );
    let certified = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["a".to_owned()]).expect("valid");
    let certificate = certificate.self_signed(&certified).expect("signed").pem();
    assert_eq!(
        Key::from_pem(certificate.as_bytes()).expect("a key")[0].algorithm(),
        Algorithm::Es256
    );
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    for (text, error) in [
        (certified.serialize_pem(), KeyError::Private),
        (other.public_key_pem(), KeyError::Kind),
        (String::new(), KeyError::NotPem),
        ("hello".to_owned(), KeyError::NotPem),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_owned(),
            KeyError::Malformed,
        ),
        (
            "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n".to_owned(),
            KeyError::Malformed,
        ),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n".to_owned(), KeyError::Malformed),
        (
            "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned(),
            KeyError::NotPem,
        ),
        (ED.public.repeat(65), KeyError::TooMany { max: 64 }),
    ] {
        assert_eq!(Key::from_pem(text.as_bytes()).err(), Some(error), "{text}");
    }
    assert_eq!(Key::from_pem(b"\xff\xfe").err(), Some(KeyError::NotPem));
}

#[test]
fn a_key_that_is_not_there_yet_is_asked_for() {
    let keys = Arc::new(Keys::asked_for());
    let mut trusted = issuer("https://id.example", Vec::new());
    trusted.keys = keys.clone();
    let auth = Auth::new(settings(vec![trusted]));
    let token = |id| EC.signing.mint(&claims(), id).expect("signed");
    let at = |seconds: u64| UnixMillis(NOW.0 + seconds * 1_000);
    let verdict = |token: &str, now| auth.subscriber(&bring(token), now).err();
    let pending = |denied: Option<Denied>| matches!(denied, Some(Denied::KeyPending { .. }));
    // Nobody was asked yet.
    assert!(pending(verdict(&token(Some("a")), at(0))) && pending(verdict(&token(None), at(0))));
    let read = Jwks::parse(&set(&[jwk(&EC, "a")]), true).expect("a set");
    keys.replace(read.keys, at(0));
    assert_eq!(verdict(&token(Some("a")), at(1)), None);
    assert_eq!(verdict(&token(None), at(1)), None);
    // Who was asked just now does not know it: it is nobody's. Later it may be.
    assert_eq!(verdict(&token(Some("b")), at(9)), Some(Denied::Untrusted));
    assert!(pending(verdict(&token(Some("b")), at(10))));
    // What is known and does not fit is not asked for.
    let forged = ED.signing.mint(&claims(), Some("a")).expect("signed");
    assert_eq!(verdict(&forged, at(60)), Some(Denied::Untrusted));
    // Nor is one of an issuer whom nobody trusts.
    let stranger = EC.signing.mint(&with("iss", json!("x")), Some("b")).expect("signed");
    assert_eq!(verdict(&stranger, at(60)), Some(Denied::Elsewhere));
    let read = Jwks::parse(&set(&[jwk(&EC, "b")]), true).expect("a set");
    keys.replace(read.keys, at(11));
    assert_eq!(verdict(&token(Some("b")), at(12)), None);
    assert_eq!(verdict(&token(Some("a")), at(12)), Some(Denied::Untrusted));
    // One that names no key may be of a key that has come since.
    let nameless = ED.signing.mint(&claims(), None).expect("signed");
    assert_eq!(verdict(&nameless, at(20)), Some(Denied::Untrusted));
    assert!(pending(verdict(&nameless, at(21))));
}
