//! Streams over TLS.

use rustix::process::Signal;

use crate::{
    authority::{Authority, Key},
    client::{Publisher, event},
    curl::{Stream, Version, get},
    node::Setup,
};

#[tokio::test]
async fn streams_are_served_over_both_versions_of_http_with_both_kinds_of_keys() {
    for kind in [Key::Ec, Key::Rsa] {
        let authority = Authority::new(kind);
        let node = authority.local("edge").on(Setup::new(), &["http"]).start().await;
        let mut publisher = Publisher::connect(node.addresses()).await;
        for version in Version::ALL {
            let topic = format!("tls/{version:?}");
            let mut stream = Stream::open(
                version,
                &authority.ca(),
                node.addresses().http,
                &format!("topic={topic}"),
            )
            .await;
            assert!(
                stream.head.contains("content-type: text/event-stream"),
                "{}",
                stream.head
            );
            assert!(!stream.head.contains("content-length"), "{}", stream.head);
            for number in 0..3 {
                // The next is published only when this one has come: none waits for another in a buffer.
                publisher.publish(event(&topic, format!("number {number}"))).await;
                assert_eq!(stream.data().await.as_deref(), Some(&*format!("number {number}")));
            }
            let large = "x".repeat(60_000);
            publisher.publish(event(&topic, &large)).await;
            assert_eq!(stream.data().await.as_deref(), Some(&*large));
        }
    }
}

#[tokio::test]
async fn answers_that_are_no_stream_come_over_tls_too() {
    let authority = Authority::new(Key::Ec);
    let node = authority.local("edge").on(Setup::new(), &["http"]).start().await;
    let port = node.addresses().http.port();
    for version in Version::ALL {
        let url = |path: &str| format!("https://localhost:{port}{path}");
        let route = get(version, &authority.ca(), &url("/v1/route?user=42"), &[])
            .await
            .expect("an answer");
        // Clients are sent to where TLS is spoken.
        assert!(route.contains(&format!("https://127.0.0.1:{port}")), "{route}");
        let none = get(version, &authority.ca(), &url("/nothing"), &[])
            .await
            .expect("an answer");
        assert!(none.lines().next().expect("a line").contains(" 404"), "{none}");
        // Two requests on one connection.
        let both = get(version, &authority.ca(), &url("/nothing"), &[&url("/v1/route?user=1")]).await;
        assert_eq!(both.expect("answers").matches("content-length").count(), 2);
        // A name that the certificate does not have.
        let error = get(version, &authority.ca(), &format!("https://127.0.0.2:{port}/"), &[]).await;
        assert!(error.is_err());
    }
}

#[tokio::test]
async fn streams_end_well_when_the_node_drains_and_when_they_are_old() {
    let authority = Authority::new(Key::Ec);
    for (settings, is_drained) in [([("drain.window", "1s")], true), ([("http.max_age", "1s")], false)] {
        let setup = settings
            .iter()
            .fold(Setup::new(), |setup, (key, value)| setup.set(key, value));
        let mut node = authority.local("edge").on(setup, &["http"]).start().await;
        for version in Version::ALL {
            let stream = Stream::open(version, &authority.ca(), node.addresses().http, "topic=a").await;
            let second = Stream::open(version, &authority.ca(), node.addresses().http, "topic=a").await;
            if is_drained {
                node.signal(Signal::TERM);
            }
            for stream in [stream, second] {
                let (rest, code) = stream.end().await;
                // The last word is when to come back, and the connection is closed as HTTP and TLS have it.
                assert!(
                    rest.trim_end().lines().last().expect("a line").starts_with("retry: "),
                    "{rest}"
                );
                assert_eq!(code, 0, "{version:?}");
            }
            if is_drained {
                assert!(node.ended().await.success());
                node.restart().await;
            }
        }
    }
}

#[tokio::test]
async fn too_many_streams_are_shed_over_tls_as_browsers_retry() {
    let authority = Authority::new(Key::Ec);
    let setup = Setup::new().set("limits.connections", "1");
    let node = authority.local("edge").on(setup, &["http"]).start().await;
    let address = node.addresses().http;
    let _first = Stream::open(Version::Http1, &authority.ca(), address, "topic=a").await;
    for version in Version::ALL {
        let shed = Stream::open(version, &authority.ca(), address, "topic=a").await;
        assert!(shed.head.contains("content-type: text/event-stream"), "{}", shed.head);
        let (rest, code) = shed.end().await;
        assert!(rest.starts_with("retry: ") && code == 0, "{rest} {code}");
    }
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    const EVENTS: usize = 3_000;

    let authority = Authority::new(Key::Ec);
    let setup = Setup::new().set("http.send_queue", "16KiB");
    let node = authority.local("edge").on(setup, &["http"]).start().await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    let padding = "x".repeat(1_000);
    for version in Version::ALL {
        let topic = format!("slow/{version:?}");
        let query = format!("topic={topic}");
        let mut stream = Stream::open(version, &authority.ca(), node.addresses().http, &query).await;
        // Far more than the queue, both sockets and curl's pipe hold, and nobody reads.
        let events = (0..EVENTS).map(|number| format!("{number} {padding}"));
        publisher.publish_many(&topic, events).await;
        for number in 0..EVENTS {
            let data = stream.data().await.expect("an event");
            assert!(data.starts_with(&format!("{number} ")), "{number}: {data:.20}");
        }
    }
}

#[tokio::test]
async fn what_a_proxy_says_comes_before_the_handshake() {
    let authority = Authority::new(Key::Ec);
    let setup = ["http", "grpc"].iter().fold(Setup::new(), |setup, section| {
        setup
            .set(&format!("{section}.trusted_proxies"), "127.0.0.1/32")
            .set(&format!("{section}.proxy_protocol"), "true")
    });
    let node = authority.local("edge").on(setup, &["http", "grpc"]).start().await;
    for address in [node.addresses().http, node.addresses().grpc] {
        for version in Version::ALL {
            let url = format!("https://localhost:{}/nothing", address.port());
            let told = get(version, &authority.ca(), &url, &["--haproxy-protocol"]).await;
            let told = told.expect("an answer");
            assert!(told.lines().next().expect("a line").contains(" 404"), "{told}");
        }
    }
}
