//! `tidings edge`: streams of a cluster, without a disk. It starts, and serves, whether or not NATS and the ingest nodes are there.

use std::sync::{Arc, OnceLock};

use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    NodeError, access,
    cluster::{self, Heard},
    gates,
    health::EdgeHealth,
    ports::Ports,
    revocations::{Hearing, Revoked},
    running::{Journals, Node},
    settings,
};
use crate::{
    admin,
    bus::NatsBus,
    config::{self, Config},
    edge::{Edge, EdgeHandle, limits, subscriber},
    hub::HubSettings,
    ingest::{self, Services},
    log::{Log, RemoteLog},
    members::{Condition, Me, Members, Role},
};

/// Binds, builds and spawns.
pub(super) async fn start(config: &Config) -> Result<Node, NodeError> {
    let layout = cluster::layout(config)?;
    let admin_token = cluster::admin_token(config)?;
    let mut background = JoinSet::new();
    let auth = access::start(config, &mut background).await?;
    let (ports, http) = Ports::bind_with_streams(config).await?;
    let me = Me {
        node: config.node(),
        role: Role::Edge,
        http: config
            .advertised_http(http.address())
            .ok_or(NodeError::NotSet("cluster.advertise_http"))?,
        // Nobody has to reach it there: it is left out if nothing says where that is.
        grpc: config.advertised_grpc(ports.addresses.grpc).unwrap_or_default(),
        layout,
    };
    let name = me.node.clone();
    let draining = CancellationToken::new();
    let stop = CancellationToken::new();

    let nats = cluster::connect(config).await?;
    let bus = Arc::new(NatsBus::start(&nats));
    let streams = Arc::<OnceLock<EdgeHandle>>::default();
    let members = Members::start(&nats, me, condition(config, streams.clone(), draining.clone()));
    let log = RemoteLog::over(
        members.holders(),
        Handle::current(),
        settings::remote_log(config),
        ports.certificates.cluster.clone(),
        cluster::secret_of(config)?,
    );
    let routes = cluster::no_routes(layout, &name);

    let files = limits::raise_file_limit().map_err(NodeError::Runtime)?;
    let log: Arc<dyn Log> = Arc::new(log);
    let hearing = Hearing {
        layout,
        log: log.clone(),
        bus: bus.clone(),
        auth: auth.clone(),
    };
    let revoked = Revoked::follow(hearing, None, CancellationToken::new()).map_err(NodeError::Runtime)?;
    let edge = Edge {
        layout,
        settings: settings::edge(config)?,
        limits: settings::limits(config, files, config::Role::Edge)?,
        hub: HubSettings::default(),
        log,
        bus,
        routes: routes.subscribe(),
        auth: auth.clone(),
        tls: ports.certificates.http.clone(),
    };
    let edge = edge.start(http).map_err(NodeError::Runtime)?;
    let edge = streams.get_or_init(|| edge).clone();

    let services = Services::new()
        .behind(gates::publishing(config)?)
        .grpc(subscriber(edge.clone()));
    let mut port = JoinSet::new();
    port.spawn(ingest::serve(
        ports.grpc,
        services,
        settings::server(config, files, &ports.certificates),
        draining.clone(),
    ));

    ports.certificates.keep(&mut background);
    background.spawn(revoked.kept());
    background.spawn(cluster::keep_routes(members.view(), nats.link(), layout, name, routes));
    let heard = Heard::default();
    background.spawn(heard.clone().listen(members.view(), layout));
    let health = Arc::new(EdgeHealth {
        edge: edge.clone(),
        heard,
        auth,
        link: nats.link(),
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
        journals: Journals::default(),
        bus: None,
        members: Some(Arc::new(members)),
        draining,
        stop,
        port,
        background,
    })
}

/// What an edge tells the others about itself, each time anew.
fn condition(
    config: &Config,
    streams: Arc<OnceLock<EdgeHandle>>,
    draining: CancellationToken,
) -> impl Fn() -> Condition + Send + Sync + 'static {
    let weight = config.cluster.weight;
    move || Condition {
        connections: streams.get().map_or(0, |edge| edge.streams() as u64),
        weight,
        draining: draining.is_cancelled(),
        shards: Vec::new(),
    }
}
