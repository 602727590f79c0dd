//! Holders that lag, or are of different epochs.

use tidings::{
    log::{Log as _, ReadError, Replay},
    model::{Epoch, Seq},
};

use super::{Holding, NO_HEDGES, Two, page, until};
use crate::{remote::holders, world::SHARD};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_never_go_back() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 0), Holding::new(1, 0)]).await;
    let mut before = Seq(0);
    for step in 0..200_u64 {
        // Now the one is ahead, now the other.
        let ahead = usize::try_from(step / 20 % 2).expect("small");
        two.holding[ahead].set().last = Seq(step);
        let heads = two.log.heads(SHARD).await.expect("one of them is not behind");
        assert!(heads.last >= before, "{} after {before}", heads.last);
        before = heads.last;
    }
    two.holding[0].set().last = Seq(500);
    let last = async || two.log.heads(SHARD).await.expect("heads").last;
    until("it is asked", async || last().await == Seq(500)).await;
    two.ports[0].kill();
    while two.holding[1].set().last < Seq(500) {
        let heads = two.log.heads(SHARD).await;
        assert!(matches!(heads, Err(ReadError::Failed { .. })), "{heads:?}");
        two.holding[1].set().last.0 += 100;
    }
    assert!(two.log.heads(SHARD).await.expect("heads").last >= Seq(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_lags_is_passed_over_when_that_is_known() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 5), Holding::new(1, 20)]).await;
    // A position ahead of the first one: it has nothing, and the other has.
    let ahead = page(two.replay(1, 10).await);
    assert_eq!((ahead.events.len(), ahead.up_to), (10, Seq(20)));
    // It is known by now that there is something after 5.
    let behind = page(two.replay(1, 5).await);
    assert_eq!((behind.events.len(), behind.up_to), (10, Seq(15)));
    two.ports[1].kill();
    // Nobody has more: the reader waits.
    let waits = page(two.replay(1, 10).await);
    assert_eq!((waits.events.len(), waits.up_to), (0, Seq(5)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_one_lags_is_found_out_by_who_waits() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 5), Holding::new(1, 20)]).await;
    until("it is read from the other", async || {
        !page(two.replay(1, 5).await).events.is_empty()
    })
    .await;
    assert!(two.holding[1].heads_asked() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_does_not_know_another_may() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(1, 10)]).await;
    // Its copy was made again from less.
    two.holding[0].set().floor = Seq(8);
    assert_eq!(page(two.replay(1, 0).await).events.len(), 10);
    two.holding[1].set().floor = Seq(6);
    let gone = Replay::Gone {
        epoch: Epoch(1),
        floor: Seq(6),
    };
    assert_eq!(two.replay(1, 0).await, Ok(gone), "what the least is gone of");
    two.ports[1].kill();
    let gone = Replay::Gone {
        epoch: Epoch(1),
        floor: Seq(8),
    };
    assert_eq!(two.replay(1, 0).await, Ok(gone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_all_know_as_another_has_forked() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(1, 10)]).await;
    let forked = Replay::Forked {
        epoch: Epoch(1),
        last: Seq(10),
    };
    assert_eq!(two.replay(7, 3).await, Ok(forked));
    assert_eq!((two.holding[0].reads(), two.holding[1].reads()), (1, 1));
}

/// The stream is made anew, and one notices later than the other. Whoever follows is told of the new epoch once, and never of the old one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_has_yet_to_notice_a_new_epoch_tells_nobody_that_history_forked() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(1, 10)]).await;
    let epoch = async || two.log.heads(SHARD).await.expect("heads").epoch;
    let both = || two.holding.iter().all(|holding| holding.heads_asked() > 0);
    until("both are heard", async || epoch().await == Epoch(1) && both()).await;
    *two.holding[1].set() = Holding::new(2, 3).set().clone();
    // Until it is asked, nothing is known of it.
    until("it is asked", async || epoch().await == Epoch(2)).await;
    for _ in 0..10 {
        assert_eq!(two.log.heads(SHARD).await.expect("heads").epoch, Epoch(2));
        assert_eq!(page(two.replay(2, 0).await).events.len(), 3);
        let forked = Replay::Forked {
            epoch: Epoch(2),
            last: Seq(3),
        };
        assert_eq!(two.replay(1, 0).await, Ok(forked));
    }
    *two.holding[0].set() = Holding::new(2, 3).set().clone();
    let before = two.holding[0].reads();
    assert_eq!(page(two.replay(2, 0).await).events.len(), 3);
    assert_eq!(two.holding[0].reads(), before + 1, "it counts again");
}

/// An edge that comes while they differ cannot know who is behind. It tells nobody that history forked, and answers as soon as they agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_holders_differ_nobody_is_told_that_history_forked() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(2, 3)]).await;
    assert_eq!(page(two.replay(1, 0).await).events.len(), 10);
    let unsettled = two.replay(2, 1).await.expect_err("they differ").to_string();
    assert!(unsettled.contains("is of epoch 2"), "{unsettled}");
    *two.holding[0].set() = Holding::new(2, 3).set().clone();
    assert_eq!(page(two.replay(2, 1).await).events.len(), 2);
    assert_eq!(two.log.heads(SHARD).await.expect("heads").epoch, Epoch(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_word_of_one_that_cannot_be_asked_does_not_stand_in_the_way() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(2, 3)]).await;
    assert_eq!(page(two.replay(1, 0).await).events.len(), 10);
    two.ports[0].kill();
    assert_eq!(page(two.replay(2, 1).await).events.len(), 2);
    assert_eq!(two.log.heads(SHARD).await.expect("heads").epoch, Epoch(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_word_of_the_only_one_counts() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(2, 3)]).await;
    for (node, name, epoch) in [(0, "n0", 1), (1, "n1", 2), (0, "n0", 1)] {
        two.holders
            .send(holders(&[SHARD], &[(name, two.ports[node].address)]))
            .expect("read");
        let heads = two.log.heads(SHARD).await.expect("heads");
        assert_eq!(heads.epoch, Epoch(epoch));
        assert_eq!(heads.last, two.holding[node].set().last);
    }
}
