//! A whole cluster under test: NATS servers, ingest nodes and edges, each a process, and between them links that can be cut.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tidings_cluster::Layout;
use tokio::task::{JoinSet, block_in_place};

use crate::{
    client::{Publisher, get_json, keyed},
    link::{Link, State},
    node::{Addresses, Node, Role, Setup},
    patiently,
    server::{self, Server, Version},
    sse::Ask,
};

/// Which journal a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Journal {
    Rocksdb,
    Jetstream,
}

impl Journal {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rocksdb => "rocksdb",
            Self::Jetstream => "jetstream",
        }
    }
}

/// How large a cluster is and what it is made of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) journal: Journal,
    pub(crate) version: Version,
    pub(crate) servers: usize,
    pub(crate) ingests: usize,
    pub(crate) edges: usize,
    pub(crate) settings: Vec<(String, String)>,
}

impl Plan {
    /// The least that is a cluster: one NATS server, two ingest nodes, two edges.
    pub(crate) const fn small(journal: Journal) -> Self {
        Self {
            journal,
            version: Version::Newest,
            servers: 1,
            ingests: 2,
            edges: 2,
            settings: Vec::new(),
        }
    }

    /// With a setting on every node.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until an event of each shard gets from every ingest node to every edge; `None` if this version of NATS is not to be had.
    pub(crate) async fn start(self) -> Option<World> {
        let world = self.launch().await?;
        world.works(None).await;
        Some(world)
    }

    /// The same, where publishers and followers are asked who they are: as the holder of a token that may publish everything, and by nothing more than
    /// that the nodes are ready on the edges.
    pub(crate) async fn start_as(self, token: &str) -> Option<World> {
        let world = self.launch().await?;
        world.works(Some(token)).await;
        Some(world)
    }

    async fn launch(self) -> Option<World> {
        let (nats, routes) = servers(self.version, self.servers).await?;
        let mut world = World {
            layout: Layout::new(1_024, 8).expect("valid"),
            ingests: Vec::new(),
            edges: Vec::new(),
            nats,
            routes,
            dir: tempfile::tempdir().expect("a directory"),
            plan: self,
        };
        world.start_nodes().await;
        world.ready().await;
        Some(world)
    }
}

/// The links between NATS servers, by who connects and to whom.
type Routes = Vec<Vec<Option<Link>>>;

/// Starts NATS servers that reach each other by links.
async fn servers(version: Version, count: usize) -> Option<(server::Cluster, Routes)> {
    if count == 1 {
        let servers = vec![block_in_place(|| Server::start(version, ""))?];
        return Some((server::Cluster { servers }, Vec::new()));
    }
    let addresses: Vec<_> = (0..count).map(|_| server::an_address()).collect();
    let mut routes = Routes::new();
    for from in 0..count {
        let mut row = Vec::new();
        for (to, &address) in addresses.iter().enumerate() {
            row.push(if from == to {
                None
            } else {
                Some(link(address, Server::ROUTES).await)
            });
        }
        routes.push(row);
    }
    let route = |from: usize, to: usize| {
        let link: &Option<Link> = &routes[from][to];
        format!("nats://{}", link.as_ref().expect("others").address())
    };
    // Servers tell each other and their clients where they are; here everybody is to go by the links. What they tell each other leads nowhere
    // (port 9 is that of `discard`), and clients are told nothing.
    let told = "no_advertise: true, advertise: \"127.0.0.1:9\"";
    let cluster = block_in_place(|| server::Cluster::start_at(version, &addresses, route, told, ""))?;
    Some((cluster, routes))
}

async fn link(address: Ipv4Addr, port: u16) -> Link {
    Link::to(SocketAddr::from((address, port))).await
}

/// A node, its links to each NATS server, and the one by which other nodes reach it.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) node: Node,
    links: Vec<Link>,
    inward: Link,
}

impl Member {
    /// Cuts or mends its way to NATS.
    pub(crate) fn nats(&self, state: State) {
        for link in &self.links {
            link.set(state);
        }
    }

    /// Cuts or mends the way of other nodes to it: what they hand on to it, and what they read of its log.
    pub(crate) fn inward(&self, state: State) {
        self.inward.set(state);
    }

    /// Where it is reached.
    pub(crate) const fn addresses(&self) -> Addresses {
        self.node.addresses()
    }
}

/// The cluster.
pub(crate) struct World {
    // In this order: nodes go before their servers, and the directory last.
    pub(crate) edges: Vec<Member>,
    pub(crate) ingests: Vec<Member>,
    pub(crate) nats: server::Cluster,
    routes: Routes,
    pub(crate) layout: Layout,
    pub(crate) plan: Plan,
    dir: TempDir,
}

impl World {
    async fn start_nodes(&mut self) {
        let mut starting = JoinSet::new();
        for (role, count) in [(Role::Ingest, self.plan.ingests), (Role::Edge, self.plan.edges)] {
            for ordinal in 0..count {
                let name = if role == Role::Ingest {
                    format!("ingest-{ordinal}")
                } else {
                    format!("edge-{ordinal}")
                };
                let mut links = Vec::new();
                for server in &self.nats.servers {
                    links.push(link(server.address(), Server::CLIENTS).await);
                }
                let inward = Link::nowhere().await;
                let setup = self.setup(role, &name, &links);
                let setup = setup.set("cluster.advertise_grpc", &format!("http://{}", inward.address()));
                starting.spawn(async move {
                    let node = setup.start().await;
                    inward.lead_to(node.addresses().grpc);
                    let member = Member {
                        name,
                        node,
                        links,
                        inward,
                    };
                    (role, member)
                });
            }
        }
        while let Some(started) = starting.join_next().await {
            let (role, member) = started.expect("no panic");
            let members = if role == Role::Ingest {
                &mut self.ingests
            } else {
                &mut self.edges
            };
            members.push(member);
        }
        for members in [&mut self.ingests, &mut self.edges] {
            members.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    fn setup(&self, role: Role, name: &str, links: &[Link]) -> Setup {
        let servers: Vec<_> = links.iter().map(|link| format!("nats://{}", link.address())).collect();
        let mut setup = Setup::role(role)
            .argument("--nats")
            .argument(&servers.join(","))
            .set("cluster.node", name)
            .set("cluster.ingest_nodes", &self.plan.ingests.to_string())
            .set("cluster.slots", &self.layout.slots().to_string())
            .set("cluster.shards", &self.layout.shards().to_string())
            .set("journal.kind", self.plan.journal.name())
            .set("jetstream.replicas", &self.plan.servers.to_string())
            // JetStream sets it aside, for each stream and server, and there is not that much on every disk.
            .set("jetstream.max_bytes", "64MiB")
            .log_to(self.log_of(name));
        for (key, value) in &self.plan.settings {
            setup = setup.set(key, value);
        }
        setup
    }

    /// Where the log of a node is kept.
    pub(crate) fn log_of(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// Waits until every node says that it is ready in every part.
    pub(crate) async fn ready(&self) {
        for member in self.ingests.iter().chain(&self.edges) {
            ready(member.addresses()).await;
        }
    }

    /// Waits until the nodes have heard of each other: that they are ready says nothing of that.
    async fn works(&self, token: Option<&str>) {
        let topics = self.topic_of_each_shard("first/");
        for (at, member) in self.ingests.iter().enumerate() {
            let mut publisher = Publisher::connect(member.addresses()).await;
            for topic in &topics {
                let published = async {
                    let request = || {
                        let mut request = tonic::Request::new(keyed(topic, "first", format!("first {at}")));
                        if let Some(token) = token {
                            let bearer = format!("Bearer {token}").parse().expect("ASCII");
                            request.metadata_mut().insert("authorization", bearer);
                        }
                        request
                    };
                    while let Err(status) = publisher.0.publish(request()).await {
                        assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
                        // It asks to come back, and beats are a second apart.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                patiently(format_args!("{topic} being published at {}", member.name), published).await;
            }
        }
        for member in self.edges.iter().filter(|_| token.is_none()) {
            let first = Ask::topics(&topics).query("since", "earliest");
            let mut stream = first.open(member.addresses().http).await.expect("a stream");
            stream.data(topics.len() * self.ingests.len()).await;
        }
    }

    /// Where the ingest nodes are reached.
    pub(crate) fn publishing(&self) -> Vec<Addresses> {
        self.ingests.iter().map(Member::addresses).collect()
    }

    /// Where the edges are reached.
    pub(crate) fn streaming(&self) -> Vec<Addresses> {
        self.edges.iter().map(Member::addresses).collect()
    }

    /// A topic of each shard: the first of `<prefix>0`, `<prefix>1` and so on.
    pub(crate) fn topic_of_each_shard(&self, prefix: &str) -> Vec<String> {
        let of = |shard| {
            (0..)
                .map(|number| format!("{prefix}{number}"))
                .find(|topic| self.layout.shard(self.layout.slot(topic)) == shard)
                .expect("they do not end")
        };
        (0..self.layout.shards()).map(of).collect()
    }

    /// Cuts or mends the routes between two NATS servers, in both directions.
    pub(crate) fn route(&self, one: usize, other: usize, state: State) {
        for link in [&self.routes[one][other], &self.routes[other][one]]
            .into_iter()
            .flatten()
        {
            link.set(state);
        }
    }

    /// Which NATS server leads the stream of some shard, chosen by `which`; `None` while nobody does.
    pub(crate) async fn leader_of_a_stream(&self, which: usize) -> Option<usize> {
        let first = self.nats.servers.first()?;
        let monitor = SocketAddr::from((first.address(), Server::MONITOR));
        let (_, told) = get_json(monitor, "/jsz?streams=true").await;
        let streams: Vec<&Value> = told["account_details"]
            .as_array()?
            .iter()
            .filter_map(|account| account["stream_detail"].as_array())
            .flatten()
            .collect();
        let stream = streams.get(which % streams.len().max(1))?;
        let leader = stream["cluster"]["leader"].as_str()?;
        self.nats.servers.iter().position(|server| server.name() == leader)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a test that fails needs to be understood.
        if std::thread::panicking() {
            for server in &self.nats.servers {
                let _ = std::fs::write(self.log_of(&format!("nats-{}", server.name())), server.log());
            }
            self.dir.disable_cleanup(true);
            eprintln!("the logs of all nodes and servers are in {}", self.dir.path().display());
        }
    }
}

/// Waits until a NATS server says that nothing is wrong with it, its JetStream included.
pub(crate) async fn healthy(server: &Server) {
    let monitor = SocketAddr::from((server.address(), Server::MONITOR));
    let healthy = async {
        while get_json(monitor, "/healthz").await.0 != 200 {
            // It has no way to tell when it is.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    patiently(format_args!("{} being healthy", server.name()), healthy).await;
}

/// Waits until a node says that it is ready in every part.
pub(crate) async fn ready(addresses: Addresses) {
    let ready = async {
        while get_json(addresses.admin, "/readyz").await.0 != 200 {
            // It has no way to tell when it is.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    patiently(format_args!("{addresses:?} being ready"), ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_reach_each_other_by_links_alone() {
    let (nats, routes) = servers(Version::Newest, 3).await.expect("the newest is always there");
    let reach = |server: &Server| {
        let monitor = SocketAddr::from((server.address(), Server::MONITOR));
        async move {
            let (_, told) = get_json(monitor, "/routez").await;
            let others = told["routes"].as_array().expect("routes").iter();
            let others: std::collections::BTreeSet<_> = others
                .map(|route| route["remote_name"].as_str().expect("a name").to_owned())
                .collect();
            others.len()
        }
    };
    for state in [State::Whole, State::Resetting, State::Whole] {
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
            routes[from][to].as_ref().expect("others").set(state);
        }
        let expected = if state == State::Whole { [2, 2, 2] } else { [0, 1, 1] };
        for (server, expected) in nats.servers.iter().zip(expected) {
            let reaches = async {
                while reach(server).await != expected {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            patiently(format_args!("{} reaching {expected} others", server.name()), reaches).await;
        }
    }
}
