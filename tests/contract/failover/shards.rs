//! Nodes that hold some of the shards each, over real stores.

use std::sync::Arc;

use tidings::{
    journal::{Journal as _, LocalJournal, Surroundings},
    log::{LocalLog, Log, ReadError, RemoteLog, ReplayRequest, Store},
    model::{Layout, Seq, Shard},
};
use tidings_proto::v1::{HeadsRequest, log_client::LogClient};
use tokio::{runtime::Handle, sync::watch};
use tonic::Code;

use super::{NO_HEDGES, page};
use crate::{
    local::{DEADLINE, SETTINGS, start},
    remote::{Port, holders},
    world::{publish, topic},
};

const BOTH: [Shard; 2] = [Shard(0), Shard(1)];

fn layout() -> Layout {
    Layout::new(8, 2).expect("valid")
}

/// A topic of a shard.
fn of(shard: Shard) -> String {
    let mut names = (0..).map(|number| format!("t{number}"));
    let is_of = |name: &String| layout().shard(layout().slot(name)) == shard.0;
    names.find(is_of).expect("there are some")
}

/// A store of a shard in a directory of its own, with so many events.
async fn store(shard: Shard, events: usize) -> (tempfile::TempDir, Arc<Store>, Arc<LocalJournal>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path(), layout(), shard, 1 << 20).expect("opened");
    let journal = start(&store, SETTINGS, Surroundings::real(store.dir()));
    let topic = of(shard);
    for _ in 0..events {
        let ticket = journal.append(publish(&[&topic], "x")).await.expect("a place");
        ticket.await.expect("durable");
    }
    (dir, store, journal)
}

async fn read(log: &dyn Log, shard: Shard) -> usize {
    let epoch = log.heads(shard).await.expect("heads").epoch;
    let request = ReplayRequest {
        shard,
        epoch,
        topics: vec![(topic(&of(shard)), Seq(0))],
        max_events: 1_000,
        max_bytes: usize::MAX,
    };
    page(log.replay(request).await).events.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_answers_for_what_it_holds_and_the_others_are_asked_for_the_rest() {
    let (_dir, first, first_journal) = store(Shard(0), 3).await;
    let (_dir, second, second_journal) = store(Shard(1), 5).await;
    let logs = [(); 2].map(|()| Arc::new(LocalLog::empty(Handle::current(), 4)));
    logs[0].hold(Arc::clone(&first));
    logs[1].hold(Arc::clone(&second));
    let ports = [
        Port::open(logs[0].clone() as Arc<dyn Log>).await,
        Port::open(logs[1].clone() as Arc<dyn Log>).await,
    ];
    // As it is thought: each might hold each.
    let nodes = [("n0", ports[0].address), ("n1", ports[1].address)];
    let (_sender, receiver) = watch::channel(holders(&BOTH, &nodes));
    let log = RemoteLog::new(receiver, Handle::current(), NO_HEDGES);
    assert_eq!((read(&log, BOTH[0]).await, read(&log, BOTH[1]).await), (3, 5));

    // One comes to hold both, and the other none.
    assert!(logs[0].hold(second).is_none());
    assert!(logs[1].let_go(Shard(1)).is_some() && logs[1].let_go(Shard(1)).is_none());
    assert_eq!((read(&log, BOTH[0]).await, read(&log, BOTH[1]).await), (3, 5));
    assert_eq!(logs[1].heads(Shard(1)).await, Err(ReadError::NotHeld(Shard(1))));

    let address = format!("http://{}", ports[1].address);
    let mut client = LogClient::connect(address).await.expect("connected");
    let refused = client.heads(HeadsRequest { shard: 1 }).await.expect_err("not held");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    for journal in [first_journal, second_journal] {
        journal.close(DEADLINE).await.expect("closed");
    }
}

/// A store that is made again takes the place of the one before; meanwhile nobody is misled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_made_again_is_not_held_meanwhile() {
    let (_dir, before, journal) = store(Shard(0), 3).await;
    let log = LocalLog::new(before, Handle::current(), 4);
    assert_eq!(read(&log, Shard(0)).await, 3);
    log.let_go(Shard(0)).expect("held");
    journal.close(DEADLINE).await.expect("closed");
    assert_eq!(log.heads(Shard(0)).await, Err(ReadError::NotHeld(Shard(0))));
    let (_dir, again, journal) = store(Shard(0), 4).await;
    log.hold(again);
    assert_eq!(read(&log, Shard(0)).await, 4);
    journal.close(DEADLINE).await.expect("closed");
}
