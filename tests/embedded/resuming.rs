//! Coming back: with cursors of every kind, after retention, and as a publisher that does not know what became of an event.

use std::path::Path;

use tidings_proto::v1::PublishRequest;

use crate::{
    client::{Publisher, event, keyed},
    node::{Node, Setup},
    sse::{Ask, Event, Stream},
};

async fn open(node: &Node, ask: Ask) -> Stream {
    ask.open(node.addresses().http).await.expect("a stream")
}

/// A node with these events in topic `a`, and the events as a stream gives them.
async fn with_events(setup: Setup, data: impl IntoIterator<Item = String>) -> (Node, Vec<Event>) {
    let node = setup.start().await;
    let data: Vec<String> = data.into_iter().collect();
    let mut publisher = Publisher::connect(node.addresses()).await;
    publisher.publish_many("a", data.iter().cloned()).await;
    let mut stream = open(&node, Ask::topic("a").query("since", "earliest")).await;
    let mut events = Vec::new();
    for data in data {
        let event = stream.event().await;
        assert_eq!(event.data, data);
        events.push(event);
    }
    (node, events)
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("event {number}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_remembered_across_kills_and_for_each_topic_by_itself() {
    let mut node = Node::start().await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    let (first, repeated) = publisher.publish(keyed("a", "1", "key")).await;
    assert!(!repeated);
    node.crash().await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    // The first answer counts, whatever the repeat says.
    assert_eq!(publisher.publish(keyed("a", "other", "key")).await, (first, true));
    let both = PublishRequest {
        topics: vec!["b".to_owned(), "a".to_owned()],
        ..keyed("a", "2", "key")
    };
    let answer = publisher.try_publish(both).await.expect("it is accepted");
    assert_eq!((answer.results[0].repeated, answer.results[1].repeated), (false, true));
    assert_eq!(answer.results[1].sequence, first);
    assert!(answer.results[0].sequence > first);
    node.crash().await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    assert_eq!(
        publisher.publish(keyed("b", "2", "key")).await,
        (answer.results[0].sequence, true)
    );
    publisher.publish(event("a", "last")).await;
    let mut stream = open(&node, Ask::topics(["a", "b"]).query("since", "earliest")).await;
    assert_eq!(stream.data(3).await, ["1", "2", "last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_forgotten_after_its_window() {
    let node = Setup::new().set("journal.key_window", "50ms").start().await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    let (first, _) = publisher.publish(keyed("a", "1", "key")).await;
    let again = loop {
        match publisher.publish(keyed("a", "2", "key")).await {
            (sequence, true) => assert_eq!(sequence, first),
            (sequence, false) => break sequence,
        }
    };
    assert!(again > first);
    let mut stream = open(&node, Ask::topic("a").query("since", "earliest")).await;
    assert_eq!(stream.data(2).await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_id_resumes_exactly_by_header_and_by_query() {
    let (mut node, events) = with_events(Setup::new(), numbers(20)).await;
    node.crash().await;
    for (at, event) in events.iter().enumerate() {
        let rest: Vec<_> = numbers(20).skip(at + 1).collect();
        let asks = [
            Ask::topic("a").after(&event.id),
            Ask::topic("a").query("last_event_id", &event.id),
            // A cursor wins over a place to begin, the header over the parameter; an empty one is none.
            Ask::topic("a").after(&event.id).query("since", "earliest"),
            Ask::topic("a").query("last_event_id", &event.id).query("since", "10m"),
            Ask::topic("a").after(&event.id).query("last_event_id", &events[0].id),
            Ask::topic("a").after(&event.id).query("last_event_id", "garbage"),
            Ask::topic("a").after("").query("last_event_id", &event.id),
        ];
        for ask in asks {
            assert_eq!(open(&node, ask.clone()).await.data(rest.len()).await, rest, "{ask:?}");
        }
        let mut stream = Ask::topic("a")
            .after(&event.id)
            .open_http2(node.addresses().http)
            .await
            .expect("a stream");
        assert_eq!(stream.data(rest.len()).await, rest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cursor_it_begins_where_it_is_told() {
    let (node, _) = with_events(Setup::new(), numbers(5)).await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    let all: Vec<_> = numbers(5).collect();
    for ask in [
        Ask::topic("a").query("since", "10m"),
        Ask::topic("a").query("since", "earliest"),
        Ask::topic("a").query("since", "earliest").after(""),
        Ask::topic("a").query("since", "10m").query("last_event_id", ""),
    ] {
        assert_eq!(open(&node, ask.clone()).await.data(5).await, all, "{ask:?}");
    }
    for (round, ask) in [
        Ask::topic("a"),
        Ask::topic("a").after(""),
        Ask::topic("a").query("since", "0s"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = open(&node, ask).await;
        let data = format!("live {round}");
        publisher.publish(event("a", &*data)).await;
        // Milestones of time are up to 100 ms apart: `since` may give a little more than it was asked for, never less.
        loop {
            let event = stream.event().await;
            if event.data == data {
                break;
            }
            assert_eq!(round, 2, "{event:?}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("read").is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// An older copy of the data is put back, and goes past where readers were before they return.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_were_ahead_of_a_restored_copy_are_told() {
    let (mut node, mut events) = with_events(Setup::new(), numbers(10)).await;
    node.kill().await;
    let backup = tempfile::tempdir().expect("a directory");
    copy(node.data(), &backup.path().join("data"));
    node.restart().await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    publisher.publish_many("a", numbers(20).skip(10)).await;
    let mut stream = open(&node, Ask::topic("a").after(&events[9].id)).await;
    for _ in 10..20 {
        events.push(stream.event().await);
    }
    node.kill().await;
    std::fs::remove_dir_all(node.data()).expect("removed");
    copy(&backup.path().join("data"), node.data());
    node.restart().await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    publisher
        .publish_many("a", (0..30).map(|number| format!("other {number}")))
        .await;

    // One that had not come further than the copy goes on as if nothing had happened, over two starts.
    let mut stream = open(&node, Ask::topic("a").after(&events[4].id)).await;
    assert_eq!(
        stream.data(6).await,
        ["event 5", "event 6", "event 7", "event 8", "event 9", "other 0"]
    );
    // One that had is told, though there are later sequences than its own by now.
    for event in &events[10..] {
        let mut stream = open(&node, Ask::topic("a").after(&event.id)).await;
        assert_eq!(stream.event().await.gap().as_deref(), Some("forked"));
    }
    node.crash().await;
    let mut stream = open(&node, Ask::topic("a").after(&events[19].id)).await;
    assert_eq!(stream.event().await.gap().as_deref(), Some("forked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_was_never_issued_gets_a_gap_and_the_live_stream() {
    let (node, events) = with_events(Setup::new(), numbers(10)).await;
    let (_other, foreign) = with_events(Setup::new(), numbers(10)).await;
    let (before, _) = events[9].id.rsplit_once('.').expect("an epoch and a number");
    let future = format!("{before}.zzzzzz");
    let mut publisher = Publisher::connect(node.addresses()).await;
    let cases: [(&[u8], &str); 6] = [
        (b"garbage", "unknown"),
        (b"42", "unknown"),
        ("\u{1F4A5}".as_bytes(), "unknown"),
        (b"\xff\xfe", "unknown"),
        (foreign[4].id.as_bytes(), "forked"),
        // Of this log, but beyond its end: it was issued by one that went on differently.
        (future.as_bytes(), "forked"),
    ];
    for (number, (cursor, reason)) in cases.into_iter().enumerate() {
        let mut asks = vec![
            Ask::topic("a").after(cursor),
            Ask::topic("a").after(cursor).query("since", "earliest"),
        ];
        if let Ok(text) = std::str::from_utf8(cursor) {
            asks.push(Ask::topic("a").query("last_event_id", text));
        }
        for (round, ask) in asks.into_iter().enumerate() {
            let mut streams = [
                open(&node, ask.clone()).await,
                ask.open_http2(node.addresses().http).await.expect("a stream"),
            ];
            let mut gaps = Vec::new();
            for stream in &mut streams {
                assert_eq!(stream.status(), 200);
                let gap = stream.event().await;
                assert_eq!(gap.gap().as_deref(), Some(reason), "{ask:?}: {gap:?}");
                gaps.push(gap);
            }
            let data = format!("live {number} {round}");
            publisher.publish(event("a", &*data)).await;
            for (stream, gap) in streams.iter_mut().zip(gaps) {
                assert_eq!(stream.data(1).await, [&*data], "{ask:?}");
                // The gap's own id is a cursor like any other.
                assert_ne!(gap.id.as_bytes(), cursor);
                assert_eq!(
                    open(&node, Ask::topic("a").after(&gap.id)).await.data(1).await,
                    [&*data]
                );
            }
        }
    }
}

/// Logs when the floor is raised, which is how a test knows that retention was applied.
fn retaining(key: &str, value: &str) -> Setup {
    Setup::new()
        .set("telemetry.log", "info,tidings::log=debug")
        .set(key, value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_older_than_what_is_kept_gets_a_gap_then_what_is_left_then_the_live_stream() {
    let large = |number: usize| format!("{number} {}", "x".repeat(60_000));
    let (mut node, events) = with_events(Setup::new(), (0..100).map(large)).await;
    node.kill().await;
    node.restart_as(retaining("log.retention_bytes", "2MiB")).await;
    node.logs("floor raised").await;

    let mut stream = open(&node, Ask::topic("a").after(&events[0].id)).await;
    let gap = stream.event().await;
    assert_eq!(gap.gap().as_deref(), Some("expired"));
    let first = stream.event().await;
    let kept = events
        .iter()
        .position(|event| event.data == first.data)
        .expect("one of them");
    assert!(
        (2..=70).contains(&kept),
        "at least 2 MiB are kept, and not everything: from {kept} on"
    );
    for event in &events[kept + 1..] {
        assert_eq!(stream.event().await.data, event.data);
    }
    let mut publisher = Publisher::connect(node.addresses()).await;
    publisher.publish(event("a", "live")).await;
    assert_eq!(stream.event().await.data, "live");

    let rest = |from: usize| {
        events[from..]
            .iter()
            .map(|event| event.data.clone())
            .chain(["live".to_owned()])
    };
    // Without a gap: from its own id on, from the last that is gone, from one that is left, and from the earliest.
    for (ask, from) in [
        (Ask::topic("a").after(&gap.id), kept),
        (Ask::topic("a").after(&events[kept - 1].id), kept),
        (Ask::topic("a").after(&events[kept + 1].id), kept + 2),
        (Ask::topic("a").query("since", "earliest"), kept),
    ] {
        let rest: Vec<_> = rest(from).collect();
        assert!(open(&node, ask.clone()).await.data(rest.len()).await == rest, "{ask:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_everything_is_too_old_a_gap_is_all_that_is_left() {
    let (mut node, events) = with_events(Setup::new(), numbers(10)).await;
    // Time passes meanwhile: as a rule enough for everything to be too old at the start.
    node.crash().await;
    node.kill().await;
    node.restart_as(retaining("log.retention_age", "1ms")).await;
    // It is applied at the start, and then every few seconds: until all that there was is gone.
    node.logs("\"floor\":\"11\"").await;
    let mut stream = open(&node, Ask::topic("a").after(&events[8].id)).await;
    assert_eq!(stream.event().await.gap().as_deref(), Some("expired"));
    let mut publisher = Publisher::connect(node.addresses()).await;
    publisher.publish(event("a", "live")).await;
    assert_eq!(stream.data(1).await, ["live"]);
    // Whoever had everything misses nothing.
    assert_eq!(
        open(&node, Ask::topic("a").after(&events[9].id)).await.data(1).await,
        ["live"]
    );
}
