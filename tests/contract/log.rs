//! What every log promises.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tidings::{
    log::{Replay, ReplayRequest, Retention},
    model::{Epoch, Event, Seq, Topic, UnixMillis},
};

use crate::world::{Node, SHARD, World, publish, slot, topic};

/// Topics that begin alike, so that a read of one that strays into another shows.
const TOPICS: [&str; 6] = ["a", "a-", "a/b", "a/b/c", "b", "~"];
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Appends many small events over all the topics, some to several, and answers what a log should hold.
async fn fill(node: &Node) -> Vec<(Seq, Topic, Arc<str>)> {
    let mut tickets = Vec::new();
    for number in 0..200_usize {
        let names: Vec<_> = TOPICS
            .iter()
            .enumerate()
            .filter(|(index, _)| (number * 7 + index * index * 3) % 11 < 3 || *index == number % TOPICS.len())
            .map(|(_, name)| *name)
            .collect();
        let publish = publish(&names, &"x".repeat(number % 30));
        tickets.push((publish.clone(), node.journal.append(publish).await.expect("a place")));
    }
    let mut model = Vec::new();
    for (publish, ticket) in tickets {
        let placed = ticket.await.expect("durable").placed;
        for (topic, placed) in publish.topics.into_iter().zip(placed) {
            model.push((placed.seq, topic, Arc::clone(&publish.data)));
        }
    }
    model
}

fn flat(events: &[Arc<Event>]) -> Vec<(Seq, Topic, Arc<str>)> {
    let flat = |event: &Arc<Event>| {
        let seq = event.seq.expect("durable");
        (seq, event.topic.clone(), Arc::clone(&event.data))
    };
    events.iter().map(flat).collect()
}

pub(crate) async fn pages_hold_what_was_appended(world: impl World) {
    let node = world.start().await;
    let model = fill(&node).await;
    let heads = node.log.heads(SHARD).await.expect("heads");
    let positions = prop::collection::btree_map(0..TOPICS.len(), 0..=heads.last.0, 1..=TOPICS.len());
    let limits = (1..40_usize, prop_oneof![Just(usize::MAX), 0..200_usize]);
    let runtime = tokio::runtime::Handle::current();
    let reader = node.clone();
    let checks = move || {
        TestRunner::new(Config::with_cases(300)).run(&(positions, limits), |(positions, (max_events, max_bytes))| {
            let topics: Vec<_> = positions
                .iter()
                .map(|(&index, &after)| (topic(TOPICS[index]), Seq(after)))
                .collect();
            let page = runtime.block_on(reader.page(ReplayRequest {
                shard: SHARD,
                epoch: heads.epoch,
                topics: topics.clone(),
                max_events,
                max_bytes,
            }));
            let mut expected: Vec<_> = model
                .iter()
                .filter(|(seq, topic, _)| topics.iter().any(|(asked, after)| asked == topic && seq > after))
                .cloned()
                .collect();
            let mut bytes = 0;
            let all = expected.len();
            let end = expected
                .iter()
                .position(|(_, _, data)| {
                    bytes += data.len();
                    bytes >= max_bytes
                })
                .map_or(all, |last| last + 1)
                .min(max_events);
            expected.truncate(end);
            let found = flat(&page.events);
            prop_assert_eq!(&found, &expected);
            if end < all {
                prop_assert_eq!(Some(page.up_to), found.last().map(|(seq, _, _)| *seq), "cut short");
            } else {
                prop_assert!(page.up_to <= heads.last && found.last().is_none_or(|(seq, _, _)| *seq <= page.up_to));
            }
            Ok(())
        })
    };
    tokio::task::spawn_blocking(checks)
        .await
        .expect("no panic")
        .expect("pages hold what was appended");
    for max_events in [1, 7, 1_000] {
        let all = node.read(&TOPICS.map(topic), max_events).await;
        assert_eq!(flat(&all).len(), usize::try_from(heads.last.0).expect("few"));
    }
    world.stop(node).await;
}

pub(crate) async fn large_payloads_come_back_whole(world: impl World) {
    let node = world.start().await;
    let names: Vec<_> = (0..100).map(|number| format!("t{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let payloads = [511, 512, 513, 64 << 10, 1 << 20].map(|bytes| "\u{1F30D}x".repeat(bytes / 5 + 1));
    for payload in &payloads {
        node.append(publish(&names, payload)).await;
        node.append(publish(&names[..1], payload)).await;
    }
    world.stop(node).await;
    let node = world.start().await;
    for (name, each) in [("t0", 2), ("t99", 1)] {
        let events = node.read(&[topic(name)], 3).await;
        assert_eq!(events.len(), payloads.len() * each);
        for (event, payload) in events
            .iter()
            .zip(payloads.iter().flat_map(|payload| vec![payload; each]))
        {
            assert_eq!(event.data.len(), payload.len());
            assert!(*event.data == **payload, "the same text");
        }
    }
    world.stop(node).await;
}

pub(crate) async fn other_histories_are_told_apart(world: impl World) {
    let node = world.start().await;
    node.append(publish(&["a", "b"], "x")).await;
    let heads = node.log.heads(SHARD).await.expect("heads");
    let asked = |epoch, a, b| ReplayRequest {
        shard: SHARD,
        epoch,
        topics: vec![(topic("a"), a), (topic("b"), b)],
        max_events: 10,
        max_bytes: usize::MAX,
    };
    let forked = Replay::Forked {
        epoch: heads.epoch,
        last: heads.last,
    };
    let another = asked(Epoch(heads.epoch.0.wrapping_add(1)), Seq(0), Seq(0));
    assert_eq!(node.log.replay(another).await.expect("read"), forked);
    for (a, b) in [
        (heads.last.next(), Seq(0)),
        (Seq(0), Seq(u64::MAX)),
        (heads.last.next(), heads.last),
    ] {
        let replay = node.log.replay(asked(heads.epoch, a, b)).await.expect("read");
        match replay {
            // It cannot know.
            Replay::Page(page) if world.may_lag() => assert_eq!(page.up_to, heads.last),
            other => assert_eq!(other, forked),
        }
    }
    let level = node.page(asked(heads.epoch, heads.last, heads.last)).await;
    assert_eq!((level.events.len(), level.up_to), (0, heads.last));
    world.stop(node).await;
}

pub(crate) async fn heads_tell_the_last_of_each_slot(world: impl World) {
    let node = world.start().await;
    let empty = node.log.heads(SHARD).await.expect("heads");
    assert_eq!((empty.last, empty.floor, empty.slots.len()), (Seq(0), Seq(1), 0));
    let mut expected = BTreeMap::new();
    for (seq, topic, _) in fill(&node).await {
        expected.insert(slot(world.layout(), &topic), seq);
    }
    for _ in 0..2 {
        let heads = node.log.heads(SHARD).await.expect("heads");
        assert_eq!(
            heads
                .slots
                .iter()
                .map(|(&slot, &seq)| (slot, seq))
                .collect::<BTreeMap<_, _>>(),
            expected
        );
        assert_eq!(Some(&heads.last), expected.values().max());
        assert_eq!(heads.epoch, empty.epoch);
    }
    world.stop(node).await;
}

/// Appends an event every second from a time on, each of about so many bytes.
async fn one_each_second(world: &impl World, node: &Node, from: UnixMillis, events: u64, bytes: usize) {
    for number in 0..events {
        world.set_time(UnixMillis(from.0 + number * 1_000));
        node.append(publish(
            &[TOPICS[usize::try_from(number % 3).expect("few")]],
            &"x".repeat(bytes),
        ))
        .await;
    }
}

/// A position of an earlier start counts, and becomes one of the present start.
pub(crate) async fn a_restart_is_no_other_history(world: impl World) {
    let node = world.start().await;
    node.append(publish(&["a"], "before")).await;
    let before = node.log.heads(SHARD).await.expect("heads");
    world.stop(node).await;
    let node = world.start().await;
    node.append(publish(&["a"], "after")).await;
    let now = node.log.heads(SHARD).await.expect("heads");
    let asked = |epoch, after| ReplayRequest {
        shard: SHARD,
        epoch,
        topics: vec![(topic("a"), after)],
        max_events: 10,
        max_bytes: usize::MAX,
    };
    for (after, events) in [(Seq(0), 2), (before.last, 1)] {
        let page = node.page(asked(before.epoch, after)).await;
        assert_eq!(
            (page.epoch, page.events.len(), page.up_to),
            (now.epoch, events, now.last)
        );
    }
    if now.epoch != before.epoch {
        // The earlier start never came this far.
        let replay = node.log.replay(asked(before.epoch, now.last)).await.expect("read");
        assert!(matches!(replay, Replay::Forked { .. }), "{replay:?}");
    }
    world.stop(node).await;
}

async fn after(node: &Node, seq: Seq) -> Replay {
    let request = ReplayRequest {
        shard: SHARD,
        epoch: node.log.heads(SHARD).await.expect("heads").epoch,
        topics: TOPICS.iter().map(|name| (topic(name), seq)).collect(),
        max_events: 1_000,
        max_bytes: usize::MAX,
    };
    node.log.replay(request).await.expect("read")
}

/// What is left is what the floor says, whole; and what is gone is said.
async fn check_floor(node: &Node, events: u64) -> Seq {
    let heads = node.log.heads(SHARD).await.expect("heads");
    let kept = node.read(&TOPICS.map(topic), 1_000).await;
    let seqs: Vec<_> = kept.iter().filter_map(|event| event.seq).collect();
    assert_eq!(seqs, (heads.floor.0..=events).map(Seq).collect::<Vec<_>>());
    if let Some(below) = heads.floor.0.checked_sub(2) {
        let gone = Replay::Gone {
            epoch: heads.epoch,
            floor: heads.floor,
        };
        assert_eq!(after(node, Seq(below)).await, gone);
        assert_eq!(after(node, Seq(0)).await, gone);
    }
    heads.floor
}

pub(crate) async fn nothing_below_the_floor_is_read(world: impl World) {
    const EVENT: usize = 10_000;
    let node = world.start().await;
    one_each_second(&world, &node, UnixMillis(1_000_000), 50, EVENT).await;
    let retention = |events: usize| Retention {
        age: FOREVER,
        bytes: (events * EVENT) as u64,
    };
    world.retain(&node, retention(1_000)).await;
    assert_eq!(check_floor(&node, 50).await, Seq(1), "all of it fits");
    world.retain(&node, retention(20)).await;
    let floor = check_floor(&node, 50).await;
    assert!((Seq(30)..=Seq(32)).contains(&floor), "about 20 are left: {floor}");
    world.retain(&node, retention(1_000)).await;
    assert_eq!(check_floor(&node, 50).await, floor, "it never comes down");
    world.retain(&node, retention(0)).await;
    let floor = check_floor(&node, 50).await;
    assert!(floor >= Seq(50), "next to nothing is left: {floor}");
    let receipt = node.append(publish(&["a"], "on it goes")).await;
    assert_eq!(receipt.placed[0].seq, Seq(51));
    assert_eq!(check_floor(&node, 51).await, floor);
    world.stop(node).await;
}

pub(crate) async fn the_floor_keeps_what_is_young_enough(world: impl World) {
    const BEGIN: UnixMillis = UnixMillis(1_000_000);
    let node = world.start().await;
    one_each_second(&world, &node, BEGIN, 50, 10).await;
    for (now, kept_seconds, floor) in [(49_000, 49, 1), (49_000, 20, 30), (60_000, 20, 41), (200_000, 20, 51)] {
        world.set_time(UnixMillis(BEGIN.0 + now));
        let retention = Retention {
            age: Duration::from_secs(kept_seconds),
            bytes: u64::MAX,
        };
        world.retain(&node, retention).await;
        assert_eq!(check_floor(&node, 50).await, Seq(floor), "{kept_seconds} s at {now}");
    }
    world.stop(node).await;
}

pub(crate) async fn the_floor_survives_a_restart(world: impl World) {
    let node = world.start().await;
    one_each_second(&world, &node, UnixMillis(1_000_000), 10, 10).await;
    let retention = Retention {
        age: Duration::from_secs(4),
        bytes: u64::MAX,
    };
    world.retain(&node, retention).await;
    let floor = check_floor(&node, 10).await;
    assert!(floor > Seq(1));
    world.stop(node).await;
    let node = world.start().await;
    assert_eq!(check_floor(&node, 10).await, floor);
    world.stop(node).await;
}

pub(crate) async fn times_are_located(world: impl World) {
    const BEGIN: u64 = 1_000_000;
    let node = world.start().await;
    assert_eq!(node.log.locate(SHARD, UnixMillis(5)).await.expect("read").after, Seq(0));
    // Pauses of very different lengths: what is within one milestone, and what is far from any.
    let mut now = BEGIN;
    let mut times = Vec::new();
    for number in 0..200_u64 {
        now += [0, 1, 30, 99, 100, 101, 700, 3_600_000][usize::try_from(number * number % 8).expect("few")];
        world.set_time(UnixMillis(now));
        node.append(publish(&[TOPICS[usize::try_from(number % 6).expect("few")]], "x"))
            .await;
        times.push(now);
    }
    for &time in times
        .iter()
        .flat_map(|time| [*time - 1, *time, *time + 1, *time + 50, *time + 5_000])
        .collect::<Vec<_>>()
        .iter()
        .chain(&[0, u64::MAX])
    {
        let after = node.log.locate(SHARD, UnixMillis(time)).await.expect("read").after;
        let after = usize::try_from(after.0).expect("few");
        assert!(
            times[..after].iter().all(|&at| at < time),
            "all from {time} on follow {after}"
        );
        assert!(
            times[after..].iter().all(|&at| at.saturating_add(1_000) >= time),
            "none a second before {time} follows {after}"
        );
    }
    world.stop(node).await;
}
