//! The connection to NATS: who is let in, and what is told when it cannot be made.

use std::{fs, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use tidings::nats::{Auth, Link, Nats, RoundTripError, Settings};

use crate::{
    logs,
    nats::{Cluster, PATIENCE, Server, Version, an_address, connect, settings},
};

fn start(settings: &str) -> Server {
    Server::start(Version::Newest, settings).expect("installed")
}

fn with_auth(server: &Server, auth: Auth) -> Settings {
    Settings {
        auth,
        ..settings(&[server.url()])
    }
}

fn password(password: &str) -> Auth {
    Auth::Password {
        user: "derek".to_owned(),
        password: password.into(),
    }
}

async fn is_let_in(settings: &Settings) {
    let nats = connect(settings).await;
    nats.round_trip(PATIENCE).await.expect("there and back");
}

/// Waits until it is told that a server refuses this node, and answers what is told.
async fn is_refused(server: &Server, settings: &Settings) -> String {
    logs::keep();
    let nats = Nats::connect(settings).await.expect("settings that can work");
    let told = logs::wait_for(&["refuses this node", &server.address().to_string()]).await;
    assert!(!nats.link().borrow().up);
    assert_eq!(nats.round_trip(PATIENCE).await, Err(RoundTripError::Away));
    told
}

#[tokio::test]
async fn a_user_with_a_password() {
    let server = start("authorization { user: derek, password: s3cr3t }");
    is_let_in(&with_auth(&server, password("s3cr3t"))).await;
    let told = is_refused(&server, &with_auth(&server, password("wr0ng-p4ssword"))).await;
    assert!(told.contains("nats.password"), "{told}");
    assert_eq!(logs::count(&["wr0ng-p4ssword"]), 0, "a secret is logged");
    let told = logs::count(&["refuses this node", &server.address().to_string()]);
    assert_eq!(told, 1, "once for each outage");
}

#[tokio::test]
async fn nobody_where_somebody_is_asked_for() {
    let server = start("authorization { user: derek, password: s3cr3t }");
    let told = is_refused(&server, &settings(&[server.url()])).await;
    assert!(told.contains("wants to know who connects"), "{told}");
}

#[tokio::test]
async fn a_token() {
    let server = start("authorization { token: s3cr3t }");
    is_let_in(&with_auth(&server, Auth::Token("s3cr3t".into()))).await;
    let told = is_refused(&server, &with_auth(&server, Auth::Token("wr0ng-t0ken".into()))).await;
    assert!(told.contains("nats.token") && !told.contains("wr0ng"), "{told}");
}

#[tokio::test]
async fn an_nkey() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let seed_of = |name: &str, pair: &KeyPair| {
        let path = dir.path().join(name);
        fs::write(&path, pair.seed().expect("a seed")).expect("written");
        Auth::NkeyFile(path)
    };
    let (known, unknown) = (KeyPair::new_user(), KeyPair::new_user());
    let server = start(&format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}",
        known.public_key()
    ));
    is_let_in(&with_auth(&server, seed_of("known", &known))).await;
    let told = is_refused(&server, &with_auth(&server, seed_of("unknown", &unknown))).await;
    assert!(told.contains("nats.nkey_file"), "{told}");
}

/// A signed claim of the decentralised JWT scheme, version 2: https://docs.nats.io/running-a-nats-service/nats_admin/security/jwt
fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: &serde_json::Value) -> String {
    let body = serde_json::json!({
        "jti": "TEST", "iat": 1_700_000_000, "name": "tests",
        "iss": issuer.public_key(), "sub": subject.public_key(), "nats": claims,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&serde_json::json!({"typ": "JWT", "alg": "ed25519-nkey"})),
        part(&body)
    );
    let signature = issuer.sign(signed.as_bytes()).expect("a private key");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn a_credentials_file() {
    let (operator, system, account) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let limits = serde_json::json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let of_account = serde_json::json!({ "type": "account", "version": 2, "limits": limits });
    let of_operator = serde_json::json!({
        "type": "operator", "version": 2, "system_account": system.public_key(),
    });
    let server = start(&format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}",
        jwt(&operator, &operator, &of_operator),
        system.public_key(),
        system.public_key(),
        jwt(&operator, &system, &of_account),
        account.public_key(),
        jwt(&operator, &account, &of_account),
    ));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let credentials = |name: &str, account: &KeyPair| {
        let user = KeyPair::new_user();
        let of_user = serde_json::json!({
            "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
        });
        let path = dir.path().join(name);
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt(account, &user, &of_user),
            user.seed().expect("a seed"),
        );
        fs::write(&path, text).expect("written");
        Auth::CredentialsFile(path)
    };
    is_let_in(&with_auth(&server, credentials("known", &account))).await;
    let told = is_refused(
        &server,
        &with_auth(&server, credentials("unknown", &KeyPair::new_account())),
    )
    .await;
    assert!(told.contains("nats.credentials_file"), "{told}");
}

#[tokio::test]
async fn any_of_several_servers_will_do() {
    let server = start("");
    let dead = format!("nats://{}:4222", an_address());
    is_let_in(&settings(&[dead, server.url()])).await;
}

#[tokio::test]
async fn an_absent_server_is_told_of_and_waited_for() {
    logs::keep();
    let mut server = start("");
    server.kill();
    let nats = Nats::connect(&settings(&[server.url()]))
        .await
        .expect("settings that can work");
    assert!(nats.server().is_none());
    logs::wait_for(&["cannot be reached", &server.address().to_string(), "refused"]).await;
    server.restart();
    let mut link = nats.link();
    let up = tokio::time::timeout(PATIENCE, link.wait_for(|link: &Link| link.up)).await;
    assert_eq!(up.expect("in time").expect("open").connects, 1);
    assert_eq!(nats.server().expect("connected").server_name, "alone");
    logs::wait_for(&["connected to nats", &server.address().to_string()]).await;
}

#[tokio::test]
async fn reconnecting_takes_another_server() {
    let cluster = Cluster::start(Version::Newest, 3, "").expect("installed");
    let nats = connect(&settings(&cluster.urls())).await;
    let mut link = nats.link();
    for connects in 2..6 {
        let before = nats.server().expect("connected").server_name;
        nats.reconnect().await;
        let again = link.wait_for(|link: &Link| link.up && link.connects == connects);
        tokio::time::timeout(PATIENCE, again)
            .await
            .expect("in time")
            .expect("open");
        // The client knows the server's name a moment after it is connected.
        nats.round_trip(PATIENCE).await.expect("there and back");
        assert_ne!(nats.server().expect("connected").server_name, before);
    }
}

#[tokio::test]
async fn a_server_that_is_about_to_end_is_left() {
    logs::keep();
    let cluster = Cluster::start(Version::Newest, 3, "").expect("installed");
    let nats = connect(&settings(&cluster.urls())).await;
    let mut doubts = nats.doubts();
    doubts.mark_unchanged();
    let name = nats.server().expect("connected").server_name;
    let leaving = cluster
        .servers
        .iter()
        .find(|server| server.name() == name)
        .expect("one of them");
    leaving.signal("USR2");
    let mut link = nats.link();
    let again = link.wait_for(|link: &Link| link.up && link.connects == 2);
    tokio::time::timeout(PATIENCE, again)
        .await
        .expect("in time")
        .expect("open");
    logs::wait_for(&["about to end", &leaving.address().to_string()]).await;
    nats.round_trip(PATIENCE).await.expect("there and back");
    assert_ne!(nats.server().expect("connected").server_name, name);
    assert!(doubts.has_changed().expect("open"));
}

#[tokio::test]
async fn what_comes_too_fast_is_told() {
    let server = start("");
    let nats = connect(&settings(&[server.url()])).await;
    // Nobody takes what comes here.
    let _subscriber = nats.client().subscribe("tests.flood").await.expect("open");
    nats.round_trip(PATIENCE).await.expect("there and back");
    let mut doubts = nats.doubts();
    doubts.mark_unchanged();
    let flood = async {
        loop {
            nats.client().publish("tests.flood", "x".into()).await.expect("open");
        }
    };
    tokio::select! {
        () = async { tokio::time::timeout(PATIENCE, doubts.changed()).await.expect("in time").expect("open") } => {}
        () = flood => {}
    }
}

#[tokio::test]
async fn a_hung_server_does_not_answer() {
    let server = start("");
    let nats = connect(&settings(&[server.url()])).await;
    nats.round_trip(PATIENCE).await.expect("there and back");
    server.signal("STOP");
    // It takes a moment to stop.
    let patience = Duration::from_millis(50);
    let unanswered = async { while nats.round_trip(patience).await != Err(RoundTripError::TimedOut(patience)) {} };
    tokio::time::timeout(PATIENCE, unanswered).await.expect("in time");
    // It is left after three seconds without a word, though there is no other.
    let mut link = nats.link();
    let down = tokio::time::timeout(PATIENCE, link.wait_for(|link: &Link| !link.up)).await;
    assert!(!down.expect("in time").expect("open").up);
    server.signal("CONT");
    let up = tokio::time::timeout(PATIENCE, link.wait_for(|link: &Link| link.up)).await;
    assert!(up.expect("in time").expect("open").up);
}
