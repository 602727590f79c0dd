//! What a node does by itself, whoever else is there: it serves before NATS does, says what it lacks, and knows when it is not alone.

use serde_json::Value;

use crate::{
    client::{Publisher, event, get_json},
    node::{Addresses, Role, Setup},
    patiently,
    sse::{Ask, End, Item},
    world::{Journal, Plan, ready},
};

/// A part of what a node says of its readiness, and whether the whole is ready.
async fn part(addresses: Addresses, name: &str) -> (bool, String) {
    let (status, told) = get_json(addresses.admin, "/readyz").await;
    let part = told["parts"][name].as_str().unwrap_or_default().to_owned();
    (status == 200, part)
}

/// Waits until a part of a node's readiness says this.
async fn says(addresses: Addresses, name: &str, text: &str) {
    let says = async {
        while !part(addresses, name).await.1.contains(text) {
            // It has no way to tell when it does.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    patiently(format_args!("{name} saying {text:?}"), says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_before_there_is_nats_and_says_that_it_has_heard_nobody() {
    for role in [Role::Edge, Role::Ingest] {
        // Nobody listens on port 9.
        let node = Setup::role(role)
            .argument("--nats")
            .argument("nats://127.0.0.1:9")
            .set("cluster.node", "alone")
            .set("http.heartbeat", "1s")
            .start()
            .await;
        let addresses = node.addresses();
        assert_eq!(get_json(addresses.admin, "/livez").await.0, 200);
        let deciding = if role == Role::Edge { "streams" } else { "publishing" };
        let (is_ready, why_not) = part(addresses, deciding).await;
        assert!(
            !is_ready && why_not.contains("has not heard the others yet"),
            "{why_not}"
        );
        assert!(part(addresses, "nats").await.1.contains("no connection"));
        if role == Role::Edge {
            let mut stream = Ask::topic("a").open(addresses.http).await.expect("a stream");
            assert_eq!(stream.status(), 200);
            while stream.next().await.expect("it goes on") != Item::Comment {}
            assert_eq!(get_json(addresses.http, "/v1/route?user=42").await.0, 503);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_ordinal_take_nothing_for_what_both_claim() {
    let world = Plan::small(Journal::Rocksdb)
        .start()
        .await
        .expect("the newest is always there");
    let topics = world.topic_of_each_shard("topic/");
    let setup = Setup::role(Role::Ingest)
        .argument("--nats")
        .argument(&world.nats.servers[0].url())
        .set("cluster.node", "copy")
        .set("cluster.ordinal", "0")
        .set("cluster.ingest_nodes", "2");
    let mut copy = setup.start().await;
    let original = world.ingests[0].addresses();
    for addresses in [original, copy.addresses()] {
        says(addresses, "publishing", "says that it owns it too").await;
    }
    // The shards that only one node has go on.
    let mut publisher = Publisher::connect(world.ingests[1].addresses()).await;
    let mut refused = 0;
    for topic in &topics {
        if let Err(status) = publisher.try_publish(event(topic, "claimed")).await {
            assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
            refused += 1;
        }
    }
    assert!((1..topics.len()).contains(&refused), "{refused} of {}", topics.len());
    copy.kill().await;
    ready(original).await;
    for topic in &topics {
        publisher.publish(event(topic, "alone again")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_can_be_moved_go_to_their_owner_when_it_comes() {
    let plan = Plan {
        ingests: 1,
        edges: 2,
        ..Plan::small(Journal::Rocksdb)
    };
    let mut world = plan.start().await.expect("the newest is always there");
    let first = world.edges[0].addresses().http;
    let owner = |told: &Value| told["node"].as_str().unwrap_or_default().to_owned();
    // Both may have come a moment ago, so one may not know yet what the other owns.
    let theirs = async {
        for user in (0..1_000).cycle() {
            let (_, told) = get_json(first, &format!("/v1/route?user={user}")).await;
            if owner(&told) == world.edges[1].name {
                return user.to_string();
            }
        }
        unreachable!("it goes on until one is found")
    };
    let user = patiently("a user of the other edge", theirs).await;
    world.edges[1].node.kill().await;
    let gone = async {
        while owner(&get_json(first, &format!("/v1/route?user={user}")).await.1) != world.edges[0].name {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    patiently("the other edge's silence", gone).await;
    let ask = Ask::default().query("user", &user);
    let mut browser = ask.open(first).await.expect("a stream");
    let mut library = ask.query("redirect", "1").open(first).await.expect("a stream");
    assert_eq!((browser.status(), library.status()), (200, 200));
    world.edges[1].node.restart().await;
    let (items, end) = patiently("the move", library.rest()).await;
    assert_eq!(end, End::Clean);
    assert!(matches!(items.last(), Some(Item::Retry(3_000..=4_500))), "{items:?}");
    // The other is still there, and hears what is published.
    let mut publisher = Publisher::connect(world.ingests[0].addresses()).await;
    publisher.publish(event(&format!("user:{user}"), "for you")).await;
    assert_eq!(patiently("an event", browser.event()).await.data, "for you");
}
