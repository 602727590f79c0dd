//! An ingest node whose journal is `rocksdb`: it owns the shards that are placed on it, and its disk is where they are.

use std::{collections::BTreeSet, sync::Arc};

use tidings_cluster::Placement;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinSet, spawn_blocking},
};

use super::{
    NodeError,
    claims::{Claimable, Claims, watch_claims},
    cluster::{self, Heard},
    health::OwnerHealth,
    ingest::{Joined, Shards, spawn},
    opening, revocations,
    running::{Journals, Node},
    serve::RETENTION_EVERY,
    settings,
    signals::Signals,
};
use crate::{
    bus::NatsBus,
    config::Config,
    edge::limits,
    journal::{Disk, DiskSpace, LocalJournal, Status},
    log::{self, Home, LocalLog, Store},
    members::HeldShard,
    model::{Shard, UnixMillis},
};

/// Opens, binds, builds and spawns.
pub(super) async fn start(config: &Config, signals: &mut Signals) -> Result<Node, NodeError> {
    let stores = opening(open(config), signals).await?;
    let joined = match Joined::join(config).await {
        Ok(joined) => joined,
        Err(error) => {
            // RocksDB's threads must not be at work in a process that ends.
            stores.iter().for_each(|store| store.close());
            return Err(error);
        }
    };
    let (owned, journals) = write(config, stores, &joined.bus);
    let started = owned.and_then(|owned| build(config, owned, joined));
    journals.or_close(started).await
}

/// Opens the stores of the shards that are placed here. Where that is, is fixed for the life of the data: the directory says so.
async fn open(config: &Config) -> Result<Vec<Arc<Store>>, NodeError> {
    let layout = cluster::layout(config)?;
    let ordinal = config.ordinal().ok_or(NodeError::NotSet("cluster.ordinal"))?;
    let nodes = config.cluster.ingest_nodes;
    let home = Home::Owner {
        ordinal: ordinal.into(),
        nodes: nodes.into(),
    };
    let dir = config.data.dir.clone();
    let files = limits::raise_file_limit().map_err(NodeError::Runtime)?;
    let placement = Placement::compute(layout.shards(), nodes, 1);
    let shards: Vec<_> = placement.held_by(ordinal).map(Shard).collect();
    let memory = settings::store_memory(config, files, shards.len());
    let opening = spawn_blocking(move || {
        let mut stores = Vec::new();
        for shard in shards {
            match Store::open_in(&dir, layout, home, shard, &memory) {
                Ok(store) => stores.push(store),
                Err(error) => {
                    stores.iter().for_each(|store: &Arc<Store>| store.close());
                    return Err(error);
                }
            }
        }
        Ok(stores)
    });
    let opened = opening.await.map_err(|panic| NodeError::Runtime(panic.into()))?;
    Ok(opened?)
}

/// A shard of this node.
#[derive(Clone)]
pub(super) struct Owned {
    pub(super) store: Arc<Store>,
    pub(super) journal: Arc<LocalJournal>,
}

impl Owned {
    pub(super) fn shard(&self) -> Shard {
        self.store.shard()
    }
}

/// Starts the writers; those that were started are to be closed even if another could not be.
fn write(config: &Config, stores: Vec<Arc<Store>>, bus: &Arc<NatsBus>) -> (Result<Vec<Owned>, NodeError>, Journals) {
    let (mut owned, mut journals) = (Vec::new(), Journals::default());
    let mut failed = None;
    let dir = config.data.dir.clone();
    let probe = Box::new(move || DiskSpace::of(&dir));
    let disk = Disk::new(probe, config.journal.disk_high_water_percent, stores.len());
    for store in stores {
        let clock = Box::new(UnixMillis::now);
        match LocalJournal::start_on(&disk, store.clone(), bus.clone(), settings::journal(config), clock) {
            Ok(journal) => {
                journals.local.push(journal.clone());
                owned.push(Owned { store, journal });
            }
            Err(error) => {
                store.close();
                failed = Some(error);
            }
        }
    }
    (
        failed.map_or(Ok(owned), |error| Err(NodeError::Runtime(error))),
        journals,
    )
}

fn build(config: &Config, owned: Vec<Owned>, joined: Joined) -> Result<Node, NodeError> {
    let me = joined.me.node.clone();
    let shards: BTreeSet<Shard> = owned.iter().map(Owned::shard).collect();
    let (claims, claimed) = watch::channel(Claims::default());
    let members = joined.members({
        let (owned, claimed, draining) = (owned.clone(), claimed.clone(), joined.draining.clone());
        move || {
            let claims = claimed.borrow();
            let held = |owned: &Owned| HeldShard {
                shard: owned.shard().0,
                epoch: owned.store.epoch().0,
                last: owned.store.heads().last.0,
                writable: owned.journal.status() == Status::Writable
                    && !claims.has(owned.shard())
                    && !draining.is_cancelled(),
                rank: 0,
            };
            owned.iter().map(held).collect()
        }
    });

    let log = LocalLog::empty(Handle::current(), config.log.concurrent_replays);
    let mut background = JoinSet::new();
    for Owned { store, .. } in &owned {
        log.hold(store.clone());
        let retention = log::keep(store.clone(), settings::retention(config), RETENTION_EVERY);
        // What is revoked is in one shard, and may long be away from here: the others need not wait for it.
        let safe = (store.shard() == revocations::shard(joined.layout)).then(|| joined.safe.clone());
        background.spawn(async move {
            if let Some(safe) = safe {
                safe.cancelled().await;
            }
            retention.await;
        });
    }
    let members = Arc::new(members);
    let changed = {
        let members = members.clone();
        move || members.tell()
    };
    background.spawn(watch_claims(
        Claims::of_owner,
        members.view(),
        me.clone(),
        shards,
        claims,
        changed,
    ));
    let heard = Heard::default();
    background.spawn(heard.clone().listen(members.view(), joined.layout));
    let claimable = |owned: &Owned| {
        let journal = Claimable {
            shard: owned.shard(),
            node: me.clone(),
            journal: owned.journal.clone(),
            claims: claimed.clone(),
        };
        (owned.shard(), Arc::new(journal) as _)
    };
    let shards = Shards {
        held: owned.iter().map(claimable).collect(),
        log: Arc::new(log),
        journals: Journals {
            local: owned.iter().map(|owned| owned.journal.clone()).collect(),
            ..Journals::default()
        },
        background,
    };
    let health = OwnerHealth {
        owned,
        claims: claimed.clone(),
        heard,
        link: joined.nats.link(),
        draining: joined.draining.clone(),
    };
    spawn(config, joined, members, shards, Arc::new(health))
}
