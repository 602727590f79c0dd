//! Readers that stop reading while much is published, and then read on.

use crate::{
    client::Publisher,
    node::Node,
    sse::{Ask, Stream},
};

/// How many events, and how large: 20 MB.
const EVENTS: usize = 340;
const LARGE: usize = 60_000;
const SLOW: usize = 6;

fn data(number: usize) -> String {
    let mut data = format!("event {number} ");
    data.extend(std::iter::repeat_n('x', LARGE - data.len()));
    data
}

/// Publishes everything to a node with so many readers that do not read, and one that does; answers the memory that it then takes.
async fn publish(node: &Node, slow: usize) -> (u64, Vec<Stream>) {
    let http = node.addresses().http;
    let ask = Ask::topic("a");
    let mut prompt = ask.open(http).await.expect("a stream");
    let mut stopped = Vec::new();
    for number in 0..slow {
        let stream = if number % 2 == 0 {
            ask.clone().receive_buffer(8_192).open(http).await
        } else {
            ask.open_http2(http).await
        };
        stopped.push(stream.expect("a stream"));
    }
    let publishing = async {
        let mut publisher = Publisher::connect(node.addresses()).await;
        publisher.publish_many("a", (0..EVENTS).map(data)).await;
    };
    let reading = async {
        for number in 0..EVENTS {
            assert!(prompt.event().await.data == data(number), "event {number}");
        }
    };
    futures::join!(publishing, reading);
    (node.memory(), stopped)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_reading_loses_nothing_and_costs_little() {
    let (without, _) = publish(&Node::start().await, 0).await;
    let node = Node::start().await;
    let (with, mut stopped) = publish(&node, SLOW).await;
    let all = (EVENTS * LARGE) as u64;
    println!("memory: {without} bytes without slow readers, {with} bytes with {SLOW}");
    // If it were kept for each of them it would be six times this.
    assert!(
        with < without + all,
        "{with} bytes with slow readers, {without} without"
    );

    let mut publisher = Publisher::connect(node.addresses()).await;
    publisher.publish(crate::client::event("a", "the end")).await;
    for stream in &mut stopped {
        for number in 0..EVENTS {
            let event = stream.event().await;
            assert!(event.gap().is_none() && event.data == data(number), "event {number}");
        }
        // Nothing comes twice: this is the next.
        assert_eq!(stream.event().await.data, "the end");
    }
}
