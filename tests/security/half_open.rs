//! As many connections as there may be, and more, opened and left there: silent, or with a part of a request. Real clients are served meanwhile.

use std::time::Duration;

use crate::{
    client::get_json,
    node::{Node, Setup},
    swarm::Swarm,
    witness::Witness,
};

/// How many rounds of a real client's life go on beside the swarm: for longer than what is half-open may take (10 s).
const ROUNDS: u32 = 30;

async fn lives_beside(witness: &mut Witness, what: &str) {
    let mut longest = Duration::ZERO;
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    for _ in 0..ROUNDS {
        pace.tick().await;
        longest = longest.max(witness.is_served().await);
    }
    eprintln!("{what}: real clients were served within {longest:?}");
}

/// Addresses of this machine count as any others would. Heads have so long that nothing but what is tested here ends those that are half-open.
async fn node() -> Node {
    let setup = Setup::new().set("limits.exempt_loopback", "false");
    setup.set("http.header_timeout", "60s").start().await
}

#[tokio::test]
async fn twenty_thousand_on_the_streams_port() {
    let node = node().await;
    let mut witness = Witness::of(&node).await;
    let calm = witness.is_served().await;
    eprintln!("without a swarm: {calm:?}");
    let swarm = Swarm::start(node.addresses().http, 2, 10_000).await;
    lives_beside(&mut witness, "20,000 half-open connections").await;
    drop(swarm);
    witness.is_served().await;
}

#[tokio::test]
async fn five_thousand_on_the_publishing_port() {
    let node = node().await;
    let mut witness = Witness::of(&node).await;
    let swarm = Swarm::start(node.addresses().grpc, 1, 5_000).await;
    lives_beside(&mut witness, "5,000 half-open connections to publish").await;
    drop(swarm);
    witness.is_served().await;
}

#[tokio::test]
async fn a_thousand_on_the_admin_port() {
    let node = node().await;
    let mut witness = Witness::of(&node).await;
    let swarm = Swarm::start(node.addresses().admin, 1, 1_000).await;
    for _ in 0..ROUNDS {
        assert_eq!(get_json(node.addresses().admin, "/livez").await.0, 200);
    }
    drop(swarm);
    witness.is_served().await;
}
