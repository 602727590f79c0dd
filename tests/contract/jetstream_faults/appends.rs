//! What is refused, what others append, and what time it is.

use super::*;

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
