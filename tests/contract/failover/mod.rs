//! What only the log of several nodes promises: when some of them die, hang, lag, disagree, or have too much to do.

mod epochs;
mod holder;
mod load;
mod shards;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tidings::{
    log::{Log, Page, ReadError, RemoteLog, RemoteSettings, Replay},
    members::Holders,
    model::{Seq, Shard},
};
use tokio::{net::TcpListener, runtime::Handle, sync::watch};

use self::holder::{Holding, after};
use crate::{
    remote::{Port, holders},
    world::SHARD,
};

/// Nobody is asked as well but those whose turn it is.
const NO_HEDGES: RemoteSettings = RemoteSettings {
    concurrent_replays: 64,
    replay_bytes_per_second: 0,
    deadline: Duration::from_secs(60),
    attempt: Duration::from_secs(60),
    hedge_after: Duration::from_secs(60),
    hedge_share: 0.0,
};

/// Two nodes that hold the shard, and a log that is read from them.
struct Two {
    holding: [Arc<Holding>; 2],
    ports: [Port; 2],
    log: Arc<RemoteLog>,
    holders: watch::Sender<Arc<Holders>>,
}

impl Two {
    async fn start(settings: RemoteSettings, holding: [Arc<Holding>; 2]) -> Self {
        let ports = [
            Port::open(holding[0].clone() as Arc<dyn Log>).await,
            Port::open(holding[1].clone() as Arc<dyn Log>).await,
        ];
        let (sender, log) = log(settings, &[ports[0].address, ports[1].address]);
        Self {
            holding,
            ports,
            log,
            holders: sender,
        }
    }

    async fn replay(&self, epoch: u32, seq: u64) -> Result<Replay, ReadError> {
        self.log.replay(after(epoch, seq, 10)).await
    }
}

/// A log that is read from these nodes: `n0`, `n1` and so on.
fn log(settings: RemoteSettings, addresses: &[SocketAddr]) -> (watch::Sender<Arc<Holders>>, Arc<RemoteLog>) {
    let names: Vec<_> = (0..addresses.len()).map(|node| format!("n{node}")).collect();
    let nodes: Vec<_> = names
        .iter()
        .map(String::as_str)
        .zip(addresses.iter().copied())
        .collect();
    let (sender, receiver) = watch::channel(holders(&[SHARD], &nodes));
    let log = RemoteLog::new(receiver, Handle::current(), settings);
    (sender, Arc::new(log))
}

fn page(replay: Result<Replay, ReadError>) -> Page {
    match replay {
        Ok(Replay::Page(page)) => page,
        other => panic!("no page: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_holder_is_killed_the_other_answers() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 1_000), Holding::new(1, 1_000)]).await;
    let mut at = 0;
    while at < 1_000 {
        let page = page(two.replay(1, at).await);
        assert_eq!(page.events.len(), 10);
        at = page.up_to.0;
        if at == 500 {
            assert_eq!((two.holding[0].reads(), two.holding[1].reads()), (50, 0));
            two.ports[0].kill();
        }
        assert_eq!(two.log.heads(SHARD).await.expect("heads").last, Seq(1_000));
    }
    assert_eq!(two.log.counts().failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_are_under_way_in_a_holder_that_is_killed_go_to_the_other() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(1, 10)]).await;
    two.holding[0].gate.forget_permits(usize::MAX);
    let reads: Vec<_> = (0..20).map(|_| tokio::spawn(two.log.replay(after(1, 0, 10)))).collect();
    while two.holding[0].under_way() < 20 {
        tokio::task::yield_now().await;
    }
    two.ports[0].kill();
    for read in reads {
        assert_eq!(page(read.await.expect("no panic")).events.len(), 10);
    }
    assert_eq!(two.holding[1].reads(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_holder_it_says_so_until_one_is_back() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(1, 10)]).await;
    assert_eq!(page(two.replay(1, 0).await).events.len(), 10);
    two.ports[0].kill();
    two.ports[1].kill();
    // What is under way when the port closes may still be answered.
    let told = loop {
        if let Err(error) = two.replay(1, 0).await {
            break error.to_string();
        }
    };
    assert!(told.contains("n0: ") && told.contains("n1: "), "{told}");
    assert!(two.log.heads(SHARD).await.is_err());
    let _back = loop {
        // Its last connections may yet have to close.
        let address = two.ports[1].address;
        if TcpListener::bind(address).await.is_ok() {
            break Port::open_at(address, two.holding[1].clone() as Arc<dyn Log>).await;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(page(two.replay(1, 0).await).events.len(), 10);
    assert_eq!(two.log.heads(SHARD).await.expect("heads").last, Seq(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_a_shard_may_change() {
    let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(1, 10)]).await;
    let error = two.log.heads(Shard(9)).await.expect_err("held by nobody");
    assert!(
        error.to_string().contains("no node is known to hold shard 9"),
        "{error}"
    );
    for node in [0, 1, 0] {
        let before = two.holding[node].reads();
        let name = format!("n{node}");
        two.holders
            .send(holders(&[SHARD], &[(&name, two.ports[node].address)]))
            .expect("read");
        assert_eq!(page(two.replay(1, 0).await).events.len(), 10);
        assert_eq!(two.holding[node].reads(), before + 1);
    }
    two.holders.send(holders(&[], &[])).expect("read");
    assert!(two.replay(1, 0).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_hold_the_shard_or_has_too_much_to_do_is_passed_over() {
    for refusal in [
        ReadError::NotHeld(SHARD),
        ReadError::Busy,
        ReadError::failed("the store is closed"),
    ] {
        let two = Two::start(NO_HEDGES, [Holding::new(1, 10), Holding::new(1, 10)]).await;
        two.holding[0].set().refuses = Some(refusal.clone());
        assert_eq!(page(two.replay(1, 0).await).events.len(), 10);
        two.holding[1].set().refuses = Some(refusal.clone());
        let error = two.replay(1, 0).await.expect_err("refused by both").to_string();
        assert!(error.matches(&refusal.to_string()).count() == 2, "{error}");
        two.holding[0].set().refuses = None;
        assert_eq!(page(two.replay(1, 0).await).events.len(), 10);
    }
}

/// A node that takes connections and never says a word, as one that was stopped does.
async fn hung() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_holder_hangs_the_other_is_asked_as_well() {
    let settings = RemoteSettings {
        attempt: Duration::from_secs(60),
        deadline: Duration::from_secs(60),
        ..RemoteSettings::default()
    };
    let (_listener, hung) = hung().await;
    let holding = Holding::new(1, 10);
    let port = Port::open(holding.clone() as Arc<dyn Log>).await;
    let (_holders, log) = log(settings, &[hung, port.address]);
    for _ in 0..100 {
        assert_eq!(page(log.replay(after(1, 0, 10)).await).events.len(), 10);
        assert_eq!(log.heads(SHARD).await.expect("heads").last, Seq(10));
    }
    let counts = log.counts();
    assert!(counts.hedges >= 1 && counts.failed == 0, "{counts:?}");
    // Once it is known to hang it is tried now and then, not each time.
    assert!(counts.attempts < counts.questions * 3 / 2, "{counts:?}");
}
