//! The members of a cluster, over a real NATS server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidings::{
    members::{Condition, HeldShard, Holder, Me, Members, MembershipSettings, Role, View},
    model::{Layout, Shard},
    nats::Nats,
};

use crate::nats::{PATIENCE, Server, Version, connect, settings};

/// Short, so that the tests are; long enough for any machine to be heard.
const SILENCE: Duration = Duration::from_secs(4);

fn layout() -> Layout {
    Layout::new(64, 4).expect("valid")
}

fn me(node: &str, role: Role) -> Me {
    Me {
        node: node.to_owned(),
        role,
        http: format!("http://{node}:8080"),
        grpc: format!("http://{node}:50051"),
        layout: layout(),
    }
}

fn start(nats: &Nats, me: Me, condition: impl Fn() -> Condition + Send + Sync + 'static) -> Members {
    let settings = MembershipSettings {
        silence: SILENCE,
        ..MembershipSettings::new(me.layout)
    };
    Members::start_with(nats, settings, me, condition)
}

fn edge() -> Condition {
    Condition {
        weight: 100,
        ..Condition::default()
    }
}

fn names(view: &View) -> Vec<&str> {
    view.members().map(|member| &*member.node).collect()
}

/// Waits until the view is such.
async fn until(members: &Members, holds: impl Fn(&View) -> bool) -> Arc<View> {
    let mut views = members.view();
    let view = tokio::time::timeout(PATIENCE, views.wait_for(|view| holds(view))).await;
    let Ok(view) = view else {
        panic!("not in time: {:?}", members.view().borrow());
    };
    Arc::clone(&view.expect("it runs"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_see_each_other_come_drain_and_go() {
    let server = Server::start(Version::Newest, "").expect("installed");
    let settings = settings(&[server.url()]);
    // Each node has a connection of its own.
    let drains = Arc::new(AtomicBool::new(false));
    let of_a = Arc::clone(&drains);
    let a = start(&connect(&settings).await, me("a", Role::Edge), move || Condition {
        draining: of_a.load(Ordering::SeqCst),
        ..edge()
    });
    let b = start(&connect(&settings).await, me("b", Role::Edge), edge);
    let c = start(&connect(&settings).await, me("c", Role::Edge), edge);
    for members in [&a, &b, &c] {
        let view = until(members, |view| names(view) == ["a", "b", "c"]).await;
        assert_eq!(view.member("b").expect("there").http, "http://b:8080");
    }
    // All come to the same ring.
    let owners = |view: &View| {
        (0..64)
            .map(|slot| view.owner(slot).map(|owner| owner.node.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(owners(&a.view().borrow()), owners(&c.view().borrow()));

    drains.store(true, Ordering::SeqCst);
    a.tell();
    until(&b, |view| view.member("a").is_some_and(|a| a.draining)).await;
    a.leave().await;
    until(&b, |view| names(view) == ["b", "c"]).await;
    // Nothing is said of this one: silence tells.
    drop(c);
    until(&b, |view| names(view) == ["b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_the_view_is_frozen() {
    let mut server = Server::start(Version::Newest, "").expect("installed");
    let settings = settings(&[server.url()]);
    let a = start(&connect(&settings).await, me("a", Role::Edge), edge);
    let b = start(&connect(&settings).await, me("b", Role::Edge), edge);
    for members in [&a, &b] {
        until(members, |view| names(view) == ["a", "b"] && view.is_settled()).await;
    }
    let (mut of_a, mut of_b) = (a.view(), b.view());
    of_a.mark_unchanged();
    of_b.mark_unchanged();
    server.kill();
    // Nothing may happen, so there is nothing to wait for but time.
    tokio::time::sleep(SILENCE * 2).await;
    for views in [&of_a, &of_b] {
        assert!(!views.has_changed().expect("it runs"), "{:?}", views.borrow());
    }
    server.restart();
    let c = start(&connect(&settings).await, me("c", Role::Edge), edge);
    // Whoever connects much later than the others is gone for them until then.
    for members in [&a, &b, &c] {
        until(members, |view| names(view) == ["a", "b", "c"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_one_name_and_strangers_are_told() {
    let server = Server::start(Version::Newest, "").expect("installed");
    let settings = settings(&[server.url()]);
    let a = start(&connect(&settings).await, me("a", Role::Edge), edge);
    let first = start(&connect(&settings).await, me("twin", Role::Edge), edge);
    until(&a, |view| names(view) == ["a", "twin"]).await;
    let _second = start(&connect(&settings).await, me("twin", Role::Edge), edge);
    until(&a, |view| view.conflicts() == ["twin"]).await;
    until(&first, |view| view.conflicts() == ["twin"]).await;

    let other = Me {
        layout: Layout::new(32, 4).expect("valid"),
        ..me("other", Role::Edge)
    };
    let _other = start(&connect(&settings).await, other, edge);
    let view = until(&a, |view| !view.strangers().is_empty()).await;
    assert_eq!(
        (view.strangers()[0].node.as_str(), view.strangers()[0].slots),
        ("other", 32)
    );
    assert!(view.member("other").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_follow_the_members() {
    let server = Server::start(Version::Newest, "").expect("installed");
    let settings = settings(&[server.url()]);
    let edge = start(&connect(&settings).await, me("edge", Role::Edge), edge);
    let hold = |rank: u32, writable: bool| {
        move || Condition {
            shards: vec![HeldShard {
                shard: 2,
                epoch: 7,
                last: 100,
                writable,
                rank,
            }],
            ..Condition::default()
        }
    };
    let second = start(&connect(&settings).await, me("i-1", Role::Ingest), hold(1, true));
    let first = start(&connect(&settings).await, me("i-0", Role::Ingest), hold(0, true));
    let holder = |node: &str| Holder {
        node: node.to_owned(),
        grpc: format!("http://{node}:50051"),
        writable: true,
    };
    let mut holders = edge.holders();
    let both = holders.wait_for(|holders| holders.of(Shard(2)).len() == 2);
    let both = tokio::time::timeout(PATIENCE, both)
        .await
        .expect("in time")
        .expect("it runs");
    assert_eq!(both.of(Shard(2)), [holder("i-0"), holder("i-1")]);
    assert!(both.of(Shard(1)).is_empty());
    drop(both);
    first.leave().await;
    let one = holders.wait_for(|holders| *holders.of(Shard(2)) == [holder("i-1")]);
    tokio::time::timeout(PATIENCE, one)
        .await
        .expect("in time")
        .expect("it runs");
    // With nobody else to ask, who was last there can still be asked, and takes nothing.
    second.leave().await;
    let last = Holder {
        writable: false,
        ..holder("i-1")
    };
    let last = holders.wait_for(|holders| *holders.of(Shard(2)) == [last.clone()]);
    tokio::time::timeout(PATIENCE, last)
        .await
        .expect("in time")
        .expect("it runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_nats() {
    let mut server = Server::start(Version::Newest, "").expect("installed");
    let settings = settings(&[server.url()]);
    server.kill();
    let nats = Nats::connect(&settings).await.expect("settings that can work");
    let a = start(&nats, me("a", Role::Edge), edge);
    assert!(names(&a.view().borrow()).is_empty());
    server.restart();
    until(&a, |view| names(view) == ["a"]).await;
}
