//! Tokens that are taken back at one node are so at all of them, whatever is killed; and nodes are asked for the cluster's secret.

use std::time::{Duration, Instant};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tidings_proto::v1::{
    AppendRequest, HeadsRequest, ListRevocationsRequest, RevokeRequest, control_client::ControlClient,
    journal_client::JournalClient, log_client::LogClient, revoke_request::Target,
};
use tonic::{Code, Request, Status};

use crate::{
    client::{Publisher, event, get_json},
    node::{Addresses, Role, Setup},
    patiently,
    sse::Ask,
    world::{Journal, Plan, World, ready},
};

const SECRET: &str = "a secret of thirty-two bytes ...";
const BOSS: &str = "the-token-of-the-boss";
const CLUSTER: &str = "a secret of the cluster";

/// A small cluster that asks.
async fn start(journal: Journal) -> World {
    let hash: String = Sha256::digest(BOSS).iter().map(|byte| format!("{byte:02x}")).collect();
    let plan = Plan::small(journal)
        .set(
            "auth.issuers",
            &format!("[{{audience = [\"tidings\"], secret = \"{SECRET}\"}}]"),
        )
        .set(
            "auth.publishers",
            &format!("[{{name = \"boss\", token_sha256 = \"{hash}\", publish = [\"**\"], control = true}}]"),
        )
        .set("cluster.secret", CLUSTER);
    plan.start_as(BOSS).await.expect("the newest is always there")
}

/// A token of a user, with an id, for an hour.
fn token(user: &str, id: &str) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("later")
        .as_secs();
    let claims = json!({
        "aud": "tidings", "sub": user, "jti": id, "iat": now - 1, "exp": now + 3_600,
        "tidings": {"publish": ["orders/*"], "follow": ["orders/*"]},
    });
    encode(
        &Header::default(),
        &claims,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .expect("a token")
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {token}").parse().expect("ASCII");
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// Whether a publish with a token is refused for having been revoked, at a node that may have just started.
async fn is_revoked(addresses: Addresses, token: &str) -> bool {
    let answer = async {
        loop {
            let Ok(mut publisher) = Publisher::try_connect(addresses).await else {
                continue;
            };
            match publisher.0.publish(with(token, event("orders/1", "x"))).await {
                Ok(_) => return false,
                Err(status) if status.code() == Code::Unauthenticated => {
                    assert_eq!(status.message(), "the token has been revoked");
                    return true;
                }
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("an answer", answer).await
}

/// Revokes a token by its id, however often it takes.
async fn revoke(addresses: Addresses, id: &str) {
    let revoked = async {
        let mut control = ControlClient::connect(addresses.publish_url())
            .await
            .expect("it listens");
        let request = || RevokeRequest {
            target: Some(Target::TokenId(id.to_owned())),
            ..RevokeRequest::default()
        };
        while let Err(status) = control.revoke(with(BOSS, request())).await {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("a revocation", revoked).await;
}

/// The status of a stream that is asked for with a token.
async fn status(addresses: Addresses, token: &str) -> u16 {
    let ask = Ask::topic("orders/1").header("authorization", &format!("Bearer {token}"));
    ask.open(addresses.http).await.expect("an answer").status()
}

async fn everywhere(journal: Journal) {
    let mut world = start(journal).await;
    let (revoked, good) = (token("carol", "c1"), token("carol", "c2"));
    let mut streams = Vec::new();
    for member in &world.edges {
        let ask = Ask::topic("orders/1").header("authorization", &format!("Bearer {revoked}"));
        let stream = ask.open(member.addresses().http).await.expect("a stream");
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    let began = Instant::now();
    revoke(world.ingests[0].addresses(), "c1").await;
    for stream in &mut streams {
        let ended = async { while stream.next().await.is_ok() {} };
        patiently("a stream's end", ended).await;
    }
    eprintln!("{}: all streams had ended after {:?}", journal.name(), began.elapsed());
    for member in &world.edges {
        assert_eq!(status(member.addresses(), &revoked).await, 401);
        assert_eq!(status(member.addresses(), &good).await, 200);
    }
    for member in &world.ingests {
        // It hears of it as edges do, and nobody said when it has.
        let heard = async { while !is_revoked(member.addresses(), &revoked).await {} };
        patiently("a revocation everywhere", heard).await;
        assert!(!is_revoked(member.addresses(), &good).await);
    }

    for member in world.ingests.iter_mut().chain(&mut world.edges) {
        member.node.kill().await;
    }
    // Whoever is there first knows nothing yet, and lets nobody in.
    for member in world.edges.iter_mut().chain(&mut world.ingests) {
        member.node.restart().await;
    }
    for member in &world.ingests {
        assert!(is_revoked(member.addresses(), &revoked).await);
        assert!(!is_revoked(member.addresses(), &good).await);
    }
    for member in &world.edges {
        ready(member.addresses()).await;
        assert_eq!(status(member.addresses(), &revoked).await, 401);
        assert_eq!(status(member.addresses(), &good).await, 200);
    }
    let mut control = ControlClient::connect(world.ingests[1].addresses().publish_url())
        .await
        .expect("it listens");
    let list = control
        .list_revocations(with(BOSS, ListRevocationsRequest {}))
        .await
        .expect("a list");
    assert_eq!(list.into_inner().revocations.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_so_everywhere_and_after_everything_was_killed() {
    everywhere(Journal::Rocksdb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_with_jetstream() {
    everywhere(Journal::Jetstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_lets_no_token_in_until_it_has_read_what_is_revoked() {
    let mut world = start(Journal::Rocksdb).await;
    let token = token("carol", "c1");
    for member in &mut world.ingests {
        member.node.kill().await;
    }
    let edge = &mut world.edges[0];
    edge.node.kill().await;
    edge.node.restart().await;
    let (told, body) = get_json(edge.addresses().admin, "/readyz").await;
    assert_ne!(told, 200, "{body}");
    // It is asked to come back, as a browser understands it, and not told that the token is bad.
    let ask = Ask::topic("orders/1").header("authorization", &format!("Bearer {token}"));
    let mut stream = ask.open(edge.addresses().http).await.expect("an answer");
    assert_eq!(stream.status(), 200);
    let ended = async { while stream.next().await.is_ok() {} };
    patiently("its end", ended).await;
    for member in &mut world.ingests {
        member.node.restart().await;
    }
    ready(world.edges[0].addresses()).await;
    let mut stream = ask.open(world.edges[0].addresses().http).await.expect("a stream");
    let mut publisher = Publisher::connect(world.ingests[0].addresses()).await;
    let published = async {
        while let Err(status) = publisher.0.publish(with(BOSS, event("orders/1", "news"))).await {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("a publish", published).await;
    assert_eq!(patiently("an event", stream.event()).await.data, "news");
}

/// A secret that does not fit, and none: what each internal service says to it.
async fn refusals(addresses: Addresses) -> Vec<Status> {
    let mut refusals = Vec::new();
    for secret in [None, Some("0".repeat(64))] {
        let shown = |secret: &Option<String>| {
            let mut request = Request::new(());
            if let Some(secret) = secret {
                let value = secret.parse().expect("ASCII");
                request.metadata_mut().insert("tidings-cluster-secret", value);
            }
            request.metadata().clone()
        };
        let mut log = LogClient::connect(addresses.publish_url()).await.expect("it listens");
        let mut request = Request::new(HeadsRequest { shard: 0 });
        *request.metadata_mut() = shown(&secret);
        refusals.push(log.heads(request).await.expect_err("it is refused"));
        let mut journal = JournalClient::connect(addresses.publish_url())
            .await
            .expect("it listens");
        let append = AppendRequest {
            topics: vec!["a".to_owned()],
            ..AppendRequest::default()
        };
        let mut request = Request::new(tokio_stream::once(append));
        *request.metadata_mut() = shown(&secret);
        refusals.push(journal.append(request).await.expect_err("it is refused"));
    }
    refusals
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_with_the_secret_read_and_append() {
    let world = start(Journal::Rocksdb).await;
    for status in refusals(world.ingests[0].addresses()).await {
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains("`cluster.secret`"), "{status:?}");
    }
    // A node of the same cluster with another secret finds the others and is told why it gets nothing.
    let settings = world.plan.settings.iter().filter(|(key, _)| key != "cluster.secret");
    let edge = Setup::role(Role::Edge)
        .argument("--nats")
        .argument(&format!("nats://{}:4222", world.nats.servers[0].address()))
        .set("cluster.node", "stranger")
        .set("cluster.ingest_nodes", "2")
        .set("cluster.secret", "another secret than that");
    let mut edge = settings
        .fold(edge, |edge, (key, value)| edge.set(key, value))
        .start()
        .await;
    edge.logs("give all of them the same `cluster.secret`").await;
    assert_ne!(get_json(edge.addresses().admin, "/readyz").await.0, 200);
    let log = std::fs::read_to_string(world.log_of("ingest-0")).expect("a log");
    assert!(log.contains("brings no secret") && !log.contains(CLUSTER), "{log}");
}
