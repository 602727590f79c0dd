//! What only the journal over JetStream promises: of servers that die, streams that are full, differ, lose or are made anew, and of disks that
//! are wiped.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, stream};
use tidings::{
    journal::{
        AppendError, Journal as _, Receipt, Unavailable,
        jetstream::{State, StreamSettings},
    },
    log::{Heads, Log as _, Replay, ReplayRequest},
    model::{Event, Publish, Seq, Topic, UnixMillis},
    nats::Nats,
};

use crate::{
    jetstream::{Holder, STREAM, holder_settings, stream_settings},
    nats::{Cluster, PATIENCE, Server, Version, connect, settings},
    world::{SHARD, keyed, publish, topic},
};

fn server() -> Server {
    Server::start(Version::Newest, "").expect("installed")
}

async fn append(holder: &Holder, publish: Publish) -> Result<Receipt, AppendError> {
    holder.replica.append(publish).await?.await
}

async fn append_all(holder: &Holder, topics: &[&str], data: std::ops::Range<u32>) {
    for number in data {
        append(holder, publish(topics, &number.to_string()))
            .await
            .expect("appended");
    }
}

async fn heads(holder: &Holder) -> Heads {
    holder.level().await;
    holder.log.heads(SHARD).await.expect("heads")
}

async fn replay(holder: &Holder, topics: &[Topic], after: Seq) -> Replay {
    let heads = heads(holder).await;
    let request = ReplayRequest {
        shard: SHARD,
        epoch: heads.epoch,
        topics: topics.iter().map(|topic| (topic.clone(), after)).collect(),
        max_events: usize::MAX,
        max_bytes: usize::MAX,
    };
    holder.log.replay(request).await.expect("read")
}

/// Everything of some topics.
async fn read(holder: &Holder, topics: &[Topic]) -> Vec<Arc<Event>> {
    let floor = heads(holder).await.floor;
    match replay(holder, topics, Seq(floor.0 - 1)).await {
        Replay::Page(page) => page.events,
        other => panic!("no page: {other:?}"),
    }
}

fn data(events: &[Arc<Event>]) -> Vec<&str> {
    events.iter().map(|event| &*event.data).collect()
}

async fn stream(nats: &Nats) -> stream::Stream {
    jetstream::new(nats.client().clone())
        .get_stream(STREAM)
        .await
        .expect("there")
}

/// Copies a directory into another.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

/// Edits the stream behind everybody's back.
async fn edit(nats: &Nats, edit: impl FnOnce(&mut stream::Config)) {
    let mut config = stream(nats).await.cached_info().config.clone();
    edit(&mut config);
    let edited = jetstream::new(nats.client().clone()).update_stream(config).await;
    edited.expect("edited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_is_filled_again_from_the_stream() {
    let server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let (dir, wiped) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let settings = || holder_settings("ingest-0", stream_settings(1));
    let holder = Holder::start(&nats, dir.path(), settings(), None);
    holder.level().await;
    for number in 0..300_u32 {
        let names = ["a", "b", "c"];
        let some = &names[..=(number as usize % 3)];
        let publish = keyed(some, &"x".repeat(number as usize * 7), &format!("k{number}"));
        append(&holder, publish).await.expect("appended");
    }
    let topics = ["a", "b", "c"].map(topic);
    let (before, events) = (heads(&holder).await, read(&holder, &topics).await);
    holder.close().await;

    let holder = Holder::start(&nats, wiped.path(), settings(), None);
    assert_eq!(heads(&holder).await, before);
    assert_eq!(read(&holder, &topics).await, events);
    let repeat = append(&holder, keyed(&["a"], "again", "k0")).await.expect("known");
    assert!(repeat.placed[0].repeated, "the keys come back too: {repeat:?}");
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_stream_has_dropped_is_gone_and_said() {
    let server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let (dir, wiped) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let settings = || holder_settings("ingest-0", stream_settings(1));
    let holder = Holder::start(&nats, dir.path(), settings(), None);
    holder.level().await;
    append_all(&holder, &["a"], 0..10).await;
    heads(&holder).await;
    let other = Holder::start(
        &nats,
        wiped.path(),
        holder_settings("ingest-1", stream_settings(1)),
        None,
    );
    append_all(&other_is_level(&other).await, &["a"], 10..20).await;
    holder.close().await;
    append_all(&other, &["a"], 20..30).await;
    other.close().await;
    // Its oldest 25 events are dropped while nobody follows.
    for (discard, max_messages) in [(stream::DiscardPolicy::Old, 5), (stream::DiscardPolicy::New, -1)] {
        edit(&nats, |config| {
            config.discard = discard;
            config.max_messages = max_messages;
        })
        .await;
    }
    assert_eq!(stream(&nats).await.cached_info().state.first_sequence, 26);

    // One holder has the first 20 or so: it goes on after a hole, and says what is gone.
    let holder = Holder::start(&nats, dir.path(), settings(), None);
    let now = heads(&holder).await;
    assert_eq!((now.floor, now.last), (Seq(26), Seq(30)));
    let gone = Replay::Gone {
        epoch: now.epoch,
        floor: Seq(26),
    };
    assert_eq!(replay(&holder, &[topic("a")], Seq(24)).await, gone);
    assert_eq!(
        data(&read(&holder, &[topic("a")]).await),
        ["25", "26", "27", "28", "29"]
    );
    append_all(&holder, &["a"], 30..31).await;
    assert_eq!(read(&holder, &[topic("a")]).await.len(), 6);
    holder.close().await;
}

async fn other_is_level(holder: &Holder) -> Holder {
    holder.level().await;
    holder.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_says_so_and_goes_on_when_there_is_room() {
    let server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let dir = tempfile::tempdir().expect("a directory");
    let small = StreamSettings {
        max_bytes: 20_000,
        ..stream_settings(1)
    };
    let holder = Holder::start(&nats, dir.path(), holder_settings("ingest-0", small), None);
    holder.level().await;
    let mut appended = 0;
    let refused = loop {
        match append(&holder, publish(&["a", "b"], &"x".repeat(1_000))).await {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&refused, AppendError::StreamFull { cause, .. } if cause.contains("maximum bytes")),
        "{refused}"
    );
    assert_eq!(
        read(&holder, &["a", "b"].map(topic)).await.len(),
        2 * appended,
        "whole or not at all"
    );
    edit(&nats, |config| config.max_bytes = 200_000).await;
    append(&holder, publish(&["a", "b"], &"x".repeat(1_000)))
        .await
        .expect("room");
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_too_large_for_nats_is_refused_alone() {
    let server = Server::start(Version::Newest, "max_payload: 64KB").expect("installed");
    let nats = connect(&settings(&[server.url()])).await;
    let dir = tempfile::tempdir().expect("a directory");
    let holder = Holder::start(&nats, dir.path(), holder_settings("ingest-0", stream_settings(1)), None);
    holder.level().await;
    let sizes = [100, 64 << 10, 100];
    let tickets = sizes.map(|size| append(&holder, publish(&["a"], &"x".repeat(size))));
    let [before, large, after] = futures::future::join_all(tickets).await.try_into().expect("three");
    assert!(matches!(large, Err(AppendError::StreamRefused { .. })), "{large:?}");
    before.expect("appended");
    after.expect("appended");
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_differs_is_reported_and_left_as_it_is() {
    let server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let dir = tempfile::tempdir().expect("a directory");
    let wanted = || holder_settings("ingest-0", stream_settings(1));
    let holder = Holder::start(&nats, dir.path(), wanted(), None);
    holder.level().await;
    append_all(&holder, &["a"], 0..3).await;
    holder.close().await;

    // What is a matter of taste is used as it is.
    edit(&nats, |config| config.max_age = Duration::from_secs(3_600)).await;
    let holder = Holder::start(&nats, dir.path(), wanted(), None);
    holder.level().await;
    append_all(&holder, &["a"], 3..4).await;
    holder.close().await;

    // What would lose events is not.
    edit(&nats, |config| config.discard = stream::DiscardPolicy::Old).await;
    let config = stream(&nats).await.cached_info().config.clone();
    let holder = Holder::start(&nats, dir.path(), wanted(), None);
    let status = holder
        .wait("unusable", |status| matches!(status.state, State::Unusable { .. }))
        .await;
    let error = append(&holder, publish(&["a"], "x")).await.expect_err("refused");
    let text = error.to_string();
    assert!(
        matches!(
            error,
            AppendError::Unavailable {
                cause: Unavailable::Unusable { .. },
                ..
            }
        ),
        "{text}"
    );
    for words in [
        "`discard` is Old and not New",
        "nats stream edit tests-shard-0 --discard=new",
    ] {
        assert!(text.contains(words), "{text}\n{status:?}");
    }
    assert_eq!(stream(&nats).await.cached_info().config, config, "nothing was changed");
    edit(&nats, |config| config.discard = stream::DiscardPolicy::New).await;
    holder.level().await;
    append_all(&holder, &["a"], 4..5).await;
    assert_eq!(data(&read(&holder, &[topic("a")]).await), ["0", "1", "2", "3", "4"]);
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_from_before_batches_is_refused_with_words() {
    let Some(server) = Server::start(Version::Debian, "") else {
        println!("skipped: there is no nats-server of Debian");
        return;
    };
    let nats = connect(&settings(&[server.url()])).await;
    let dir = tempfile::tempdir().expect("a directory");
    let holder = Holder::start(&nats, dir.path(), holder_settings("ingest-0", stream_settings(1)), None);
    holder
        .wait("unusable", |status| matches!(status.state, State::Unusable { .. }))
        .await;
    let text = append(&holder, publish(&["a"], "x"))
        .await
        .expect_err("refused")
        .to_string();
    for words in ["nats-server 2.9", "too old", "2.12.1", "journal.kind = \"rocksdb\""] {
        assert!(text.contains(words), "{text}");
    }
    let names: Vec<_> = {
        use futures::StreamExt as _;
        jetstream::new(nats.client().clone())
            .stream_names()
            .collect::<Vec<_>>()
            .await
    };
    assert_eq!(names.len(), 0, "nothing was made");
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_it_refuses_and_begins_when_nats_is_there() {
    let mut server = server();
    let url = server.url();
    server.kill();
    let nats = Nats::connect(&settings(&[url])).await.expect("settings that can work");
    let dir = tempfile::tempdir().expect("a directory");
    let holder = Holder::start(&nats, dir.path(), holder_settings("ingest-0", stream_settings(1)), None);
    let error = append(&holder, publish(&["a"], "x")).await.expect_err("refused");
    assert!(
        matches!(
            error,
            AppendError::Unavailable {
                cause: Unavailable::NoNats { .. },
                ..
            }
        ),
        "{error}"
    );
    assert!(holder.replica.ready().is_err());
    server.restart();
    holder.level().await;
    holder.replica.ready().expect("ready");
    append_all(&holder, &["a"], 0..3).await;
    assert_eq!(heads(&holder).await.last, Seq(3));

    // Away again: what is published meanwhile waits, and is there when NATS is back.
    server.kill();
    let waiting = tokio::spawn({
        let holder = holder.clone();
        async move { append(&holder, keyed(&["a"], "3", "k")).await }
    });
    // Whoever waits for less is told, and nothing comes of it.
    let hasty = Publish {
        deadline: Some(Instant::now() + Duration::from_millis(300)),
        ..publish(&["a"], "hasty")
    };
    let error = append(&holder, hasty).await.expect_err("not in time");
    assert!(!error.may_be_appended(), "{error}");
    assert_eq!(
        holder
            .log
            .heads(SHARD)
            .await
            .expect("what the replica has can be read")
            .last,
        Seq(3)
    );
    server.restart();
    waiting.await.expect("no panic").expect("appended");
    assert_eq!(data(&read(&holder, &[topic("a")]).await), ["0", "1", "2", "3"]);
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_are_found_in_the_stream() {
    let server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let dir = tempfile::tempdir().expect("a directory");
    let holder = Holder::start(&nats, dir.path(), holder_settings("ingest-0", stream_settings(1)), None);
    holder.level().await;
    for round in 0..3 {
        // Hung for longer than one try: what was sent meanwhile is all taken when the server goes on.
        server.signal("STOP");
        let tickets = (0..20).map(|number| {
            let publish = match number % 3 {
                0 => keyed(&["a", "b"], &format!("{round} {number}"), &format!("{round} {number}")),
                1 => publish(&["a"], &format!("{round} {number}")),
                _ => publish(&["a", "b"], &format!("{round} {number}")),
            };
            append(&holder, publish)
        });
        let appended = futures::future::join_all(tickets);
        let (receipts, ()) = tokio::join!(appended, async {
            tokio::time::sleep(Duration::from_millis(3_500)).await;
            server.signal("CONT");
        });
        for receipt in receipts {
            let receipt = receipt.expect("appended");
            assert!(receipt.placed.iter().all(|placed| !placed.repeated), "{receipt:?}");
        }
    }
    let events = read(&holder, &[topic("a")]).await;
    let expected: Vec<_> = (0..3)
        .flat_map(|round| (0..20).map(move |number| format!("{round} {number}")))
        .collect();
    assert_eq!(
        data(&events),
        expected,
        "each once, in the order in which they were published"
    );
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_made_anew_is_another_epoch() {
    let server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let dir = tempfile::tempdir().expect("a directory");
    let holder = Holder::start(&nats, dir.path(), holder_settings("ingest-0", stream_settings(1)), None);
    holder.level().await;
    append_all(&holder, &["a"], 0..10).await;
    let before = heads(&holder).await;
    let context = jetstream::new(nats.client().clone());
    context.delete_stream(STREAM).await.expect("deleted");
    let epoch = |status: &tidings::journal::jetstream::Status| status.epoch;
    holder
        .wait("another epoch", |status| epoch(status) != Some(before.epoch))
        .await;
    holder.level().await;
    let now = heads(&holder).await;
    assert_eq!((now.last, now.floor, now.slots.len()), (Seq(0), Seq(1), 0));
    append_all(&holder, &["a"], 0..2).await;
    let request = ReplayRequest {
        shard: SHARD,
        epoch: before.epoch,
        topics: vec![(topic("a"), Seq(1))],
        max_events: 10,
        max_bytes: usize::MAX,
    };
    let forked = holder.log.replay(request).await.expect("read");
    assert!(matches!(forked, Replay::Forked { .. }), "{forked:?}");

    // Put right by hand, it is another one too, with what it has.
    edit(&nats, |config| {
        config.metadata.insert("tidings-epoch".to_owned(), "2".to_owned());
    })
    .await;
    holder
        .wait("another epoch", |status| epoch(status) != Some(now.epoch))
        .await;
    assert_eq!(data(&read(&holder, &[topic("a")]).await), ["0", "1"]);
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_lost_its_tail_is_not_followed() {
    let mut server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let [dir, backup] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let start = || Holder::start(&nats, dir.path(), holder_settings("ingest-0", stream_settings(1)), None);
    let holder = start();
    holder.level().await;
    append_all(&holder, &["a"], 0..5).await;
    let store = server.dir().join("jetstream");
    server.kill();
    copy(&store, backup.path());
    server.restart();
    holder.level().await;
    append_all(&holder, &["a"], 5..10).await;
    heads(&holder).await;
    let epoch = holder.replica.status().borrow().epoch;
    server.kill();
    std::fs::remove_dir_all(&store).expect("gone");
    copy(&backup.path().join("jetstream"), server.dir());
    server.restart();

    let diverged = |status: &tidings::journal::jetstream::Status| matches!(status.state, State::Diverged { .. });
    let status = holder.wait("diverged", diverged).await;
    assert_eq!(status.epoch, epoch);
    let error = append(&holder, publish(&["a"], "x")).await.expect_err("refused");
    assert!(
        matches!(
            error,
            AppendError::Unavailable {
                cause: Unavailable::Diverged { .. },
                ..
            }
        ),
        "{error}"
    );
    assert!(holder.log.heads(SHARD).await.is_err(), "nor is it read");
    holder.close().await;

    // Others have appended meanwhile, up to where it was: it is known by the message itself.
    let other = tempfile::tempdir().expect("a directory");
    let fresh = Holder::start(
        &nats,
        other.path(),
        holder_settings("ingest-1", stream_settings(1)),
        None,
    );
    fresh.level().await;
    append_all(&fresh, &["a"], 20..30).await;
    let holder = start();
    holder.wait("diverged", diverged).await;
    edit(&nats, |config| {
        config.metadata.insert("tidings-epoch".to_owned(), "2".to_owned());
    })
    .await;
    for holder in [&holder, &fresh] {
        holder
            .wait("another epoch", |status| {
                status.epoch != epoch && status.state == State::Following
            })
            .await;
        let events = read(holder, &[topic("a")]).await;
        assert_eq!(events.len(), 15, "what the stream has");
        holder.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_the_stream_lost_is_forked_though_no_replica_has_it() {
    let mut server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let [dir, wiped, backup] = [(); 3].map(|()| tempfile::tempdir().expect("a directory"));
    let start =
        |dir: &std::path::Path| Holder::start(&nats, dir, holder_settings("ingest-0", stream_settings(1)), None);
    let holder = start(dir.path());
    holder.level().await;
    append_all(&holder, &["a"], 0..5).await;
    let store = server.dir().join("jetstream");
    server.kill();
    copy(&store, backup.path());
    server.restart();
    holder.level().await;
    append_all(&holder, &["a"], 5..25).await;
    let before = heads(&holder).await;
    assert_eq!(before.last, Seq(25));
    holder.close().await;
    server.kill();
    std::fs::remove_dir_all(&store).expect("gone");
    copy(&backup.path().join("jetstream"), server.dir());
    server.restart();

    let holder = start(wiped.path());
    let now = heads(&holder).await;
    assert_eq!(
        (now.epoch, now.last),
        (before.epoch, Seq(5)),
        "the replica notices nothing"
    );
    let begun = Instant::now();
    let ends_in_a_fork = async {
        loop {
            match replay(&holder, &[topic("a")], before.last).await {
                Replay::Page(page) => assert_eq!((page.events.len(), page.up_to), (0, Seq(5))),
                forked => break forked,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let forked = tokio::time::timeout(PATIENCE, ends_in_a_fork).await.expect("in time");
    let expected = Replay::Forked {
        epoch: before.epoch,
        last: Seq(5),
    };
    assert_eq!(forked, expected);
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "a leader that was cut off may say so too"
    );

    // Positions that are true stay so, and one that is new is not told so.
    for after in [4, 5, 6] {
        assert!(
            matches!(replay(&holder, &[topic("a")], Seq(after)).await, Replay::Page(_)),
            "{after}"
        );
    }
    append_all(&holder, &["a"], 30..32).await;
    let Replay::Page(page) = replay(&holder, &[topic("a")], Seq(5)).await else {
        panic!("of this history");
    };
    assert_eq!(data(&page.events), ["30", "31"]);
    assert!(matches!(replay(&holder, &[topic("a")], Seq(7)).await, Replay::Page(_)));
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_edited_under_a_holder_is_noticed() {
    let server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let dir = tempfile::tempdir().expect("a directory");
    let holder = Holder::start(&nats, dir.path(), holder_settings("ingest-0", stream_settings(1)), None);
    holder.level().await;
    append_all(&holder, &["a"], 0..3).await;
    heads(&holder).await;
    let right = stream(&nats).await.cached_info().config.clone();
    let edits = ["`republish` is none", "`discard` is Old", "`republish` is none"];
    for (number, words) in (3..).zip(edits) {
        edit(&nats, |config| match words {
            "`discard` is Old" => config.discard = stream::DiscardPolicy::Old,
            _ => config.republish = None,
        })
        .await;
        let status = holder
            .wait("unusable", |status| matches!(status.state, State::Unusable { .. }))
            .await;
        assert!(
            matches!(&status.state, State::Unusable { cause } if cause.contains(words)),
            "{status:?}"
        );
        let error = append(&holder, publish(&["a"], "x")).await.expect_err("refused");
        assert!(!error.may_be_appended(), "{error}");
        let read = holder.log.heads(SHARD).await.expect("what there is can be read");
        assert_eq!(read.last, Seq(u64::from(number)));
        edit(&nats, |config| *config = right.clone()).await;
        holder.level().await;
        append_all(&holder, &["a"], number..number + 1).await;
        heads(&holder).await;
    }
    assert_eq!(
        data(&read(&holder, &[topic("a")]).await),
        ["0", "1", "2", "3", "4", "5"]
    );
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_publish_to_the_stream_is_left_out() {
    let server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let dir = tempfile::tempdir().expect("a directory");
    let holder = Holder::start(&nats, dir.path(), holder_settings("ingest-0", stream_settings(1)), None);
    holder.level().await;
    append_all(&holder, &["a"], 0..2).await;
    let context = jetstream::new(nats.client().clone());
    for (subject, payload) in [
        ("tests.log.0.3", "hello"),
        ("tests.log.0.99", ""),
        ("tests.log.0.x", "x"),
    ] {
        let stored = context.publish(subject, payload.into()).await.expect("sent").await;
        stored.expect("stored");
    }
    append_all(&holder, &["a"], 2..4).await;
    assert_eq!(data(&read(&holder, &[topic("a")]).await), ["0", "1", "2", "3"]);
    assert_eq!(heads(&holder).await.last, Seq(7));
    holder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_holders_append_at_once_and_agree() {
    const EACH: usize = 100;
    let server = server();
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let mut holders = Vec::new();
    for (node, dir) in ["ingest-0", "ingest-1"].iter().zip(&dirs) {
        let nats = connect(&settings(&[server.url()])).await;
        let holder = Holder::start(&nats, dir.path(), holder_settings(node, stream_settings(1)), None);
        holder.level().await;
        holders.push(holder);
    }
    // The same keys through both, at the same time.
    let publishers = holders.iter().map(|holder| {
        let holder = holder.clone();
        tokio::spawn(async move {
            let tickets =
                (0..EACH).map(|number| append(&holder, keyed(&["a", "b"], &number.to_string(), &number.to_string())));
            futures::future::try_join_all(tickets).await.expect("appended")
        })
    });
    let receipts = futures::future::join_all(publishers).await;
    let [first, second]: [Vec<Receipt>; 2] = receipts
        .into_iter()
        .map(|receipts| receipts.expect("no panic"))
        .collect::<Vec<_>>()
        .try_into()
        .expect("two");
    for (number, (one, other)) in first.iter().zip(&second).enumerate() {
        for (one, other) in one.placed.iter().zip(&other.placed) {
            assert_eq!(one.seq, other.seq, "{number}");
            assert!(
                one.repeated != other.repeated,
                "{number}: one of them was first: {one:?} {other:?}"
            );
        }
    }
    let topics = ["a", "b"].map(topic);
    let events = read(&holders[0], &topics).await;
    assert_eq!(events.len(), 2 * EACH);
    assert_eq!(read(&holders[1], &topics).await, events);
    assert_eq!(heads(&holders[0]).await, heads(&holders[1]).await);
    for holder in &holders {
        holder.close().await;
    }
}

/// Publishes with a key until it is acknowledged, through one holder after the other.
async fn until_acknowledged(holders: &[Holder], turn: usize, publish: Publish) -> Receipt {
    for holder in holders.iter().cycle().skip(turn) {
        match append(holder, publish.clone()).await {
            Ok(receipt) => return receipt,
            Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("there are holders")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_or_hangs_costs_nothing_that_was_acknowledged() {
    const PUBLISHERS: usize = 6;
    let mut cluster = Cluster::start(Version::Newest, 3, "").expect("installed");
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let mut holders = Vec::new();
    for (node, dir) in ["ingest-0", "ingest-1"].iter().zip(&dirs) {
        let nats = connect(&settings(&cluster.urls())).await;
        holders.push(Holder::start(
            &nats,
            dir.path(),
            holder_settings(node, stream_settings(3)),
            None,
        ));
    }
    for holder in &holders {
        holder.level().await;
    }
    let done = tokio_util::sync::CancellationToken::new();
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let (holders, done) = (holders.clone(), done.clone());
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            while !done.is_cancelled() {
                let number = acknowledged.len();
                let (own, text) = (format!("t{publisher}"), format!("{publisher} {number}"));
                let publish = keyed(&[&own, "shared"], &text, &text);
                let receipt = until_acknowledged(&holders, publisher, publish).await;
                acknowledged.push([receipt.placed[0].seq, receipt.placed[1].seq]);
            }
            acknowledged
        })
    });
    let publishers: Vec<_> = publishers.collect();
    let context = jetstream::new(holders[0].nats.client().clone());
    for fault in ["kill", "hang", "kill"] {
        holders[0].level().await;
        let leader = loop {
            let info = context.get_stream(STREAM).await.ok();
            let leader = info.and_then(|info| info.cached_info().cluster.as_ref()?.leader.clone());
            if let Some(leader) = leader.filter(|leader| !leader.is_empty()) {
                break leader;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let server = cluster
            .servers
            .iter_mut()
            .find(|server| server.name() == leader)
            .expect("one of them");
        match fault {
            "kill" => server.kill(),
            _ => server.signal("STOP"),
        }
        // Until another leads: something is acknowledged that was published after.
        let text = format!("after {leader} {fault}");
        until_acknowledged(&holders, 1, keyed(&["marks"], &text, &text)).await;
        match fault {
            "kill" => server.restart(),
            _ => server.signal("CONT"),
        }
    }
    done.cancel();
    let mut expected: HashMap<Seq, (Topic, String)> = HashMap::new();
    for (publisher, acknowledged) in futures::future::join_all(publishers).await.into_iter().enumerate() {
        for (number, [own, shared]) in acknowledged.expect("no panic").into_iter().enumerate() {
            assert_eq!(shared, own.next(), "next to each other");
            let text = format!("{publisher} {number}");
            expected.insert(own, (topic(&format!("t{publisher}")), text.clone()));
            expected.insert(shared, (topic("shared"), text));
        }
    }
    let topics: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| topic(&format!("t{publisher}")))
        .chain([topic("shared")])
        .collect();
    let events = read(&holders[0], &topics).await;
    assert_eq!(events.len(), expected.len(), "each once");
    for event in &events {
        let seq = event.seq.expect("durable");
        assert_eq!(
            expected.get(&seq),
            Some(&(event.topic.clone(), event.data.to_string())),
            "{seq}"
        );
    }
    // In the order in which each published.
    let mut next: HashMap<&Topic, HashMap<&str, usize>> = HashMap::new();
    for event in &events {
        let (publisher, number) = event.data.split_once(' ').expect("two numbers");
        let next = next.entry(&event.topic).or_default().entry(publisher).or_default();
        assert_eq!(number.parse(), Ok(*next), "{} of {publisher}", event.topic);
        *next += 1;
    }
    assert_eq!(read(&holders[1], &topics).await, events, "the holders agree");
    assert_eq!(heads(&holders[0]).await, heads(&holders[1]).await);
    for holder in &holders {
        holder.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_of_holders_whose_clocks_differ_never_go_back_in_the_log() {
    use std::sync::atomic::AtomicU64;
    let server = server();
    let nats = connect(&settings(&[server.url()])).await;
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let mut holders = Vec::new();
    for (at, (node, dir)) in ["ingest-0", "ingest-1"].iter().zip(&dirs).enumerate() {
        let clock = Arc::new(AtomicU64::new(1_000_000 - 400_000 * at as u64));
        let holder = Holder::start(
            &nats,
            dir.path(),
            holder_settings(node, stream_settings(1)),
            Some(clock),
        );
        holder.level().await;
        holders.push(holder);
    }
    for number in 0..20 {
        append(&holders[number % 2], publish(&["a"], "x"))
            .await
            .expect("appended");
    }
    let times: Vec<_> = read(&holders[1], &[topic("a")])
        .await
        .iter()
        .map(|event| event.time)
        .collect();
    assert_eq!(times, vec![UnixMillis(1_000_000); 20]);
    for holder in &holders {
        holder.close().await;
    }
}

#[tokio::test]
async fn a_server_tells_on_its_monitoring_port_how_it_syncs() {
    use tidings::journal::jetstream::monitoring::{MonitoringError, Sync, ask};
    let mut server = server();
    let url = format!("http://{}:{}", server.address(), Server::MONITOR);
    assert_eq!(ask(&url).await, Ok(Sync::Always));
    server.kill();
    let error = ask(&url).await.expect_err("gone");
    assert!(matches!(error, MonitoringError::NoAnswer { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_jetstream_is_told() {
    let server = Server::start(Version::Newest, "jetstream: disabled").expect("installed");
    let nats = connect(&settings(&[server.url()])).await;
    let dir = tempfile::tempdir().expect("a directory");
    let holder = Holder::start(&nats, dir.path(), holder_settings("ingest-0", stream_settings(1)), None);
    holder
        .wait("unusable", |status| matches!(status.state, State::Unusable { .. }))
        .await;
    let text = append(&holder, publish(&["a"], "x"))
        .await
        .expect_err("refused")
        .to_string();
    assert!(text.contains("see that `jetstream` is enabled"), "{text}");
    holder.close().await;
}
