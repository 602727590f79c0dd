//! Those who speak something else than the port, something too old, or nothing at all.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    authority::{Authority, Key},
    curl::{Stream, Version, get},
    handshake::shake,
    node::{Node, Setup},
    patiently,
};

async fn serve(authority: &Authority) -> Node {
    let setup = Setup::new().set("http.header_timeout", "300ms");
    authority.local("edge").on(setup, &["http", "grpc"]).start().await
}

async fn hears(address: SocketAddr, words: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    socket.write_all(words).await.expect("taken");
    let mut heard = Vec::new();
    // Closed in good order or not: it is over.
    let _ = patiently("being cut off", socket.read_to_end(&mut heard)).await;
    heard
}

#[tokio::test]
async fn plain_http_is_told_to_use_https() {
    let authority = Authority::new(Key::Ec);
    let node = serve(&authority).await;
    for address in [node.addresses().http, node.addresses().grpc] {
        let url = format!("http://localhost:{}/v1/events?topic=a", address.port());
        let told = get(Version::Http1, &authority.ca(), &url, &[])
            .await
            .expect("an answer");
        assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("https://"), "{told}");
        let told = hears(address, b"GET / HTTP/1.1\r\n\r\n").await;
        assert!(told.starts_with(b"HTTP/1.1 400 "));
    }
    // And those who know better are served.
    let _stream = Stream::open(Version::Http2, &authority.ca(), node.addresses().http, "topic=a").await;
}

#[tokio::test]
async fn tls_where_it_is_not_spoken_is_closed_without_a_word() {
    let authority = Authority::new(Key::Ec);
    let node = Node::start().await;
    for address in [node.addresses().http, node.addresses().grpc] {
        let (told, let_in) = shake(address, &authority.ca(), &[]).await;
        assert!(!let_in, "{told}");
        assert_eq!(hears(address, &[0x16, 3, 1, 2, 0, 1, 0, 1]).await, b"");
    }
}

#[tokio::test]
async fn versions_before_1_2_are_refused() {
    let authority = Authority::new(Key::Rsa);
    let node = serve(&authority).await;
    for address in [node.addresses().http, node.addresses().grpc] {
        for (version, expected) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
            let arguments = [version, "-cipher", "ALL:@SECLEVEL=0"];
            let (told, let_in) = shake(address, &authority.ca(), &arguments).await;
            assert_eq!(let_in, expected, "{version}: {told}");
            assert_eq!(told.contains("SSL alert number"), !expected, "{version}: {told}");
        }
    }
}

#[tokio::test]
async fn handshakes_and_requests_that_take_too_long_are_cut_off() {
    let authority = Authority::new(Key::Ec);
    let node = serve(&authority).await;
    let address = node.addresses().http;
    // Nothing; the first byte; half a hello.
    for words in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]] {
        assert_eq!(hears(address, words).await, b"");
    }
    // A whole handshake and no request, and half of one.
    for words in ["", "GET /v1/events?topic=a HTTP/1.1\r\nhost: local"] {
        for protocol in ["http/1.1", "h2"] {
            let arguments = ["-alpn", protocol, "-ign_eof"];
            let said = crate::handshake::say(address, &authority.ca(), &arguments, words).await;
            assert!(!said.contains("200"), "{said}");
        }
    }
    // Nothing that is no TLS after its first byte gets anywhere.
    let nonsense = [&[0x16][..], &[0xff; 1_000]].concat();
    let heard = hears(address, &nonsense).await;
    assert!(heard.len() < 64, "an alert at most: {heard:?}");
    let _stream = Stream::open(Version::Http1, &authority.ca(), address, "topic=a").await;
}

#[tokio::test]
async fn a_handshake_without_alpn_is_for_http_1_1() {
    let authority = Authority::new(Key::Ec);
    let node = serve(&authority).await;
    let request = "GET /v1/route?user=1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    for address in [node.addresses().http, node.addresses().grpc] {
        let said = crate::handshake::say(address, &authority.ca(), &["-ign_eof"], request).await;
        assert!(said.starts_with("HTTP/1.1 "), "{said}");
        // Nothing that both speak: no connection.
        let (told, let_in) = shake(address, &authority.ca(), &["-alpn", "spdy/3"]).await;
        assert!(!let_in && told.contains("alert no application protocol"), "{told}");
    }
}
