//! Tokens that are taken back: by the command line, across retention and `kill -9`, until the revocation expires by itself.

use std::{process::Output, time::Duration};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tidings_proto::v1::{PublishRequest, PublishResponse};
use tonic::{Code, Request, Status};

use crate::{
    client::{Publisher, event},
    faults::on_a_used_disk,
    node::{Addresses, Node, Setup, tidings},
    patiently,
    sse::Ask,
};

const SECRET: &str = "a secret of thirty-two bytes ...";
const BOSS: &str = "the-token-of-the-boss";

/// A node that asks, and keeps events for a second.
fn setup() -> Setup {
    let hash: String = Sha256::digest(BOSS).iter().map(|byte| format!("{byte:02x}")).collect();
    Setup::new()
        .set(
            "auth.issuers",
            &format!("[{{audience = [\"tidings\"], secret = \"{SECRET}\"}}]"),
        )
        .set(
            "auth.publishers",
            &format!("[{{name = \"boss\", token_sha256 = \"{hash}\", publish = [\"**\"], control = true}}]"),
        )
        .set("log.retention_age", "1s")
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

async fn publish(addresses: Addresses, token: &str) -> Result<PublishResponse, Status> {
    let mut publisher = Publisher::connect(addresses).await;
    let mut request: Request<PublishRequest> = Request::new(event("orders/1", "x"));
    let bearer = format!("Bearer {token}").parse().expect("ASCII");
    request.metadata_mut().insert("authorization", bearer);
    // What was revoked before its start the node has to read first.
    let answer = async {
        loop {
            let mut again = Request::new(request.get_ref().clone());
            *again.metadata_mut() = request.metadata().clone();
            match publisher.0.publish(again).await {
                Err(status) if status.code() == Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer => return answer.map(tonic::Response::into_inner),
            }
        }
    };
    patiently("an answer", answer).await
}

async fn is_revoked(addresses: Addresses, token: &str) -> bool {
    match publish(addresses, token).await {
        Ok(_) => false,
        Err(status) => {
            assert_eq!(
                (status.code(), status.message()),
                (Code::Unauthenticated, "the token has been revoked")
            );
            true
        }
    }
}

/// Runs `tidings revoke`.
async fn revoke(node: &Node, token: &str, arguments: &[&str]) -> Output {
    let file = node.dir().join("token");
    std::fs::write(&file, format!("{token}\n")).expect("written");
    let mut command = tidings();
    command.args(["revoke", "--url", &node.addresses().publish_url(), "--token-file"]);
    let output = command.arg(&file).args(arguments).output();
    patiently("tidings revoke", output).await.expect("it runs")
}

async fn revoked(node: &Node, arguments: &[&str]) -> String {
    let output = revoke(node, BOSS, arguments).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_outlives_retention_and_restarts_and_expires_by_itself() {
    let mut node = setup().start().await;
    let addresses = node.addresses();
    let (carol, dave, fresh) = (token("carol", "c1"), token("dave", "d1"), token("carol", "c2"));
    for token in [&carol, &dave, &fresh] {
        assert!(!is_revoked(addresses, token).await);
    }
    let told = revoked(&node, &["--token-id", "c1", "--reason", "lost"]).await;
    assert!(told.starts_with("token c1, until 20"), "{told}");
    revoked(&node, &["--user", "dave", "--for", "10s"]).await;
    assert!(is_revoked(addresses, &dave).await);
    for _ in 0..3 {
        // Several times as long as anything is kept: what does not last is gone from the log by the start after the next.
        tokio::time::sleep(Duration::from_secs(2)).await;
        node.kill().await;
        node.restart().await;
        assert!(is_revoked(addresses, &carol).await);
        assert!(!is_revoked(addresses, &fresh).await, "it is another token");
    }
    let expired = async {
        while is_revoked(addresses, &dave).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("a revocation expiring", expired).await;
    let list = revoked(&node, &["--list"]).await;
    assert!(
        list.starts_with("token c1, until") && list.lines().count() == 1,
        "{list}"
    );
    assert!(is_revoked(addresses, &carol).await);
    assert!(node.log().contains("revocations were appended again"), "{}", node.log());
}

/// A revocation cannot be appended again on a full disk, and only what is dropped makes room there.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_emptied_although_revocations_are_due() {
    let mut node = setup().start_in(on_a_used_disk()).await;
    let addresses = node.addresses();
    let (carol, dave) = (token("carol", "c1"), token("dave", "d1"));
    assert!(
        !is_revoked(addresses, &dave).await,
        "and an event is there to be dropped"
    );
    revoked(&node, &["--token-id", "c1"]).await;
    node.kill().await;
    // Longer than events are kept.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let full = setup().set("journal.disk_high_water_percent", "1");
    node.restart_as(full.set("telemetry.log", "info,tidings::log=debug"))
        .await;
    node.logs("revocations could not be appended again").await;
    node.logs("floor raised").await;
    assert!(is_revoked(addresses, &carol).await, "it is known all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_revoked_user_end_and_come_back_to_a_refusal() {
    let node = setup().start().await;
    let addresses = node.addresses();
    let token = token("carol", "c1");
    assert!(!is_revoked(addresses, &token).await, "it is ready");
    let ask = Ask::topic("orders/1").header("authorization", &format!("Bearer {token}"));
    let mut stream = ask.open(addresses.http).await.expect("a stream");
    assert_eq!(stream.status(), 200);
    revoked(&node, &["--user", "carol", "--block"]).await;
    let ended = async { while stream.next().await.is_ok() {} };
    patiently("the stream's end", ended).await;
    let stream = ask.open(addresses.http).await.expect("an answer");
    assert_eq!(stream.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_revokes_and_nothing_tells_the_token() {
    let node = setup().start().await;
    let token = token("carol", "c1");
    let output = revoke(&node, &token, &["--user", "dave"]).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("may not revoke"), "{told}");
    assert!(!is_revoked(node.addresses(), &token).await);
    revoked(&node, &["--token-id", "c1"]).await;
    assert!(is_revoked(node.addresses(), &token).await);
    let log = node.log();
    let signature = token.rsplit('.').next().expect("three parts");
    assert!(
        !log.contains(BOSS) && !log.contains(signature) && !told.contains(signature),
        "{log}"
    );
    for outcome in [
        "\"outcome\":\"forbidden_action\"",
        "\"outcome\":\"revoked\"",
        "\"outcome\":\"published\"",
    ] {
        assert!(log.contains(outcome), "{outcome}: {log}");
    }
}
