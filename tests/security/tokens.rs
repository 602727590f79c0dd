//! Tokens that are forged, old, somebody else's or too many; and what a good one does not grant. Over every way in: HTTP/1.1, HTTP/2 and gRPC; in the
//! header, the query and a cookie.

use std::process::Command;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings::model::Secret;
use tidings_proto::v1::{
    PublishRequest, SubscribeRequest, publish_stream_response::Outcome, subscribe_response::Message,
    subscriber_client::SubscriberClient,
};
use tonic::{Code, metadata::MetadataValue};

use crate::{
    client::{Publisher, ask, event, get_json, subscriber},
    mint::Issuer,
    node::{Addresses, Node, PROGRAM, Setup},
    patiently,
    raw::{say, statuses},
    sse::Ask,
};

/// The token of a publisher in the configuration, and its SHA-256.
const STATIC: &str = "stat1c-t0ken-0f-billing-4242424242";

/// A node that asks for tokens, and an issuer that it trusts.
struct Guarded {
    node: Node,
    issuer: Issuer,
    _dir: TempDir,
}

impl Guarded {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let issuer = Issuer::new();
        let hash: String = sha256(STATIC).iter().map(|byte| format!("{byte:02x}")).collect();
        let publishers =
            format!("[{{ name = \"billing\", token_sha256 = \"{hash}\", publish = [\"**\", \"user:*\"] }}]");
        let setup = Setup::new().set("auth.issuers", &issuer.setting(dir.path()));
        let setup = setup.set("auth.publishers", &publishers).set("telemetry.log", "trace");
        let node = setup.start().await;
        // Before it knows what was taken back, it takes no token.
        patiently("it is ready", async {
            while get_json(node.addresses().admin, "/readyz").await.0 != 200 {}
        })
        .await;
        Self {
            node,
            issuer,
            _dir: dir,
        }
    }

    fn addresses(&self) -> Addresses {
        self.node.addresses()
    }

    /// A token that may do something, and not everything.
    fn token(&self, user: &str) -> String {
        self.issuer.good(user, &grants())
    }

    /// Publishes as the one who may everything.
    async fn publish(&self, topic: &str, data: &str) {
        let request = signed(event(topic, data), STATIC);
        let mut publisher = Publisher::connect(self.addresses()).await.0;
        publisher.publish(request).await.expect("it is granted");
    }

    /// Shows that somebody with a good token is served: follows, publishes, receives.
    async fn serves(&self) {
        let token = self.token("witness");
        let ask = Ask::topic("orders/witness").header("authorization", &format!("Bearer {token}"));
        let mut streams = [
            ask.open(self.addresses().http).await.expect("a stream"),
            ask.open_http2(self.addresses().http).await.expect("a stream"),
        ];
        let mut publisher = Publisher::connect(self.addresses()).await.0;
        let request = signed(event("orders/witness", "served"), &token);
        publisher.publish(request).await.expect("it is granted");
        for stream in &mut streams {
            assert_eq!((stream.status(), stream.event().await.data), (200, "served".to_owned()));
        }
    }

    /// No part of a token that is a secret is in what the process wrote.
    fn tells_nothing_of(&self, tokens: &[String]) {
        let log = self.node.log();
        assert!(log.contains("TRACE"), "it tells all it can");
        for token in tokens.iter().chain([&STATIC.to_owned()]) {
            let secret = token.rsplit('.').next().unwrap_or_default();
            for part in [&**token, secret] {
                if part.len() < 16 {
                    continue;
                }
                let at = log.find(part).map(|at| {
                    let begin = log[..at].rfind('\n').map_or(0, |line| line + 1);
                    log[begin..]
                        .lines()
                        .next()
                        .unwrap_or_default()
                        .chars()
                        .take(600)
                        .collect::<String>()
                });
                assert_eq!(at, None, "a token is in the log");
            }
        }
    }
}

fn grants() -> Value {
    json!({"follow": ["orders/*", "user:{sub}"], "publish": ["orders/*"]})
}

fn sha256(text: &str) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(text.as_bytes()).to_vec()
}

fn signed<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}")).expect("ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// The status that a stream's request with these headers gets, over either version.
async fn statuses_of(addresses: Addresses, query: &[(&str, &str)], headers: &[(&str, String)]) -> [u16; 2] {
    let mut ask = Ask::default();
    for (name, value) in query {
        ask = ask.query(name, value);
    }
    for (name, value) in headers {
        ask = ask.header(name, value);
    }
    let http1 = ask.open(addresses.http).await.expect("an answer").status();
    let http2 = ask.open_http2(addresses.http).await.expect("an answer").status();
    [http1, http2]
}

#[tokio::test]
async fn tokens_that_are_not_good() {
    let guarded = Guarded::start().await;
    let addresses = guarded.addresses();
    let bad = guarded.issuer.bad("alice", &grants());
    let mut publisher = Publisher::connect(addresses).await.0;
    let mut subscriber = subscriber(addresses).await.expect("a connection");
    let mut taken = Vec::new();
    for (name, token) in &bad {
        let bearer = format!("Bearer {token}");
        let topic = ("topic", "orders/1");
        for (way, query, headers) in [
            ("header", vec![topic], vec![("authorization", bearer.clone())]),
            ("query", vec![topic, ("token", token)], vec![]),
            (
                "cookie",
                vec![topic],
                vec![("cookie", format!("tidings_token={token}"))],
            ),
        ] {
            let statuses = statuses_of(addresses, &query, &headers).await;
            if !statuses.iter().all(|status| [401, 414, 431].contains(status)) {
                taken.push(format!("{name}, by {way}: {statuses:?}"));
            }
        }
        let refused = publisher.publish(signed(event("orders/1", "forged"), token)).await;
        let refused = refused.map_err(|status| status.code()).map(|_| ());
        if refused != Err(Code::Unauthenticated) {
            taken.push(format!("{name}, publishing: {refused:?}"));
        }
        let request = SubscribeRequest {
            topics: vec!["orders/1".to_owned()],
            ..SubscribeRequest::default()
        };
        let refused = subscriber.subscribe(signed(request, token)).await;
        let refused = refused.map_err(|status| status.code()).map(|_| ());
        if refused != Err(Code::Unauthenticated) {
            taken.push(format!("{name}, following over gRPC: {refused:?}"));
        }
        let post = Request::post("/v1/publish").header("content-type", "application/json");
        let post = post
            .header("authorization", &bearer)
            .body(r#"{"topics":["orders/1"]}"#)
            .expect("a request");
        let status = ask(addresses.grpc, post).await.status();
        if status != 401 {
            taken.push(format!("{name}, publishing JSON: {status}"));
        }
    }
    assert!(taken.is_empty(), "\n{}", taken.join("\n"));
    guarded.serves().await;
    let tokens: Vec<String> = bad.into_iter().map(|(_, token)| token).collect();
    guarded.tells_nothing_of(&tokens);
}

#[tokio::test]
async fn tokens_of_a_megabyte() {
    let guarded = Guarded::start().await;
    let addresses = guarded.addresses();
    let before = guarded.node.memory();
    let token = format!("{}.{}", guarded.token("alice"), "A".repeat(1 << 20));
    for request in [
        format!("GET /v1/events?topic=orders/1 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n"),
        format!("GET /v1/events?topic=orders/1&token={token} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        format!("GET /v1/events?topic=orders/1 HTTP/1.1\r\nhost: localhost\r\ncookie: tidings_token={token}\r\n\r\n"),
    ] {
        let got = statuses(&say(addresses.http, request.as_bytes()).await);
        assert!(matches!(got[..], [] | [401 | 414 | 431]), "{got:?}");
        let post = request.replacen("GET /v1/events", "POST /v1/publish", 1);
        let got = statuses(&say(addresses.grpc, post.as_bytes()).await);
        assert!(matches!(got[..], [] | [400 | 401 | 414 | 431]), "{got:?}");
    }
    let mut publisher = Publisher::connect(addresses).await.0;
    publisher
        .publish(signed(event("orders/1", "x"), &token))
        .await
        .expect_err("too long");
    guarded.serves().await;
    let grown = guarded.node.most_memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
    guarded.tells_nothing_of(&[guarded.token("alice"), "A".repeat(1_000)]);
}

#[tokio::test]
async fn more_than_one_token() {
    let guarded = Guarded::start().await;
    let addresses = guarded.addresses();
    let (alice, bob) = (guarded.token("alice"), guarded.token("bob"));
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let cookie = |token: &str| ("cookie", format!("tidings_token={token}"));
    let inbox = ("topic", "user:alice");
    for (name, query, headers, want) in [
        ("two headers", vec![inbox], vec![bearer(&alice), bearer(&bob)], 400),
        (
            "the same header twice",
            vec![inbox],
            vec![bearer(&alice), bearer(&alice)],
            400,
        ),
        (
            "two in the query",
            vec![inbox, ("token", &*alice), ("token", &*bob)],
            vec![],
            400,
        ),
        ("two cookies", vec![inbox], vec![cookie(&alice), cookie(&bob)], 400),
        // The header wins, good or bad: the rest is not looked at.
        (
            "bob's header, alice's cookie",
            vec![inbox],
            vec![bearer(&bob), cookie(&alice)],
            403,
        ),
        (
            "bob's header, alice's query",
            vec![inbox, ("token", &*alice)],
            vec![bearer(&bob)],
            403,
        ),
        (
            "a bad header, alice's query",
            vec![inbox, ("token", &*alice)],
            vec![bearer("x.y.z")],
            401,
        ),
        (
            "another scheme, alice's cookie",
            vec![inbox],
            vec![("authorization", "Basic YTpi".to_owned()), cookie(&alice)],
            401,
        ),
        (
            "alice's header, bob's cookie",
            vec![inbox],
            vec![bearer(&alice), cookie(&bob)],
            200,
        ),
    ] {
        assert_eq!(statuses_of(addresses, &query, &headers).await, [want; 2], "{name}");
    }
    // Neither a cookie nor the query lets anybody publish.
    let posts = [
        Request::post("/v1/publish").header("cookie", format!("tidings_token={alice}")),
        Request::post(format!("/v1/publish?token={alice}")),
    ];
    for post in posts {
        let post = post
            .header("content-type", "application/json")
            .body(r#"{"topics":["orders/1"]}"#);
        assert_eq!(ask(addresses.grpc, post.expect("a request")).await.status(), 401);
    }
    guarded.serves().await;
    guarded.tells_nothing_of(&[alice, bob]);
}

/// Everything by which one might mean bob's inbox.
const SPELLINGS: &[&str] = &[
    "topic=user:bob",
    "topic=user%3Abob",
    "topic=user%3abob",
    "topic=u%73er:bob",
    "topic=%75%73%65%72%3a%62%6f%62",
    "topic=user%253Abob",
    "topic=user%25253Abob",
    "topic=User:bob",
    "topic=USER:bob",
    "topic=user:Bob",
    "topic=user:BOB",
    "topic=user:bob&topic=user:alice",
    "topic=user:alice&topic=user:bob",
    "topic=orders/1&topic=user:bob",
    "user=bob",
    "user=alice&user=bob",
    "user=bob&user=alice",
    "user=alice&topic=user:bob",
    "user=bob&topic=user:alice",
    "user=Alice&topic=user:alice",
    "user=&topic=user:bob",
    "user=*",
    "user=%2A",
    "user={sub}",
    "user=../bob",
    "user=alice/../bob",
    "user=alice%00bob",
    "user=alice%0abob",
    "user=bob%20",
    "user=%20bob",
    "topic=user:*",
    "topic=user:**",
    "topic=**",
    "topic=*",
    "topic=user:{sub}",
    "topic=user:alice/../bob",
    "topic=user:./bob",
    "topic=orders/../user:bob",
    "topic=orders/..%2fuser:bob",
    "topic=orders%2f%2e%2e%2fuser:bob",
    "topic=user:bob%00",
    "topic=user:bob%20",
    "topic=%20user:bob",
    "topic=user:bob/",
    "topic=/user:bob",
    "topic=user:bob%0a",
    "topic=user:bob%0d%0atopic:user:alice",
    "topic=user:bob,user:alice",
    "topic=user:alice,user:bob",
    "topic=user:bob;topic=user:alice",
    "topic=user:alice;topic=user:bob",
    "topic[]=user:bob",
    "topics=user:bob",
    "TOPIC=user:bob",
    "topic=user:bob%23",
    "topic=user:%D0%B2ob",
    "topic=user%EF%BC%9Abob",
    "topic=user:bo%62%CC%81",
    "topic=%C5%BFer:bob",
    "topic=user:%62ob",
    "topic=user::bob",
    "topic=user:bob:",
    "topic=user:bob&user=alice&last_event_id=1-1.1",
    "topic=tidings.revocations",
];

/// Whatever is spelled: nothing of bob's comes, whether the request is refused or means something else.
#[tokio::test]
async fn the_inbox_of_another() {
    let guarded = Guarded::start().await;
    let addresses = guarded.addresses();
    let token = guarded.token("alice");
    // It is there to be replayed, in an inbox and in what an inbox might be mistaken for.
    guarded.publish("user:bob", "for bob").await;
    let mut open = Vec::new();
    for spelling in SPELLINGS {
        for end in ["", "&since=earliest"] {
            let target = format!("/v1/events?{spelling}{end}");
            for path in [
                target.clone(),
                target.replace("/v1/events", "/v1/../v1/events"),
                target.replace("/v1/", "//v1/"),
            ] {
                let mut ask = Ask::default().header("authorization", &format!("Bearer {token}"));
                ask = ask.target(&path);
                for stream in [ask.open(addresses.http).await, ask.open_http2(addresses.http).await] {
                    // A client that cannot even send it has not got through.
                    let Ok(stream) = stream else { continue };
                    match stream.status() {
                        200 => open.push((path.clone(), stream)),
                        status => assert!([400, 401, 403, 404].contains(&status), "{path}: {status}"),
                    }
                }
            }
        }
    }
    guarded.publish("user:bob", "for bob, later").await;
    guarded.publish("user:alice", "for alice").await;
    for (path, stream) in &mut open {
        // Her own inbox needs no grant, so that each of these has it.
        let event = stream.event().await;
        assert_eq!(event.data, "for alice", "{path}");
    }
    assert!(!open.is_empty(), "some of them mean nothing but her own");
    let mut subscriber = subscriber(addresses).await.expect("a connection");
    for spelling in SPELLINGS {
        let topics = form_urlencoded::parse(spelling.as_bytes()).filter(|(name, _)| name == "topic");
        let topics: Vec<String> = topics.map(|(_, topic)| topic.into_owned()).collect();
        follows_nothing_of_bobs(&mut subscriber, topics, &token).await;
    }
    guarded.serves().await;
    guarded.tells_nothing_of(&[token]);
}

async fn follows_nothing_of_bobs(
    subscriber: &mut SubscriberClient<tonic::transport::Channel>,
    topics: Vec<String>,
    token: &str,
) {
    let request = SubscribeRequest {
        topics: topics.clone(),
        start: Some(tidings_proto::v1::subscribe_request::Start::Earliest(true)),
        ..SubscribeRequest::default()
    };
    match subscriber.subscribe(signed(request, token)).await {
        Err(status) => {
            let codes = [Code::InvalidArgument, Code::PermissionDenied, Code::Unauthenticated];
            assert!(codes.contains(&status.code()), "{topics:?}: {status}");
        }
        Ok(answer) => {
            let mut stream = answer.into_inner();
            // What there is to replay is before the news that there is no more.
            loop {
                match stream.message().await.expect("a stream").expect("a message").message {
                    Some(Message::Level(_)) => break,
                    Some(Message::Event(event)) => assert_eq!(event.topic, "user:alice", "{topics:?}"),
                    _ => {}
                }
            }
        }
    }
}

/// All of an event, or nothing of it; of a batch, what is granted.
#[tokio::test]
async fn a_batch_of_what_is_granted_and_what_is_not() {
    let guarded = Guarded::start().await;
    let addresses = guarded.addresses();
    let token = guarded.token("alice");
    let bearer = format!("Bearer {token}");
    let everything = Ask::topics(["orders/1", "orders/2"]).header("authorization", &bearer);
    let mut stream = everything.open(addresses.http).await.expect("a stream");
    let both = PublishRequest {
        topics: vec!["orders/1".to_owned(), "user:bob".to_owned()],
        data: "never seen".to_owned(),
        ..PublishRequest::default()
    };
    let mut publisher = Publisher::connect(addresses).await.0;
    let refused = publisher
        .publish(signed(both.clone(), &token))
        .await
        .expect_err("half of it is not granted");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut batch = vec![
        event("orders/1", "1"),
        both,
        event("secret", "never seen"),
        event("orders/2", "2"),
    ];
    let answers = publisher
        .publish_stream(signed(futures::stream::iter(batch.clone()), &token))
        .await;
    let mut answers = answers.expect("it is accepted").into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = answers.message().await.expect("answers") {
        outcomes.push(matches!(answer.outcome, Some(Outcome::Published(_))));
    }
    assert_eq!(outcomes, [true, false, false, true]);
    // The same in the name of somebody who was named, over JSON.
    batch[0].data = "3".to_owned();
    batch[3].data = "4".to_owned();
    let lines: Vec<String> = batch
        .iter()
        .map(|event| json!({"topics": event.topics, "data": event.data}).to_string())
        .collect();
    let post = Request::post("/v1/publish").header("content-type", "application/x-ndjson");
    let post = post
        .header("authorization", &bearer)
        .body(lines.join("\n"))
        .expect("a request");
    let answer: Bytes = ask(addresses.grpc, post).await.into_body();
    let outcomes: Vec<Value> = answer
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let statuses: Vec<&Value> = outcomes.iter().map(|outcome| &outcome["error"]["status"]).collect();
    assert_eq!(statuses, [&Value::Null, &json!(403), &json!(403), &Value::Null]);
    assert_eq!(stream.data(4).await, ["1", "2", "3", "4"]);
    // What is the service's own is nobody's to publish to, whatever is granted.
    let reserved = Publisher::connect(addresses)
        .await
        .0
        .publish(signed(event("tidings.revocations", "{}"), STATIC))
        .await;
    let code = reserved.expect_err("it is reserved").code();
    assert!(
        [Code::InvalidArgument, Code::PermissionDenied].contains(&code),
        "{code:?}"
    );
    guarded.serves().await;
    guarded.tells_nothing_of(&[token]);
}

#[tokio::test]
async fn what_is_reserved_is_so_without_tokens_too() {
    let node = Node::start().await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    let refused = publisher
        .try_publish(event("tidings.revocations", "{}"))
        .await
        .expect_err("it is reserved");
    assert!(
        [Code::InvalidArgument, Code::PermissionDenied].contains(&refused.code()),
        "{refused}"
    );
    for topic in ["tidings.revocations", "tidings%2erevocations"] {
        let stream = Ask::default()
            .target(&format!("/v1/events?topic={topic}"))
            .open(node.addresses().http)
            .await;
        let status = stream.expect("an answer").status();
        assert!([400, 403].contains(&status), "{status}");
    }
}

/// Where settings are shown, secrets are not.
#[test]
fn secrets_in_settings() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = |name: &str| format!("{name}-s3cret-0123456789abcdef0123456789abcdef");
    let settings = [
        ("TIDINGS_ADMIN__TOKEN", secret("admin")),
        ("TIDINGS_CLUSTER__SECRET", secret("cluster")),
        ("TIDINGS_NATS__PASSWORD", secret("nats")),
        (
            "TIDINGS_AUTH__ISSUERS",
            format!("[{{ secret = \"{}\" }}]", secret("issuer")),
        ),
    ];
    for arguments in [
        &["check-config"][..],
        &["check-config", "--role", "edge"],
        &["serve", "--print-config"],
        // With a mistake beside them.
        &["check-config", "--http", "0.0.0.0:1", "--admin", "0.0.0.0:1"],
    ] {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(dir.path())
            .env("TIDINGS_NATS__USER", "me");
        let output = command
            .envs(settings.iter().cloned())
            .output()
            .expect("the program starts");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(!told.contains("s3cret"), "{arguments:?}: {told}");
        if output.status.success() {
            assert!(told.contains(Secret::MASK), "{told}");
        }
    }
    // One in the wrong place is not quoted either.
    let mut command = Command::new(PROGRAM);
    command.args(["check-config"]).current_dir(dir.path());
    let output = command
        .env("TIDINGS_AUTH__ISSUERS", secret("issuer"))
        .output()
        .expect("the program starts");
    assert!(!output.status.success());
}
