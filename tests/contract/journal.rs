//! What every journal promises.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tidings::{
    bus::{Announcement, Notice},
    journal::Placed,
    log::{Heads, ReplayRequest},
    model::{EventType, Publish, Seq, Slot, UnixMillis},
};

use crate::world::{KEY_WINDOW, Node, SHARD, World, keyed, publish, slot, topic};

pub(crate) async fn what_was_acknowledged_survives_a_restart(world: impl World) {
    let node = world.start().await;
    let mut expected = Vec::new();
    for number in 0..20 {
        let publish = Publish {
            event_type: (number % 3 == 0).then(|| EventType::parse("third").expect("a type")),
            ..publish(&["a", "b"], &format!("event {number}"))
        };
        let receipt = node.append(publish.clone()).await;
        expected.extend(publish.topics.iter().zip(receipt.placed).map(|(topic, placed)| {
            (
                placed.seq,
                topic.clone(),
                publish.event_type.clone(),
                publish.data.clone(),
            )
        }));
    }
    let before = node.log.heads(SHARD).await.expect("heads");
    world.stop(node).await;

    let node = world.start().await;
    let now = node.log.heads(SHARD).await.expect("heads");
    // A start may begin an epoch, which the log's suite has more of.
    let epoch = now.epoch;
    assert_eq!(now, Heads { epoch, ..before });
    let events = node.read(&[topic("a"), topic("b")], 7).await;
    let found: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event.seq.expect("durable"),
                event.topic.clone(),
                event.event_type.clone(),
                event.data.clone(),
            )
        })
        .collect();
    assert_eq!(found, expected);
    let next = node.append(publish(&["a"], "next")).await;
    assert!(next.placed[0].seq > before.last, "sequences go on where they were");
    world.stop(node).await;
}

pub(crate) async fn one_callers_appends_are_in_order(world: impl World) {
    const CALLERS: usize = 16;
    const EACH: usize = 40;
    let node = world.start().await;
    let callers = (0..CALLERS).map(|caller| {
        let node = node.clone();
        tokio::spawn(async move {
            // Pipelined: each append takes its place before the one before it is durable.
            let mut tickets = Vec::new();
            for number in 0..EACH {
                let publish = publish(&[&format!("t{}", number % 3)], &format!("{caller} {number}"));
                tickets.push(node.journal.append(publish).await.expect("a place"));
            }
            let mut seqs = Vec::new();
            for ticket in tickets {
                seqs.push(ticket.await.expect("durable").placed[0].seq);
            }
            seqs
        })
    });
    let mut all = Vec::new();
    for caller in futures::future::join_all(callers).await {
        let seqs = caller.expect("no panic");
        assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
        all.extend(seqs);
    }
    let events = node.read(&[topic("t0"), topic("t1"), topic("t2")], 100).await;
    all.sort_unstable();
    let read: Vec<_> = events.iter().filter_map(|event| event.seq).collect();
    assert_eq!(read, all, "each once, in the order of the sequences");
    let mut next = [0; CALLERS];
    for event in &events {
        let (caller, number) = event.data.split_once(' ').expect("two numbers");
        let caller: usize = caller.parse().expect("a number");
        assert_eq!(number.parse::<usize>().expect("a number"), next[caller]);
        next[caller] += 1;
    }
    world.stop(node).await;
}

pub(crate) async fn all_topics_of_a_publish_are_next_to_each_other(world: impl World) {
    let node = world.start().await;
    let publishes = (0..60_usize).map(|number| {
        let node = node.clone();
        tokio::spawn(async move {
            let names: Vec<_> = (0..number % 7 + 1).map(|topic| format!("t{topic}")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            (names.len(), node.append(publish(&names, "together")).await)
        })
    });
    for publish in futures::future::join_all(publishes).await {
        let (topics, receipt) = publish.expect("no panic");
        assert_eq!(receipt.placed.len(), topics);
        assert!(receipt.placed.is_sorted_by(|a, b| a.seq.next() == b.seq), "{receipt:?}");
    }
    world.stop(node).await;
}

pub(crate) async fn a_repeated_key_appends_nothing(world: impl World) {
    let node = world.start().await;
    let first = node.append(keyed(&["a", "b"], "first", "k")).await;
    let last = node.log.heads(SHARD).await.expect("heads").last;

    let repeat = node.append(keyed(&["b", "a"], "second", "k")).await;
    let repeated = |seq| Placed { seq, repeated: true };
    assert_eq!(
        repeat.placed[..],
        [repeated(first.placed[1].seq), repeated(first.placed[0].seq)]
    );
    assert_eq!(node.log.heads(SHARD).await.expect("heads").last, last);

    let mixed = node.append(keyed(&["a", "c"], "third", "k")).await;
    assert_eq!(mixed.placed[0], repeated(first.placed[0].seq));
    assert!(!mixed.placed[1].repeated, "the key is new on this topic");
    let other = node.append(keyed(&["a"], "fourth", "k2")).await;
    assert!(!other.placed[0].repeated, "another key");

    let events = node.read(&[topic("a"), topic("b"), topic("c")], 10).await;
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.topic.as_str(), &*event.data))
        .collect();
    assert_eq!(told, [("a", "first"), ("b", "first"), ("c", "third"), ("a", "fourth")]);
    world.stop(node).await;
}

pub(crate) async fn a_repeated_key_in_flight_appends_nothing(world: impl World) {
    let node = world.start().await;
    let mut tickets = Vec::new();
    for number in 0..50 {
        let publish = keyed(&["a"], &number.to_string(), "k");
        tickets.push(node.journal.append(publish).await.expect("a place"));
    }
    let receipts = futures::future::try_join_all(tickets).await.expect("durable");
    let first = receipts[0].placed[0].seq;
    for (number, receipt) in receipts.iter().enumerate() {
        let repeated = number > 0;
        assert_eq!(receipt.placed[..], [Placed { seq: first, repeated }]);
    }
    assert_eq!(node.read(&[topic("a")], 10).await.len(), 1);
    world.stop(node).await;
}

pub(crate) async fn a_key_is_known_after_a_restart(world: impl World) {
    let node = world.start().await;
    let first = node.append(keyed(&["a"], "first", "k")).await.placed[0].seq;
    world.stop(node).await;
    let node = world.start().await;
    let repeat = node.append(keyed(&["a"], "second", "k")).await;
    assert_eq!(
        repeat.placed[..],
        [Placed {
            seq: first,
            repeated: true
        }]
    );
    world.stop(node).await;
}

pub(crate) async fn a_key_is_forgotten_after_its_window(world: impl World) {
    const BEGIN: UnixMillis = UnixMillis(1_000_000);
    let window = u64::try_from(KEY_WINDOW.as_millis()).expect("short");
    world.set_time(BEGIN);
    let node = world.start().await;
    let first = node.append(keyed(&["a"], "first", "k")).await.placed[0].seq;
    world.set_time(UnixMillis(BEGIN.0 + window));
    let within = node.append(keyed(&["a"], "second", "k")).await;
    assert_eq!(
        within.placed[..],
        [Placed {
            seq: first,
            repeated: true
        }]
    );
    world.set_time(UnixMillis(BEGIN.0 + window + 1));
    let after = node.append(keyed(&["a"], "third", "k")).await;
    assert!(!after.placed[0].repeated, "a repeat does not renew the window");
    let again = node.append(keyed(&["a"], "fourth", "k")).await;
    let seq = after.placed[0].seq;
    assert_eq!(
        again.placed[..],
        [Placed { seq, repeated: true }],
        "a window of its own"
    );
    world.stop(node).await;
}

pub(crate) async fn time_never_goes_back(world: impl World) {
    world.set_time(UnixMillis(5_000));
    let node = world.start().await;
    node.append(publish(&["a"], "at 5,000")).await;
    world.set_time(UnixMillis(4_000));
    node.append(publish(&["a"], "the clock says 4,000")).await;
    world.stop(node).await;
    let node = world.start().await;
    node.append(publish(&["a"], "and still does after a restart")).await;
    world.set_time(UnixMillis(6_000));
    node.append(publish(&["a"], "at 6,000")).await;
    let events = node.read(&[topic("a")], 10).await;
    let times: Vec<_> = events.iter().map(|event| event.time.0).collect();
    assert_eq!(times, [5_000, 5_000, 5_000, 6_000]);
    world.stop(node).await;
}

pub(crate) async fn what_is_announced_can_be_read(world: impl World) {
    const PUBLISHES: usize = 50;
    let node = world.start().await;
    let mut line = node.bus.open();
    for number in 0..world.layout().slots() {
        line.follow(Slot(number));
    }
    let publisher = tokio::spawn({
        let node = node.clone();
        async move {
            for number in 0..PUBLISHES {
                let names = ["a", "b", "c", "d"];
                node.append(publish(&names[..=number % names.len()], "x")).await;
            }
        }
    });
    let expected: usize = (0..PUBLISHES).map(|number| number % 4 + 1).sum();
    let mut last: HashMap<Slot, Seq> = HashMap::new();
    for _ in 0..expected {
        let announcement = next_announcement(&mut *line).await;
        let prev = last.insert(announcement.slot, announcement.seq).unwrap_or(Seq::ZERO);
        assert_eq!(announcement.prev, prev, "the slot's chain is unbroken");
        assert_eq!(announcement.slot, slot(world.layout(), &announcement.event.topic));
        assert_eq!(announcement.event.seq, Some(announcement.seq));
        assert_eq!(read_announced(&node, &announcement).await, announcement.event);
    }
    publisher.await.expect("no panic");
    world.stop(node).await;
}

pub(crate) async fn announcements_go_on_after_a_restart(world: impl World) {
    let node = world.start().await;
    node.append(publish(&["a", "b", "c", "d"], "before")).await;
    let heads = node.log.heads(SHARD).await.expect("heads");
    world.stop(node).await;
    let node = world.start().await;
    let epoch = node.log.heads(SHARD).await.expect("heads").epoch;
    let mut line = node.bus.open();
    for number in 0..world.layout().slots() {
        line.follow(Slot(number));
    }
    let mut last: HashMap<_, _> = (*heads.slots).clone();
    node.append(publish(&["a", "b", "c", "d"], "after")).await;
    for _ in 0..4 {
        let announcement = next_announcement(&mut *line).await;
        assert_eq!(announcement.epoch, epoch);
        assert_eq!(
            last.insert(announcement.slot, announcement.seq),
            Some(announcement.prev)
        );
    }
    world.stop(node).await;
}

async fn next_announcement(line: &mut dyn tidings::bus::Line) -> Announcement {
    loop {
        match line.next().await.expect("the bus is open") {
            Notice::Announcement(announcement) => return announcement,
            Notice::Digest(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

async fn read_announced(node: &Node, announcement: &Announcement) -> Arc<tidings::model::Event> {
    let request = ReplayRequest {
        shard: announcement.shard,
        epoch: announcement.epoch,
        topics: vec![(announcement.event.topic.clone(), Seq(announcement.seq.0 - 1))],
        max_events: 1,
        max_bytes: 1,
    };
    node.page(request).await.events.remove(0)
}

pub(crate) async fn a_dropped_ticket_changes_nothing(world: impl World) {
    let node = world.start().await;
    for _ in 0..5 {
        drop(
            node.journal
                .append(publish(&["a"], "unattended"))
                .await
                .expect("a place"),
        );
    }
    // Behind them in the order: durable only after they are.
    let attended = tokio::time::timeout(Duration::from_secs(60), node.append(publish(&["a"], "attended")));
    attended.await.expect("answered");
    assert_eq!(node.read(&[topic("a")], 100).await.len(), 6);
    world.stop(node).await;
}

pub(crate) async fn what_has_a_deadline_is_durable_or_certainly_not(world: impl World) {
    let node = world.start().await;
    let mut outcomes = Vec::new();
    for number in 0..60_u64 {
        // Long past, just past, about now, and in good time.
        let left = [0, 0, 1, 60_000][usize::try_from(number % 4).expect("few")];
        let publish = Publish {
            deadline: Some(Instant::now() + Duration::from_millis(left)),
            ..publish(&["a"], &number.to_string())
        };
        outcomes.push(match node.journal.append(publish).await {
            Ok(ticket) => ticket.await,
            Err(error) => Err(error),
        });
    }
    // Behind them in the order: whatever was still tried is there by now.
    node.append(publish(&["a"], "last")).await;
    let events = node.read(&[topic("a")], 100).await;
    let found: HashSet<&str> = events.iter().map(|event| &*event.data).collect();
    assert_eq!(found.len(), events.len(), "each once");
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let is_there = found.contains(&*number.to_string());
        match outcome {
            Ok(_) => assert!(is_there, "{number} was acknowledged"),
            Err(error) if error.may_be_appended() => {}
            Err(error) => assert!(!is_there, "{number}: {error}"),
        }
        assert!(is_there || number % 4 < 3, "{number} had all the time it needed");
    }
    world.stop(node).await;
}
