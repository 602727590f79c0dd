//! Pages in browsers on the same machine: one whose name leads here (DNS rebinding), one that posts without being asked, and what browsers make of the
//! answers.

use std::net::SocketAddr;

use http::Request;
use tidings_proto::v1::{PublishRequest, publisher_client::PublisherClient};
use tonic::{Code, transport::Endpoint};

use crate::{
    client::ask,
    node::{Node, Setup},
    raw::{say, statuses},
    witness::Witness,
};

const EVENT: &str = r#"{"topics":["a"],"data":"from a page"}"#;

/// What a browser sends when a page of this host asks for something, with HTTP/1.1.
async fn get(address: SocketAddr, host: &str, path: &str) -> Vec<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    statuses(&say(address, request.as_bytes()).await)
}

/// Publishes over gRPC as if this host was meant.
async fn publish(grpc: SocketAddr, host: &str) -> Result<(), tonic::Status> {
    let endpoint = Endpoint::from_shared(format!("http://{grpc}")).expect("a URL");
    let origin = format!("http://{host}").parse().expect("a URL");
    let channel = endpoint.origin(origin).connect().await.expect("it listens");
    let request = PublishRequest {
        topics: vec!["a".to_owned()],
        ..PublishRequest::default()
    };
    PublisherClient::new(channel).publish(request).await.map(|_| ())
}

#[tokio::test]
async fn a_name_that_was_led_here_is_not_answered() {
    let node = Setup::new().set("http.hosts", "events.example.com").start().await;
    let mut witness = Witness::of(&node).await;
    let addresses = node.addresses();
    let ports = [
        (addresses.http, "/v1/route?user=1"),
        (addresses.grpc, "/v1/publish"),
        (addresses.admin, "/metrics"),
    ];
    for (address, path) in ports {
        let port = address.port();
        for host in [
            "localhost",
            "app.localhost:1",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "EVENTS.example.com.",
        ] {
            let answers = get(address, host, path).await;
            assert!(matches!(answers[..], [200 | 405]), "{host} {path}: {answers:?}");
        }
        for host in [
            "evil.example",
            &format!("evil.example:{port}"),
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "events.example.com.evil.example",
            "0.0.0.0",
            "2130706433",
            "127.1",
        ] {
            assert_eq!(get(address, host, path).await, [421], "{host} {path}");
        }
    }
    assert_eq!(get(addresses.http, "evil.example", "/v1/events?topic=a").await, [421]);
    publish(addresses.grpc, "localhost").await.expect("it is this machine");
    publish(addresses.grpc, "events.example.com")
        .await
        .expect("it is listed");
    let refused = publish(addresses.grpc, "evil.example").await.expect_err("a stranger");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("http.hosts"), "{refused}");
    witness.is_served().await;
}

/// Who may do what is then decided by tokens, and names are the network's business, unless they are listed.
#[tokio::test]
async fn with_tokens_only_a_list_of_hosts_is_a_list() {
    let open = Setup::new().set("auth.public", "a");
    let any = open.clone().start().await;
    assert_eq!(
        get(any.addresses().http, "evil.example", "/v1/events?topic=a").await,
        [200]
    );
    // The admin port asks nobody for a token.
    assert_eq!(get(any.addresses().admin, "evil.example", "/metrics").await, [421]);
    let listed = open.set("http.hosts", "events.example.com").start().await;
    assert_eq!(
        get(listed.addresses().http, "evil.example", "/v1/events?topic=a").await,
        [421]
    );
    assert_eq!(
        get(listed.addresses().http, "events.example.com", "/v1/events?topic=a").await,
        [200]
    );
}

/// A form, an image or `fetch` in the mode `no-cors` goes out unasked, with any of three content types; other content types are asked for first.
#[tokio::test]
async fn a_page_cannot_publish() {
    let node = Setup::new()
        .set("http.cors_origins", "https://app.example")
        .start()
        .await;
    let mut witness = Witness::of(&node).await;
    let grpc = node.addresses().grpc;
    let own = format!("http://{grpc}");
    let types = [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("application/json"),
        Some("application/x-ndjson"),
    ];
    for mark in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "https://app.example.evil"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for content_type in types {
            let mut request = Request::post("/v1/publish").header(mark.0, mark.1);
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let answer = ask(grpc, request.body(EVENT).expect("a request")).await;
            assert_eq!(answer.status(), 403, "{mark:?} {content_type:?}");
            assert!(answer.headers().get("access-control-allow-origin").is_none());
        }
        let preflight = Request::options("/v1/publish")
            .header(mark.0, mark.1)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type");
        let answer = ask(grpc, preflight.body("").expect("a request")).await;
        assert_eq!(answer.status(), 403, "{mark:?}");
    }
    // To gRPC in disguise, and from a browser that says nothing: a message is what it says it is, or it is none.
    let message = String::from_utf8(b"\0\0\0\0\x03\n\x01a".to_vec()).expect("ASCII");
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/json"] {
        let request = Request::post("/tidings.v1.Publisher/Publish").header("content-type", content_type);
        let answer = ask(grpc, request.body(message.clone()).expect("a request")).await;
        assert_eq!(answer.status(), 415, "{content_type}");
    }
    // One that is listed, or of the same host, may, with a content type that says what it is.
    for origin in ["https://app.example", &own] {
        for (content_type, status) in [
            ("application/json", 200),
            ("text/plain", 415),
            ("application/x-www-form-urlencoded", 415),
        ] {
            let request = Request::post("/v1/publish")
                .header("origin", origin)
                .header("content-type", content_type);
            let answer = ask(grpc, request.body(EVENT).expect("a request")).await;
            assert_eq!(answer.status(), status, "{origin} {content_type}");
        }
    }
    witness.is_served().await;
}

#[tokio::test]
async fn answers_are_not_taken_for_something_else() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let addresses = node.addresses();
    for (address, path, status) in [
        (addresses.http, "/", 404),
        (addresses.http, "/v1/events", 400),
        (addresses.http, "/v1/route?user=1", 200),
        (addresses.grpc, "/", 404),
        (addresses.grpc, "/v1/publish", 405),
        (addresses.admin, "/", 404),
        (addresses.admin, "/livez", 200),
        (addresses.admin, "/metrics", 200),
    ] {
        let answer = ask(address, Request::get(path).body("").expect("a request")).await;
        assert_eq!(answer.status(), status, "{path}");
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        // What it is said to be over TLS must not be said without.
        assert_eq!(header("strict-transport-security"), None, "{path}");
        if header("content-type") == Some("application/problem+json") {
            let policy = header("content-security-policy");
            assert_eq!(policy, Some("default-src 'none'; frame-ancestors 'none'"), "{path}");
        }
    }
    // Nothing of a request comes back as anything but text in JSON.
    let script = "/v1/events?topic=%3Cscript%3Ealert(1)%3C/script%3E";
    let answer = ask(addresses.http, Request::get(script).body("").expect("a request")).await;
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    witness.is_served().await;
}
