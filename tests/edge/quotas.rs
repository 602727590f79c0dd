//! What one user may have, over all protocols, when it is known who they are.

use tidings_proto::v1::subscribe_request::Start;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    bearer::{bearer, options, token},
    client::{Client, Said},
    grpc, http2,
    world::{Options, World, start, until_streams},
};

fn assert_shed(said: &[Said]) {
    let [Said::Retry(1_000..=15_000)] = said else {
        panic!("not shed: {said:?}")
    };
}

fn assert_over(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.get_error_details().retry_info().is_some());
}

async fn all(uri: &str, edge: &tidings::edge::EdgeHandle, header: &str) -> Vec<Said> {
    Client::stream(edge.address(), uri, &[("authorization", header)])
        .await
        .all()
        .await
}

#[tokio::test]
async fn streams_of_a_user_count_together_over_all_protocols() {
    let mut options: Options = options();
    options.limits.connections_per_user = 3;
    let edge = start(&World::new(), options);
    // Two tokens of one user are one user; what they call themselves changes nothing.
    let (one, two) = (token("7", &["a"]), token("7", &["b"]));
    let header = bearer(&one);
    let headers = [("authorization", &*header)];
    let _one = Client::stream(edge.address(), "/v1/events?topic=a", &headers).await;
    let mut connection = http2::connect(edge.address()).await;
    let _two = http2::ask(&mut connection, "GET", "/v1/events?user=7", &headers).await;
    let mut client = grpc::client(&edge).await;
    let call = |token: &str| grpc::with_token(grpc::request(&["user:7"], "", None), token);
    let three = client.subscribe(call(&two)).await.unwrap();
    assert_over(&client.subscribe(call(&one)).await.unwrap_err());
    assert_shed(&all("/v1/events?topic=b", &edge, &bearer(&two)).await);
    let mut shed = http2::Stream::of(http2::ask(&mut connection, "GET", "/v1/events", &headers).await);
    assert!(matches!(shed.said().await, Some(Said::Retry(1_000..=15_000))));
    assert_eq!(shed.said().await, None);
    let other = bearer(&token("8", &[]));
    let _other = Client::stream(edge.address(), "/v1/events", &[("authorization", &other)]).await;
    drop(three);
    until_streams(&edge, 3).await;
    let mut again = Client::stream(edge.address(), "/v1/events", &headers).await;
    assert!(matches!(again.said().await, Some(Said::Retry(3_000..=4_500))));
    assert_eq!(again.said().await, Some(Said::Comment));
}

/// A stream that catches up and does not read holds its user's place among those that do, until it is level or gone.
#[tokio::test]
async fn a_user_catches_up_with_so_many_streams_at_a_time() {
    let world = World::new();
    let payload = "z".repeat(60_000);
    for _ in 0..400 {
        world.publish("user:7", None, &payload);
    }
    world.publish("user:8", None, "hello");
    let mut options: Options = options();
    options.limits.replays_per_user = 1;
    options.send_buffer = Some(4_096);
    let edge = start(&world, options);
    let user = token("7", &[]);
    let header = bearer(&user);
    let since = "/v1/events?since=earliest";
    let stuck = {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut client = Client::on(socket.connect(edge.address()).await.unwrap());
        client.request("GET", since, &[("authorization", &header)]).await;
        assert_eq!(client.head().await.status, 200);
        client
    };
    assert_shed(&all(since, &edge, &header).await);
    let mut client = grpc::client(&edge).await;
    let request = || grpc::request(&["user:7"], "", Some(Start::Earliest(true)));
    assert_over(&client.subscribe(grpc::with_token(request(), &user)).await.unwrap_err());
    // Whoever begins now reads no log; and others are others.
    let now = "/v1/events?topic=user:7";
    let _now = Client::stream(edge.address(), now, &[("authorization", &header)]).await;
    let other = bearer(&token("8", &[]));
    let mut other = Client::stream(edge.address(), since, &[("authorization", &other)]).await;
    assert_eq!(other.data().await, "hello");
    drop(stuck);
    until_streams(&edge, 2).await;
    // One that is level makes room, and stays.
    let mut first = Client::stream(edge.address(), since, &[("authorization", &header)]).await;
    for _ in 0..400 {
        assert_eq!(first.data().await.len(), payload.len());
    }
    world.publish("user:7", None, "live");
    assert_eq!(first.data().await, "live");
    let mut second = Client::stream(edge.address(), since, &[("authorization", &header)]).await;
    assert_eq!(second.data().await.len(), payload.len());
}
