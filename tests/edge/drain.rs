//! Draining.

use std::{collections::HashSet, time::Duration};

use tidings::edge::Settings;

use crate::{
    client::{Client, Said, guard},
    world::{Options, World, start},
};

const URI: &str = "/v1/events?topic=a&since=earliest";

#[tokio::test]
async fn every_stream_ends_with_its_own_retry() {
    let world = World::new();
    let edge = start(&world, Options::default());
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(Client::follow(edge.address(), URI).await);
    }
    edge.drain(Duration::from_secs(2));
    world.publish("a", None, "while draining");
    let mut retries = HashSet::new();
    let mut got = 0;
    for client in &mut clients {
        let mut all = client.all().await;
        let Some(Said::Retry(ms)) = all.pop() else {
            panic!("no retry at the end")
        };
        assert!((1_000..=15_000).contains(&ms), "{ms}");
        retries.insert(ms);
        got += all.len();
    }
    assert!(retries.len() > 50, "{} different of 100", retries.len());
    assert!(got <= 100);
    guard(edge.stopped()).await.unwrap();
    assert_eq!(edge.streams(), 0);
    let refused = guard(tokio::net::TcpStream::connect(edge.address())).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn new_streams_come_back_later() {
    let edge = start(&World::new(), Options::default());
    let mut witness = Client::follow(edge.address(), URI).await;
    edge.drain(Duration::from_secs(3_600));
    edge.drain(Duration::ZERO);
    // Every worker learns of it in its own time: from then on nothing is opened.
    let mut shed = 0;
    while shed < 20 {
        let mut client = Client::stream(edge.address(), URI, &[]).await;
        assert!(matches!(client.said().await, Some(Said::Retry(_))));
        shed = match client.said().await {
            None => shed + 1,
            Some(_) => 0,
        };
    }
    // The first call counts: this one is still there.
    assert!(edge.streams() > 0);
    drop(edge);
    witness.closed().await;
}

#[tokio::test]
async fn a_stuck_socket_does_not_hold_up_the_end() {
    let world = World::new();
    let settings = Settings {
        send_queue: 1 << 20,
        ..Settings::default()
    };
    let options = Options {
        workers: 1,
        send_buffer: Some(4_096),
        settings,
        ..Options::default()
    };
    let edge = start(&world, options);
    let mut stuck = Client::stream(edge.address(), URI, &[]).await;
    let mut witness = Client::follow(edge.address(), URI).await;
    for _ in 0..200 {
        world.publish("a", None, &"z".repeat(60_000));
        witness.data().await;
    }
    edge.drain(Duration::from_millis(500));
    guard(edge.stopped()).await.unwrap();
    assert_eq!(edge.streams(), 0);
    // What was queued for one is lost: it is interrupted, where the other was told to come back.
    while stuck.said().await.is_some() {}
    assert!(!stuck.has_said_its_end());
    assert!(matches!(witness.all().await[..], [Said::Retry(_)]));
    assert!(witness.has_said_its_end());
}
