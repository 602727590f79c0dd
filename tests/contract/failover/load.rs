//! How much is asked at once, and how fast.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tidings::{
    log::{Log, RemoteSettings, Replay},
    model::Seq,
};

use super::{Holding, NO_HEDGES, Two, after, log, page, until};
use crate::{remote::Port, world::SHARD};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_in_time_is_asked_alone() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(1, 10)]).await;
    for _ in 0..100 {
        page(two.replay(1, 0).await);
    }
    let counts = two.log.counts();
    assert_eq!((counts.attempts, counts.hedges), (100, 0));
    assert_eq!(two.holding[1].reads(), 0);
}

/// Both are slow because they have much to do: they do not get twice as much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_holders_are_not_asked_twice_as_much() {
    let settings = RemoteSettings {
        // A machine that stands still for a moment makes both look as if they hung: that takes twice as long.
        hedge_after: Duration::from_secs(2),
        hedge_share: 0.1,
        ..NO_HEDGES
    };
    let two = Two::start(settings, [Holding::new(1, 10), Holding::new(1, 10)]).await;
    for holding in &two.holding {
        holding.set().takes = Duration::from_secs(3);
    }
    join_all((0..100).map(|_| two.log.replay(after(1, 0, 10)))).await;
    let counts = two.log.counts();
    assert!((1..=8 + 10).contains(&counts.hedges), "{counts:?}");
    assert_eq!(counts.failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_replays_are_under_way_at_once_and_heads_and_fills_do_not_wait_for_them() {
    let settings = RemoteSettings {
        concurrent_replays: 8,
        ..NO_HEDGES
    };
    let holding = Holding::new(1, 10);
    holding.gate.forget_permits(usize::MAX);
    let port = Port::open(holding.clone() as Arc<dyn Log>).await;
    let (_holders, log) = log(settings, &[port.address]);
    let replays: Vec<_> = (0..50).map(|_| tokio::spawn(log.replay(after(1, 0, 10)))).collect();
    until("so many are under way", async || holding.under_way() >= 8).await;
    assert_eq!(log.heads(SHARD).await.expect("heads").last, Seq(10));
    let fills: Vec<_> = (0..10).map(|_| tokio::spawn(log.fill(after(1, 0, 10)))).collect();
    until("so many are under way", async || holding.under_way() >= 8 + 2).await;
    holding.gate.add_permits(1_000);
    for read in replays.into_iter().chain(fills) {
        page(read.await.expect("no panic"));
    }
    assert_eq!((holding.reads(), holding.most()), (60, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_wait_any_more_is_not_read_for() {
    let settings = RemoteSettings {
        concurrent_replays: 1,
        ..NO_HEDGES
    };
    let holding = Holding::new(1, 10);
    holding.gate.forget_permits(usize::MAX);
    let port = Port::open(holding.clone() as Arc<dyn Log>).await;
    let (_holders, log) = log(settings, &[port.address]);
    for round in 1..=3 {
        let replay = tokio::spawn(log.replay(after(1, 0, 10)));
        until("it is read", async || holding.reads() >= round).await;
        replay.abort();
        until("it is not read any more", async || holding.under_way() == 0).await;
    }
    holding.gate.add_permits(1);
    page(log.replay(after(1, 0, 10)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_for_heads_share_an_answer() {
    let holding = Holding::new(1, 10);
    holding.heads_gate.forget_permits(usize::MAX);
    let port = Port::open(holding.clone() as Arc<dyn Log>).await;
    let (_holders, log) = log(NO_HEDGES, &[port.address]);
    let asking: Vec<_> = (0..1_000).map(|_| log.heads(SHARD)).collect();
    // All have asked before anything is answered.
    holding.heads_gate.add_permits(1_000);
    let heads = join_all(asking).await;
    assert!(heads.iter().all(Result::is_ok));
    // The first had one of its own.
    assert!(holding.heads_asked() <= 2, "{}", holding.heads_asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_catch_up_are_served_at_a_pace_and_those_who_are_live_at_once() {
    const RATE: u64 = 4_000_000;
    const PAGES: u64 = 20;
    let settings = RemoteSettings {
        replay_bytes_per_second: RATE,
        ..NO_HEDGES
    };
    let holding = Holding::new(1, 10);
    holding.set().bytes = 20_000;
    let port = Port::open(holding.clone() as Arc<dyn Log>).await;
    let (_first, paced) = log(settings, &[port.address]);
    let begin = Instant::now();
    for page_ in join_all((0..PAGES).map(|_| paced.replay(after(1, 0, 10)))).await {
        assert_eq!(page(page_).events.len(), 10);
    }
    // They are a second's, of which a quarter may be read at once, and the last one begins before it is paid for.
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");

    // So much was read ahead of time that the next one waits.
    let slow = RemoteSettings {
        replay_bytes_per_second: 1,
        ..NO_HEDGES
    };
    let (_second, slow) = log(slow, &[port.address]);
    page(slow.replay(after(1, 0, 10)).await);
    let waits = tokio::spawn(slow.replay(after(1, 0, 10)));
    for _ in 0..10 {
        page(slow.fill(after(1, 0, 10)).await);
        slow.heads(SHARD).await.expect("heads");
    }
    assert!(!waits.is_finished());
    waits.abort();
}

/// What a page may hold at most goes through, and the page ends there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_pages_go_through() {
    let holding = Holding::new(1, 10);
    holding.set().bytes = 1 << 20;
    let port = Port::open(holding as Arc<dyn Log>).await;
    let (_holders, log) = log(NO_HEDGES, &[port.address]);
    let Ok(Replay::Page(page)) = log.replay(after(1, 0, 10)).await else {
        panic!("no page");
    };
    assert_eq!(page.events.len(), 10);
}
