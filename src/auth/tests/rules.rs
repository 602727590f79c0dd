//! What a genuine token must say, and what it is worth.

use super::*;

#[test]
fn every_algorithm_is_verified_with_its_key() {
    for (signing, keys) in [
        (&*HMAC, secret()),
        (&RSA.signing, public(&RSA)),
        (&EC.signing, public(&EC)),
        (&ED.signing, public(&ED)),
    ] {
        let token = mint(signing, &claims());
        let subscriber = follow(&auth(keys), &token).expect("good");
        assert_eq!(subscriber.user().map(User::id), Some("ann"));
    }
}

#[test]
fn a_subscriber_follows_the_inbox_what_is_granted_and_what_is_public() {
    let auth = Auth::new(Settings {
        public: vec![Pattern::parse("quakes/**").expect("a pattern")],
        ..settings(vec![issuer("", secret())])
    });
    let ann = follow(&auth, &mint(&HMAC, &claims())).expect("good");
    let nobody = follow(&auth, &mint(&HMAC, &with("sub", Value::Null))).expect("good");
    let anonymous = auth
        .subscriber(&Presented::default(), NOW)
        .expect("something is public");
    for (text, to_ann, to_nobody) in [
        ("user:ann", true, false),
        ("user:bob", false, false),
        ("user:ann/x", false, false),
        ("orders/ann/1", true, false),
        ("orders/bob/1", false, false),
        ("orders/{sub}/1", false, false),
        ("quakes/us/1", true, true),
        ("tidings.revocations", false, false),
    ] {
        let Ok(topic) = crate::model::Topic::parse(text) else {
            continue;
        };
        assert_eq!(ann.may_follow(&topic), to_ann, "{text}");
        assert_eq!(nobody.may_follow(&topic), to_nobody, "{text}");
        assert_eq!(anonymous.may_follow(&topic), to_nobody, "{text}");
    }
    assert!(nobody.user().is_none() && anonymous.lease().is_none());
    let closed = super::auth(secret()).subscriber(&Presented::default(), NOW);
    assert_eq!(closed.err(), Some(Denied::Missing));
    // Even where nobody is asked, the service's own topics are its own.
    assert!(!Subscriber::unverified(None).may_follow(&topic("tidings.revocations")));
    assert!(!Publisher::unverified().may_publish(&topic("tidings.revocations")));
}

#[test]
fn a_token_is_for_us_and_from_whom_we_trust() {
    let auth = auth(secret());
    for (name, value, expected) in [
        ("aud", json!(["x", "events"]), None),
        ("aud", json!("other"), Some(Denied::Elsewhere)),
        ("aud", json!([]), Some(Denied::Elsewhere)),
        ("aud", Value::Null, Some(Denied::Elsewhere)),
        ("aud", json!(7), Some(claim("aud"))),
        ("iss", json!("https://id.example/"), Some(Denied::Elsewhere)),
        ("iss", Value::Null, Some(Denied::Elsewhere)),
        ("iss", json!(["https://id.example"]), Some(claim("iss"))),
        ("sub", json!("a b"), Some(claim("sub"))),
        ("sub", json!("a".repeat(251)), Some(claim("sub"))),
        ("sub", json!(7), Some(claim("sub"))),
        ("sub", json!("../bob"), None),
        ("jti", json!(7), Some(claim("jti"))),
        ("jti", Value::Null, None),
        ("tidings", json!({"follow": ["a b"]}), Some(claim("tidings"))),
        ("tidings", json!([]), Some(claim("tidings"))),
        ("tidings", Value::Null, None),
    ] {
        let token = mint(&HMAC, &with(name, value.clone()));
        assert_eq!(denied(&auth, &token), expected, "{name} {value}");
    }
}

#[test]
fn times_are_kept_with_leeway() {
    let auth = auth(secret());
    for (name, value, expected) in [
        ("exp", json!(NOW_S + 1), None),
        ("exp", json!(NOW_S), None),
        ("exp", json!(NOW_S - 29), None),
        ("exp", json!(NOW_S - 30), Some(Denied::Expired)),
        ("exp", json!(0), Some(Denied::Expired)),
        ("exp", Value::Null, Some(claim("exp"))),
        ("exp", json!("1700000600"), Some(claim("exp"))),
        ("exp", json!(-1), Some(claim("exp"))),
        ("exp", json!(1e300), Some(claim("exp"))),
        ("exp", json!(u64::MAX), Some(claim("exp"))),
        ("exp", json!(NOW_S as f64 + 0.5), None),
        ("nbf", json!(NOW_S + 30), None),
        ("nbf", json!(NOW_S + 31), Some(Denied::NotYetValid)),
        ("nbf", json!("soon"), Some(claim("nbf"))),
        ("iat", json!(NOW_S + 30), None),
        ("iat", json!(NOW_S + 31), Some(Denied::NotYetValid)),
        ("iat", json!({}), Some(claim("iat"))),
        ("iat", Value::Null, None),
    ] {
        let token = mint(&HMAC, &with(name, value.clone()));
        assert_eq!(denied(&auth, &token), expected, "{name} {value}");
    }
}

#[test]
fn a_lease_ends_with_the_token() {
    let auth = auth(secret());
    let lease = |exp: u64| {
        let token = mint(&HMAC, &with("exp", json!(exp)));
        let lease = follow(&auth, &token).expect("good").lease().cloned().expect("a lease");
        let offset = |time: UnixMillis| time.0 as i64 - NOW.0 as i64;
        (offset(lease.notice), offset(lease.ends))
    };
    assert_eq!(lease(NOW_S + 600), (540_000, 600_000));
    assert_eq!(lease(NOW_S + 10), (-50_000, 10_000), "it is told at once");
    assert_eq!(lease(NOW_S - 10), (-70_000, 20_000), "within the leeway, and no longer");
    let token = mint(&HMAC, &claims());
    let lease = follow(&auth, &token).expect("good").lease().cloned().expect("a lease");
    let facts = TokenFacts {
        id: Some("t1".into()),
        subject: Some("ann".into()),
        issued_at: Some(UnixMillis((NOW_S - 10) * 1_000)),
    };
    assert_eq!(lease.token, facts);
}

#[test]
fn what_was_taken_back_is_refused() {
    let until = UnixMillis(NOW.0 + 1_000_000);
    for target in [
        Target::token("t1").expect("a name"),
        Target::user("ann", NOW).expect("a name"),
        Target::All { issued_before: NOW },
    ] {
        let auth = auth(secret());
        let token = mint(&HMAC, &claims());
        assert_eq!(denied(&auth, &token), None);
        auth.revocations().add(Revocation { target, until }, NOW);
        assert_eq!(denied(&auth, &token), Some(Denied::Revoked));
        assert_eq!(auth.publisher(&bring(&token), NOW).err(), Some(Denied::Revoked));
        // Whoever cannot show a genuine one is not told what was taken back.
        let forged = mint(&SigningKey::secret(&[7; 32]).expect("a secret"), &claims());
        assert_eq!(denied(&auth, &forged), Some(Denied::Untrusted));
    }
}

#[test]
fn a_publisher_is_who_the_token_says() {
    let mut granted = claims();
    granted["tidings"]["control"] = json!(true);
    let auth = auth(secret());
    let token = mint(&HMAC, &granted);
    let ann = auth.publisher(&bring(&token), NOW).expect("good");
    assert_eq!(ann.name().map(|name| &**name), Some("ann"));
    assert!(ann.may_publish(&topic("orders/1")) && !ann.may_publish(&topic("user:ann")) && ann.may_control());
    let token = mint(&HMAC, &with("sub", Value::Null));
    assert_eq!(auth.publisher(&bring(&token), NOW).err(), Some(claim("sub")));
    assert_eq!(auth.publisher(&Presented::default(), NOW).err(), Some(Denied::Missing));
    // What is no topic's part can still be a publisher's name.
    let token = mint(&HMAC, &with("sub", json!("auth0|ann")));
    assert!(auth.publisher(&bring(&token), NOW).is_ok());
}

#[test]
fn a_token_comes_before_a_certificate() {
    let publisher = |name: &str, credential| KnownPublisher {
        name: name.into(),
        credential,
        publish: [Pattern::parse("**").expect("a pattern")].into(),
        control: false,
    };
    let name = "spiffe://example.org/orders".to_owned();
    let auth = Auth::new(Settings {
        publishers: vec![
            publisher("by-token", Credential::Token(TokenHash::of("static-token"))),
            publisher("by-name", Credential::Certificate(name.clone())),
        ],
        ..settings(vec![issuer("", secret())])
    });
    let names = [name];
    let jwt = mint(&HMAC, &claims());
    for (token, certificate, expected) in [
        (None, &names[..], Ok("by-name")),
        (Some("static-token"), &names[..], Ok("by-token")),
        (Some(&*jwt), &names[..], Ok("ann")),
        (Some("static-toke"), &names[..], Err(Denied::Malformed)),
        (
            None,
            &["spiffe://example.org/other".to_owned()][..],
            Err(Denied::Certificate),
        ),
        (None, &[], Err(Denied::Missing)),
    ] {
        let found = auth.publisher(&Presented { token, certificate }, NOW);
        let found = found.map(|publisher| publisher.name().expect("a name").to_string());
        assert_eq!(found, expected.map(str::to_owned), "{token:?} {certificate:?}");
    }
    // They publish, and follow nothing.
    assert_eq!(denied(&auth, "static-token"), Some(Denied::Malformed));
    let certificate = Presented {
        token: None,
        certificate: &names,
    };
    assert_eq!(auth.subscriber(&certificate, NOW).err(), Some(Denied::Missing));
}

#[test]
fn each_issuer_is_believed_only_what_it_says_itself() {
    let other = SigningKey::secret(&[7; 32]).expect("a secret");
    let other_keys = vec![Key::secret(&[7; 32]).expect("a secret")];
    let auth = Auth::new(settings(vec![
        issuer("https://id.example", secret()),
        issuer("https://other.example", other_keys),
    ]));
    assert_eq!(denied(&auth, &mint(&HMAC, &claims())), None);
    assert_eq!(denied(&auth, &mint(&other, &claims())), Some(Denied::Untrusted));
    let theirs = with("iss", json!("https://other.example"));
    assert_eq!(denied(&auth, &mint(&other, &theirs)), None);
    assert_eq!(denied(&auth, &mint(&HMAC, &theirs)), Some(Denied::Untrusted));
}

#[test]
fn an_open_node_asks_nobody() {
    let auth = Auth::open();
    assert!(auth.is_open() && auth.cookie().is_none());
    assert!(follow(&auth, "nonsense").is_ok_and(|anybody| anybody.may_follow(&topic("user:ann"))));
    assert!(
        auth.publisher(&Presented::default(), NOW)
            .is_ok_and(|anybody| anybody.may_control())
    );
}
