//! What only the journal over JetStream promises: of servers that die, streams that are full, differ, lose or are made anew, and of disks that
//! are wiped.

mod appends;
mod servers;
mod streams;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, stream};
use tidings::{
    journal::{
        AppendError, Journal as _, Receipt, Unavailable,
        jetstream::{State, StreamSettings},
    },
    log::{Heads, Log as _, Replay, ReplayRequest},
    model::{Event, Publish, Seq, Topic, UnixMillis},
    nats::Nats,
};

use crate::{
    jetstream::{Holder, STREAM, holder_settings, stream_settings},
    nats::{Cluster, PATIENCE, Server, Version, connect, settings},
    world::{SHARD, keyed, publish, topic},
};

fn server() -> Server {
    Server::start(Version::Newest, "").expect("installed")
}

async fn append(holder: &Holder, publish: Publish) -> Result<Receipt, AppendError> {
    holder.replica.append(publish).await?.await
}

async fn append_all(holder: &Holder, topics: &[&str], data: std::ops::Range<u32>) {
    for number in data {
        append(holder, publish(topics, &number.to_string()))
            .await
            .expect("appended");
    }
}

async fn heads(holder: &Holder) -> Heads {
    holder.level().await;
    holder.log.heads(SHARD).await.expect("heads")
}

async fn replay(holder: &Holder, topics: &[Topic], after: Seq) -> Replay {
    let heads = heads(holder).await;
    let request = ReplayRequest {
        shard: SHARD,
        epoch: heads.epoch,
        topics: topics.iter().map(|topic| (topic.clone(), after)).collect(),
        max_events: usize::MAX,
        max_bytes: usize::MAX,
    };
    holder.log.replay(request).await.expect("read")
}

/// Everything of some topics.
async fn read(holder: &Holder, topics: &[Topic]) -> Vec<Arc<Event>> {
    let floor = heads(holder).await.floor;
    match replay(holder, topics, Seq(floor.0 - 1)).await {
        Replay::Page(page) => page.events,
        other => panic!("no page: {other:?}"),
    }
}

fn data(events: &[Arc<Event>]) -> Vec<&str> {
    events.iter().map(|event| &*event.data).collect()
}

async fn stream(nats: &Nats) -> stream::Stream {
    jetstream::new(nats.client().clone())
        .get_stream(STREAM)
        .await
        .expect("there")
}

/// Copies a directory into another.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

/// Edits the stream behind everybody's back.
async fn edit(nats: &Nats, edit: impl FnOnce(&mut stream::Config)) {
    let mut config = stream(nats).await.cached_info().config.clone();
    edit(&mut config);
    let edited = jetstream::new(nats.client().clone()).update_stream(config).await;
    edited.expect("edited");
}
