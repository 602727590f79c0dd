//! The end of a node: signals, draining, and that it is told.

use http::Request;
use rustix::process::Signal;
use tidings_proto::v1::SubscribeRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    client::{Publisher, ask, event, get_json, subscriber},
    node::{Node, Setup, code},
    patiently,
    sse::{Ask, End, Item},
};

/// So long that a test which needs it to be over hangs.
const ENDLESS: &str = "1h";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_streams_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Setup::new().set("drain.window", ENDLESS).start().await;
        // Connections that nothing is under way on do not hold it up.
        let mut publisher = Publisher::connect(node.addresses()).await;
        publisher.publish(event("a", "1")).await;
        node.signal(signal);
        assert_eq!(node.ended().await.code(), Some(0), "{}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_ends_as_soon_as_its_streams_have() {
    let mut node = Setup::new().set("drain.window", ENDLESS).start().await;
    let http = node.addresses().http;
    let streams = [
        Ask::topic("a").open(http).await.expect("a stream"),
        Ask::topic("a").open_http2(http).await.expect("a stream"),
    ];
    node.signal(Signal::TERM);
    node.logs("draining").await;
    drop(streams);
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_a_time_to_come_back_and_new_ones_are_told_too() {
    let mut node = Setup::new().set("drain.window", "5s").start().await;
    let addresses = node.addresses();
    let mut publisher = Publisher::connect(addresses).await;
    publisher.publish(event("a", "before")).await;
    let earliest = Ask::topic("a").query("since", "earliest");
    let mut streams = Vec::new();
    for number in 0..40 {
        let stream = if number % 4 == 0 {
            earliest.open_http2(addresses.http).await
        } else {
            earliest.open(addresses.http).await
        };
        let mut stream = stream.expect("a stream");
        assert_eq!(stream.data(1).await, ["before"]);
        streams.push(stream);
    }
    let mut subscriber = subscriber(addresses).await.expect("it listens");
    let request = SubscribeRequest {
        topics: vec!["a".to_owned()],
        ..SubscribeRequest::default()
    };
    let mut subscription = subscriber
        .subscribe(request)
        .await
        .expect("it is accepted")
        .into_inner();
    // A publish that is under way when the signal comes.
    let (requests, sent) = mpsc::channel(8);
    requests.send(event("a", "first")).await.expect("room");
    let mut answers = publisher
        .0
        .publish_stream(ReceiverStream::new(sent))
        .await
        .expect("it is accepted")
        .into_inner();
    answers.message().await.expect("an answer").expect("an answer");
    assert_eq!(get_json(addresses.admin, "/readyz").await.0, 200);

    node.signal(Signal::TERM);
    node.logs("draining").await;
    let (status, body) = get_json(addresses.admin, "/readyz").await;
    assert_eq!((status, &body["status"]), (503, &"not ready".into()));
    assert_eq!(body["parts"]["streams"], "the node is draining");
    assert_eq!(get_json(addresses.admin, "/livez").await.0, 200);
    let mut late = Ask::topic("a").open(addresses.http).await.expect("an answer");
    assert_eq!(
        (late.status(), late.header("content-type")),
        (200, Some("text/event-stream"))
    );
    let (items, end) = late.rest().await;
    assert!(matches!(items.as_slice(), [Item::Retry(1_000..=15_000)]), "{items:?}");
    assert_eq!(end, End::Clean);

    let mut waits = Vec::new();
    for stream in &mut streams {
        let (items, end) = stream.rest().await;
        assert_eq!(end, End::Clean);
        let Some(Item::Retry(wait)) = items.last() else {
            panic!("a stream ended without a word: {items:?}");
        };
        assert!((1_000..=15_000).contains(wait), "{wait}");
        assert!(items.contains(&Item::Event(crate::sse::Event {
            id: last_id(&items),
            name: "message".to_owned(),
            data: "first".to_owned()
        })));
        waits.push(*wait);
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 20, "they come back at times of their own: {waits:?}");
    let subscription = async {
        loop {
            match subscription.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a subscription ended without a word"),
                Err(status) => return status,
            }
        }
    };
    let status = patiently("a subscription's end", subscription).await;
    assert_eq!(status.code(), tonic::Code::Unavailable);
    drop(requests);
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.log());
    assert!(
        node.log().contains("store closed"),
        "RocksDB was not closed: {}",
        node.log()
    );
    node.restart().await;
    let mut stream = earliest.open(addresses.http).await.expect("a stream");
    assert_eq!(stream.data(2).await, ["before", "first"]);
}

/// The id of the last event.
fn last_id(items: &[Item]) -> String {
    let ids = items.iter().rev().find_map(|item| match item {
        Item::Event(event) => Some(event.id.clone()),
        _ => None,
    });
    ids.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_when_it_drains_is_answered_and_durable_or_refused() {
    let mut node = Setup::new().set("drain.window", "10s").start().await;
    let addresses = node.addresses();
    let (began, mut begun) = mpsc::channel(1);
    let publishing = tokio::spawn(async move {
        let mut publisher = Publisher::connect(addresses).await;
        let mut acknowledged = Vec::new();
        for number in 0.. {
            let data = format!("event {number}");
            match publisher.try_publish(event("a", &*data)).await {
                Ok(_) => acknowledged.push(data),
                Err(status) => return (acknowledged, status),
            }
            // Nobody may wait for it any more.
            let _ = began.try_send(());
        }
        unreachable!("it goes on until it is refused")
    });
    begun.recv().await.expect("it publishes");
    node.signal(Signal::TERM);
    let (mut acknowledged, status) = publishing.await.expect("no panic");
    // It was refused; or it was not even sent, since the connection was closed, in good order, between two calls.
    // (Where in the error the client says so differs with the moment: in its message or in its source.)
    let closed = status.code() == tonic::Code::Internal && format!("{status:?}").contains("NO_ERROR");
    assert!(
        closed || matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Cancelled),
        "{status:?}"
    );
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.log());
    node.restart().await;
    // All that was acknowledged is there, and nothing else: whatever was taken was answered.
    let mut publisher = Publisher::connect(addresses).await;
    publisher.publish(event("a", "after")).await;
    acknowledged.push("after".to_owned());
    let mut stream = Ask::topic("a")
        .query("since", "earliest")
        .open(addresses.http)
        .await
        .expect("a stream");
    assert_eq!(stream.data(acknowledged.len()).await, acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_now() {
    for (first, second, expected) in [
        (Signal::TERM, Signal::TERM, 143),
        (Signal::INT, Signal::INT, 130),
        (Signal::TERM, Signal::INT, 130),
    ] {
        let mut node = Setup::new().set("drain.window", ENDLESS).start().await;
        let mut stream = Ask::topic("a").open(node.addresses().http).await.expect("a stream");
        let mut publisher = Publisher::connect(node.addresses()).await;
        publisher.publish(event("a", "acknowledged")).await;
        assert_eq!(stream.event().await.data, "acknowledged");
        node.signal(first);
        node.logs("draining").await;
        node.signal(second);
        assert_eq!(code(node.ended().await), expected, "{}", node.log());
        node.restart().await;
        let mut stream = Ask::topic("a")
            .query("since", "earliest")
            .open(node.addresses().http)
            .await
            .expect("a stream");
        assert_eq!(stream.data(1).await, ["acknowledged"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_says_what_it_has() {
    let node = Node::start().await;
    let admin = node.addresses().admin;
    for path in ["/livez", "/readyz", "/readyz/streams", "/readyz/publishing"] {
        assert_eq!(get_json(admin, path).await.0, 200, "{path}");
    }
    let missing = ask(admin, Request::get("/readyz/nothing").body("").expect("a request")).await;
    assert_eq!(missing.status(), 404);
    assert_eq!(missing.headers()["content-type"], "application/problem+json");
}
