//! Where a user's streams belong: every edge gives the same answer, and only who asks for it is sent there.

use std::collections::{BTreeMap, BTreeSet};

use http::Request;

use crate::{
    client::{ask, get_json},
    node::tidings,
    patiently,
    sse::Ask,
    world::{Journal, Member, Plan, World},
};

const USERS: usize = 40;

/// The owner of each user's slot, as an edge has it.
async fn owners(edge: &Member) -> Vec<Option<String>> {
    let mut owners = Vec::new();
    for user in 0..USERS {
        let (_, route) = get_json(edge.addresses().http, &format!("/v1/route?user={user}")).await;
        owners.push(route["node"].as_str().map(ToOwned::to_owned));
    }
    owners
}

/// Waits until these edges agree that all of them, and nobody else, own something.
async fn agreed(edges: &[Member]) -> Vec<String> {
    let names: BTreeSet<_> = edges.iter().map(|edge| edge.name.clone()).collect();
    let agreed = async {
        loop {
            let mut views = BTreeSet::new();
            for edge in edges {
                views.insert(owners(edge).await);
            }
            if let (Some(view), None) = (views.pop_first(), views.pop_first())
                && let Some(view) = view.into_iter().collect::<Option<Vec<_>>>()
                && view.iter().cloned().collect::<BTreeSet<_>>() == names
            {
                return view;
            }
            // They hear of each other once a second.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    patiently("the edges agreeing", agreed).await
}

async fn three_edges() -> World {
    let plan = Plan {
        ingests: 1,
        edges: 3,
        ..Plan::small(Journal::Rocksdb)
    };
    plan.start().await.expect("the newest is always there")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_edge_names_the_same_owner_and_who_asks_is_sent_there() {
    let world = three_edges().await;
    let owners = agreed(&world.edges).await;
    let urls: BTreeMap<_, _> = world
        .edges
        .iter()
        .map(|edge| (&edge.name, edge.addresses().streams_url()))
        .collect();

    let told = async {
        loop {
            let output = tidings()
                .args(["route", "7", "--url", &world.edges[0].addresses().streams_url()])
                .output()
                .await;
            let output = output.expect("it runs");
            let told = String::from_utf8_lossy(&output.stdout);
            if output.status.success() && told.contains(&owners[7]) && told.contains(&urls[&owners[7]]) {
                return;
            }
        }
    };
    patiently("the command's telling the owner", told).await;

    for (user, owner) in owners.iter().enumerate() {
        for edge in &world.edges {
            let http = edge.addresses().http;
            // A browser is never sent anywhere.
            let stream = Ask::default()
                .query("user", &user.to_string())
                .open(http)
                .await
                .expect("a stream");
            assert_eq!(stream.status(), 200);
            let sent = sent_to(edge, user, (edge.name != *owner).then(|| &*urls[owner]));
            patiently(format_args!("{} sending {user} to {owner}", edge.name), sent).await;
        }
    }
}

/// Waits until an edge sends a stream that asks for it there; if nowhere, until it serves it. One that was not running for a while, or lost its
/// connection, takes others for gone until it hears them again.
async fn sent_to(edge: &Member, user: usize, there: Option<&str>) {
    loop {
        let ask = Ask::default().query("user", &user.to_string()).query("redirect", "1");
        let answer = ask.open(edge.addresses().http).await.expect("an answer");
        let sent = match (answer.status(), there) {
            (200, None) => true,
            (307, Some(there)) => answer.header("location").expect("a location").starts_with(there),
            (200 | 307, _) => false,
            (other, _) => panic!("{other} from {}", edge.name),
        };
        if sent {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_edge_dies_only_its_users_belong_elsewhere() {
    let mut world = three_edges().await;
    let before = agreed(&world.edges).await;
    let mut gone = world.edges.remove(1);
    gone.node.kill().await;
    let after = agreed(&world.edges).await;
    // Its users are shared out; a few others may move too, since no edge is to have much more than its share.
    let moved = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after && **before != gone.name)
        .count();
    assert!(moved <= USERS / 4, "{before:?} {after:?}");
    gone.node.restart().await;
    world.edges.insert(1, gone);
    assert_eq!(agreed(&world.edges).await, before);
    let answer = ask(
        world.edges[0].addresses().http,
        Request::get("/v1/route").body("").expect("a request"),
    )
    .await;
    assert_eq!(answer.status(), 400);
}
