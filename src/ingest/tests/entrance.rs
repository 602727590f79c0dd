//! Who calls, behind proxies too, and what their address may have.

use axum::{Router, body::Body, routing::get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    addresses::AddressLimits,
    proxies::{Client, Proxies},
};

/// This machine is a proxy.
fn behind(protocol: bool) -> ServerSettings {
    ServerSettings {
        proxies: Proxies::new(vec!["127.0.0.1/32".parse().unwrap()], protocol),
        first_word: Duration::from_millis(200),
        ..ServerSettings::default()
    }
}

/// A port that says who calls.
async fn start(settings: ServerSettings) -> (SocketAddr, CancellationToken) {
    let caller = |request: Request<Body>| async move {
        let client = *request.extensions().get::<Client>().unwrap();
        let request = tonic::Request::from_http(request);
        let address = request.remote_addr().unwrap();
        assert_eq!(address.ip(), client.address());
        format!("{address} {}", client.is_one())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let services = Services::new().http(Router::new().route("/caller", get(caller)));
    let drain = CancellationToken::new();
    tokio::spawn(serve(listener, services, settings, drain.clone()));
    (address, drain)
}

/// What is answered to a connection that begins with these bytes and goes on with a request that has these lines.
async fn asked(address: SocketAddr, begin: &[u8], lines: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /caller HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{lines}\r\n");
    let sent = [begin, request.as_bytes()].concat();
    stream.write_all(&sent).await.unwrap();
    let mut answer = Vec::new();
    // What was not read resets the connection.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_header_tells_who_calls() {
    let (address, _drain) = start(behind(true)).await;
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x7f\0\0\x01\x10\x92\0\x50";
    for (begin, expected) in [
        (
            b"PROXY TCP4 192.0.2.1 127.0.0.1 4242 80\r\n".as_slice(),
            "192.0.2.1:0 true",
        ),
        (b"PROXY TCP6 2001:db8::1 ::1 4242 80\r\n", "[2001:db8::1]:0 true"),
        (v2, "192.0.2.1:0 true"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1:0 false"),
        // No header, a broken one.
        (b"", ""),
        (b"PROXY TCP4 nobody\r\n", ""),
    ] {
        let answer = asked(address, begin, "x-forwarded-for: 198.51.100.1\r\n").await;
        assert_eq!(answer, expected, "{}", begin.escape_ascii());
    }
    // Nothing at all, and half of a header, are closed in time.
    for begin in [b"".as_slice(), b"PROXY TCP4 192.0"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begin).await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_request_tells_who_calls() {
    let (address, _drain) = start(behind(false)).await;
    for (lines, expected) in [
        ("x-forwarded-for: 192.0.2.1\r\n", "192.0.2.1:0 true"),
        ("x-forwarded-for: 203.0.113.9, 192.0.2.1\r\n", "192.0.2.1:0 true"),
        (
            "forwarded: for=192.0.2.1\r\nx-forwarded-for: 192.0.2.2\r\n",
            "192.0.2.2:0 true",
        ),
    ] {
        assert_eq!(asked(address, b"", lines).await, expected, "{lines}");
    }
    let own = asked(address, b"", "forwarded: for=192.0.2.1\r\n").await;
    assert!(own.starts_with("127.0.0.1:") && own.ends_with(" false"), "{own}");
    // Nobody is a proxy here.
    let (address, _drain) = start(ServerSettings::default()).await;
    let own = asked(address, b"", "x-forwarded-for: 192.0.2.1\r\n").await;
    assert!(own.starts_with("127.0.0.1:") && own.ends_with(" true"), "{own}");
}

fn limited(connections: usize, attempts_per_second: u32) -> AddressLimits {
    AddressLimits {
        connections,
        attempts_per_second,
        exempt_loopback: false,
    }
}

#[tokio::test]
async fn an_address_has_its_share_of_connections() {
    let settings = ServerSettings {
        addresses: limited(1, 1_000),
        ..ServerSettings::default()
    };
    let node = Node::start_with(TestJournal::prompt(), settings).await;
    let channel = || Channel::from_shared(format!("http://{}", node.address)).unwrap();
    let held = channel().connect().await.unwrap();
    PublisherClient::new(held.clone())
        .publish(super::to("a"))
        .await
        .unwrap();
    let mut second = PublisherClient::new(channel().connect().await.unwrap());
    let status = second.publish(super::to("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(!wait.is_zero());
    let answer = node
        .http1(Request::post("/v1/publish").body(Full::default()).unwrap())
        .await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (429, &1.into())
    );
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    // Whoever was turned away may not stay, and the share comes back.
    drop((held, second));
    loop {
        let mut third = PublisherClient::new(channel().connect().await.unwrap());
        if third.publish(super::to("a")).await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn who_is_turned_away_cannot_stay() {
    let settings = ServerSettings {
        addresses: limited(0, 1_000),
        ..ServerSettings::default()
    };
    let (address, _drain) = start(settings).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /caller HTTP/1.1\r\nhost: t\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
}

#[tokio::test]
async fn an_address_has_its_share_of_attempts() {
    let settings = ServerSettings {
        addresses: limited(1_000, 1),
        ..ServerSettings::default()
    };
    let (address, _drain) = start(settings).await;
    let mut turned_away = 0;
    // Twenty do not take twenty seconds.
    for _ in 0..20 {
        turned_away += usize::from(asked(address, b"", "").await.contains("too often"));
    }
    assert!((1..20).contains(&turned_away), "{turned_away}");
}

/// Behind a proxy that speaks the PROXY protocol it is the client's address that has the share.
#[tokio::test]
async fn the_share_is_the_clients() {
    let settings = ServerSettings {
        addresses: AddressLimits {
            connections: 1,
            attempts_per_second: 1_000,
            exempt_loopback: true,
        },
        ..behind(true)
    };
    let (address, _drain) = start(settings).await;
    let one = b"PROXY TCP4 192.0.2.1 127.0.0.1 4242 80\r\n".as_slice();
    let mut held = TcpStream::connect(address).await.unwrap();
    held.write_all(&[one, b"GET /caller HTTP/1.1\r\nhost: t\r\n\r\n"].concat())
        .await
        .unwrap();
    let mut begin = [0; 12];
    held.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    let second = asked(address, one, "").await;
    assert!(second.contains("all the connections it may have"), "{second}");
    let other = asked(address, b"PROXY TCP4 192.0.2.2 127.0.0.1 4242 80\r\n", "").await;
    assert_eq!(other, "192.0.2.2:0 true");
    let unknown = asked(address, b"PROXY UNKNOWN\r\n", "").await;
    assert_eq!(unknown, "127.0.0.1:0 false");
}
