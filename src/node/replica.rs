//! An ingest node whose journal is `jetstream`: the streams are the truth, and it keeps a replica of each that is placed on it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tidings_cluster::Placement;
use tokio::{runtime::Handle, sync::watch, task::JoinSet};
use tracing::warn;

use super::{
    NodeError,
    claims::{Claimable, Claims, watch_claims},
    cluster::Heard,
    health::ReplicaHealth,
    ingest::{Joined, Shards, spawn},
    running::{Journals, Node},
    serve::RETENTION_EVERY,
    settings,
};
use crate::{
    config::Config,
    edge::limits,
    journal::{
        Disk, DiskSpace,
        jetstream::{Home, Replica, Settings, monitoring},
    },
    log::LocalLog,
    members::HeldShard,
    model::{Shard, UnixMillis},
};

/// For how long a stream has to be said to be shorter than its replica before it is believed: longer than an election.
const LOSS_CONFIRMED_AFTER: Duration = Duration::from_secs(15);

/// Binds, builds and spawns. The streams are looked for, and the replicas opened, when NATS is there.
pub(super) async fn start(config: &Config) -> Result<Node, NodeError> {
    let joined = Joined::join(config).await?;
    let log = Arc::new(LocalLog::empty(Handle::current(), config.log.concurrent_replays));
    let (replicas, journals) = follow(config, &joined, &log)?;
    let started = replicas.and_then(|replicas| build(config, replicas, log, joined));
    journals.or_close(started).await
}

/// A shard that this node holds.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) shard: Shard,
    /// Its place among those who hold it: 0 is the first.
    pub(super) rank: u32,
    pub(super) replica: Arc<Replica>,
}

/// Starts the replicas; those that were started are to be closed even if another could not be.
fn follow(
    config: &Config,
    joined: &Joined,
    log: &Arc<LocalLog>,
) -> Result<(Result<Vec<Held>, NodeError>, Journals), NodeError> {
    let ordinal = config.ordinal().ok_or(NodeError::NotSet("cluster.ordinal"))?;
    let placement = Placement::compute(
        joined.layout.shards(),
        config.cluster.ingest_nodes,
        config.cluster.replicas,
    );
    let shards: Vec<_> = placement.held_by(ordinal).collect();
    let dir = config.data.dir.clone();
    let probe = {
        let dir = dir.clone();
        Box::new(move || DiskSpace::of(&dir))
    };
    let disk = Disk::new(probe, config.journal.disk_high_water_percent, shards.len());
    let files = limits::raise_file_limit().map_err(NodeError::Runtime)?;
    let memory = settings::store_memory(config, files, shards.len());
    let (mut held, mut journals) = (Vec::new(), Journals::default());
    for shard in shards {
        let rank = placement.rank(shard, ordinal).unwrap_or_default();
        let home = Home {
            dir: dir.clone(),
            layout: joined.layout,
            shard: Shard(shard),
            memory: memory.clone(),
        };
        let settings = Settings {
            node: joined.me.node.clone(),
            stream: settings::stream(config),
            key_window: config.journal.key_window,
            patience: config.jetstream.patience,
            max_in_flight: config.journal.max_in_flight,
            retention: Some((settings::retention(config), RETENTION_EVERY)),
            loss_confirmed_after: LOSS_CONFIRMED_AFTER,
        };
        match Replica::start(
            &joined.nats,
            log.clone(),
            settings,
            home,
            Box::new(UnixMillis::now),
            &disk,
        ) {
            Ok(replica) => {
                journals.replicas.push(replica.clone());
                held.push(Held {
                    shard: Shard(shard),
                    rank: u32::try_from(rank).unwrap_or(u32::MAX),
                    replica,
                });
            }
            Err(error) => return Ok((Err(error.into()), journals)),
        }
    }
    Ok((Ok(held), journals))
}

/// Warns of NATS servers that acknowledge what a loss of power takes away, once at start: they do not tell their clients.
async fn advise(monitor_urls: Vec<String>) {
    if monitor_urls.is_empty() {
        warn!(
            "whether the NATS servers sync what they acknowledge is not known: see to `sync_interval: always` there, and name their monitoring \
             addresses in `jetstream.monitor_urls`"
        );
    }
    monitoring::advise(monitor_urls).await;
    // What runs in the background does not end by itself.
    std::future::pending::<()>().await;
}

fn build(config: &Config, held: Vec<Held>, log: Arc<LocalLog>, joined: Joined) -> Result<Node, NodeError> {
    let me = joined.me.node.clone();
    let (claims, claimed) = watch::channel(Claims::default());
    let members = joined.members({
        let (held, claimed, draining) = (held.clone(), claimed.clone(), joined.draining.clone());
        move || {
            let claims = claimed.borrow();
            let told = |held: &Held| {
                let heads = held.replica.store()?.heads();
                Some(HeldShard {
                    shard: held.shard.0,
                    epoch: heads.epoch.0,
                    last: heads.last.0,
                    writable: held.replica.ready().is_ok() && !claims.has(held.shard) && !draining.is_cancelled(),
                    rank: held.rank,
                })
            };
            held.iter().filter_map(told).collect()
        }
    });
    let members = Arc::new(members);
    let mut background = JoinSet::new();
    background.spawn(advise(config.jetstream.monitor_urls.clone()));
    let heard = Heard::default();
    background.spawn(heard.clone().listen(members.view(), joined.layout));
    let changed = {
        let members = members.clone();
        move || members.tell()
    };
    let shards: BTreeSet<Shard> = held.iter().map(|held| held.shard).collect();
    background.spawn(watch_claims(
        Claims::of_holder,
        members.view(),
        me.clone(),
        shards,
        claims,
        changed,
    ));
    for held in &held {
        // Others are to know at once when it takes events, or does not any more.
        let (replica, members) = (held.replica.clone(), members.clone());
        background.spawn(async move {
            let mut status = replica.status();
            let mut ready = replica.ready().is_ok();
            while status.changed().await.is_ok() {
                if std::mem::replace(&mut ready, replica.ready().is_ok()) != ready {
                    members.tell();
                }
            }
            std::future::pending::<()>().await;
        });
    }
    let claimable = |held: &Held| {
        let journal = Claimable {
            shard: held.shard,
            node: me.clone(),
            journal: held.replica.clone(),
            claims: claimed.clone(),
        };
        (held.shard, Arc::new(journal) as _)
    };
    let shards = Shards {
        held: held.iter().map(claimable).collect(),
        log,
        journals: Journals {
            replicas: held.iter().map(|held| held.replica.clone()).collect(),
            ..Journals::default()
        },
        background,
    };
    let health = ReplicaHealth {
        held,
        claims: claimed.clone(),
        holders: members.holders(),
        me: joined.me.node.clone(),
        heard,
        link: joined.nats.link(),
        draining: joined.draining.clone(),
    };
    spawn(config, joined, members, shards, Arc::new(health))
}
