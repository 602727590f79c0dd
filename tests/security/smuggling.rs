//! Requests that two servers in a row could read differently: what one of them takes for a body, the other takes for the next request. Each is
//! followed by such a one. Either it is not read at all, or the message's end is where RFC 9112 puts it.

use futures::future::join_all;

use crate::{
    client::{Publisher, event},
    node::{Node, Setup},
    patiently,
    raw::{say, statuses},
    sse::Ask,
    witness::Witness,
};

/// The request behind: whoever reads it as a request answers 404.
const NEXT: &str = "GET /next HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// What is said, and the answers that must come, and no others, before the connection is closed; or only the first of them: one that closes a
/// connection early has nothing smuggled through it.
type Case = (&'static str, String, &'static [u16]);

/// A request with a body, on a path that there is nowhere.
fn post(headers: &str, body: &str) -> String {
    format!("POST /nowhere HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{body}{NEXT}")
}

/// A request without one.
fn get(rest: &str) -> String {
    format!("GET /nowhere HTTP/1.1\r\n{rest}{NEXT}")
}

fn lengths() -> Vec<Case> {
    let mut cases: Vec<Case> = vec![
        ("one length", post("content-length: 2\r\n", "{}"), &[404, 404]),
        (
            "the same length twice",
            post("content-length: 2\r\ncontent-length: 2\r\n", "{}"),
            &[404, 404],
        ),
        (
            "two lengths",
            post("content-length: 2\r\ncontent-length: 0\r\n", "{}"),
            &[400],
        ),
        (
            "two lengths, the other way round",
            post("content-length: 0\r\ncontent-length: 2\r\n", "{}"),
            &[400],
        ),
        (
            "chunked",
            post("transfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            &[404, 404],
        ),
        // As RFC 9112 has it: chunked counts, and the connection ends with the answer.
        (
            "a length, and chunked",
            post("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            &[404],
        ),
        (
            "chunked, and a length",
            post("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n"),
            &[404],
        ),
    ];
    for value in [
        "+2",
        "-2",
        "0x2",
        "2 2",
        "2,2",
        "2, 3",
        "1e1",
        "",
        "18446744073709551616",
        "２",
        "2;",
        "2\u{b}",
    ] {
        cases.push((
            "a length that is none",
            post(&format!("content-length: {value}\r\n"), "{}"),
            &[400],
        ));
    }
    for value in [
        "xchunked",
        "chunked, identity",
        "identity",
        "chunkedx",
        "\"chunked\"",
        "chunked;q=1",
        "gzip",
        "",
    ] {
        cases.push((
            "an encoding that is none",
            post(&format!("transfer-encoding: {value}\r\n"), "0\r\n\r\n"),
            &[400],
        ));
    }
    let chunked = |body: &str| post("transfer-encoding: chunked\r\n", body);
    for size in ["fffffffffffffffff", "-1", "+1", "0x1", " ", "g", "1\r", "0_1"] {
        cases.push((
            "a chunk size that is none",
            chunked(&format!("{size}\r\nx\r\n0\r\n\r\n")),
            &[404],
        ));
    }
    cases.push((
        "chunked with HTTP/1.0",
        format!("POST /nowhere HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{NEXT}"),
        &[400],
    ));
    cases
}

fn heads() -> Vec<Case> {
    let host = "host: localhost\r\n";
    vec![
        (
            "bare line feeds",
            format!("GET /nowhere HTTP/1.1\nhost: localhost\n\n{NEXT}"),
            &[404, 404],
        ),
        (
            "a bare carriage return",
            get(&format!("{host}x: a\rcontent-length: 5\r\n\r\n")),
            &[400],
        ),
        (
            "a folded line",
            get(&format!("{host}x: a\r\n content-length: 5\r\n\r\n")),
            &[400],
        ),
        (
            "a line folded by a tab",
            get(&format!("{host}x: a\r\n\tb\r\n\r\n")),
            &[400],
        ),
        (
            "a first line that is folded",
            get(&format!(" x: a\r\n{host}\r\n")),
            &[400],
        ),
        (
            "a space before the colon",
            get(&format!("{host}content-length : 5\r\n\r\n")),
            &[400],
        ),
        (
            "a tab before the colon",
            get(&format!("{host}transfer-encoding\t: chunked\r\n\r\n")),
            &[400],
        ),
        ("no colon", get(&format!("{host}content-length\r\n\r\n")), &[400]),
        ("no name", get(&format!("{host}: 5\r\n\r\n")), &[400]),
        (
            "a name that is none",
            get(&format!("{host}content(length): 5\r\n\r\n")),
            &[400],
        ),
        ("a null in a value", get(&format!("{host}x: a\0b\r\n\r\n")), &[400]),
        ("a null in a name", get(&format!("{host}x\0: a\r\n\r\n")), &[400]),
        (
            "a null in the target",
            format!("GET /no\0where HTTP/1.1\r\n{host}\r\n{NEXT}"),
            &[400],
        ),
        (
            "a space in the target",
            format!("GET /no where HTTP/1.1\r\n{host}\r\n{NEXT}"),
            &[400],
        ),
        (
            "a space before the method",
            format!(" GET /nowhere HTTP/1.1\r\n{host}\r\n{NEXT}"),
            &[400],
        ),
        ("HTTP/0.9", "GET /nowhere\r\n".to_owned(), &[400]),
        ("HTTP/1.2", format!("GET /nowhere HTTP/1.2\r\n{host}\r\n{NEXT}"), &[400]),
        (
            "HTTP/2 in words",
            format!("GET /nowhere HTTP/2.0\r\n{host}\r\n{NEXT}"),
            &[400],
        ),
        ("no host", get("\r\n"), &[400, 404]),
        (
            "two hosts",
            get("host: localhost\r\nhost: localhost\r\n\r\n"),
            &[400, 404],
        ),
        ("an empty host", get("host:\r\n\r\n"), &[400, 404]),
        (
            "a host and more",
            get("host: localhost, evil.example\r\n\r\n"),
            &[400, 404],
        ),
        (
            "a whole address",
            format!("GET http://localhost/nowhere HTTP/1.1\r\n{host}\r\n{NEXT}"),
            &[404, 404],
        ),
        (
            "a whole address elsewhere",
            format!("GET http://127.0.0.1/nowhere HTTP/1.1\r\n{host}\r\n{NEXT}"),
            &[400, 404],
        ),
        (
            "another address with its host",
            format!("GET http://evil.example/ HTTP/1.1\r\nhost: evil.example\r\n\r\n{NEXT}"),
            &[421, 404],
        ),
        (
            "an upgrade",
            get(&format!(
                "{host}connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n"
            )),
            &[404, 404],
        ),
        (
            "the method of another",
            format!("TRACE /nowhere HTTP/1.1\r\n{host}cookie: secret\r\n\r\n{NEXT}"),
            &[404, 404],
        ),
        (
            "too many headers",
            get(&format!("{host}{}\r\n", "x: y\r\n".repeat(200))),
            &[431],
        ),
    ]
}

/// Says all of it, each on a connection of its own, and compares.
async fn compare(address: std::net::SocketAddr, port: &str, cases: Vec<Case>) {
    let tried = join_all(cases.iter().map(async |(name, text, want)| {
        let heard = say(address, text.as_bytes()).await;
        let got = statuses(&heard);
        assert!(
            !String::from_utf8_lossy(&heard).contains("secret"),
            "{name}: a header comes back"
        );
        let is_right = got == *want || (!got.is_empty() && got == want[..1]);
        (!is_right).then(|| format!("{port}: {name}: {got:?}, not {want:?}, to {text:?}"))
    }))
    .await;
    let wrong: Vec<_> = tried.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn lengths_are_read_one_way() {
    let node = Setup::new().set("http.header_timeout", "2s").start().await;
    let mut witness = Witness::of(&node).await;
    let addresses = node.addresses();
    futures::join!(
        compare(addresses.http, "streams", lengths()),
        compare(addresses.grpc, "publishing", lengths()),
        compare(addresses.admin, "admin", lengths()),
    );
    witness.is_served().await;
}

#[tokio::test]
async fn heads_are_read_one_way() {
    let node = Setup::new().set("http.header_timeout", "2s").start().await;
    let mut witness = Witness::of(&node).await;
    let addresses = node.addresses();
    futures::join!(
        compare(addresses.http, "streams", heads()),
        compare(addresses.grpc, "publishing", heads()),
        compare(addresses.admin, "admin", heads()),
    );
    witness.is_served().await;
}

/// A stream is the last that its connection carries: what is behind it, or in the request's body, is nobody's.
#[tokio::test]
async fn nothing_behind_a_stream_is_a_request() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    let smuggled = "GET /v1/events?topic=other HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let length = smuggled.len();
    for (headers, behind) in [
        (String::new(), smuggled.to_owned()),
        (format!("content-length: {length}\r\n"), smuggled.to_owned()),
        (
            "transfer-encoding: chunked\r\n".to_owned(),
            format!("{length:x}\r\n{smuggled}\r\n0\r\n\r\n{NEXT}"),
        ),
        (
            "content-length: 0\r\ntransfer-encoding: chunked\r\n".to_owned(),
            format!("0\r\n\r\n{NEXT}"),
        ),
    ] {
        let mut ask = Ask::topic("own").query("since", "earliest");
        for line in headers.lines() {
            let (name, value) = line.split_once(": ").expect("a header");
            ask = ask.header(name, value);
        }
        // What is behind goes out with the head: as a last "header" that ends the head.
        let mut stream = patiently(
            "a stream",
            ask.header("x", &format!("y\r\n\r\n{behind}z"))
                .open(node.addresses().http),
        )
        .await
        .expect("a stream");
        assert_eq!((stream.status(), stream.header("connection")), (200, Some("close")));
        let mark = format!("after {headers:?}");
        publisher.publish(event("other", "never seen")).await;
        publisher.publish(event("own", &*mark)).await;
        loop {
            let event = stream.event().await;
            assert_ne!(event.data, "never seen");
            if event.data == mark {
                break;
            }
        }
    }
    witness.is_served().await;
}
