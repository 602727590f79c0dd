//! `tidings ingest`: publishing, and the log of the shards that are placed on this node.
//!
//! What depends on the journal is in `owner` and `replica`; this is what does not.

use std::sync::Arc;

use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    NodeError, access, cluster, gates, owner,
    ports::Ports,
    replica,
    revocations::{Hearing, Renewal, Revoked},
    running::{Journals, Node},
    serve::DIGEST_EVERY,
    settings,
    signals::Signals,
};
use crate::{
    admin::{self, Health},
    auth::Auth,
    bus::NatsBus,
    config::{Config, JournalKind},
    edge::limits,
    ingest::{self, Ingest, Services},
    journal::{self, routed::Routed, service::Held},
    log::{self, Log, RemoteLog},
    members::{Condition, HeldShard, Me, Members, Role},
    model::Layout,
    nats::Nats,
};

/// Opens, binds, builds and spawns.
pub(super) async fn start(config: &Config, signals: &mut Signals) -> Result<Node, NodeError> {
    match config.journal.kind {
        JournalKind::Rocksdb => owner::start(config, signals).await,
        JournalKind::Jetstream => replica::start(config).await,
    }
}

/// A node that has its sockets and is on its way to NATS.
pub(super) struct Joined {
    pub(super) layout: Layout,
    pub(super) me: Me,
    pub(super) ports: Ports,
    pub(super) nats: Nats,
    pub(super) bus: Arc<NatsBus>,
    pub(super) draining: CancellationToken,
    pub(super) auth: Arc<Auth>,
    /// What keeps the keys of `auth` up to date.
    pub(super) keys: JoinSet<()>,
    /// Cancelled once old events may be dropped: what is revoked among them has been appended again.
    pub(super) safe: CancellationToken,
}

impl Joined {
    /// Binds, and begins to connect.
    pub(super) async fn join(config: &Config) -> Result<Self, NodeError> {
        let layout = cluster::layout(config)?;
        let mut keys = JoinSet::new();
        let auth = access::start(config, &mut keys).await?;
        let ports = Ports::bind(config).await?;
        let grpc = config.advertised_grpc(ports.addresses.grpc);
        let me = Me {
            node: config.node(),
            role: Role::Ingest,
            http: String::new(),
            grpc: grpc.ok_or(NodeError::NotSet("cluster.advertise_grpc"))?,
            layout,
        };
        let nats = cluster::connect(config).await?;
        let bus = Arc::new(NatsBus::start(&nats));
        Ok(Self {
            layout,
            me,
            ports,
            nats,
            bus,
            draining: CancellationToken::new(),
            auth,
            keys,
            safe: CancellationToken::new(),
        })
    }

    /// Tells the others of this node and its shards, and hears of them.
    pub(super) fn members(&self, shards: impl Fn() -> Vec<HeldShard> + Send + Sync + 'static) -> Members {
        let draining = self.draining.clone();
        Members::start(&self.nats, self.me.clone(), move || Condition {
            connections: 0,
            weight: 0,
            draining: draining.is_cancelled(),
            shards: shards(),
        })
    }
}

/// What this node has of the shards, whichever the journal.
pub(super) struct Shards {
    /// The journals of those that it takes events for.
    pub(super) held: Held,
    /// What of them can be read.
    pub(super) log: Arc<dyn Log>,
    /// Those to be closed at the end.
    pub(super) journals: Journals,
    /// What keeps them in order.
    pub(super) background: JoinSet<()>,
}

/// Serves the shards, and publishers of all shards.
pub(super) fn spawn(
    config: &Config,
    joined: Joined,
    members: Arc<Members>,
    shards: Shards,
    health: Arc<dyn Health>,
) -> Result<Node, NodeError> {
    let Joined {
        layout,
        me,
        ports,
        bus,
        draining,
        safe,
        auth,
        keys,
        ..
    } = joined;
    let Shards {
        held,
        log,
        journals,
        mut background,
    } = shards;
    background.spawn(async move {
        let mut keys = keys;
        if keys.join_next().await.is_none() {
            // There are none that change.
            std::future::pending::<()>().await;
        }
    });
    let admin_token = cluster::admin_token(config)?;
    let stop = CancellationToken::new();
    let secret = cluster::secret_of(config)?;
    let files = limits::raise_file_limit().map_err(NodeError::Runtime)?;

    ports.certificates.keep(&mut background);
    for shard in held.keys() {
        background.spawn(journal::send_digests(log.clone(), bus.clone(), *shard, DIGEST_EVERY));
    }
    let journal_service = journal::service::service(&me.node, layout, held.clone(), &secret, draining.clone());
    let routed = Routed::start_over(
        &me.node,
        layout,
        held,
        &members.holders(),
        settings::routed(config),
        ports.certificates.cluster.clone(),
        secret.clone(),
    );
    let remote = RemoteLog::over(
        members.holders(),
        Handle::current(),
        settings::remote_log(config),
        ports.certificates.cluster.clone(),
        secret.clone(),
    );
    let hearing = Hearing {
        layout,
        log: Arc::new(remote),
        bus: bus.clone(),
        auth: auth.clone(),
    };
    let renewal = Renewal {
        journal: routed.clone(),
        age: settings::kept_for(config),
    };
    let revoked = Revoked::follow(hearing, Some(renewal), safe).map_err(NodeError::Runtime)?;
    background.spawn(revoked.kept());
    let publisher = Ingest::new(
        routed.clone(),
        bus.clone(),
        layout,
        settings::ingest(config),
        auth.clone(),
        draining.clone(),
    );
    let services = Services::new()
        .behind(gates::publishing(config)?)
        .grpc(ingest::grpc::publisher(publisher.clone()))
        .grpc(ingest::control::control(publisher.clone()))
        .grpc(log::service::service(log, &secret))
        .grpc(journal_service)
        .http(ingest::json::router(publisher));
    let mut port = JoinSet::new();
    port.spawn(ingest::serve(
        ports.grpc,
        services,
        settings::server(config, files, &ports.certificates),
        draining.clone(),
    ));
    background.spawn(admin::serve(
        ports.admin,
        health,
        (gates::admin(config)?, admin_token),
        stop.clone(),
    ));

    Ok(Node {
        addresses: ports.addresses,
        edge: None,
        journals: Journals {
            routed: Some(routed),
            ..journals
        },
        bus: Some(bus),
        members: Some(members),
        draining,
        stop,
        port,
        background,
    })
}
