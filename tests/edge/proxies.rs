//! Behind proxies: limits go by the true address, and only proxies are believed what it is.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidings::{edge::EdgeHandle, proxies::Proxies};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
};

use crate::{
    client::{Client, Said, guard},
    world::{Options, World, start},
};

const URI: &str = "/v1/events?topic=a";

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 127.0.0.1 4242 80\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x7f\0\0\x01\x10\x92\0\x50";
const V1_OTHER: &[u8] = b"PROXY TCP6 2001:db8::1 ::1 4242 80\r\n";
const V1_SAME_NETWORK: &[u8] = b"PROXY TCP6 2001:db8::2 ::1 4242 80\r\n";

/// 127.0.0.1 is a proxy, and each address may have one stream.
fn edge(protocol: bool, header_timeout: Duration) -> EdgeHandle {
    let mut options = Options::default();
    options.settings.proxies = Proxies::new(vec!["127.0.0.1/32".parse().expect("a network")], protocol);
    options.settings.header_timeout = header_timeout;
    options.limits.connections_per_address = 1;
    // It says nothing about what a proxy tells.
    options.limits.exempt_loopback = true;
    start(&World::new(), options)
}

fn patient(protocol: bool) -> EdgeHandle {
    edge(protocol, Duration::from_secs(3_600))
}

/// A connection from another address of this machine, beginning with these bytes.
async fn connect_from(own: [u8; 4], edge: &EdgeHandle, begin: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((own, 0))).expect("loopback");
    let mut stream = guard(socket.connect(edge.address())).await.expect("connects");
    guard(stream.write_all(begin)).await.expect("writes");
    stream
}

const PROXY: [u8; 4] = [127, 0, 0, 1];
const STRANGER: [u8; 4] = [127, 0, 0, 2];

/// What a stream says first.
async fn said(edge: &EdgeHandle, begin: &[u8], headers: &[(&str, &str)]) -> (Client, Vec<Option<Said>>) {
    let mut client = Client::on(connect_from(PROXY, edge, begin).await);
    client.request("GET", URI, headers).await;
    assert_eq!(client.head().await.status, 200);
    let said = vec![client.said().await, client.said().await];
    (client, said)
}

async fn served(edge: &EdgeHandle, begin: &[u8], headers: &[(&str, &str)]) -> Client {
    let (client, said) = said(edge, begin, headers).await;
    assert_eq!(said[1], Some(Said::Comment), "{said:?}");
    client
}

async fn shed(edge: &EdgeHandle, begin: &[u8], headers: &[(&str, &str)]) {
    let (_, said) = said(edge, begin, headers).await;
    assert!(matches!(said[..], [Some(Said::Retry(_)), None]), "{said:?}");
}

#[tokio::test]
async fn a_header_tells_the_address_that_limits_go_by() {
    let edge = patient(true);
    let one = served(&edge, V1, &[]).await;
    shed(&edge, V2, &[]).await;
    // What a client says of itself is nothing.
    shed(&edge, V1, &[("x-forwarded-for", "198.51.100.1")]).await;
    let _other = served(&edge, V1_OTHER, &[]).await;
    shed(&edge, V1_SAME_NETWORK, &[]).await;
    // The proxy's own are not counted as one client's, and are not believed further.
    let mut own = Vec::new();
    for _ in 0..3 {
        own.push(served(&edge, b"PROXY UNKNOWN\r\n", &[("x-forwarded-for", "192.0.2.1")]).await);
    }
    drop(one);
    while edge.streams() > 4 {
        tokio::task::yield_now().await;
    }
    let _again = served(&edge, V2, &[]).await;
}

#[tokio::test]
async fn a_stranger_is_not_believed() {
    let edge = patient(true);
    for header in [V1, V2] {
        let mut client = Client::on(connect_from(STRANGER, &edge, header).await);
        client.request("GET", URI, &[]).await;
        assert_eq!(client.head().await.status, 400, "{}", header.escape_ascii());
    }
    let mut client = Client::on(connect_from(STRANGER, &edge, b"").await);
    client.request("GET", URI, &[("x-forwarded-for", "192.0.2.1")]).await;
    assert_eq!(client.head().await.status, 200);
    let _told = served(&edge, V1, &[]).await;
}

#[tokio::test]
async fn a_proxy_without_a_header_is_closed_without_an_answer() {
    let edge = edge(true, Duration::from_millis(200));
    for begin in [
        b"GET /v1/events?topic=a HTTP/1.1\r\nhost: t\r\n\r\n".as_slice(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 127.0.0.1 4242\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        // Too slow.
        b"",
        b"PROXY TCP4 192.0",
        &V2[..20],
        // A header, and then nothing.
        V1,
    ] {
        let mut stream = connect_from(PROXY, &edge, begin).await;
        let mut answer = Vec::new();
        // Unread bytes make it a reset.
        let _ = guard(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer)).await;
        assert_eq!(answer.escape_ascii().to_string(), "", "{}", begin.escape_ascii());
    }
    // That did not use anything up.
    let _one = served(&edge, V1, &[]).await;
}

#[tokio::test]
async fn a_request_tells_the_address_that_limits_go_by() {
    let edge = patient(false);
    let told = |value| [("x-forwarded-for", value)];
    let one = served(&edge, b"", &told("192.0.2.1")).await;
    shed(&edge, b"", &told("192.0.2.1")).await;
    // A client that writes one itself: the proxy adds the true one.
    shed(&edge, b"", &told("203.0.113.9, 192.0.2.1")).await;
    shed(
        &edge,
        b"",
        &[
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "[::ffff:192.0.2.1]:80"),
        ],
    )
    .await;
    let _loopback = served(&edge, b"", &told("127.0.0.9")).await;
    shed(&edge, b"", &told("127.0.0.9")).await;
    // Nobody knows whose these are.
    let mut own = Vec::new();
    for headers in [&[][..], &[], &told("unknown"), &told("192.0.2.1, ???")] {
        own.push(served(&edge, b"", headers).await);
    }
    drop(one);
    while edge.streams() > 5 {
        tokio::task::yield_now().await;
    }
    let _again = served(&edge, b"", &told("192.0.2.1")).await;
}

async fn http2(stream: TcpStream) -> SendRequest<Empty<Bytes>> {
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    sender
}

/// Whether a stream is served; it is open for as long as what is given back.
async fn is_served(connection: &mut SendRequest<Empty<Bytes>>, told: &str) -> (bool, hyper::body::Incoming) {
    let request = Request::get(format!("http://test{URI}"))
        .header("x-forwarded-for", told)
        .body(Empty::new())
        .expect("a request");
    let response = guard(connection.send_request(request)).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut text = Vec::new();
    loop {
        match guard(body.frame()).await {
            Some(frame) => text.extend_from_slice(&frame.expect("a frame").into_data().expect("data")),
            None => return (false, body),
        }
        if text.ends_with(b":\n") {
            return (true, body);
        }
    }
}

#[tokio::test]
async fn streams_of_many_clients_on_one_connection() {
    let edge = patient(false);
    let mut connection = http2(connect_from(PROXY, &edge, b"").await).await;
    let mut open = Vec::new();
    for (told, expected) in [
        ("192.0.2.1", true),
        ("192.0.2.1", false),
        ("192.0.2.2", true),
        ("192.0.2.3, 192.0.2.2", false),
        ("192.0.2.3", true),
    ] {
        let (served, body) = is_served(&mut connection, told).await;
        assert_eq!(served, expected, "{told}");
        open.push(body);
    }
}

#[tokio::test]
async fn a_header_before_http2() {
    let edge = patient(true);
    let mut connection = http2(connect_from(PROXY, &edge, V1_OTHER).await).await;
    // The connection has the address's whole share: a stream over HTTP/2 counts as one more.
    assert!(!is_served(&mut connection, "198.51.100.1").await.0);
    let mut unknown = http2(connect_from(PROXY, &edge, b"PROXY UNKNOWN\r\n").await).await;
    for _ in 0..3 {
        assert!(is_served(&mut unknown, "198.51.100.1").await.0);
    }
}
