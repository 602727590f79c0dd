//! What goes on while something is missing: NATS, an ingest node, an edge.

use http::Request;
use rustix::process::Signal;
use tonic::Code;

use crate::{
    client::{Publisher, ask, event, get_json, keyed},
    link::State,
    patiently,
    sse::{Ask, End, Item, Stream},
    world::{Journal, Plan, World, ready},
};

/// A small cluster with a heartbeat every second.
fn plan(journal: Journal) -> Plan {
    Plan::small(journal).set("http.heartbeat", "1s")
}

async fn start(journal: Journal) -> World {
    plan(journal).start().await.expect("the newest is always there")
}

async fn follow(world: &World, edge: usize, topics: &[String]) -> Stream {
    let ask = Ask::topics(topics).query("since", "earliest");
    ask.open(world.edges[edge].addresses().http).await.expect("a stream")
}

/// The next event's data. However long it takes, heartbeats come meanwhile, which `Stream::next` waits for only so long.
async fn next(stream: &mut Stream) -> String {
    patiently("an event", stream.event()).await.data
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_without_nats_keeps_its_streams_and_gives_what_the_log_has() {
    let world = start(Journal::Rocksdb).await;
    let topics = world.topic_of_each_shard("topic/");
    let addresses = world.edges[0].addresses();
    let mut publisher = Publisher::connect(world.ingests[0].addresses()).await;
    let mut stream = follow(&world, 0, &topics).await;
    publisher.publish(event(&topics[0], "before")).await;
    assert_eq!(next(&mut stream).await, "before");
    let mut expected = vec!["before".to_owned()];
    for state in [State::Hanging, State::Resetting] {
        world.edges[0].nats(state);
        for topic in &topics {
            let data = format!("while {state:?} {topic}");
            publisher.publish(event(topic, &*data)).await;
            // It is the stream that was there before, and the edge has it from nowhere but the log.
            assert_eq!(next(&mut stream).await, data);
            expected.push(data);
        }
        // Quiet streams have their heartbeats, new ones are served, and the gateway goes on sending them.
        while stream.next().await.expect("it goes on") != Item::Comment {}
        let mut late = follow(&world, 0, &topics).await;
        let mut received = late.data(expected.len()).await;
        received.sort();
        let mut sorted = expected.clone();
        sorted.sort();
        assert_eq!(received, sorted);
        assert_eq!(get_json(addresses.admin, "/readyz/streams").await.0, 200);
        world.edges[0].nats(State::Whole);
        publisher.publish(event(&topics[1], format!("after {state:?}"))).await;
        assert_eq!(next(&mut stream).await, format!("after {state:?}"));
        expected.push(format!("after {state:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_ingest_node_without_nats_takes_is_read_from_its_log() {
    let mut world = start(Journal::Rocksdb).await;
    let topics = world.topic_of_each_shard("topic/");
    let mut publishers = Vec::new();
    for member in &world.ingests {
        publishers.push(Publisher::connect(member.addresses()).await);
    }
    let mut stream = follow(&world, 0, &topics).await;
    for topic in &topics {
        publishers[1].publish(event(topic, "before")).await;
        assert_eq!(next(&mut stream).await, "before");
    }
    world.ingests[1].nats(State::Hanging);
    // At first it is only silent, then it is taken for gone. Its own shards are those that it takes and others do not.
    for number in 0..2 {
        for topic in &topics {
            let data = format!("{topic} {number}");
            publishers[1].publish(event(topic, &*data)).await;
            assert_eq!(next(&mut stream).await, data);
        }
        world.edges[0].node.logs("a node is gone").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_nats_streams_stay_and_all_goes_on_when_it_is_back() {
    let mut world = start(Journal::Rocksdb).await;
    let topics = world.topic_of_each_shard("topic/");
    let mut publisher = Publisher::connect(world.ingests[0].addresses()).await;
    let mut streams = [follow(&world, 0, &topics).await, follow(&world, 1, &topics).await];
    world.nats.servers[0].kill();
    // Nothing in the journal needs it.
    publisher.publish(event(&topics[0], "without")).await;
    for stream in &mut streams {
        assert_eq!(next(stream).await, "without");
        while stream.next().await.expect("it goes on") != Item::Comment {}
    }
    tokio::task::block_in_place(|| world.nats.servers[0].restart());
    for topic in &topics {
        publisher.publish(event(topic, &**topic)).await;
        for stream in &mut streams {
            assert_eq!(next(stream).await, *topic);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_owner_is_gone_its_shards_refuse_and_the_others_do_not() {
    let mut world = start(Journal::Rocksdb).await;
    let topics = world.topic_of_each_shard("topic/");
    let mut stream = follow(&world, 0, &topics).await;
    let mut publisher = Publisher::connect(world.ingests[0].addresses()).await;
    // From here on it is live, so that what is gone for some of its topics does not keep the others back.
    for topic in &topics {
        publisher.publish(event(topic, "before")).await;
        assert_eq!(next(&mut stream).await, "before");
    }
    world.ingests[1].node.kill().await;
    let (mut refused, mut accepted) = (Vec::new(), Vec::new());
    for topic in &topics {
        match publisher.try_publish(keyed(topic, &**topic, "key")).await {
            Ok(_) => accepted.push(topic.clone()),
            Err(status) => {
                // The first may have been under way when the connection broke.
                assert!(matches!(status.code(), Code::Unavailable | Code::Unknown), "{status:?}");
                refused.push(topic.clone());
            }
        }
    }
    assert!(!refused.is_empty() && !accepted.is_empty(), "{refused:?} {accepted:?}");
    for topic in &accepted {
        assert_eq!(next(&mut stream).await, *topic);
    }
    world.ingests[1].node.restart().await;
    ready(world.ingests[1].addresses()).await;
    for topic in &refused {
        let answered = async {
            while publisher.try_publish(keyed(topic, &**topic, "key")).await.is_err() {
                // Whoever holds it now is heard of within a second.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        patiently("the owner's return", answered).await;
        assert_eq!(next(&mut stream).await, *topic);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_node_whose_disk_is_gone_fills_it_from_the_streams() {
    let mut world = start(Journal::Jetstream).await;
    let topics = world.topic_of_each_shard("topic/");
    let mut publisher = Publisher::connect(world.ingests[0].addresses()).await;
    for number in 0..80 {
        let topic = &topics[number % topics.len()];
        publisher
            .publish(keyed(topic, format!("{number:02}"), number.to_string()))
            .await;
    }
    world.ingests[1].node.kill().await;
    std::fs::remove_dir_all(world.ingests[1].node.data()).expect("it has data");
    world.ingests[1].node.restart().await;
    ready(world.ingests[1].addresses()).await;
    // Now it is the only one that has anything to read.
    world.ingests[0].node.kill().await;
    let mut received = follow(&world, 0, &topics).await.data(80).await;
    received.sort();
    assert_eq!(
        received,
        (0..80).map(|number| format!("{number:02}")).collect::<Vec<_>>()
    );
    // It knows the keys, and publishing goes on.
    let mut publisher = Publisher::connect(world.ingests[1].addresses()).await;
    let (_, repeated) = publisher.publish(keyed(&topics[7], "07", "7")).await;
    assert!(repeated);
    let (_, repeated) = publisher.publish(keyed(&topics[7], "more", "more")).await;
    assert!(!repeated);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_drains_hands_its_streams_over() {
    // So long that it is still there when it is asked whether it drains.
    let plan = plan(Journal::Rocksdb).set("drain.window", "20s");
    let mut world = plan.start().await.expect("the newest is always there");
    let topics = world.topic_of_each_shard("topic/");
    let mut publisher = Publisher::connect(world.ingests[0].addresses()).await;
    publisher.publish(event(&topics[0], "before")).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = follow(&world, 0, &topics).await;
        let event = stream.event().await;
        assert_eq!(event.data, "before");
        streams.push((stream, event.id));
    }
    world.edges[0].node.signal(Signal::TERM);
    world.edges[0].node.logs("draining").await;
    assert_eq!(get_json(world.edges[0].addresses().admin, "/readyz").await.0, 503);
    publisher.publish(event(&topics[0], "meanwhile")).await;
    let mut moved = Vec::new();
    for (mut stream, mut cursor) in streams {
        let mut received = 1;
        let (items, end) = stream.rest().await;
        assert_eq!(end, End::Clean);
        assert!(matches!(items.last(), Some(Item::Retry(1_000..=15_000))), "{items:?}");
        for item in items {
            if let Item::Event(event) = item {
                assert_eq!(event.data, "meanwhile");
                cursor = event.id;
                received += 1;
            }
        }
        // It goes on where it was, which is on another edge now.
        let again = Ask::topics(&topics).after(&cursor);
        let mut stream = again.open(world.edges[1].addresses().http).await.expect("a stream");
        if received == 1 {
            assert_eq!(next(&mut stream).await, "meanwhile");
        }
        moved.push(stream);
    }
    publisher.publish(event(&topics[1], "after")).await;
    for stream in &mut moved {
        assert_eq!(next(stream).await, "after");
    }
    assert_eq!(
        world.edges[0].node.ended().await.code(),
        Some(0),
        "{}",
        world.edges[0].node.log()
    );
    let missing = ask(
        world.edges[1].addresses().admin,
        Request::get("/readyz").body("").expect("a request"),
    )
    .await;
    assert_eq!(missing.status(), 200);
}
