//! Over a limit: told to come back later, in the way that browsers understand.

use std::time::Duration;

use tidings::edge::limits;

use crate::{
    client::{Client, Said},
    world::{Options, World, start},
};

fn options(change: impl FnOnce(&mut limits::Settings)) -> Options {
    let mut options = Options::default();
    change(&mut options.limits);
    options
}

fn assert_shed(said: &[Said]) {
    let [Said::Retry(ms)] = said else {
        panic!("not shed: {said:?}")
    };
    assert!((1_000..=15_000).contains(ms), "{ms}");
}

const URI: &str = "/v1/events?topic=a";

#[tokio::test]
async fn connections_of_all() {
    let edge = start(&World::new(), options(|limits| limits.connections = 2));
    let one = Client::follow(edge.address(), URI).await;
    let _two = Client::follow(edge.address(), URI).await;
    assert_shed(&Client::shed(edge.address(), URI).await);
    assert_shed(&Client::shed(edge.address(), URI).await);
    // Those that are no stream are answered, too.
    let mut other = Client::connect(edge.address()).await;
    other.request("GET", "/", &[]).await;
    assert_eq!(other.answer().await.0.status, 404);
    drop((one, other));
    while edge.streams() > 1 {
        tokio::task::yield_now().await;
    }
    let _three = Client::follow(edge.address(), URI).await;
}

/// Only so many can be told at the same time to come back later: none of them may stay.
#[tokio::test]
async fn who_is_over_a_limit_cannot_stay() {
    let mut options = options(|limits| limits.connections = 0);
    // Only what is over a limit is cut off in this test.
    options.settings.header_timeout = Duration::from_secs(3_600);
    let edge = start(&World::new(), options);
    for (method, uri, status) in [("GET", "/", 404), ("HEAD", URI, 200), ("OPTIONS", URI, 204)] {
        let mut client = Client::connect(edge.address()).await;
        client.request(method, uri, &[]).await;
        let head = client.head().await;
        assert_eq!(head.status, status, "{head:?}");
        assert!(head.has("connection: close"), "{head:?}");
        client.closed().await;
    }
    // Nothing at all; half of a head; HTTP/2 without a request.
    let silent = [
        "",
        "GET / HTTP/1.1\r\nhost: t\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    futures::future::join_all(silent.map(async |begin| {
        let mut client = Client::connect(edge.address()).await;
        client.send(begin.as_bytes()).await;
        client.closed().await;
    }))
    .await;
}

#[tokio::test]
async fn connections_of_an_address_only_when_it_is_not_exempt() {
    for exempt in [false, true] {
        let change = |limits: &mut limits::Settings| {
            limits.connections_per_address = 1;
            limits.exempt_loopback = exempt;
        };
        let edge = start(&World::new(), options(change));
        let _one = Client::follow(edge.address(), URI).await;
        if exempt {
            let _two = Client::follow(edge.address(), URI).await;
        } else {
            assert_shed(&Client::shed(edge.address(), URI).await);
        }
    }
}

#[tokio::test]
async fn attempts_of_an_address() {
    let change = |limits: &mut limits::Settings| {
        limits.attempts_per_second_per_address = 1;
        limits.exempt_loopback = false;
    };
    let edge = start(&World::new(), options(change));
    let mut shed = 0;
    // Fifty do not take fifty seconds.
    for _ in 0..50 {
        let mut client = Client::stream(edge.address(), URI, &[]).await;
        let first = client.said().await;
        let second = client.said().await;
        match (first, second) {
            (Some(Said::Retry(3_000..=4_500)), Some(Said::Comment)) => {}
            (Some(retry @ Said::Retry(_)), None) => {
                assert_shed(&[retry]);
                shed += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(shed > 0);
}

#[tokio::test]
async fn streams_of_a_user() {
    let world = World::new();
    let edge = start(&world, options(|limits| limits.connections_per_user = 1));
    let mut one = Client::follow(edge.address(), "/v1/events?user=42&since=earliest").await;
    assert_shed(&Client::shed(edge.address(), "/v1/events?topic=a&user=42").await);
    let mut other = Client::follow(edge.address(), "/v1/events?user=43&since=earliest").await;
    world.publish("user:42", None, "for 42");
    world.publish("user:43", None, "for 43");
    assert_eq!(one.data().await, "for 42");
    assert_eq!(other.data().await, "for 43");
}
