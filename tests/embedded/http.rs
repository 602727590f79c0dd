//! What is no stream, on the real ports: wrong requests, pages of other origins, half-sent heads, and publishing as JSON.

use std::time::Duration;

use http::Request;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::{Publisher, ask, event, post},
    node::{Node, Setup},
    patiently,
    sse::Ask,
};

fn value(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_told_what_is_wrong() {
    let node = Node::start().await;
    let many = (0..65)
        .map(|number| format!("topic={number}"))
        .collect::<Vec<_>>()
        .join("&");
    let too_many = format!("/v1/events?{many}");
    let too_long = format!("/v1/events?topic={}", "x".repeat(256));
    for (method, path, status, field) in [
        ("GET", "/", 404, Value::Null),
        ("GET", "/v1/event?topic=a", 404, Value::Null),
        ("POST", "/v1/events?topic=a", 405, Value::Null),
        ("DELETE", "/v1/events?topic=a", 405, Value::Null),
        ("GET", "/v1/events", 400, json!("topic")),
        ("GET", "/v1/events?topic=", 400, json!("topic")),
        ("GET", "/v1/events?topic=a%20b", 400, json!("topic")),
        ("GET", &too_many, 400, json!("topic")),
        ("GET", &too_long, 400, json!("topic")),
        ("GET", "/v1/events?topic=a&since=yesterday", 400, json!("since")),
        ("GET", "/v1/events?user=a%0Ab", 400, json!("user")),
    ] {
        let request = Request::builder().method(method).uri(path).body("").expect("a request");
        let answer = ask(node.addresses().http, request).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers().contains_key("allow"), status == 405);
        let problem = value(answer.body());
        assert_eq!(
            (&problem["status"], &problem["field"]),
            (&json!(status), &field),
            "{method} {path}"
        );
        assert!(!problem["detail"].as_str().expect("text").is_empty());
    }
    let node_of_publishing = node.addresses().grpc;
    for (method, path, status) in [("GET", "/v1/publish", 405), ("GET", "/v1/events?topic=a", 404)] {
        let request = Request::builder().method(method).uri(path).body("").expect("a request");
        let answer = ask(node_of_publishing, request).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_the_headers_that_browsers_need() {
    let node = Node::start().await;
    let http = node.addresses().http;
    let ask = Ask::topic("a").header("accept-encoding", "gzip, br");
    for stream in [ask.open(http).await, ask.open_http2(http).await] {
        let stream = stream.expect("a stream");
        assert_eq!(stream.status(), 200);
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
        assert_eq!(stream.header("cache-control"), Some("no-cache, no-transform"));
        assert_eq!(stream.header("x-accel-buffering"), Some("no"));
        assert_eq!(stream.header("content-encoding"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_listed_origins_may_ask_and_no_others_with_credentials() {
    let setup = Setup::new().set("http.cors_origins", "https://app.example,http://localhost:3000");
    let node = setup.start().await;
    let http = node.addresses().http;
    for origin in ["https://app.example", "http://localhost:3000"] {
        let request = Request::options("/v1/events?topic=a")
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "last-event-id, cache-control");
        let answer = ask(http, request.body("").expect("a request")).await;
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.headers()["access-control-allow-origin"], origin);
        let methods = answer.headers()["access-control-allow-methods"].to_str().expect("text");
        assert!(methods.contains("GET"), "{methods}");
        let headers = answer.headers()["access-control-allow-headers"]
            .to_str()
            .expect("text")
            .to_lowercase();
        assert!(
            headers.contains("last-event-id") && headers.contains("cache-control"),
            "{headers}"
        );
        let stream = Ask::topic("a")
            .header("origin", origin)
            .open(http)
            .await
            .expect("a stream");
        assert_eq!(stream.header("access-control-allow-origin"), Some(origin));
        // A page can read why it was refused, too.
        let wrong = Request::get("/v1/events")
            .header("origin", origin)
            .body("")
            .expect("a request");
        assert_eq!(ask(http, wrong).await.headers()["access-control-allow-origin"], origin);
    }
    for origin in [
        "https://evil.example",
        "https://app.example.evil.example",
        "http://app.example",
        "null",
    ] {
        let request = Request::options("/v1/events?topic=a")
            .header("origin", origin)
            .header("access-control-request-method", "GET");
        let answer = ask(http, request.body("").expect("a request")).await;
        assert_eq!(answer.headers().get("access-control-allow-origin"), None, "{origin}");
        let stream = Ask::topic("a")
            .header("origin", origin)
            .open(http)
            .await
            .expect("a stream");
        assert_eq!(stream.header("access-control-allow-origin"), None, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_trickles_in_is_cut_off_and_streams_are_not() {
    let node = Setup::new().set("http.header_timeout", "1s").start().await;
    let http = node.addresses().http;
    let mut streams = [
        Ask::topic("a").open(http).await.expect("a stream"),
        Ask::topic("a").open_http2(http).await.expect("a stream"),
    ];
    // Nothing at all, a head without an end, and the beginning of HTTP/2.
    for begin in [
        "",
        "GET /v1/events?topic=a HTTP/1.1\r\nhost: x\r\nx-slow: ",
        "PRI * HTTP",
    ] {
        let (mut from, mut to) = TcpStream::connect(http).await.expect("a connection").into_split();
        to.write_all(begin.as_bytes()).await.expect("it listens");
        let trickle = async {
            let mut sent = 0;
            // The pace is what is tested: each byte comes well within the time that the whole head has.
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            while !begin.starts_with("PRI") && !begin.is_empty() {
                pace.tick().await;
                if to.write_all(b"x").await.is_err() {
                    break;
                }
                sent += 1;
            }
            if sent == 0 {
                std::future::pending::<()>().await;
            }
        };
        let cut_off = async {
            let mut rest = Vec::new();
            // Closed or reset, either is the end.
            let _ = from.read_to_end(&mut rest).await;
            rest
        };
        let ended = async {
            tokio::select! {
                rest = cut_off => rest,
                () = trickle => Vec::new(),
            }
        };
        let rest = patiently(format_args!("the end of {begin:?}"), ended).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    }
    // Streams that were silent for as long as all that took go on.
    let mut publisher = Publisher::connect(node.addresses()).await;
    publisher.publish(event("a", "still here")).await;
    for stream in &mut streams {
        assert_eq!(stream.data(1).await, ["still here"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let node = Setup::new().set("http.max_header_bytes", "8KiB").start().await;
    let request = Request::get("/v1/events?topic=a").header("x-large", "x".repeat(20_000));
    let answer = ask(node.addresses().http, request.body("").expect("a request")).await;
    assert_eq!(answer.status(), 431);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_with_curls_defaults() {
    let node = Node::start().await;
    let addresses = node.addresses();
    let mut stream = Ask::topic("user:42").open(addresses.http).await.expect("a stream");
    let curl = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("user-agent", "curl/8.14.1"),
        ("accept", "*/*"),
    ];
    let one = r#"{"topics":["user:42"],"type":"order","data":{"n": 1.0},"key":"k"}"#;
    let answer = post(addresses, &curl, one).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(value(answer.body())["results"][0]["topic"], "user:42");
    let received = stream.event().await;
    assert_eq!((&*received.name, &*received.data), ("order", r#"{"n":1.0}"#));
    let again = value(post(addresses, &curl, one).await.body());
    assert_eq!(again["results"][0]["repeated"], true);

    let lines = "{\"topics\":[\"user:42\"],\"data\":\"2\"}\n{\"topics\":[\"no good\"]}\n{\"topics\":[\"user:42\"],\"data\":\"3\"}\n";
    for headers in [&curl[..], &[], &[("content-type", "application/json")]] {
        let answer = post(addresses, headers, lines).await;
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        let answers: Vec<_> = answer
            .body()
            .trim_ascii()
            .split(|&byte| byte == b'\n')
            .map(value)
            .collect();
        assert_eq!((answers.len(), &answers[1]["line"]), (3, &json!(2)), "{answers:?}");
        assert_eq!(stream.data(2).await, ["2", "3"]);
    }
    // A page of another origin can have a browser send the same, but not without these.
    for mark in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let answer = post(addresses, &[curl[0], mark], one).await;
        assert_eq!(answer.status(), 403);
        assert_eq!(value(answer.body())["field"], "origin");
    }
}
