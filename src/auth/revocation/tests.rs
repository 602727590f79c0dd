use proptest::prelude::*;

use super::*;

const NOW: UnixMillis = UnixMillis(1_000);

fn token(id: &str, subject: &str, issued_at: Option<u64>) -> TokenFacts {
    TokenFacts {
        id: Some(id.into()),
        subject: Some(subject.into()),
        issued_at: issued_at.map(UnixMillis),
    }
}

fn revocation(target: Target, until: u64) -> Revocation {
    Revocation {
        target,
        until: UnixMillis(until),
    }
}

fn user(subject: &str, issued_before: u64) -> Target {
    Target::user(subject, UnixMillis(issued_before)).expect("a name")
}

fn all(issued_before: u64) -> Target {
    Target::All {
        issued_before: UnixMillis(issued_before),
    }
}

#[test]
fn what_is_taken_back_is_covered_until_it_expires() {
    let revocations = Revocations::default();
    let changes = revocations.changes();
    let id = Target::token("t1").expect("a name");
    assert_eq!(revocations.add(revocation(id.clone(), 2_000), NOW), Added::New);
    assert_eq!(revocations.add(revocation(id.clone(), 1_999), NOW), Added::Known);
    assert_eq!(revocations.add(revocation(id, 1_000), NOW), Added::Known, "it is over");
    assert_eq!(revocations.add(revocation(user("ann", 500), 3_000), NOW), Added::New);
    assert_eq!(*changes.borrow(), 2, "only what is new is told");
    for (token, covered) in [
        (token("t1", "bob", Some(900)), true),
        (token("t2", "bob", Some(900)), false),
        (token("t2", "ann", Some(499)), true),
        (token("t2", "ann", Some(500)), false),
        // One that does not say when may be from before.
        (token("t2", "ann", None), true),
        (TokenFacts::default(), false),
    ] {
        assert_eq!(revocations.covers(&token, NOW), covered, "{token:?}");
    }
    assert!(!revocations.covers(&token("t1", "bob", None), UnixMillis(2_000)));
    revocations.add(revocation(all(700), 2_000), NOW);
    assert!(revocations.covers(&token("t2", "bob", Some(699)), NOW));
    assert!(!revocations.covers(&token("t2", "bob", Some(700)), NOW));
    assert!(revocations.covers(&TokenFacts::default(), NOW));
    assert_eq!(revocations.list(NOW).len(), 3);
    assert_eq!(
        revocations.list(UnixMillis(2_000)),
        [revocation(user("ann", 500), 3_000)]
    );
}

#[test]
fn when_it_is_full_nothing_is_forgotten_for_the_new() {
    let mut index = Index::default();
    let id = |id: &str, until| revocation(Target::token(id).expect("a name"), until);
    for name in ["a", "b"] {
        assert_eq!(index.add(id(name, 2_000), NOW, 2), Added::New);
    }
    assert_eq!(index.add(id("c", 2_000), NOW, 2), Added::Full);
    assert_eq!(index.add(id("a", 3_000), NOW, 2), Added::New, "it only lasts longer");
    let after = UnixMillis(2_000);
    index.forget(after);
    assert_eq!(index.add(id("c", 4_000), after, 2), Added::New);
    assert!(index.covers(&token("a", "x", None), after) && index.covers(&token("c", "x", None), after));
    index.forget(UnixMillis(4_000));
    assert_eq!((index.count, index.expiries.len(), index.tokens.len()), (0, 0, 0));
}

#[test]
fn taking_back_again_and_again_takes_no_room() {
    let mut index = Index::default();
    for until in 2_000..12_000 {
        for target in [Target::token("a").expect("a name"), user("b", 7), all(7)] {
            assert_eq!(index.add(revocation(target, until), NOW, 3), Added::New);
        }
    }
    assert_eq!(index.count, 3);
    assert!(index.expiries.len() <= NEEDLESS + 7);
}

#[test]
fn a_hundred_thousand_are_found_by_name() {
    let revocations = Revocations::default();
    for n in 0..100_000_u32 {
        let target = if n % 2 == 0 {
            Target::token(&format!("id-{n}")).expect("a name")
        } else {
            user(&format!("user-{n}"), 900)
        };
        assert_eq!(
            revocations.add(revocation(target, 2_000 + u64::from(n)), NOW),
            Added::New
        );
    }
    assert!(revocations.has_room(NOW));
    // Were it looked for one by one, this would take hours.
    for n in 0..1_000_000_u32 {
        let covered = revocations.covers(&token(&format!("id-{n}"), &format!("user-{n}"), Some(1)), NOW);
        assert_eq!(covered, n < 100_000, "{n}");
    }
    assert_eq!(revocations.list(UnixMillis(101_999)).len(), 0);
}

#[test]
fn the_texts_are_what_they_were() {
    for (target, text) in [
        (
            Target::token("a\"b").expect("a name"),
            r#"{"v":1,"token":"a\"b","until":7}"#,
        ),
        (user("ann", 5), r#"{"v":1,"user":"ann","issued_before":5,"until":7}"#),
        (all(5), r#"{"v":1,"all":true,"issued_before":5,"until":7}"#),
    ] {
        let revocation = revocation(target, 7);
        assert_eq!(revocation.to_json(), text);
        assert_eq!(Revocation::from_json(text), Ok(revocation));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let version = |version| RevocationError::Version { version };
    let long = format!(r#"{{"v":1,"token":"{}","until":7}}"#, "a".repeat(256));
    let huge = format!(r#"{{"v":1,"token":"a","until":7{}}}"#, " ".repeat(5_000));
    for (text, error) in [
        (r#"{"v":2,"role":"x"}"#, version(2)),
        (r#"{"v":0}"#, version(0)),
        (r#"{"token":"a","until":7}"#, RevocationError::Malformed),
        (r#"{"v":1,"token":"a"}"#, RevocationError::Malformed),
        (r#"{"v":1,"token":"","until":7}"#, RevocationError::Name),
        (r#"{"v":1,"token":"a\n","until":7}"#, RevocationError::Name),
        (
            r#"{"v":1,"token":"a","user":"b","issued_before":1,"until":7}"#,
            RevocationError::Malformed,
        ),
        (r#"{"v":1,"user":"b","until":7}"#, RevocationError::Malformed),
        (
            r#"{"v":1,"all":false,"issued_before":1,"until":7}"#,
            RevocationError::Malformed,
        ),
        (r#"{"v":1,"token":"a","until":-7}"#, RevocationError::Malformed),
        (r#"{"v":1,"token":"a","until":7,"x":1}"#, RevocationError::Malformed),
        (r#"{"v":1,"v":1,"token":"a","until":7}"#, RevocationError::Malformed),
        ("[1]", RevocationError::Malformed),
        ("", RevocationError::Malformed),
        (&long, RevocationError::Name),
        (&huge, RevocationError::Malformed),
    ] {
        assert_eq!(Revocation::from_json(text), Err(error), "{text}");
    }
}

fn any_revocation() -> impl Strategy<Value = Revocation> {
    let target = prop_oneof![
        "[ab]".prop_map(|id| Target::token(&id).expect("a name")),
        ("[ab]", 0..20_u64).prop_map(|(subject, before)| user(&subject, before)),
        (0..5_u64).prop_map(all),
    ];
    (target, 0..40_u64).prop_map(|(target, until)| revocation(target, until))
}

proptest! {
    /// Whatever was added, in whatever order and when: it covers what the plain list of them covers.
    #[test]
    fn it_is_the_plain_list(
        added in prop::collection::vec((any_revocation(), 0..4_u64), 0..40),
        asked in prop::collection::vec(("[abc]", "[abc]", prop::option::of(0..20_u64), 0..10_u64), 1..20),
    ) {
        let revocations = Revocations::default();
        let mut now = 0;
        for (revocation, later) in &added {
            now += later;
            revocations.add(revocation.clone(), UnixMillis(now));
        }
        for (id, subject, issued_at, later) in asked {
            let at = UnixMillis(now + later);
            let facts = token(&id, &subject, issued_at);
            let covers = |revocation: &Revocation| {
                let before = |bound: UnixMillis| facts.issued_at.unwrap_or(UnixMillis(0)) < bound;
                revocation.until > at
                    && match &revocation.target {
                        Target::Token(token) => facts.id == Some(Digest::of(token)),
                        Target::User { subject, issued_before } => facts.subject == Some(Digest::of(subject)) && before(*issued_before),
                        Target::All { issued_before } => before(*issued_before),
                    }
            };
            prop_assert_eq!(revocations.covers(&facts, at), added.iter().any(|(revocation, _)| covers(revocation)));
        }
        let index = revocations.index.read().expect("not poisoned");
        let counted = index.tokens.len() + index.all.0.len() + index.users.values().map(|(_, bounds)| bounds.0.len()).sum::<usize>();
        prop_assert_eq!(index.count, counted);
    }

    #[test]
    fn texts_round_trip(revocation in any_revocation()) {
        prop_assert_eq!(Revocation::from_json(&revocation.to_json()), Ok(revocation));
    }

    #[test]
    fn any_text_is_one_or_refused(text in any::<String>()) {
        let _ = Revocation::from_json(&text);
    }
}
