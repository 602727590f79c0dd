use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _};
use proptest::prelude::*;
use tidings::{
    bus::{Announcement, Bus, Digest, Line, Notice},
    edge::{EdgeHandle, Settings},
    log::{Heads, Located, Log, ReadError, Replay, ReplayRequest},
    model::{Event, Origin, Shard, Slot, UnixMillis},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
};

use crate::{
    client::{Client, Said, guard},
    world::{Options, World, start, start_on, start_with},
};

#[tokio::test]
async fn the_head_and_a_comment_come_at_once() {
    let edge = start(&World::new(), Options::default());
    let mut client = Client::connect(edge.address()).await;
    client
        .request("GET", "/v1/events?topic=a", &[("accept-encoding", "gzip")])
        .await;
    let head = client.head().await;
    assert_eq!(head.status, 200);
    for line in [
        "content-type: text/event-stream",
        "cache-control: no-cache, no-transform",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cross-origin-resource-policy: same-origin",
        "transfer-encoding: chunked",
        "connection: close",
    ] {
        assert!(head.has(line), "{line}: {head:?}");
    }
    assert_eq!(head.lines.iter().filter(|line| line.starts_with("date: ")).count(), 1);
    assert_eq!(head.lines.len(), 9, "{head:?}");
    assert!(matches!(client.said().await, Some(Said::Retry(3_000..=4_500))));
    assert_eq!(client.said().await, Some(Said::Comment));
    assert_eq!(edge.streams(), 1);
}

#[tokio::test]
async fn each_frame_is_one_chunk() {
    let world = World::new();
    let settings = Settings {
        heartbeat: Duration::from_millis(100),
        ..Settings::default()
    };
    let edge = start(
        &world,
        Options {
            settings,
            ..Options::default()
        },
    );
    let mut client = Client::connect(edge.address()).await;
    client.request("GET", "/v1/events?topic=a", &[]).await;
    client.head().await;
    let chunk = client.chunk().await;
    assert!(chunk.starts_with("retry: ") && chunk.ends_with("\n:\n"), "{chunk:?}");
    world.publish("a", Some("tick"), "one\ntwo");
    world.publish("a", None, &"x".repeat(70_000));
    let mut events = Vec::new();
    while events.len() < 2 {
        let chunk = client.chunk().await;
        if chunk != ":\n" {
            let (rest, id) = chunk.split_once("id: ").unwrap();
            assert!(id.starts_with("1-7.") && id.ends_with("\n\n"), "{id}");
            events.push(rest.to_owned());
        }
    }
    assert_eq!(events[0], "event: tick\ndata: one\ndata: two\n");
    assert_eq!(events[1], format!("data: {}\n", "x".repeat(70_000)));
    assert_eq!(client.chunk().await, ":\n");
    edge.drain(Duration::from_secs(1));
    let last = loop {
        let chunk = client.chunk().await;
        if chunk != ":\n" {
            break chunk;
        }
    };
    assert!(last.starts_with("retry: ") && last.ends_with('\n'), "{last:?}");
    assert_eq!(client.chunk().await, "");
}

#[tokio::test]
async fn who_knows_no_chunks_gets_none() {
    let world = World::new();
    let edge = start(&world, Options::default());
    let mut client = Client::connect(edge.address()).await;
    client.send(b"GET /v1/events?topic=a HTTP/1.0\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.status, 200);
    assert!(head.has("connection: close"), "{head:?}");
    assert!(
        !head.lines.iter().any(|line| line.starts_with("transfer-encoding")),
        "{head:?}"
    );
    assert!(matches!(client.said().await, Some(Said::Retry(3_000..=4_500))));
    assert_eq!(client.said().await, Some(Said::Comment));
    world.publish("a", None, "plain");
    assert_eq!(client.data().await, "plain");
    edge.drain(Duration::from_secs(1));
    assert!(matches!(client.all().await[..], [Said::Retry(_)]));
}

#[tokio::test]
async fn events_come_live_and_resume() {
    let world = World::new();
    let edge = start(&world, Options::default());
    let mut client = Client::follow(edge.address(), "/v1/events?topic=a&topic=b").await;
    // Who is told that the stream is open misses nothing from then on.
    for number in 0..20 {
        world.publish(["a", "b", "c"][number % 3], Some("tick"), &format!("{number}\r\n x"));
    }
    let expected: Vec<usize> = (0..20).filter(|number| number % 3 < 2).collect();
    for number in &expected {
        let Said::Event { event_type, data, id } = client.event().await else {
            panic!("an event")
        };
        assert_eq!((event_type.as_str(), data), ("tick", format!("{number}\n x")));
        assert!(id.starts_with("1-7."), "{id}");
    }
    let mut early = Client::follow(edge.address(), "/v1/events?topic=a&topic=b&since=earliest").await;
    let first = early.event().await;
    assert!(matches!(&first, Said::Event { data, .. } if data == "0\n x"));
    let Said::Event { id, .. } = first else {
        panic!("an event")
    };
    for (uri, headers) in [
        (
            "/v1/events?topic=a&topic=b".to_owned(),
            vec![("Last-Event-ID", id.as_str())],
        ),
        (format!("/v1/events?topic=a&topic=b&last_event_id={id}"), vec![]),
        (
            format!("/v1/events?topic=a&topic=b&last_event_id={id}"),
            vec![("last-event-id", "")],
        ),
    ] {
        let mut client = Client::stream(edge.address(), &uri, &headers).await;
        for number in &expected[1..] {
            assert_eq!(client.data().await, format!("{number}\n x"));
        }
    }
}

#[tokio::test]
async fn a_cursor_of_someone_else_gets_a_gap_and_the_live_stream() {
    let world = World::new();
    world.publish("a", None, "before");
    // One worker: another may not have heard yet of what this one has sent already, and begin a moment earlier.
    let workers = 1;
    let edge = start(
        &world,
        Options {
            workers,
            ..Options::default()
        },
    );
    for (cursor, reason) in [
        ("42", "unknown"),
        ("\u{fffd}é", "unknown"),
        ("1-8.1", "forked"),
        ("1-7.99", "forked"),
    ] {
        let mut client = Client::stream(edge.address(), "/v1/events?topic=a", &[("last-event-id", cursor)]).await;
        let Said::Event { id, event_type, data } = client.event().await else {
            panic!("an event")
        };
        assert_eq!(
            (event_type.as_str(), data),
            ("tidings.gap", format!("{{\"reason\":\"{reason}\"}}"))
        );
        assert!(id.starts_with("1-7."), "{id}");
        world.publish("a", None, cursor);
        assert_eq!(client.data().await, cursor);
    }
}

#[tokio::test]
async fn answers_that_are_no_stream_keep_the_connection() {
    let world = World::new();
    let edge = start(&world, Options::default());
    let mut client = Client::connect(edge.address()).await;
    for (method, uri, status) in [
        ("GET", "/nothing", 404),
        ("DELETE", "/v1/events?topic=a", 405),
        ("GET", "/v1/events?topic=%20", 400),
        ("GET", "/v1/events?topic=a&since=soon", 400),
    ] {
        client.request(method, uri, &[]).await;
        let (head, body) = client.answer().await;
        assert_eq!(head.status, status, "{head:?}");
        assert!(head.has("content-type: application/problem+json"), "{head:?}");
        assert!(body.contains(&format!("\"status\":{status}")), "{body}");
        assert_eq!(head.has("allow: GET, HEAD, OPTIONS"), status == 405);
    }
    client.request("HEAD", "/v1/events?topic=a", &[]).await;
    assert!(client.head().await.has("content-type: text/event-stream"));
    // All of it pipelined, with a stream at the end and more after it.
    client
        .send(
            b"GET /1 HTTP/1.1\r\nhost: t\r\n\r\nGET /2 HTTP/1.1\r\nhost: t\r\n\r\n\
              GET /v1/events?topic=a&since=earliest HTTP/1.1\r\nhost: t\r\n\r\nGET /v1/events?topic=b HTTP/1.1\r\n\r\n\0\xff",
        )
        .await;
    assert_eq!(client.answer().await.0.status, 404);
    assert_eq!(client.answer().await.0.status, 404);
    assert_eq!(client.head().await.status, 200);
    world.publish("a", None, "yes");
    world.publish("b", None, "no");
    world.publish("a", None, "yes");
    assert_eq!([client.data().await, client.data().await], ["yes", "yes"]);
    client.send(b"and so on\r\n\r\n").await;
    world.publish("a", None, "still");
    assert_eq!(client.data().await, "still");
    assert_eq!(edge.streams(), 1);
}

#[tokio::test]
async fn who_keeps_talking_is_dropped() {
    let edge = start(&World::new(), Options::default());
    let mut client = Client::follow(edge.address(), "/v1/events?topic=a").await;
    let chunk = [b'x'; 4_096];
    let talk = async { while client.socket.write_all(&chunk).await.is_ok() {} };
    guard(talk).await;
}

#[tokio::test]
async fn cors_names_the_listed_alone() {
    let edge = start_with(Settings {
        cors_origins: vec![Origin::parse("https://app.example").unwrap()],
        ..Settings::default()
    });
    let allowed = "access-control-allow-origin: https://app.example";
    for (origin, listed) in [("https://app.example", true), ("https://evil.example", false)] {
        let mut client = Client::connect(edge.address()).await;
        let preflight = [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "last-event-id"),
        ];
        client.request("OPTIONS", "/v1/events", &preflight).await;
        let head = client.head().await;
        assert_eq!(head.status, 204);
        assert_eq!(head.has(allowed), listed, "{head:?}");
        assert_eq!(
            head.has("access-control-allow-headers: last-event-id, authorization, cache-control"),
            listed
        );
        client.request("GET", "/v1/events?topic=a", &[("origin", origin)]).await;
        let head = client.head().await;
        assert_eq!(head.has(allowed), listed, "{head:?}");
        assert_eq!(head.has("access-control-allow-credentials: true"), listed);
        assert!(head.has("vary: origin"));
        assert!(matches!(client.said().await, Some(Said::Retry(3_000..=4_500))));
    }
}

#[tokio::test]
async fn a_half_sent_head_is_cut_off() {
    let edge = start_with(Settings {
        header_timeout: Duration::from_millis(200),
        ..Settings::default()
    });
    // Nothing at all; half of a head; half of HTTP/2's preface; a preface and nothing more.
    for begin in [
        "",
        "GET /v1/events?topic=a HTTP/1.1\r\nhost: t\r\n",
        "PRI * HT",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut client = Client::connect(edge.address()).await;
        client.send(begin.as_bytes()).await;
        client.closed().await;
    }
    // A head that never ends, a little at a time.
    let mut client = Client::connect(edge.address()).await;
    client.send(b"GET /v1/events?topic=a HTTP/1.1\r\nx: ").await;
    let (mut read, mut write) = client.socket.split();
    let trickle = async {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        loop {
            pace.tick().await;
            if write.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    let closed = async {
        while tokio::io::AsyncReadExt::read(&mut read, &mut [0; 64])
            .await
            .is_ok_and(|bytes| bytes > 0)
        {}
    };
    guard(futures::future::select(Box::pin(trickle), Box::pin(closed))).await;
}

#[tokio::test]
async fn a_head_too_large_is_refused() {
    let edge = start(&World::new(), Options::default());
    let mut client = Client::connect(edge.address()).await;
    let large = "x".repeat(32 * 1024);
    client.request("GET", "/v1/events?topic=a", &[("x", &large)]).await;
    assert_eq!(client.head().await.status, 431);
    client.closed().await;
    let mut client = Client::connect(edge.address()).await;
    // Not what TLS begins with: that is answered by TLS.
    client.send(b"\x15\x03\x01 what is this\r\n\r\n").await;
    assert_eq!(client.head().await.status, 400);
    client.closed().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Each is answered or hung up on, and the next request is served as ever.
    #[test]
    fn no_request_breaks_anything(
        method in prop_oneof![Just("GET".to_owned()), "[A-Z]{0,8}", ".{0,4}"],
        target in prop_oneof![
            "/v1/events\\?topic=a&[ -~]{0,40}",
            "/v1/events[?&=%+a-z0-9./:#\\\\-]{0,40}",
            "[!-~]{0,40}",
            ".{0,40}",
        ],
        version in prop_oneof![4 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0"), 1 => Just("HTTP/2.0"), 1 => Just("")],
        header in prop_oneof![Just(String::new()), "last-event-id: .{0,40}\r\n", "[ -~]{0,40}\r\n", "content-length: [0-9]{1,30}\r\n"],
    ) {
        static EDGE: LazyLock<(Runtime, EdgeHandle)> = LazyLock::new(|| {
            (Runtime::new().unwrap(), start(&World::new(), Options::default()))
        });
        let (runtime, edge) = &*EDGE;
        runtime.block_on(async {
            let mut client = Client::connect(edge.address()).await;
            client.send(format!("{method} {target} {version}\r\n{header}\r\n").as_bytes()).await;
            client.socket.shutdown().await.unwrap();
            client.closed().await;
            Client::follow(edge.address(), "/v1/events?topic=a").await;
        });
    }
}

#[tokio::test]
async fn a_stream_is_told_to_be_open_though_the_log_is_silent() {
    struct Silent;
    impl Log for Silent {
        fn heads(&self, _: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
            futures::future::pending().boxed()
        }
        fn replay(&self, _: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
            futures::future::pending().boxed()
        }
        fn locate(&self, _: Shard, _: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
            futures::future::pending().boxed()
        }
    }
    let edge = start_on(Arc::new(Silent), World::new(), Options::default());
    for start in ["", "&since=1m", "&since=earliest", "&last_event_id=x"] {
        Client::follow(edge.address(), &format!("/v1/events?topic=a{start}")).await;
    }
}

#[tokio::test]
async fn heartbeats_come_while_nothing_else_does() {
    let edge = start_with(Settings {
        heartbeat: Duration::from_millis(100),
        ..Settings::default()
    });
    let mut client = Client::follow(edge.address(), "/v1/events?topic=a").await;
    for _ in 0..3 {
        assert_eq!(client.said().await, Some(Said::Comment));
    }
}

#[tokio::test]
async fn who_leaves_is_noticed() {
    let edge = start(&World::new(), Options::default());
    let gone = Client::follow(edge.address(), "/v1/events?topic=a").await;
    let reset = Client::follow(edge.address(), "/v1/events?topic=a").await;
    let _stays = Client::follow(edge.address(), "/v1/events?topic=a").await;
    assert_eq!(edge.streams(), 3);
    drop(gone);
    reset.socket.set_zero_linger().unwrap();
    drop(reset);
    guard(async {
        while edge.streams() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A bus that is not there, or closed.
struct Broken {
    panics: bool,
}

impl Bus for Broken {
    fn announce(&self, _: &[Announcement]) {}
    fn digest(&self, _: &Digest) {}
    fn ephemeral(&self, _: Slot, _: Arc<Event>) {}
    fn open(&self) -> Box<dyn Line> {
        assert!(!self.panics, "no line today");
        Box::new(Closed)
    }
}

struct Closed;

impl Line for Closed {
    fn follow(&mut self, _: Slot) {}
    fn unfollow(&mut self, _: Slot) {}
    fn next(&mut self) -> BoxFuture<'_, Option<Notice>> {
        futures::future::ready(None).boxed()
    }
}

#[tokio::test]
async fn a_worker_that_fails_is_told_of() {
    for (panics, cause) in [(true, "panic: no line today"), (false, "its hub has ended")] {
        let edge = start_on(World::new(), Arc::new(Broken { panics }), Options::default());
        let failed = guard(edge.stopped()).await.unwrap_err();
        assert_eq!(failed.cause, cause);
    }
}

/// A log that does not know the time.
struct Timeless(Arc<World>);

impl Log for Timeless {
    fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
        self.0.heads(shard)
    }

    fn replay(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        self.0.replay(request)
    }

    fn locate(&self, _: Shard, _: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
        panic!("no time today")
    }
}

#[tokio::test]
async fn a_worker_that_panics_lets_its_streams_go() {
    let world = World::new();
    let options = Options {
        workers: 1,
        ..Options::default()
    };
    let edge = start_on(Arc::new(Timeless(Arc::clone(&world))), world, options);
    let mut open = Client::follow(edge.address(), "/v1/events?topic=a").await;
    let mut last = Client::connect(edge.address()).await;
    last.request("GET", "/v1/events?topic=a&since=earliest", &[]).await;
    let failed = guard(edge.stopped()).await.unwrap_err();
    assert_eq!(failed.cause, "panic: no time today");
    for client in [&mut open, &mut last] {
        guard(client.socket.read_to_end(&mut Vec::new())).await.unwrap();
    }
    assert_eq!(edge.streams(), 0);
}
