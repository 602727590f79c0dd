//! The port itself: health, reflection, and its end.

use std::{io::ErrorKind, time::Duration};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::{Node, ServerSettings, Services, double::TestJournal, serve, to};

async fn channel(node: &Node) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", node.address)).unwrap();
    endpoint.connect().await.unwrap()
}

fn health_of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn one_connection_watches_so_much_and_no_more() {
    let node = Node::start(TestJournal::prompt()).await;
    let mut health = HealthClient::new(channel(&node).await);
    let mut watching = Vec::new();
    let status = loop {
        match health.watch(health_of("")).await {
            Ok(watch) => watching.push(watch),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), watching.len()), (Code::ResourceExhausted, 32));
    let mut another = HealthClient::new(channel(&node).await);
    another.check(health_of("")).await.unwrap();
    // One that ends makes room.
    watching.pop();
    while health.check(health_of("")).await.is_err() {}
}

#[tokio::test]
async fn health_is_told_and_its_watchers_do_not_hold_up_the_drain() {
    let node = Node::start(TestJournal::prompt()).await;
    let mut health = HealthClient::new(channel(&node).await);
    for service in ["", "tidings.v1.Publisher"] {
        let answer = health.check(health_of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(
        health.check(health_of("nobody")).await.unwrap_err().code(),
        Code::NotFound
    );
    let mut watch = health
        .watch(health_of("tidings.v1.Publisher"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    node.drain.cancel();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert_eq!(watch.message().await.unwrap(), None);
    node.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_contract_can_be_asked_for() {
    let node = Node::start(TestJournal::prompt()).await;
    let mut reflection = ServerReflectionClient::new(channel(&node).await);
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(question))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["tidings.v1.Publisher", "tidings.v1.Subscriber", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}

#[tokio::test]
async fn what_does_not_end_within_the_drain_window_is_dropped() {
    let node = Node::start_with_window(TestJournal::held(), Duration::from_millis(20)).await;
    let mut client = node.client().await;
    let publish = tokio::spawn(async move { client.publish(to("a")).await });
    node.journal.until_appended(1).await;
    node.drain.cancel();
    node.served.await.unwrap().unwrap();
    assert!(publish.await.unwrap().is_err(), "it never was durable");
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_hold_up_the_drain() {
    let node = Node::start(TestJournal::prompt()).await;
    let silent = tokio::net::TcpStream::connect(node.address).await.unwrap();
    // Accepted after the silent one, so that the silent one is accepted too.
    node.client().await.publish(to("a")).await.unwrap();
    node.drain.cancel();
    node.served.await.unwrap().unwrap();
    drop(silent);
}

/// Limits per address go by it.
#[tokio::test]
async fn services_know_who_calls() {
    let peer = |request: Request<Body>| async move {
        let request = tonic::Request::from_http(request);
        request.remote_addr().map_or_else(String::new, |peer| peer.to_string())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let services = Services::new().http(Router::new().route("/peer", get(peer)));
    let served = tokio::spawn(serve(
        listener,
        services,
        ServerSettings::default(),
        CancellationToken::new(),
    ));
    let stream = TcpStream::connect(address).await.unwrap();
    let own = stream.local_addr().unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("/peer")
        .header("host", "test")
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.collect().await.unwrap().to_bytes(), own.to_string());
    connection.abort();
    served.abort();
}

#[tokio::test]
async fn half_a_first_word_is_cut_off() {
    let settings = ServerSettings {
        first_word: Duration::from_millis(50),
        ..ServerSettings::default()
    };
    let node = Node::start_with(TestJournal::prompt(), settings).await;
    let mut half = TcpStream::connect(node.address).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    // Without the limit this waits for ever. What was not read makes it a reset.
    let end = half.read(&mut [0; 16]).await;
    assert!(
        matches!(&end, Ok(0))
            || end
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "{end:?}"
    );
}

#[tokio::test]
async fn unknown_paths_are_answered_in_the_callers_protocol() {
    let node = Node::start(TestJournal::prompt()).await;
    let request = Request::post("/nowhere").body(Full::<Bytes>::default()).unwrap();
    let answer = node.http1(request).await;
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let mut nobody = tonic::client::Grpc::new(channel(&node).await);
    nobody.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/tidings.v1.Nobody/Call");
    let codec = tidings_proto::codec::Codec::<(), ()>::default();
    let status = nobody.unary(tonic::Request::new(()), path, codec).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unimplemented, "no such service here: /tidings.v1.Nobody/Call")
    );
}
