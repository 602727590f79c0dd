//! What is published at any ingest node is with followers on every edge, and a cursor of one edge is good on all.

use std::collections::BTreeMap;

use tidings_proto::v1::{PublishRequest, SubscribeRequest, subscribe_request, subscribe_response};

use crate::{
    client::{Publisher, event, keyed, post, subscriber},
    patiently,
    server::Version,
    sse::{Ask, Stream},
    world::{Journal, Plan, World},
};

/// Everything that each journal has to do.
macro_rules! with_each_journal {
    ($($name:ident)*) => {
        mod with_rocksdb {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::small(super::Journal::Rocksdb).await).await;
            })*
        }
        mod with_jetstream {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::small(super::Journal::Jetstream).await).await;
            })*
        }
    };
}

with_each_journal! {
    what_is_published_anywhere_is_followed_everywhere
    a_cursor_of_one_edge_is_good_on_every_other
    a_key_is_known_wherever_it_is_repeated
}

async fn small(journal: Journal) -> World {
    Plan::small(journal).start().await.expect("the newest is always there")
}

async fn earliest(world: &World, edge: usize, topics: &[String]) -> Stream {
    let ask = Ask::topics(topics).query("since", "earliest");
    ask.open(world.edges[edge].addresses().http).await.expect("a stream")
}

/// The data of the next so many events, sorted: topics of different shards have no order among each other.
async fn sorted(stream: &mut Stream, count: usize) -> Vec<String> {
    let mut data = stream.data(count).await;
    data.sort();
    data
}

async fn what_is_published_anywhere_is_followed_everywhere(world: World) {
    let topics = world.topic_of_each_shard("topic/");
    let mut streams = Vec::new();
    for edge in 0..world.edges.len() {
        streams.push(earliest(&world, edge, &topics).await);
    }
    // One topic of each shard at each ingest node: some of them are at home there, the others are handed on.
    let mut expected = Vec::new();
    for (at, member) in world.ingests.iter().enumerate() {
        let mut publisher = Publisher::connect(member.addresses()).await;
        for topic in &topics {
            let data = format!("{topic} at {at}");
            publisher.publish(event(topic, &*data)).await;
            expected.push(data);
        }
    }
    // One call whose topics are of all shards, and as JSON too.
    let all = PublishRequest {
        topics: topics.clone(),
        data: "to all".to_owned(),
        ..PublishRequest::default()
    };
    let mut publisher = Publisher::connect(world.ingests[0].addresses()).await;
    let answer = publisher.try_publish(all).await.expect("it is accepted");
    let answered: Vec<_> = answer.results.iter().map(|result| result.topic.clone()).collect();
    assert_eq!(answered, topics);
    assert!(answer.results.iter().all(|result| result.error.is_none()), "{answer:?}");
    let json = serde_json::json!({"topics": topics, "data": "as JSON"}).to_string();
    let answer = post(world.ingests[1].addresses(), &[], &json).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    for data in ["to all", "as JSON"] {
        expected.extend(topics.iter().map(|_| data.to_owned()));
    }
    expected.sort();
    for stream in &mut streams {
        assert_eq!(sorted(stream, expected.len()).await, expected);
    }
    // Who comes later has it from the log, over gRPC too.
    assert_eq!(
        sorted(&mut earliest(&world, 1, &topics).await, expected.len()).await,
        expected
    );
    let mut client = subscriber(world.edges[0].addresses()).await.expect("it listens");
    let start = Some(subscribe_request::Start::Earliest(true));
    let request = SubscribeRequest {
        topics,
        start,
        ..SubscribeRequest::default()
    };
    let mut subscription = client.subscribe(request).await.expect("it is accepted").into_inner();
    let mut received = Vec::new();
    while received.len() < expected.len() {
        let message = patiently("a message", subscription.message())
            .await
            .expect("it goes on");
        if let Some(subscribe_response::Message::Event(event)) = message.expect("it goes on").message {
            received.push(event.data);
        }
    }
    received.sort();
    assert_eq!(received, expected);
}

async fn a_cursor_of_one_edge_is_good_on_every_other(world: World) {
    let topics = world.topic_of_each_shard("topic/");
    let mut publisher = Publisher::connect(world.ingests[0].addresses()).await;
    let mut last = BTreeMap::new();
    for number in 0..40_u64 {
        let topic = &topics[number as usize % topics.len()];
        let (sequence, _) = publisher.publish(event(topic, number.to_string())).await;
        let before = last.insert(topic.clone(), sequence);
        assert!(before < Some(sequence), "the sequences of {topic} increase");
    }
    // A few events from each edge in turn, each time after the last one's cursor.
    let (mut received, mut cursor) = (Vec::new(), String::new());
    for turn in 0.. {
        let edge = world.edges[turn % world.edges.len()].addresses().http;
        let ask = Ask::topics(&topics).query("since", "earliest").after(&cursor);
        let mut stream = ask.open(edge).await.expect("a stream");
        for _ in 0..3.min(40 - received.len()) {
            let event = stream.event().await;
            assert_eq!(event.gap(), None);
            received.push(event.data.parse::<u64>().expect("a number"));
            cursor = event.id;
        }
        if received.len() == 40 {
            // And then what is published after that.
            publisher.publish(event(&topics[3], "after")).await;
            assert_eq!(stream.data(1).await, ["after"]);
            break;
        }
    }
    for (at, _) in topics.iter().enumerate() {
        let of_topic: Vec<_> = received
            .iter()
            .filter(|number| **number as usize % topics.len() == at)
            .collect();
        assert!(of_topic.is_sorted(), "the order of a topic: {received:?}");
    }
    received.sort_unstable();
    assert_eq!(received, (0..40).collect::<Vec<_>>());
}

async fn a_key_is_known_wherever_it_is_repeated(world: World) {
    for topic in world.topic_of_each_shard("topic/") {
        let mut first = None;
        for member in world.ingests.iter().chain(&world.ingests) {
            let mut publisher = Publisher::connect(member.addresses()).await;
            let (sequence, repeated) = publisher.publish(keyed(&topic, "once", "key")).await;
            assert_eq!(repeated, first.is_some());
            assert_eq!(sequence, *first.get_or_insert(sequence));
        }
        let mut publisher = Publisher::connect(world.ingests[1].addresses()).await;
        publisher.publish(event(&topic, "then")).await;
        assert_eq!(earliest(&world, 0, &[topic]).await.data(2).await, ["once", "then"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_kept_reaches_who_listens() {
    let world = small(Journal::Rocksdb).await;
    let mut streams = Vec::new();
    for edge in 0..world.edges.len() {
        streams.push(earliest(&world, edge, &["typing".to_owned()]).await);
    }
    let mut publisher = Publisher::connect(world.ingests[0].addresses()).await;
    for stream in &mut streams {
        // It may be lost, and is as long as its way is not known everywhere. So it is published until it comes.
        let ephemeral = PublishRequest {
            ephemeral: true,
            ..event("typing", "…")
        };
        let heard = async {
            let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
            loop {
                tokio::select! {
                    event = stream.event() => return event,
                    _ = every.tick() => { publisher.publish(ephemeral.clone()).await; }
                }
            }
        };
        let event = patiently("an event that is not kept", heard).await;
        assert_eq!((&*event.data, &*event.id), ("…", ""));
    }
    assert!(world.edges.iter().all(|edge| !edge.node.log().contains("panicked")));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_rocksdb_journal_an_old_nats_will_do() {
    let plan = Plan {
        version: Version::Debian,
        ..Plan::small(Journal::Rocksdb)
    };
    match plan.start().await {
        Some(world) => what_is_published_anywhere_is_followed_everywhere(world).await,
        None => println!("skipped: Debian's nats-server is not to be had here"),
    }
}
