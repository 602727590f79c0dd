//! Servers that are too old, away, hang, die, or have no JetStream.

use super::*;

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
