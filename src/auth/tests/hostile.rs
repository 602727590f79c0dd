//! What somebody sends who has no token, and would like to be taken for one who has.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

/// A token with this header and these claims, signed with whatever key as whatever the key is for.
fn forge(header: &Value, claims: &str, key: &SigningKey) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", part(&header.to_string()), part(claims));
    let signature = key.signature(&message).expect("signed");
    format!("{message}.{signature}")
}

#[test]
fn a_token_does_not_say_how_it_is_verified() {
    let claims = claims().to_string();
    // Nothing is verified at all.
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let token = forge(&json!({ "alg": alg }), &claims, &HMAC);
        let unsigned = &token[..=token.rfind('.').expect("three parts")];
        for auth in [auth(secret()), auth(public(&RSA)), auth(public(&EC)), auth(public(&ED))] {
            for token in [&token, unsigned] {
                assert_eq!(denied(&auth, token), Some(Denied::Untrusted), "{alg}");
            }
        }
    }
    // A public key is taken for a secret, in every form that somebody may have it in.
    for (pair, kind) in [(&*RSA, "RSA"), (&*EC, "EC"), (&*ED, "OKP")] {
        let pem = pair.public.as_bytes();
        let lines: String = pair.public.lines().filter(|line| !line.starts_with('-')).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(&lines).expect("PEM");
        let jwk = json!({ "kty": kind, "x": URL_SAFE_NO_PAD.encode(&der) }).to_string();
        let auth = auth(public(pair));
        for secret in [
            pem,
            pair.public.trim().as_bytes(),
            lines.as_bytes(),
            &der,
            &der[22..],
            jwk.as_bytes(),
        ] {
            let material = jsonwebtoken::EncodingKey::from_secret(secret);
            for alg in ["HS256", "RS256", "ES256", "EdDSA"] {
                let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
                let message = format!("{}.{}", part(&json!({ "alg": alg }).to_string()), part(&claims));
                let signature =
                    jsonwebtoken::crypto::sign(message.as_bytes(), &material, jsonwebtoken::Algorithm::HS256);
                let token = format!("{message}.{}", signature.expect("signed"));
                assert_eq!(denied(&auth, &token), Some(Denied::Untrusted), "{kind} as {alg}");
            }
        }
    }
    // A key is used for what it is not for.
    for (signing, keys) in [
        (&*HMAC, secret()),
        (&RSA.signing, public(&RSA)),
        (&EC.signing, public(&EC)),
        (&ED.signing, public(&ED)),
    ] {
        let auth = auth(keys);
        for alg in ["HS256", "RS256", "ES256", "EdDSA", "HS512", "PS256", "RS512", "ES384"] {
            let token = forge(&json!({ "alg": alg }), &claims, signing);
            let expected = (alg != signing.algorithm().name()).then_some(Denied::Untrusted);
            assert_eq!(
                denied(&auth, &token),
                expected,
                "{alg} with a key for {:?}",
                signing.algorithm()
            );
        }
    }
}

#[test]
fn keys_do_not_come_with_tokens() {
    let auth = auth(public(&EC));
    let mine = pair(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"));
    for (name, value) in [
        ("jwk", json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" })),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["AA"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
    ] {
        let mut header = json!({ "alg": "ES256", "kid": "../../dev/null" });
        header[name] = value;
        for key in [&mine.signing, &EC.signing] {
            let token = forge(&header, &claims().to_string(), key);
            assert_eq!(denied(&auth, &token), Some(Denied::Untrusted), "{name}");
        }
    }
}

#[test]
fn what_is_said_twice_is_not_believed() {
    let auth = auth(secret());
    let good = claims().to_string();
    let twice = good.replacen('{', "{\"sub\":\"bob\",", 1);
    let hidden = good.replacen('{', "{\"s\\u0075b\":\"bob\",", 1);
    let unknown = good.replacen('{', "{\"x\":1,\"x\":2,", 1);
    for text in [twice, hidden, unknown] {
        let token = forge(&json!({ "alg": "HS256" }), &text, &HMAC);
        assert_eq!(denied(&auth, &token), Some(Denied::Malformed), "{text}");
    }
    let fine = forge(&json!({ "alg": "HS256" }), &good, &HMAC);
    assert_eq!(denied(&auth, &fine), None);
}

#[test]
fn what_is_too_long_is_not_looked_at() {
    let auth = auth(secret());
    let long = |pad: usize| {
        let token = mint(&HMAC, &with("pad", json!("x".repeat(pad))));
        (token.len(), denied(&auth, &token))
    };
    let (bytes, verdict) = long(5_500);
    assert!(bytes < MAX_TOKEN_BYTES && verdict.is_none(), "{bytes} {verdict:?}");
    let (bytes, verdict) = long(6_000);
    assert!(
        bytes > MAX_TOKEN_BYTES && verdict == Some(Denied::Malformed),
        "{bytes} {verdict:?}"
    );
    for token in [
        "a".repeat(1 << 20),
        format!("{}.a.a", "a".repeat(1 << 20)),
        ".".repeat(1 << 20),
    ] {
        assert_eq!(denied(&auth, &token), Some(Denied::Malformed));
        assert_eq!(auth.publisher(&bring(&token), NOW).err(), Some(Denied::Malformed));
    }
    // Depth is no way round that.
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(3_000), "]".repeat(3_000));
    let token = forge(&json!({ "alg": "HS256" }), &deep, &HMAC);
    assert!(token.len() > MAX_TOKEN_BYTES || denied(&auth, &token).is_some());
}

#[test]
fn a_part_of_a_token_is_none() {
    for (signing, keys) in [
        (&*HMAC, secret()),
        (&RSA.signing, public(&RSA)),
        (&EC.signing, public(&EC)),
        (&ED.signing, public(&ED)),
    ] {
        let auth = auth(keys);
        let token = mint(signing, &claims());
        assert_eq!(denied(&auth, &token), None);
        for end in 0..token.len() {
            assert!(denied(&auth, &token[..end]).is_some(), "the first {end}");
            assert!(denied(&auth, &token[end + 1..]).is_some(), "without the first {end}");
        }
        for more in ["", ".", "=", "A", " ", "\n"] {
            let longer = format!("{token}{more}");
            assert_eq!(denied(&auth, &longer).is_none(), more.is_empty(), "{more:?} at the end");
        }
        assert!(denied(&auth, &format!("{token}.{token}")).is_some());
        assert!(denied(&auth, &format!(".{token}")).is_some());
    }
}

#[test]
fn signatures_are_made_of_more_than_zeros() {
    // CVE-2022-21449: r = s = 0 was a good signature of anything.
    let token = mint(&EC.signing, &claims());
    let message = &token[..token.rfind('.').expect("three parts")];
    for signature in [
        vec![0; 64],
        vec![0xff; 64],
        vec![0; 63],
        vec![0; 65],
        Vec::new(),
        vec![0x30, 6, 2, 1, 0, 2, 1, 0],
    ] {
        let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode(&signature));
        assert_eq!(
            denied(&auth(public(&EC)), &forged),
            Some(Denied::Untrusted),
            "{signature:?}"
        );
    }
}

/// What is said to who is refused, in words and on the wire, quotes nothing of the token.
#[test]
fn tokens_are_not_repeated() {
    let auth = auth(secret());
    for token in [
        mint(&HMAC, &with("exp", json!(0))),
        mint(&HMAC, &with("sub", json!("geheim geheim"))),
        mint(&HMAC, &with("tidings", json!({ "follow": ["geheim geheim"] }))),
        "geheim.geheim.geheim".to_owned(),
    ] {
        let denied = denied(&auth, &token).expect("refused");
        let shown = format!("{denied} {denied:?} {:?}", denied.clone().into_response());
        assert!(!shown.contains("geheim") && !shown.contains(&token[..20]), "{shown}");
    }
    let shown = format!("{auth:?}");
    assert!(!shown.contains(SECRET) && !shown.contains("0123"), "{shown}");
}

proptest! {
    #[test]
    fn any_text_is_refused(text in any::<String>()) {
        let auth = auth(secret());
        prop_assert!(follow(&auth, &text).is_err());
        prop_assert!(auth.publisher(&bring(&text), NOW).is_err());
    }

    /// Three parts of base64url, whatever is in them.
    #[test]
    fn any_bytes_are_refused(
        header in prop::collection::vec(any::<u8>(), 0..60),
        claims in prop::collection::vec(any::<u8>(), 0..60),
        signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let token = format!("{}.{}.{}", part(&header), part(&claims), part(&signature));
        prop_assert!(follow(&auth(secret()), &token).is_err());
    }

    /// Whatever a genuine issuer writes: it is let in or refused, and never ends the process.
    #[test]
    fn any_claims_are_judged(
        name in prop::sample::select(vec!["exp", "nbf", "iat", "aud", "iss", "sub", "jti", "tidings"]),
        value in prop_oneof![
            any::<f64>().prop_map(|number| json!(number)),
            any::<i64>().prop_map(|number| json!(number)),
            any::<u64>().prop_map(|number| json!(number)),
            any::<String>().prop_map(|text| json!(text)),
            any::<Vec<String>>().prop_map(|texts| json!(texts)),
            any::<String>().prop_map(|text| json!({ "follow": [text] })),
            any::<bool>().prop_map(|control| json!({ "control": control })),
        ],
    ) {
        let token = mint(&HMAC, &with(name, value));
        let _ = follow(&auth(secret()), &token);
        let _ = auth(secret()).publisher(&bring(&token), NOW);
    }

    /// No bit of a token can be another one.
    #[test]
    fn a_changed_bit_is_found(at in any::<prop::sample::Index>(), bit in 0..8_u8, kind in 0..3_usize) {
        let (signing, keys) = [(&*HMAC, secret()), (&EC.signing, public(&EC)), (&ED.signing, public(&ED))].into_iter().nth(kind).expect("there");
        let mut token = mint(signing, &claims()).into_bytes();
        let at = at.index(token.len());
        token[at] ^= 1 << bit;
        if let Ok(token) = String::from_utf8(token) {
            prop_assert!(follow(&auth(keys), &token).is_err());
        }
    }
}
