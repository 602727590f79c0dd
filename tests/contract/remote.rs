//! The log of this machine, read over gRPC from two nodes that both hold it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::future::BoxFuture;
use tidings::{
    ingest::{Services, serve},
    log::{
        Heads, Located, Log, ReadError, RemoteLog, RemoteSettings, Replay, ReplayRequest, Retention, service::service,
    },
    members::{ClusterSecret, Holder, Holders},
    model::{Layout, Shard, UnixMillis},
};
use tokio::{net::TcpListener, runtime::Handle, sync::watch, task::AbortHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    local::LocalWorld,
    world::{Node, SHARD, World},
};

/// A node's port, with nothing on it but its log.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    serving: AbortHandle,
    dead: Arc<AtomicBool>,
}

/// A log that says nothing once its node is dead: connections end only a moment after they are told to.
struct Mortal {
    log: Arc<dyn Log>,
    dead: Arc<AtomicBool>,
}

impl Mortal {
    fn unless_dead<T: Send + 'static>(&self, answer: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
        let dead = Arc::clone(&self.dead);
        Box::pin(async move {
            let answer = answer.await;
            if dead.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}

impl Log for Mortal {
    fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
        self.unless_dead(self.log.heads(shard))
    }

    fn replay(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        self.unless_dead(self.log.replay(request))
    }

    fn locate(&self, shard: Shard, time: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
        self.unless_dead(self.log.locate(shard, time))
    }
}

impl Port {
    pub(crate) async fn open(log: Arc<dyn Log>) -> Self {
        Self::open_at("127.0.0.1:0".parse().expect("an address"), log).await
    }

    pub(crate) async fn open_at(address: SocketAddr, log: Arc<dyn Log>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let dead = Arc::new(AtomicBool::new(false));
        let mortal = Mortal {
            log,
            dead: Arc::clone(&dead),
        };
        let services = Services::new().grpc(service(Arc::new(mortal), &ClusterSecret::default()));
        let (settings, drain) = (Default::default(), CancellationToken::new());
        let serving = tokio::spawn(async move { serve(listener, services, settings, drain).await });
        Self {
            address,
            serving: serving.abort_handle(),
            dead,
        }
    }

    /// Ends it and all its connections, without a word.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.serving.abort();
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Nodes that all hold the same shards, the best to ask first.
pub(crate) fn holders(shards: &[Shard], nodes: &[(&str, SocketAddr)]) -> Arc<Holders> {
    let holders: Vec<_> = nodes
        .iter()
        .map(|(node, address)| Holder {
            node: (*node).to_owned(),
            grpc: format!("http://{address}"),
            writable: true,
        })
        .collect();
    let shards: BTreeMap<_, _> = shards.iter().map(|&shard| (shard, holders.clone())).collect();
    Arc::new(Holders::new(shards))
}

/// A local world, whose log is read through two ports.
pub(crate) struct RemoteWorld {
    local: LocalWorld,
    running: Mutex<Option<Running>>,
}

struct Running {
    local: Node,
    _ports: [Port; 2],
    _holders: watch::Sender<Arc<Holders>>,
}

impl RemoteWorld {
    pub(crate) fn new() -> Self {
        Self {
            local: LocalWorld::new(),
            running: Mutex::default(),
        }
    }
}

impl World for RemoteWorld {
    fn layout(&self) -> Layout {
        self.local.layout()
    }

    async fn start(&self) -> Node {
        let local = self.local.start().await;
        let ports = [
            Port::open(Arc::clone(&local.log)).await,
            Port::open(Arc::clone(&local.log)).await,
        ];
        let nodes = [("ingest-0", ports[0].address), ("ingest-1", ports[1].address)];
        let (sender, receiver) = watch::channel(holders(&[SHARD], &nodes));
        let log = RemoteLog::new(receiver, Handle::current(), RemoteSettings::default());
        let node = Node {
            log: Arc::new(log),
            ..local.clone()
        };
        *self.running.lock().expect("whole") = Some(Running {
            local,
            _ports: ports,
            _holders: sender,
        });
        node
    }

    async fn stop(&self, node: Node) {
        drop(node);
        let running = self.running.lock().expect("whole").take().expect("running");
        self.local.stop(running.local).await;
    }

    fn set_time(&self, now: UnixMillis) {
        self.local.set_time(now);
    }

    async fn retain(&self, node: &Node, retention: Retention) {
        self.local.retain(node, retention).await;
    }
}
