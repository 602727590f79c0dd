//! Tokens that end while their streams are open: on the real log, through as many of them as it takes, over both protocols.

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tidings::model::UnixMillis;
use tidings_proto::v1::{
    PublishRequest, SubscribeRequest, subscribe_request::Start, subscribe_response::Message,
    subscriber_client::SubscriberClient,
};
use tonic::{Code, Request};

use crate::{
    client::{Publisher, event},
    node::{Node, Setup},
    patiently,
    sse::{Ask, End, Item, Stream},
};

const SECRET: &str = "a secret of more than 32 bytes, for tests alone";
const EVENTS: usize = 400;

/// A node that asks everybody for a token, and gives none of them any grace.
fn setup() -> Setup {
    let issuer = format!("[{{ audience = [\"tidings\"], secret = \"{SECRET}\" }}]");
    Setup::new().set("auth.issuers", &issuer).set("auth.leeway", "0s")
}

/// A token that lives so many milliseconds.
fn token(lives: u64, granted: &Value) -> String {
    let now = UnixMillis::now().0;
    let claims = json!({ "sub": "7", "aud": "tidings", "exp": (now + lives) as f64 / 1e3, "tidings": granted });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("signs")
}

fn bearer(lives: u64) -> String {
    format!("Bearer {}", token(lives, &json!({ "follow": ["news"] })))
}

/// Publishes all the events, one after the other, for about three seconds.
async fn publish(node: &Node) -> tokio::task::JoinHandle<()> {
    let mut publisher = Publisher::connect(node.addresses()).await.0;
    let bearer = format!("Bearer {}", token(3_600_000, &json!({ "publish": ["news", "user:*"] })));
    tokio::spawn(async move {
        let mut every = tokio::time::interval(std::time::Duration::from_millis(8));
        for number in 0..EVENTS {
            every.tick().await;
            // In turns, so that the inbox and a topic are woven into each other.
            let topic = ["news", "user:7"][number % 2];
            loop {
                let mut request: Request<PublishRequest> = Request::new(event(topic, number.to_string()));
                let value = bearer.parse().expect("a header");
                request.metadata_mut().insert("authorization", value);
                match patiently("a publish", publisher.publish(request)).await {
                    Ok(_) => break,
                    // As long as the node does not know what has been taken back.
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                }
                every.tick().await;
            }
        }
    })
}

fn want() -> Vec<String> {
    (0..EVENTS).map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_many_tokens_has_every_event_once() {
    let node = setup().start().await;
    for is_http2 in [false, true] {
        let publishing = publish(&node).await;
        let begin = if is_http2 { EVENTS } else { 0 };
        let (mut got, mut id, mut notices, mut streams) = (Vec::new(), String::new(), 0, 0);
        while got.len() < begin + EVENTS {
            let ask = Ask::topic("news")
                .query("since", "earliest")
                .header("authorization", &bearer(700))
                .after(&id);
            let address = node.addresses().http;
            let stream = if is_http2 {
                ask.open_http2(address).await
            } else {
                ask.open(address).await
            };
            let mut stream: Stream = stream.expect("a stream");
            assert_eq!(stream.status(), 200);
            // Until the node knows what has been taken back it opens none, and asks to come back.
            let is_open = loop {
                match stream.next().await {
                    Ok(Item::Retry(_)) => {}
                    Ok(Item::Comment) => break true,
                    Ok(Item::Event(event)) => panic!("{event:?} comes first"),
                    Err(end) => {
                        assert_eq!(end, End::Clean);
                        break false;
                    }
                }
            };
            if !is_open {
                continue;
            }
            streams += 1;
            let end = loop {
                match stream.try_event().await {
                    Ok(event) if event.name == "tidings.token_expiring" => notices += 1,
                    Ok(event) => {
                        assert_eq!((event.name.as_str(), event.gap()), ("message", None));
                        got.push(event.data);
                        id = event.id;
                    }
                    Err(end) => break end,
                }
            };
            assert_eq!(end, End::Clean);
        }
        publishing.await.expect("published");
        assert_eq!(got[begin..], want(), "HTTP/2: {is_http2}");
        assert_eq!(notices, streams, "each stream is told once");
        assert!(streams > 2, "{streams} streams");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_of_many_tokens_has_every_event_once() {
    let node = setup().start().await;
    let publishing = publish(&node).await;
    let client = SubscriberClient::connect(node.addresses().publish_url());
    let mut client = patiently("a connection", client).await.expect("it listens");
    let (mut got, mut cursor, mut notices, mut streams) = (Vec::new(), String::new(), 0, 0);
    while got.len() < EVENTS {
        let mut request = Request::new(SubscribeRequest {
            topics: vec!["news".to_owned(), "user:7".to_owned()],
            cursor: cursor.clone(),
            start: Some(Start::Earliest(true)),
        });
        let value = bearer(700).parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
        let mut stream = match client.subscribe(request).await {
            Ok(response) => response.into_inner(),
            // Until the node knows what has been taken back it lets nobody in.
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                continue;
            }
        };
        streams += 1;
        let status = loop {
            match patiently("a message", stream.message()).await {
                Ok(message) => {
                    let message = message.expect("it ends with a status");
                    if !message.cursor.is_empty() {
                        cursor = message.cursor;
                    }
                    match message.message.expect("something") {
                        Message::Event(event) => got.push(event.data),
                        Message::Expiring(_) => notices += 1,
                        Message::Level(_) => {}
                        Message::Gap(gap) => panic!("{gap:?}"),
                    }
                }
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    }
    publishing.await.expect("published");
    assert_eq!(got, want());
    assert_eq!(notices, streams, "each stream is told once");
}
