//! A whole cluster on the loopback: NATS servers, ingest nodes and edges, each a process that can be killed, ended and started again.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    part::{Part, Port, Program},
    server::Node,
    tokens::Tokens,
};
use crate::get::Connection;

/// How long a node may take to hear the others: a deadline, never waited for in full.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two questions whether a node is ready: it has no way to tell.
const ASK: Duration = Duration::from_millis(50);
/// The version of NATS that the tests install below the cache.
const INSTALLED: &str = "tidings/nats-server-2.15.1/bin/nats-server";

/// Which cluster, on the command line.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "cluster")]
pub struct Options {
    /// Edges of the cluster that is started.
    #[arg(long, default_value_t = 3)]
    pub edges: usize,

    /// Its ingest nodes.
    #[arg(long, default_value_t = 1)]
    pub ingest_nodes: usize,

    /// Its NATS servers.
    #[arg(long, default_value_t = 1)]
    pub nats_servers: usize,

    /// What makes its events durable.
    #[arg(long, value_enum, default_value_t = Journal::Rocksdb)]
    pub journal: Journal,

    /// The program of NATS; by default the one on the PATH, or the one that `tests/nats/setup` has installed.
    #[arg(long, value_name = "PATH")]
    pub nats_server: Option<PathBuf>,
}

/// What makes a cluster's events durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Journal {
    /// The disk of the ingest node that owns the shard.
    Rocksdb,
    /// NATS JetStream.
    Jetstream,
}

impl Journal {
    /// Its name, as a setting.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rocksdb => "rocksdb",
            Self::Jetstream => "jetstream",
        }
    }
}

/// How large a cluster is, and what it is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `tidings` program.
    pub tidings: PathBuf,
    /// The `nats-server` program.
    pub nats_server: PathBuf,
    /// Its NATS servers.
    pub nats_servers: usize,
    /// Its ingest nodes.
    pub ingest_nodes: usize,
    /// Its edges.
    pub edges: usize,
    /// What makes its events durable.
    pub journal: Journal,
    /// Settings of every node: `http.heartbeat`, and the value.
    pub settings: Vec<(String, String)>,
    /// The issuer whose tokens it asks for; without one nobody is asked who they are.
    pub tokens: Option<Tokens>,
}

impl Plan {
    /// As the options say, of this program.
    ///
    /// # Errors
    /// If there is no NATS.
    pub fn of(options: &Options, tidings: &Path) -> Result<Self> {
        Ok(Self {
            tidings: tidings.to_owned(),
            nats_server: match &options.nats_server {
                Some(program) => program.clone(),
                None => find_nats().context("there is no nats-server: run tests/nats/setup, or say `--nats-server`")?,
            },
            nats_servers: options.nats_servers,
            ingest_nodes: options.ingest_nodes,
            edges: options.edges,
            journal: options.journal,
            settings: Vec::new(),
            tokens: None,
        })
    }

    /// With a setting more, of every node.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Where everybody is asked who they are, and shows tokens of this issuer.
    #[must_use]
    pub fn asking(mut self, tokens: Tokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Starts it, and waits until all nodes are ready.
    ///
    /// # Errors
    /// If a part does not start: its log is kept, and named.
    pub async fn start(self) -> Result<Cluster> {
        let mut cluster = Cluster::prepare(&self)?;
        match cluster.start().await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                let logs = cluster.keep_logs().display().to_string();
                Err(error.context(format!("the cluster does not start; all logs are in {logs}")))
            }
        }
    }
}

/// The server on the PATH, or the one that the tests have installed.
#[must_use]
pub fn find_nats() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&paths).map(|directory| directory.join("nats-server"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let installed = cache.map(|cache| cache.join(INSTALLED));
    on_path.chain(installed).find(|path| path.is_file())
}

/// A node, or a server of NATS.
#[derive(Debug)]
pub struct Member {
    // In this order: the process goes before its ports.
    /// Its process.
    pub part: Part,
    /// Where it is reached: streams of an edge, publishers of an ingest node, clients of NATS.
    pub address: SocketAddr,
    /// Where it tells of itself, over HTTP.
    pub monitor: SocketAddr,
    _ports: [Port; 3],
}

impl Member {
    /// Waits until it says that it is ready in every part.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn ready(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while let Err(error) = self.is_ready().await {
            if Instant::now() >= until {
                return Err(error.context(format!(
                    "{} is not ready; its log is {}",
                    self.part.name(),
                    self.part.log().display()
                )));
            }
            sleep(ASK).await;
        }
        Ok(())
    }

    async fn is_ready(&self) -> Result<()> {
        Connection::open(self.monitor).await?.json("/readyz").await.map(drop)
    }

    /// Starts it again after its end, on the same ports and data, and waits until it is ready in every part.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        self.part.start().await?;
        self.ready().await
    }
}

/// A cluster that runs. Its parts are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // In this order: nodes go before NATS, and the directory last.
    /// The edges.
    pub edges: Vec<Member>,
    /// The ingest nodes.
    pub ingest: Vec<Member>,
    /// The servers of NATS.
    pub nats: Vec<Member>,
    tokens: Option<Tokens>,
    directory: TempDir,
}

impl Cluster {
    fn prepare(plan: &Plan) -> Result<Self> {
        ensure!(
            plan.nats_servers > 0 && plan.ingest_nodes > 0 && plan.edges > 0,
            "a cluster has a NATS server, an ingest node and an edge at least"
        );
        let directory = tempfile::Builder::new().prefix("tidings-loadtest-").tempdir()?;
        let nats = nats(plan, directory.path())?;
        let urls: Vec<_> = nats.iter().map(|server| format!("nats://{}", server.address)).collect();
        let monitors: Vec<_> = nats.iter().map(|server| format!("http://{}", server.monitor)).collect();
        let secret = format!("{:032x}", rand::random::<u128>());
        let prepare = |role: &str, count: usize| -> Result<Vec<Member>> {
            let member = |number: usize| {
                let name = format!("{role}-{number}");
                let ports = [Port::take()?, Port::take()?, Port::take()?];
                let [http, grpc, admin] = ports.each_ref().map(Port::address);
                let mut program = Program::tidings(&name, &plan.tidings, directory.path(), role)?
                    .arguments(["--nats", &urls.join(","), "--grpc", &grpc.to_string()])
                    .arguments(["--admin", &admin.to_string()])
                    .set("cluster.node", &name)
                    .set("cluster.ingest_nodes", &plan.ingest_nodes.to_string())
                    .set("cluster.secret", &secret)
                    .set("journal.kind", plan.journal.name());
                program = match role {
                    "edge" => program.arguments(["--http", &http.to_string()]),
                    _ => program
                        .arguments([Path::new("--data"), &directory.path().join(&name)])
                        .set("jetstream.replicas", &plan.nats_servers.to_string())
                        // JetStream sets it aside, for each stream and server.
                        .set("jetstream.max_bytes", "256MiB")
                        .set("jetstream.monitor_urls", &monitors.join(",")),
                };
                if let Some(tokens) = &plan.tokens {
                    let (key, value) = tokens.setting();
                    program = program.set(key, &value);
                }
                for (key, value) in &plan.settings {
                    program = program.set(key, value);
                }
                Ok(Member {
                    part: Part::new(program),
                    address: if role == "edge" { http } else { grpc },
                    monitor: admin,
                    _ports: ports,
                })
            };
            (0..count).map(member).collect()
        };
        Ok(Self {
            edges: prepare("edge", plan.edges)?,
            ingest: prepare("ingest", plan.ingest_nodes)?,
            nats,
            tokens: plan.tokens.clone(),
            directory,
        })
    }

    async fn start(&mut self) -> Result<()> {
        for servers in [&mut self.nats, &mut self.ingest, &mut self.edges] {
            // All of a kind at the same time.
            for member in servers.iter_mut() {
                member.part.launch()?;
            }
            for member in servers {
                member.part.ready().await?;
            }
        }
        for member in self.ingest.iter().chain(&self.edges) {
            member.ready().await?;
        }
        Ok(())
    }

    /// The nodes as a server: streams on the edges, publishers at the ingest nodes.
    #[must_use]
    pub fn node(&self) -> Node {
        let addresses = |members: &[Member]| members.iter().map(|member| member.address).collect();
        Node::at(addresses(&self.edges), addresses(&self.ingest), self.tokens.clone())
    }

    /// The processes that run: of edges, ingest nodes and NATS servers.
    #[must_use]
    pub fn pids(&self) -> [Vec<u32>; 3] {
        [&self.edges, &self.ingest, &self.nats]
            .map(|members| members.iter().filter_map(|member| member.part.pid()).collect())
    }

    /// Has the logs stay when the cluster is gone. Where they are.
    pub fn keep_logs(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the logs of all nodes are in {}", self.keep_logs().display());
        }
    }
}

/// NATS servers, not started yet: for JetStream with a store each, and routes between them if there are several.
fn nats(plan: &Plan, directory: &Path) -> Result<Vec<Member>> {
    let ports = (0..plan.nats_servers).map(|_| Ok([Port::take()?, Port::take()?, Port::take()?]));
    let ports: Vec<[Port; 3]> = ports.collect::<Result<_>>()?;
    let routes: Vec<_> = ports
        .iter()
        .map(|[_, _, route]| format!("\"nats://{}\"", route.address()))
        .collect();
    let mut members = Vec::new();
    for (number, ports) in ports.into_iter().enumerate() {
        let name = format!("nats-{number}");
        let [clients, monitor, route] = ports.each_ref().map(Port::address);
        let mut text = format!("server_name: {name}\nlisten: \"{clients}\"\nhttp: \"{monitor}\"\n");
        if plan.journal == Journal::Jetstream {
            let store = directory.join(&name);
            writeln!(text, "jetstream {{ store_dir: {store:?}, sync_interval: always }}")?;
        }
        if routes.len() > 1 {
            writeln!(
                text,
                "cluster {{ name: loadtest, listen: \"{route}\", routes: [{}] }}",
                routes.join(", ")
            )?;
        }
        let config = directory.join(format!("{name}.conf"));
        fs::write(&config, text)?;
        let program = Program::new(&name, &plan.nats_server, directory, |line| {
            line.contains("Server is ready")
        })?;
        members.push(Member {
            part: Part::new(program.arguments([Path::new("-c"), &config])),
            address: clients,
            monitor,
            _ports: ports,
        });
    }
    Ok(members)
}
