//! Routes, redirects, moves and old age.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tidings::{
    edge::{EdgeAddress, Routes, Settings, Sight},
    model::Layout,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    client::{Client, Said, guard},
    world::{Options, World, start, start_with},
};

/// Two edges, of which this is the first; the whole of one slot belongs to the edge at this place.
fn owned_by(place: usize, sight: Sight) -> Arc<Routes> {
    let edges = ["edge-0", "edge-1"].map(|node| EdgeAddress {
        node: node.to_owned(),
        url: Some(format!("http://{node}.example")),
    });
    Arc::new(Routes::new(
        Layout::EMBEDDED,
        "edge-0",
        edges.into(),
        |_| Some(place),
        sight,
    ))
}

#[tokio::test]
async fn a_route_is_told_and_a_redirect_given_on_one_connection() {
    let (_keep, routes) = watch::channel(owned_by(1, Sight::Clear));
    let options = Options {
        routes,
        ..Options::default()
    };
    let edge = start(&World::new(), options);
    let mut client = Client::connect(edge.address()).await;
    client.request("GET", "/v1/route?user=42", &[]).await;
    let (head, body) = client.answer().await;
    assert_eq!(head.status, 200);
    assert_eq!(
        body,
        r#"{"slot":0,"route":"0","node":"edge-1","url":"http://edge-1.example"}"#
    );
    client.request("GET", "/v1/route", &[]).await;
    assert_eq!(client.answer().await.0.status, 400);
    client.request("GET", "/v1/events?user=42&redirect=1", &[]).await;
    let (head, body) = client.answer().await;
    assert_eq!((head.status, body.as_str()), (307, ""));
    let there = "location: http://edge-1.example/v1/events?user=42&redirect=1&redirected=";
    let location = head.lines.iter().find(|line| line.starts_with(there));
    let redirected = location
        .expect("a location")
        .strip_prefix("location: http://edge-1.example")
        .expect("seen");
    // Whoever was sent here just now is served here, and so is whoever does not ask.
    drop(Client::follow(edge.address(), redirected).await);
    drop(Client::follow(edge.address(), "/v1/events?user=42").await);
}

#[tokio::test]
async fn only_the_movable_are_moved_evenly_and_while_the_view_is_clear() {
    let (change, routes) = watch::channel(owned_by(0, Sight::Clear));
    let options = Options {
        routes,
        settings: Settings {
            moves_per_second: 20,
            settle: Duration::from_millis(100),
            ..Settings::default()
        },
        ..Options::default()
    };
    let edge = start(&World::new(), options);
    let mut movable = Vec::new();
    for _ in 0..20 {
        movable.push(Client::follow(edge.address(), "/v1/events?user=42&redirect=1&since=earliest").await);
    }
    let mut fixed = Client::follow(edge.address(), "/v1/events?user=42&since=earliest").await;
    let began = Instant::now();
    change.send_replace(owned_by(1, Sight::Young));
    change.send_replace(owned_by(1, Sight::Clear));
    let mut retries = HashSet::new();
    for client in &mut movable {
        let all = client.all().await;
        let Some(Said::Retry(ms)) = all.last() else {
            panic!("no retry at the end: {all:?}")
        };
        assert!((3_000..=4_500).contains(ms), "{ms}");
        retries.insert(*ms);
    }
    // 20 of them at 20 a second, over all workers: the last not before this.
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert!(retries.len() > 5, "{retries:?}");
    guard(async {
        while edge.streams() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    edge.drain(Duration::ZERO);
    fixed.closed().await;
}

#[tokio::test]
async fn nobody_is_moved_while_the_view_is_in_doubt() {
    let (change, routes) = watch::channel(owned_by(0, Sight::Clear));
    let options = Options {
        routes,
        settings: Settings {
            moves_per_second: 100_000,
            settle: Duration::ZERO,
            heartbeat: Duration::from_millis(100),
            ..Settings::default()
        },
        ..Options::default()
    };
    let edge = start(&World::new(), options);
    let mut client = Client::follow(edge.address(), "/v1/events?user=42&redirect=1&since=earliest").await;
    change.send_replace(owned_by(1, Sight::Young));
    for _ in 0..20 {
        assert_eq!(client.said().await, Some(Said::Comment));
    }
    change.send_replace(owned_by(1, Sight::Clear));
    let all = client.all().await;
    assert!(matches!(all.last(), Some(Said::Retry(_))), "{all:?}");
}

#[tokio::test]
async fn the_old_are_asked_to_come_back() {
    let edge = start_with(Settings {
        max_age: Duration::from_secs(1),
        ..Settings::default()
    });
    let began = Instant::now();
    let mut client = Client::follow(edge.address(), "/v1/events?topic=a&since=earliest").await;
    let all = client.all().await;
    assert!(matches!(all[..], [Said::Retry(3_000..=4_500)]), "{all:?}");
    // A fifth less, and a step of the clock at either end.
    assert!(began.elapsed() >= Duration::from_millis(650), "{:?}", began.elapsed());
}
