//! Streams that drop, differ, are edited, lose, or are made anew, and disks that are wiped.

use super::*;

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
