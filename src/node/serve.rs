//! `tidings serve`: everything in one process.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    task::{JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use super::{
    NodeError, access, cluster, gates,
    health::ServeHealth,
    opening,
    ports::Ports,
    revocations::{Hearing, Renewal, Revoked},
    running::{Journals, Node},
    settings,
    signals::Signals,
};
use crate::{
    admin,
    auth::Auth,
    bus::{Bus, LocalBus},
    config::{self, Config},
    edge::{Edge, Listeners, Routes, limits, subscriber},
    hub::HubSettings,
    ingest::{self, Ingest, Services},
    journal::{self, LocalJournal, Surroundings},
    log::{self, LocalLog, Log, Store},
    model::{Layout, Secret, Shard},
};

/// The one shard of a process that does everything itself.
const SHARD: Shard = Shard(0);
/// How often the log's holder tells how far it has come.
pub(super) const DIGEST_EVERY: Duration = Duration::from_millis(500);
/// How often retention is applied.
pub(super) const RETENTION_EVERY: Duration = Duration::from_secs(10);
/// Memory for blocks of the log that were read.
pub(super) const BLOCK_CACHE: usize = 64 << 20;

/// Opens, builds, binds and spawns.
pub(super) async fn start(config: &Config, signals: &mut Signals) -> Result<Node, NodeError> {
    let admin_token = cluster::admin_token(config)?;
    let mut background = JoinSet::new();
    let auth = access::start(config, &mut background).await?;
    let store = opening(open(config), signals).await?;
    let built = build(config, store)?;
    let journals = Journals {
        local: vec![built.journal.clone()],
        ..Journals::default()
    };
    let started = Ports::bind_with_streams(config)
        .await
        .and_then(|(ports, http)| spawn(config, built, (auth, admin_token), background, ports, http));
    journals.or_close(started).await
}

async fn open(config: &Config) -> Result<Arc<Store>, NodeError> {
    // A store opens files from its beginning on.
    limits::raise_file_limit().map_err(NodeError::Runtime)?;
    let dir = config.data.dir.clone();
    let opening = spawn_blocking(move || Store::open(&dir, Layout::EMBEDDED, SHARD, BLOCK_CACHE));
    let opened = opening.await.map_err(|panic| NodeError::Runtime(panic.into()))?;
    Ok(opened?)
}

/// What holds and carries events.
struct Built {
    journal: Arc<LocalJournal>,
    store: Arc<Store>,
    log: Arc<dyn Log>,
    bus: Arc<dyn Bus>,
}

fn build(config: &Config, store: Arc<Store>) -> Result<Built, NodeError> {
    let bus: Arc<dyn Bus> = Arc::new(LocalBus::default());
    let log: Arc<dyn Log> = Arc::new(LocalLog::new(
        store.clone(),
        Handle::current(),
        config.log.concurrent_replays,
    ));
    let surroundings = Surroundings::real(store.dir());
    let journal = LocalJournal::start(store.clone(), bus.clone(), settings::journal(config), surroundings)
        .map_err(NodeError::Runtime)?;
    Ok(Built {
        journal,
        store,
        log,
        bus,
    })
}

fn spawn(
    config: &Config,
    built: Built,
    (auth, admin_token): (Arc<Auth>, Option<Secret>),
    mut background: JoinSet<()>,
    ports: Ports,
    http: Listeners,
) -> Result<Node, NodeError> {
    let Built {
        journal,
        store,
        log,
        bus,
    } = built;
    let draining = CancellationToken::new();
    let stop = CancellationToken::new();

    let hearing = Hearing {
        layout: Layout::EMBEDDED,
        log: log.clone(),
        bus: bus.clone(),
        auth: auth.clone(),
    };
    let renewal = Renewal {
        journal: journal.clone(),
        age: config.log.retention_age,
    };
    let safe = CancellationToken::new();
    let revoked = Revoked::follow(hearing, Some(renewal), safe.clone()).map_err(NodeError::Runtime)?;
    let files = limits::raise_file_limit().map_err(NodeError::Runtime)?;
    let url = config.advertised_http(http.address());
    let edge = Edge {
        layout: Layout::EMBEDDED,
        settings: settings::edge(config)?,
        limits: settings::limits(config, files, config::Role::Serve)?,
        hub: HubSettings::default(),
        log: log.clone(),
        bus: bus.clone(),
        routes: Routes::alone(Layout::EMBEDDED, config.node(), url).forever(),
        auth: auth.clone(),
        tls: ports.certificates.http.clone(),
    };
    let edge = edge.start(http).map_err(NodeError::Runtime)?;

    let publisher = Ingest::new(
        journal.clone(),
        bus.clone(),
        Layout::EMBEDDED,
        settings::ingest(config),
        auth.clone(),
        draining.clone(),
    );
    let services = Services::new()
        .behind(gates::publishing(config)?)
        .grpc(ingest::grpc::publisher(publisher.clone()))
        .grpc(ingest::control::control(publisher.clone()))
        .grpc(subscriber(edge.clone()))
        .http(ingest::json::router(publisher));
    let mut port = JoinSet::new();
    port.spawn(ingest::serve(
        ports.grpc,
        services,
        settings::server(config, files, &ports.certificates),
        draining.clone(),
    ));

    ports.certificates.keep(&mut background);
    background.spawn(journal::send_digests(log, bus, SHARD, DIGEST_EVERY));
    let retention = log::keep(store.clone(), settings::retention(config), RETENTION_EVERY);
    background.spawn(async move {
        safe.cancelled().await;
        retention.await;
    });
    background.spawn(revoked.kept());
    let health = Arc::new(ServeHealth {
        edge: edge.clone(),
        journal: journal.clone(),
        store,
        auth,
        draining: draining.clone(),
    });
    background.spawn(admin::serve(
        ports.admin,
        health,
        (gates::admin(config)?, admin_token),
        stop.clone(),
    ));

    Ok(Node {
        addresses: ports.addresses,
        edge: Some(edge),
        journals: Journals {
            local: vec![journal],
            ..Journals::default()
        },
        bus: None,
        members: None,
        draining,
        stop,
        port,
        background,
    })
}
