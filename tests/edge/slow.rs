//! Readers that are slow or stuck.

use std::sync::atomic::Ordering;

use tidings::{edge::Settings, hub::HubSettings};
use tidings_loadtest::chunked::Chunks;
use tokio::io::AsyncReadExt as _;

use crate::{
    client::{Client, Parser, Said, guard},
    world::{Options, World, start},
};

const TINY: usize = 4_096;

/// What holds little for a slow reader.
pub(crate) fn options() -> Options {
    Options {
        workers: 1,
        send_buffer: Some(TINY),
        settings: Settings {
            send_queue: 32 * 1024,
            ..Settings::default()
        },
        hub: HubSettings {
            tail_events: 8,
            ..HubSettings::default()
        },
        ..Options::default()
    }
}

/// A client whose kernel takes little.
pub(crate) async fn narrow(edge: &tidings::edge::EdgeHandle, uri: &str, headers: &[(&str, &str)]) -> Client {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(u32::try_from(TINY).unwrap()).unwrap();
    let mut client = Client::on(guard(socket.connect(edge.address())).await.unwrap());
    client.request("GET", uri, headers).await;
    assert_eq!(client.head().await.status, 200);
    client
}

#[tokio::test]
async fn a_slow_reader_loses_nothing_and_costs_little() {
    const EVENTS: usize = 3_000;
    let world = World::new();
    let edge = start(&world, options());
    let mut slow = narrow(&edge, "/v1/events?topic=a&since=earliest", &[]).await;
    let mut quick = Client::follow(edge.address(), "/v1/events?topic=a&since=earliest").await;
    world.publish("a", None, "first");
    assert_eq!([slow.data().await, quick.data().await], ["first", "first"]);
    let replays = world.replays.load(Ordering::Relaxed);
    let payload = "x".repeat(1_000);
    for number in 0..EVENTS {
        world.publish("a", None, &format!("{number} {payload}"));
        // Whatever the quick one has, the same hub has offered to the slow one.
        assert_eq!(quick.data().await, format!("{number} {payload}"));
    }
    let held = world.held();
    assert!(held < 100, "{held} events of {EVENTS} are held for one slow reader");
    assert_eq!(
        world.replays.load(Ordering::Relaxed),
        replays,
        "somebody reads the log for nothing"
    );
    for number in 0..EVENTS {
        assert_eq!(slow.data().await, format!("{number} {payload}"));
    }
    assert!(world.replays.load(Ordering::Relaxed) > replays);
    world.publish("a", None, "last");
    assert_eq!([slow.data().await, quick.data().await], ["last", "last"]);
}

#[tokio::test]
async fn frames_are_never_torn() {
    let world = World::new();
    let edge = start(&world, options());
    let client = narrow(&edge, "/v1/events?topic=a&since=earliest", &[]).await;
    let payloads: Vec<String> = (0_usize..200)
        .map(|number| {
            let size = [3, 700, 30_000, 120_000, 5_000][number % 5];
            let mut payload = format!("{number}: ä\n\n");
            while payload.len() < size {
                payload.push_str("data: id: 😀\n");
            }
            payload
        })
        .collect();
    for payload in &payloads {
        world.publish("a", Some("hard"), payload);
    }
    // Reads a few bytes now and many then.
    let (mut parser, mut chunks) = (Parser::default(), Chunks::default());
    let (mut socket, mut got, mut size) = (client.socket, Vec::new(), 1);
    while got.len() < payloads.len() {
        size = size * 7 % 40_009;
        let mut chunk = vec![0; size];
        let bytes = guard(socket.read(&mut chunk)).await.unwrap();
        assert_ne!(bytes, 0);
        let mut body = Vec::new();
        chunks.read(&chunk[..bytes], &mut body).unwrap();
        parser.push(&body);
        while let Some(said) = parser.next() {
            if let Said::Event { event_type, data, .. } = said {
                assert_eq!(event_type, "hard");
                got.push(data);
            }
        }
    }
    assert!(got == payloads);
    assert!(parser.is_between());
    // The end of the last chunk may still be on its way.
    assert!(!chunks.is_complete());
}

#[tokio::test]
async fn a_stuck_reader_does_not_delay_the_others() {
    let world = World::new();
    let edge = start(&world, options());
    let _stuck = narrow(&edge, "/v1/events?topic=a&since=earliest", &[]).await;
    let mut quick = Client::follow(edge.address(), "/v1/events?topic=a&since=earliest").await;
    let payload = "y".repeat(50_000);
    for _ in 0..100 {
        world.publish("a", None, &payload);
        assert_eq!(quick.data().await, payload);
    }
}
