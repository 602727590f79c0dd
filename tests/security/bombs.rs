//! Messages that are larger, deeper or other than they look, over gRPC and as JSON: refused for what they are, and not held in memory first.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tidings_proto::v1::PublishRequest;
use tokio::net::TcpStream;
use tonic::{Code, codec::CompressionEncoding, metadata::MetadataValue};

use crate::{
    client::{Publisher, event, post},
    node::{Node, Setup},
    patiently,
    sse::Ask,
    witness::Witness,
};

const MIB: usize = 1 << 20;

/// So much memory may come and go: allocators, caches of the log, other tests' events.
const GROWTH: u64 = 48 << 20;

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// So many bytes, in pieces.
fn zeros(begin: &[u8], bytes: usize) -> Body {
    let begin = stream::once(std::future::ready(Bytes::copy_from_slice(begin)));
    let rest = stream::repeat(Bytes::from(vec![b'x'; 64 * 1024])).take(bytes / (64 * 1024));
    BodyExt::boxed(StreamBody::new(Box::pin(
        begin.chain(rest).map(|bytes| Ok(Frame::data(bytes))),
    )))
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// Sends one request over HTTP/2; answers the head, or that there is none.
async fn send(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: Body) -> Option<Response<Bytes>> {
    let socket = TcpStream::connect(address).await.expect("it listens");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = patiently("an answer", sender.send_request(request.body(body).expect("a request"))).await;
    let (mut parts, body) = answer.ok()?.into_parts();
    let body = patiently("a body", body.collect()).await;
    if let Ok(body) = body {
        parts.headers.extend(body.trailers().cloned().unwrap_or_default());
        return Some(Response::from_parts(parts, body.to_bytes()));
    }
    Some(Response::from_parts(parts, Bytes::new()))
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const PUBLISH: &str = "/tidings.v1.Publisher/Publish";

fn code(answer: &Response<Bytes>) -> Code {
    let code = answer.headers().get("grpc-status").expect("a status");
    Code::from_bytes(code.as_bytes())
}

fn framed(length: usize, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).expect("short").to_be_bytes();
    [&[0][..], &length, message].concat()
}

#[tokio::test]
async fn messages_of_a_hundred_megabytes() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let grpc = node.addresses().grpc;
    let before = node.memory();
    for path in [
        PUBLISH,
        "/tidings.v1.Publisher/PublishStream",
        "/tidings.v1.Subscriber/Subscribe",
        "/tidings.v1.Log/Replay",
        "/grpc.health.v1.Health/Check",
    ] {
        let begin = framed(100 * MIB, &[]);
        let answer = send(grpc, path, &[GRPC, ("te", "trailers")], zeros(&begin, 100 * MIB)).await;
        // It may be told, or the connection may be closed on whoever goes on sending.
        if let Some(answer) = answer {
            assert_ne!(code(&answer), Code::Ok, "{path}");
        }
        witness.is_served().await;
    }
    let grown = node.most_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{} MiB", grown >> 20);
}

/// Calls of strangers whose messages never come whole are answered all the same: nothing of them is held.
#[tokio::test]
async fn messages_that_never_come() {
    let publishers = format!("[{{ name = \"a\", token_sha256 = \"{:064}\", publish = [\"**\"] }}]", 1);
    let node = Setup::new().set("auth.publishers", &publishers).start().await;
    let grpc = node.addresses().grpc;
    for path in [
        PUBLISH,
        "/tidings.v1.Publisher/PublishStream",
        "/tidings.v1.Control/Revoke",
        "/tidings.v1.Subscriber/Subscribe",
    ] {
        let begin = stream::once(std::future::ready(Bytes::from(framed(MIB, b"x"))));
        let body = StreamBody::new(begin.chain(stream::pending()).map(|bytes| Ok(Frame::data(bytes))));
        let answer = send(grpc, path, &[GRPC, ("te", "trailers")], BodyExt::boxed(body)).await;
        assert_eq!(code(&answer.expect("an answer")), Code::Unauthenticated, "{path}");
    }
}

#[tokio::test]
async fn messages_that_unpack_to_more() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let before = node.memory();
    let publisher = Publisher::connect(node.addresses()).await.0;
    let mut publisher = publisher.send_compressed(CompressionEncoding::Gzip);
    let bomb = event("a", "0".repeat(100 * MIB));
    for _ in 0..3 {
        let refused = patiently("a publish", publisher.publish(bomb.clone()))
            .await
            .expect_err("a bomb");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
    // What is packed and of a size that is taken, is taken.
    let answer = publisher
        .publish(event("a", "0".repeat(60_000)))
        .await
        .expect("it is accepted");
    assert_eq!(answer.into_inner().results.len(), 1);
    let grown = node.most_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{} MiB", grown >> 20);
    witness.is_served().await;
}

#[tokio::test]
async fn ten_thousand_headers() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let before = node.memory();
    let mut publisher = Publisher::connect(node.addresses()).await.0;
    let mut request = tonic::Request::new(event("a", "x"));
    for number in 0..10_000 {
        let name = tonic::metadata::MetadataKey::from_bytes(format!("x-{number}").as_bytes()).expect("a name");
        request.metadata_mut().insert(name, MetadataValue::from_static("y"));
    }
    patiently("an answer", publisher.publish(request))
        .await
        .expect_err("too many");
    let name = "x".repeat(60_000);
    for headers in [&[GRPC, (&*name, "y")][..], &[GRPC, ("x", &*name)]] {
        let answer = send(node.addresses().grpc, PUBLISH, headers, full(framed(0, &[]))).await;
        assert!(
            answer.is_none_or(|answer| answer.status() == 431),
            "{} headers",
            headers.len()
        );
    }
    let grown = node.most_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{} MiB", grown >> 20);
    witness.is_served().await;
}

#[tokio::test]
async fn messages_that_are_none() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let grpc = node.addresses().grpc;
    for (name, message) in [
        // A topic (field 1) of two bytes that are not UTF-8.
        ("not UTF-8", framed(4, &[0x0a, 2, 0xff, 0xfe])),
        ("a length beyond its end", framed(2, &[0x0a, 100])),
        ("a number of eleven bytes", framed(11, &[0xff; 11])),
        ("groups within groups", framed(MIB, &vec![0x0b; MIB])),
        ("another wire type", framed(2, &[0x08, 1])),
        ("half a frame", vec![0, 0]),
        ("less than it says", framed(100, b"x")),
        ("packed, without a packing", [&[1][..], &framed(1, b"x")[1..]].concat()),
        ("a flag that is none", [&[7][..], &framed(1, b"x")[1..]].concat()),
        ("nothing", Vec::new()),
    ] {
        let answer = send(grpc, PUBLISH, &[GRPC, ("te", "trailers")], full(message)).await;
        let answer = answer.unwrap_or_else(|| panic!("{name}: no answer"));
        assert_ne!(code(&answer), Code::Ok, "{name}: {answer:?}");
    }
    for (path, headers, status) in [
        ("/tidings.v1.Publisher/Unpublish", &[GRPC][..], 200),
        ("/tidings.v1.Nobody/Publish", &[GRPC], 200),
        ("/tidings.v1.Publisher/../Publisher/Publish", &[GRPC], 200),
        ("//tidings.v1.Publisher/Publish", &[GRPC], 200),
        (PUBLISH, &[("content-type", "application/json")], 415),
        (PUBLISH, &[("content-type", "application/grpc-web")], 415),
        (PUBLISH, &[("content-type", "application/grpcx")], 415),
        (PUBLISH, &[("content-type", "text/plain")], 415),
        (PUBLISH, &[], 415),
    ] {
        let answer = send(grpc, path, headers, full(framed(3, &[0x0a, 1, b'a'])))
            .await
            .expect("an answer");
        assert_eq!(answer.status(), status, "{path} {headers:?}");
        if headers == [GRPC] {
            assert_eq!(code(&answer), Code::Unimplemented, "{path}");
        }
    }
    // The first message counts, and no other.
    let two = [framed(3, &[0x0a, 1, b'a']), framed(3, &[0x0a, 1, b'b'])].concat();
    let answer = send(grpc, PUBLISH, &[GRPC, ("te", "trailers")], full(two))
        .await
        .expect("an answer");
    assert_eq!(answer.body().as_ref(), b"\0\0\0\0\x07\n\x05\n\x01a\x10\x01");
    // Only its own trailers say how a call went.
    let trailers =
        http::HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
    let frames = [
        Frame::data(Bytes::from(framed(4, &[0x0a, 2, 0xff, 0xfe]))),
        Frame::trailers(trailers),
    ];
    let body = BodyExt::boxed(StreamBody::new(stream::iter(frames.map(Ok))));
    let answer = send(grpc, PUBLISH, &[GRPC, ("grpc-status", "0")], body)
        .await
        .expect("an answer");
    assert_ne!(code(&answer), Code::Ok);
    witness.is_served().await;
}

/// Posts a body of this type, and answers the status and the JSON of each line.
async fn publish(node: &Node, content_type: &str, body: &str) -> (u16, Vec<Value>) {
    let answer = post(node.addresses(), &[("content-type", content_type)], body).await;
    let lines = answer
        .body()
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let lines = lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect();
    (answer.status().as_u16(), lines)
}

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

#[tokio::test]
async fn json_that_is_deep_long_or_double() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let mut stream = Ask::topic("json").open(node.addresses().http).await.expect("a stream");
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (name, body, status) in [
        (
            "deep data",
            format!(r#"{{"topics":["json"],"data":{}}}"#, deep(100_000)),
            400..=413,
        ),
        ("deep topics", format!(r#"{{"topics":{}}}"#, deep(100_000)), 400..=413),
        ("objects without an end", r#"{"a":"#.repeat(60_000), 400..=413),
        (
            "a member twice",
            r#"{"topics":["json"],"data":1,"data":2}"#.to_owned(),
            400..=400,
        ),
        (
            "a member twice, escaped",
            r#"{"topics":["json"],"topic\u0073":["other"]}"#.to_owned(),
            400..=400,
        ),
        (
            "half a character",
            r#"{"topics":["json"],"data":"\ud800"}"#.to_owned(),
            400..=400,
        ),
        ("a null", r#"{"topics":["json"],"data":"\u0000"}"#.to_owned(), 400..=400),
        (
            "a topic with a null",
            r#"{"topics":["js\u0000on"]}"#.to_owned(),
            400..=400,
        ),
        ("no number", r#"{"topics":["json"],"data":NaN}"#.to_owned(), 400..=400),
        (
            "a mark at the beginning",
            "\u{feff}{\"topics\":[\"json\"]}".to_owned(),
            400..=400,
        ),
        (
            "100,000 topics",
            format!(r#"{{"topics":[{}"a"]}}"#, r#""a","#.repeat(100_000)),
            400..=413,
        ),
        (
            "100,000 members",
            format!(r#"{{{}"a":1}}"#, r#""a":1,"#.repeat(100_000)),
            400..=413,
        ),
    ] {
        let (got, answers) = publish(&node, JSON, &body).await;
        assert!(status.contains(&got), "{name}: {got} {answers:?}");
    }
    // Numbers come out as they went in: nobody reckons with them here.
    let numbers = r#"[1e999999999,-0,0.1000000000000000055511151231257827,123456789012345678901234567890]"#;
    let body = format!(r#"{{"topics":["json"],"data":{numbers}}}"#);
    assert_eq!(publish(&node, JSON, &body).await.0, 200);
    assert_eq!(stream.event().await.data, numbers);
    // An object in the data may say what it likes twice.
    let twice = r#"{"a":1,"a":2}"#;
    assert_eq!(
        publish(&node, JSON, &format!(r#"{{"topics":["json"],"data":{twice}}}"#))
            .await
            .0,
        200
    );
    assert_eq!(stream.event().await.data, twice);
    witness.is_served().await;
}

#[tokio::test]
async fn json_of_a_hundred_megabytes() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let grpc = node.addresses().grpc;
    let before = node.memory();
    // Nothing of it is ever a line, or an object.
    for (content_type, begin) in [
        (JSON, &b"{\"topics\":[\"a\"],\"data\":\""[..]),
        (LINES, b"{\"topics\":[\"a\"],\"data\":\""),
        (JSON, b"{\"topics\":[\"a\"]}\n{\"data\":\""),
        (LINES, b""),
    ] {
        let answer = send(
            grpc,
            "/v1/publish",
            &[("content-type", content_type)],
            zeros(begin, 100 * MIB),
        )
        .await;
        let answer = answer.expect("it is told");
        let text = String::from_utf8_lossy(answer.body());
        assert!(
            answer.status() == 413 || text.contains("\"status\":413"),
            "{} {text}",
            answer.status()
        );
        witness.is_served().await;
    }
    // The line after one that is too long is read.
    let long = format!(
        "{{\"topics\":[\"a\"],\"data\":\"{}\"}}\n{{\"topics\":[\"a\"]}}\n",
        "x".repeat(8 * MIB)
    );
    let (status, lines) = publish(&node, LINES, &long).await;
    assert_eq!((status, &lines[0]["error"]["status"]), (200, &json!(413)));
    assert!(lines[1]["results"][0]["sequence"].is_u64());
    let grown = node.most_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{} MiB", grown >> 20);
    witness.is_served().await;
}

/// A batch of everything that one event may hold, many times over.
#[tokio::test]
async fn as_much_as_is_allowed() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    for number in 0..5 {
        let topics = (0..1_000).map(|topic| format!("{number}/{topic}/{}", "t".repeat(200)));
        let request = PublishRequest {
            topics: topics.collect(),
            data: "x".repeat(64 * 1024),
            ..PublishRequest::default()
        };
        let answer = publisher.try_publish(request).await.expect("it is allowed");
        assert_eq!(answer.results.len(), 1_000);
        witness.is_served().await;
    }
}
