use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn proxies(protocol: bool) -> Proxies {
    let networks = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"];
    let networks = networks.map(|text| text.parse().expect("a network"));
    Proxies::new(networks.to_vec(), protocol)
}

fn saying(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(forwarded::NAME, value.parse().expect("a value"));
    headers
}

#[test]
fn who_is_believed() {
    let proxies = proxies(false);
    for (address, expected) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("11.0.0.0", false),
        ("192.0.2.7", true),
        ("192.0.2.6", false),
        ("2001:db8:1::", true),
        ("2001:db9::", false),
        ("127.0.0.1", false),
    ] {
        assert_eq!(proxies.trusts(ip(address)), expected, "{address}");
        assert_eq!(proxies.peer(ip(address)).is_proxy(), expected, "{address}");
    }
    assert!(!Proxies::default().trusts(ip("127.0.0.1")));
}

#[test]
fn only_a_proxy_tells_of_others() {
    let proxies = proxies(false);
    let stranger = proxies.peer(ip("192.0.2.1"));
    assert_eq!(proxies.of_request(stranger, &saying("198.51.100.1")), stranger);
    let proxy = proxies.peer(ip("10.0.0.1"));
    let told = proxies.of_request(proxy, &saying("198.51.100.1"));
    assert_eq!((told.address(), told.is_one()), (ip("198.51.100.1"), true));
    // Nothing, or nothing that makes sense, was told: it stays the proxy, which is not one client.
    for headers in [HeaderMap::new(), saying("unknown")] {
        let client = proxies.of_request(proxy, &headers);
        assert_eq!((client.address(), client.is_one()), (ip("10.0.0.1"), false));
    }
    let within = proxies.of_request(proxy, &saying("10.0.0.9"));
    assert_eq!((within.address(), within.is_one()), (ip("10.0.0.9"), false));
    // Another header that a client may have sent itself.
    let mut headers = HeaderMap::new();
    headers.insert("forwarded", "for=198.51.100.1".parse().expect("a value"));
    assert_eq!(proxies.of_request(proxy, &headers), proxy);
}

/// What comes of a connection that begins with these bytes, sent in pieces of so many; and what is left to read.
async fn introduced(bytes: &[u8], piece: usize) -> (Result<Client, HeaderError>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let bytes = bytes.to_vec();
    let sender = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a socket");
        for piece in bytes.chunks(piece) {
            // The other end may be gone: it has read enough.
            if stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    });
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let proxies = proxies(true);
    let peer = proxies.peer(ip("10.0.0.1"));
    assert!(proxies.must_introduce(peer));
    let client = timeout(Duration::from_secs(60), proxies.introduced(peer, &stream))
        .await
        .expect("it does not hang");
    sender.await.expect("sent");
    let mut rest = Vec::new();
    // Bytes that were not read reset the connection: then there is nothing left that counts.
    let _ = stream.read_to_end(&mut rest).await;
    (client, rest)
}

const V2_IPV4: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x01\x7f\0\0\x01\x10\x92\0\x50";

#[tokio::test]
async fn a_header_is_read_and_nothing_after_it() {
    let with_tlvs = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xc6\x33\x64\x01\x7f\0\0\x01\x10\x92\0\x50".as_slice(),
        b"\x02\0\x04host",
    ]
    .concat();
    for header in [
        b"PROXY TCP4 198.51.100.1 127.0.0.1 4242 80\r\n".as_slice(),
        V2_IPV4,
        &with_tlvs,
    ] {
        for piece in [1, 5, 12, 16, 1_000] {
            for rest in [
                "GET / HTTP/1.1\r\n\r\n",
                "\r\n\r\n",
                "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
                "",
            ] {
                let sent = [header, rest.as_bytes()].concat();
                let (client, left) = introduced(&sent, piece).await;
                let client = client.unwrap_or_else(|error| panic!("{}: {error}", header.escape_ascii()));
                assert_eq!((client.address(), client.is_one()), (ip("198.51.100.1"), true));
                assert_eq!(left, rest.as_bytes());
            }
        }
    }
}

#[tokio::test]
async fn a_proxy_that_names_nobody_is_not_believed_further() {
    for header in [
        b"PROXY UNKNOWN\r\n".as_slice(),
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0",
    ] {
        let (client, _) = introduced(header, 1_000).await;
        let client = client.expect("a header");
        assert_eq!(client.address(), ip("10.0.0.1"));
        assert!(!client.is_one() && !client.is_proxy());
        assert_eq!(proxies(true).of_request(client, &saying("198.51.100.1")), client);
    }
}

#[tokio::test]
async fn proxies_behind_one_another() {
    // One that speaks TCP tells of one that speaks HTTP, which tells of the client.
    let (client, _) = introduced(b"PROXY TCP4 10.0.0.9 10.0.0.1 1 1\r\n", 1_000).await;
    let proxy = client.expect("a header");
    assert!(proxy.is_proxy());
    let client = proxies(true).of_request(proxy, &saying("198.51.100.1"));
    assert_eq!((client.address(), client.is_one()), (ip("198.51.100.1"), true));
    // A client's own connection through the first: what it says of itself is nothing.
    let (client, _) = introduced(b"PROXY TCP4 203.0.113.5 10.0.0.1 1 1\r\n", 1_000).await;
    let client = client.expect("a header");
    assert_eq!(proxies(true).of_request(client, &saying("198.51.100.1")), client);
}

#[tokio::test]
async fn anything_else_is_the_end_of_the_connection() {
    let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    let huge = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".as_slice(), &[0; 70_000]].concat();
    for (bytes, expected) in [
        (b"GET / HTTP/1.1\r\nhost: t\r\n\r\n".as_slice(), "does not begin with"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "does not begin with"),
        (b"\x16\x03\x01\x02\0\x01\0\x01", "does not begin with"),
        (&long, "longer than"),
        (&huge, "longer than"),
        (b"PROXY TCP4 198.51.100.1 127.0.0.1 4242\r\n", "broken"),
        (b"PROXY TCP4 198.51.100.1 127.0.0.1 4242 80 80\r\n", "broken"),
        (b"PROXY TCP4 2001:db8::1 127.0.0.1 4242 80\r\n", "broken"),
        (b"PROXY TCP4 198.51.100.1 127.0.0.1 65536 80\r\n", "broken"),
        (b"PROXY TCP4 \r\nGET / HTTP/1.1\r\nhost: t\r\n\r\n", "broken"),
        (b"PROXY UDP4 198.51.100.1 127.0.0.1 4242 80\r\n", "broken"),
        (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", "broken"),
        (b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\0", "broken"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\x01\x02\x03\x04", "broken"),
        (b"PROXY TCP4 198.51.", "ended before"),
        (&V2_IPV4[..20], "ended before"),
        (b"", "ended before"),
    ] {
        let (client, _) = introduced(bytes, 1_000).await;
        let error = client.expect_err("no header").to_string();
        assert!(error.contains(expected), "{}: {error}", bytes.escape_ascii());
    }
}
