//! The gRPC subscriber, from tonic's client.

use std::time::Duration;

use tidings::edge::{EdgeHandle, subscriber};
use tidings_proto::v1::{
    SubscribeRequest, SubscribeResponse, gap, subscribe_request::Start, subscribe_response::Message,
    subscriber_client::SubscriberClient,
};
use tonic::{Code, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    client::guard,
    world::{Options, World, start},
};

pub(crate) async fn client(edge: &EdgeHandle) -> SubscriberClient<Channel> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = subscriber(edge.clone());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    SubscriberClient::connect(format!("http://{address}")).await.unwrap()
}

pub(crate) fn request(topics: &[&str], cursor: &str, start: Option<Start>) -> SubscribeRequest {
    SubscribeRequest {
        topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        cursor: cursor.to_owned(),
        start,
    }
}

pub(crate) async fn next(stream: &mut Streaming<SubscribeResponse>) -> (String, Message) {
    let response = guard(stream.message()).await.unwrap().unwrap();
    (response.cursor, response.message.unwrap())
}

/// The same, with a token.
pub(crate) fn with_token(request: SubscribeRequest, token: &str) -> tonic::Request<SubscribeRequest> {
    let mut request = tonic::Request::new(request);
    let value = crate::bearer::bearer(token).parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

#[tokio::test]
async fn events_come_from_the_log_then_live_and_resume() {
    let world = World::new();
    world.publish("a", Some("t"), "one");
    world.publish("b", None, "two\r\n");
    let edge = start(&world, Options::default());
    let mut client = client(&edge).await;
    let request_all = request(&["a", "b", "a"], "", Some(Start::Earliest(true)));
    let mut stream = client.subscribe(request_all).await.unwrap().into_inner();
    let (cursor, message) = next(&mut stream).await;
    let Message::Event(event) = message else {
        panic!("{message:?}")
    };
    assert_eq!(
        (
            event.topic.as_str(),
            event.r#type.as_str(),
            event.data.as_str(),
            event.sequence
        ),
        ("a", "t", "one", 1)
    );
    let Message::Event(event) = next(&mut stream).await.1 else {
        panic!("an event")
    };
    assert_eq!(event.data, "two\r\n");
    assert!(matches!(next(&mut stream).await.1, Message::Level(_)));
    world.publish("b", None, "three");
    let Message::Event(event) = next(&mut stream).await.1 else {
        panic!("an event")
    };
    assert_eq!(event.data, "three");
    let mut again = client
        .subscribe(request(&["a", "b"], &cursor, None))
        .await
        .unwrap()
        .into_inner();
    for want in ["two\r\n", "three"] {
        let Message::Event(event) = next(&mut again).await.1 else {
            panic!("an event")
        };
        assert_eq!(event.data, want);
    }
    let mut foreign = client
        .subscribe(request(&["a"], "garbage", None))
        .await
        .unwrap()
        .into_inner();
    let Message::Gap(gap) = next(&mut foreign).await.1 else {
        panic!("a gap")
    };
    assert_eq!(gap.reason(), gap::Reason::Unknown);
    assert_eq!(edge.streams(), 3);
}

#[tokio::test]
async fn mistakes_and_limits_have_details() {
    let mut options = Options::default();
    options.limits.connections = 1;
    let edge = start(&World::new(), options);
    let mut client = client(&edge).await;
    let status = client.subscribe(request(&["a", "b c"], "", None)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "topics[1]");
    let _stream = client.subscribe(request(&["a"], "", None)).await.unwrap();
    let status = client.subscribe(request(&["a"], "", None)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_error_details().retry_info().is_some());
}

#[tokio::test]
async fn draining_ends_streams_with_unavailable() {
    let edge = start(&World::new(), Options::default());
    let mut client = client(&edge).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = client.subscribe(request(&["a"], "", None)).await.unwrap().into_inner();
        assert!(matches!(next(&mut stream).await.1, Message::Level(_)));
        streams.push(stream);
    }
    edge.drain(Duration::from_millis(500));
    for mut stream in streams {
        let status = guard(stream.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_error_details().retry_info().is_some());
    }
    guard(edge.stopped()).await.unwrap();
    let status = client.subscribe(request(&["a"], "", None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    let world = World::new();
    let edge = start(&world, Options::default());
    let mut client = client(&edge).await;
    let from_earliest = || request(&["a"], "", Some(Start::Earliest(true)));
    let mut slow = client.subscribe(from_earliest()).await.unwrap().into_inner();
    let mut quick = client.clone().subscribe(from_earliest()).await.unwrap().into_inner();
    assert!(matches!(next(&mut quick).await.1, Message::Level(_)));
    assert!(matches!(next(&mut slow).await.1, Message::Level(_)));
    let payload = "x".repeat(2_000);
    for number in 0..1_000 {
        world.publish("a", None, &format!("{number} {payload}"));
    }
    for mut stream in [quick, slow] {
        for number in 0..1_000 {
            let Message::Event(event) = next(&mut stream).await.1 else {
                panic!("an event")
            };
            assert_eq!(event.data, format!("{number} {payload}"));
        }
    }
}
