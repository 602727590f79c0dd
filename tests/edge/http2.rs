//! HTTP/2 with prior knowledge, from hyper's own client.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidings::edge::Settings;
use tokio::task::JoinHandle;

use crate::{
    client::{Client, Parser, Said, guard},
    world::{Options, World, start, start_with},
};

pub(crate) type Connection = SendRequest<Empty<Bytes>>;

pub(crate) async fn connect(address: SocketAddr) -> Connection {
    connect_until_closed(address).await.0
}

/// A connection, and what ends when it is closed.
async fn connect_until_closed(address: SocketAddr) -> (Connection, JoinHandle<hyper::Result<()>>) {
    let socket = guard(tokio::net::TcpStream::connect(address)).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

async fn get(connection: &mut Connection, uri: &str) -> Response<Incoming> {
    ask(connection, "GET", uri, &[]).await
}

/// The answer to a request with these headers.
pub(crate) async fn ask(
    connection: &mut Connection,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
) -> Response<Incoming> {
    let mut request = Request::builder().method(method).uri(format!("http://test{uri}"));
    for &(name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::new()).unwrap();
    guard(connection.send_request(request)).await.unwrap()
}

pub(crate) struct Stream {
    body: Incoming,
    parser: Parser,
}

impl Stream {
    /// What an answer says.
    pub(crate) fn of(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            parser: Parser::default(),
        }
    }

    async fn open(connection: &mut Connection, uri: &str) -> Self {
        Self::of(get(connection, uri).await)
    }

    pub(crate) async fn said(&mut self) -> Option<Said> {
        loop {
            if let Some(said) = self.parser.next() {
                return Some(said);
            }
            let frame = guard(self.body.frame()).await?.unwrap();
            self.parser.push(&frame.into_data().unwrap());
        }
    }

    pub(crate) async fn data(&mut self) -> String {
        loop {
            match self.said().await.unwrap() {
                Said::Event { data, .. } => return data,
                Said::Comment | Said::Retry(_) => {}
            }
        }
    }
}

#[tokio::test]
async fn the_head_and_a_comment_come_at_once() {
    let edge = start(&World::new(), Options::default());
    let mut connection = connect(edge.address()).await;
    let response = get(&mut connection, "/v1/events?topic=a").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache, no-transform");
    assert_eq!(response.headers().get("connection"), None);
    let mut stream = Stream {
        body: response.into_body(),
        parser: Parser::default(),
    };
    assert!(matches!(stream.said().await, Some(Said::Retry(3_000..=4_500))));
    assert_eq!(stream.said().await, Some(Said::Comment));
    assert_eq!(get(&mut connection, "/").await.status(), 404);
    assert_eq!(get(&mut connection, "/v1/events").await.status(), 400);
}

#[tokio::test]
async fn many_streams_share_a_connection_and_end_one_by_one() {
    let world = World::new();
    let edge = start(&world, Options::default());
    let mut connection = connect(edge.address()).await;
    let mut streams = Vec::new();
    for number in 0..150 {
        let uri = format!("/v1/events?topic=all&topic=t{number}&since=earliest");
        streams.push(Stream::open(&mut connection, &uri).await);
    }
    assert_eq!(edge.streams(), 150);
    world.publish("all", None, "to all");
    world.publish("t7", None, "to one");
    for stream in &mut streams {
        assert_eq!(stream.data().await, "to all");
    }
    assert_eq!(streams[7].data().await, "to one");
    streams.truncate(3);
    guard(async {
        while edge.streams() > 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.publish("all", None, "again");
    for stream in &mut streams {
        assert_eq!(stream.data().await, "again");
    }
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    let world = World::new();
    let settings = Settings {
        send_queue: 16 * 1024,
        ..Settings::default()
    };
    let edge = start(
        &world,
        Options {
            settings,
            workers: 1,
            ..Options::default()
        },
    );
    let mut connection = connect(edge.address()).await;
    let mut slow = Stream::open(&mut connection, "/v1/events?topic=a&since=earliest").await;
    let mut quick = Client::follow(edge.address(), "/v1/events?topic=a&since=earliest").await;
    let payload = "x".repeat(2_000);
    for number in 0..1_000 {
        world.publish("a", None, &format!("{number} {payload}"));
        assert_eq!(quick.data().await, format!("{number} {payload}"));
    }
    for number in 0..1_000 {
        assert_eq!(slow.data().await, format!("{number} {payload}"));
    }
}

#[tokio::test]
async fn heartbeats_and_the_end() {
    let edge = start_with(Settings {
        heartbeat: Duration::from_millis(100),
        ..Settings::default()
    });
    let mut connection = connect(edge.address()).await;
    let mut stream = Stream::open(&mut connection, "/v1/events?topic=a").await;
    assert!(matches!(stream.said().await, Some(Said::Retry(3_000..=4_500))));
    for _ in 0..3 {
        assert_eq!(stream.said().await, Some(Said::Comment));
    }
    edge.drain(Duration::from_secs(1));
    let retry = loop {
        match stream.said().await.unwrap() {
            Said::Retry(ms) => break ms,
            other => assert_eq!(other, Said::Comment),
        }
    };
    assert!((1_000..=15_000).contains(&retry), "{retry}");
    assert_eq!(stream.said().await, None);
    guard(edge.stopped()).await.unwrap();
}

#[tokio::test]
async fn streams_count_as_connections() {
    let mut options = Options::default();
    options.limits.connections = 3;
    let edge = start(&World::new(), options);
    let mut connection = connect(edge.address()).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(Stream::open(&mut connection, "/v1/events?topic=a").await);
    }
    // The connection itself is one.
    assert!(matches!(streams[1].said().await, Some(Said::Retry(3_000..=4_500))));
    assert_eq!(streams[1].said().await, Some(Said::Comment));
    let Some(Said::Retry(ms)) = streams[2].said().await else {
        panic!("not shed")
    };
    assert!((1_000..=15_000).contains(&ms), "{ms}");
    assert_eq!(streams[2].said().await, None);
}

#[tokio::test]
async fn one_over_a_limit_is_told_so_and_then_closed() {
    let mut options = Options::default();
    options.limits.connections = 0;
    // Only what is over a limit is cut off in this test.
    options.settings.header_timeout = Duration::from_secs(3_600);
    let edge = start(&World::new(), options);
    for uri in ["/", "/v1/events?topic=a"] {
        let (mut connection, closed) = connect_until_closed(edge.address()).await;
        let response = get(&mut connection, uri).await;
        guard(response.into_body().collect()).await.unwrap();
        guard(closed).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_route_and_a_redirect_need_no_connection_of_their_own() {
    let routes = tidings::edge::Routes::new(
        tidings::model::Layout::EMBEDDED,
        "edge-0",
        vec![tidings::edge::EdgeAddress {
            node: "edge-1".to_owned(),
            url: Some("http://edge-1.example".to_owned()),
        }],
        |_| Some(0),
        tidings::edge::Sight::Young,
    );
    let options = Options {
        routes: routes.forever(),
        ..Options::default()
    };
    let edge = start(&World::new(), options);
    let mut connection = connect(edge.address()).await;
    let route = get(&mut connection, "/v1/route?topic=a").await;
    assert_eq!(
        (route.status(), &route.headers()["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    let sent = get(&mut connection, "/v1/events?topic=a&redirect=1").await;
    assert_eq!(sent.status(), 307);
    let location = sent.headers()["location"].to_str().unwrap();
    assert!(
        location.starts_with("http://edge-1.example/v1/events?topic=a&redirect=1&redirected="),
        "{location}"
    );
    Stream::open(&mut connection, "/v1/events?topic=a").await;
}

#[tokio::test]
async fn an_old_connection_is_left_with_its_streams() {
    let edge = start_with(Settings {
        max_age: Duration::from_millis(500),
        ..Settings::default()
    });
    let (mut connection, closed) = connect_until_closed(edge.address()).await;
    let mut stream = Stream::open(&mut connection, "/v1/events?topic=a&since=earliest").await;
    while guard(stream.body.frame()).await.is_some() {}
    guard(closed).await.unwrap().unwrap();
}
