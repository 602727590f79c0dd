//! A token goes nowhere: not into an address that a client is sent to, not into what is logged.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tidings::{
    edge::{EdgeAddress, Routes, Sight},
    model::Layout,
};
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _};

use crate::{
    bearer::{bearer, options, token},
    client::Client,
    grpc, http2,
    world::{Options, World, start},
};

/// An edge all of whose streams belong on another.
fn elsewhere() -> Options {
    let edges = ["edge-0", "edge-1"].map(|node| EdgeAddress {
        node: node.to_owned(),
        url: Some(format!("http://{node}.example")),
    });
    let routes = Routes::new(Layout::EMBEDDED, "edge-0", edges.into(), |_| Some(1), Sight::Clear);
    Options {
        routes: routes.forever(),
        ..options()
    }
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_with_a_token_in_it() {
    let edge = start(&World::new(), elsewhere());
    let token = token("7", &["a"]);
    let header = bearer(&token);
    let mut client = Client::connect(edge.address()).await;
    client
        .request("GET", "/v1/events?topic=a&redirect=1", &[("authorization", &header)])
        .await;
    let (head, _) = client.answer().await;
    assert_eq!(head.status, 307);
    let location = head
        .lines
        .iter()
        .find(|line| line.starts_with("location: "))
        .expect("a location");
    assert!(
        location.starts_with("location: http://edge-1.example/v1/events?topic=a&redirect=1&redirected="),
        "{location}"
    );
    let cookie = format!("tidings_token={token}");
    client
        .request("GET", "/v1/events?topic=a&redirect=1", &[("cookie", &cookie)])
        .await;
    assert_eq!(client.answer().await.0.status, 307);
    // With a token in the query it is served here: however it is written, and whether it is the one that counts.
    for (query, headers) in [
        (format!("redirect=1&token={token}"), vec![]),
        (format!("redirect=1&%74oken={token}"), vec![]),
        (format!("redirect=1&token={token}"), vec![("authorization", &*header)]),
    ] {
        let uri = format!("/v1/events?topic=a&{query}");
        drop(Client::stream(edge.address(), &uri, &headers).await);
    }
    // The place is the token's user's, whoever asks; it names no more than it did.
    client
        .request("GET", "/v1/route?topic=a", &[("authorization", &header)])
        .await;
    let (head, body) = client.answer().await;
    assert_eq!(head.status, 200);
    assert_eq!(
        body,
        r#"{"slot":0,"route":"0","node":"edge-1","url":"http://edge-1.example"}"#
    );
    for (uri, status) in [
        (format!("/v1/route?token={token}"), 200),
        (format!("/v1/route?user=7&token={token}"), 200),
        (format!("/v1/route?user=8&token={token}"), 403),
        ("/v1/route?user=7".to_owned(), 401),
        ("/v1/route".to_owned(), 401),
    ] {
        client.request("GET", &uri, &[]).await;
        let (head, body) = client.answer().await;
        assert_eq!(head.status, status, "{uri}");
        assert!(!body.contains(&token), "{body}");
    }
}

/// Everything that is logged, by everybody in this process.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_that_is_logged_or_answered_holds_a_token() {
    let written = Written::default();
    let make = written.clone();
    let everything = tracing_subscriber::filter::filter_fn(|metadata| metadata.target().starts_with("tidings"));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || make.clone())
        .with_filter(everything);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).expect("the only one");
    let mut options = elsewhere();
    options.limits.connections_per_user = 1;
    let edge = start(&World::new(), options);
    let good = token("7", &["a"]);
    let bad = format!("{}x", &good[..good.len() - 9]);
    let _held = Client::stream(edge.address(), "/v1/events", &[("authorization", &bearer(&good))]).await;
    let mut answers = String::new();
    for token in [&good, &bad] {
        for query in ["topic=a", "topic=secret", "topic=a%20b", "user=8", "since=never", ""] {
            let header = bearer(token);
            for (uri, headers) in [
                (format!("/v1/events?{query}&token={token}"), vec![]),
                (format!("/v1/route?{query}&token={token}"), vec![]),
                (format!("/v1/events?{query}&token={token}&token={token}"), vec![]),
                (format!("/v1/{token}?{query}"), vec![]),
                (format!("/v1/events?{query}"), vec![("authorization", &*header)]),
                (format!("/v1/events?{query}"), vec![("authorization", token)]),
            ] {
                let mut client = Client::connect(edge.address()).await;
                client.request("GET", &uri, &headers).await;
                let head = client.head().await;
                answers.push_str(&head.lines.concat());
                if head.status != 200 {
                    let mut again = Client::connect(edge.address()).await;
                    again.request("GET", &uri, &headers).await;
                    answers.push_str(&again.answer().await.1);
                }
                let mut connection = http2::connect(edge.address()).await;
                let response = http2::ask(&mut connection, "GET", &uri, &headers).await;
                answers.push_str(&format!("{:?}", response.headers()));
            }
        }
        let call = grpc::with_token(grpc::request(&["secret"], "", None), token);
        let status = grpc::client(&edge).await.subscribe(call).await.unwrap_err();
        answers.push_str(&format!("{status:?}"));
    }
    let logged = String::from_utf8(written.0.lock().expect("not poisoned").clone()).expect("UTF-8");
    assert!(logged.contains("a stream is shed"), "nothing was logged: {logged}");
    // A part of it would be as bad.
    let secret = &good[good.len() - 60..good.len() - 20];
    assert!(!logged.contains(secret), "{logged}");
    assert!(!answers.contains(secret), "{answers}");
}
