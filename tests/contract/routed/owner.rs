//! A node that holds shards, as others reach it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tidings::{
    ingest::{ServeError, ServerSettings, Services, serve},
    journal::service::{Held, service},
    members::{ClusterSecret, Holder, Holders},
    model::{Layout, Shard},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::local::DEADLINE;

/// A served journal.
pub(crate) struct Owner {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    drain: CancellationToken,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Owner {
    /// Serves journals on an address of its own.
    pub(crate) async fn start(name: &'static str, layout: Layout, held: Held) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(any, name, layout, held).await
    }

    /// Serves journals where another has served them.
    pub(crate) async fn start_at(address: SocketAddr, name: &'static str, layout: Layout, held: Held) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let drain = CancellationToken::new();
        let services = Services::new().grpc(service(name, layout, held, &ClusterSecret::default(), drain.clone()));
        let settings = ServerSettings {
            drain_window: Duration::from_secs(3_600),
            ..ServerSettings::default()
        };
        let served = tokio::spawn(serve(listener, services, settings, drain.clone()));
        Self {
            name,
            address,
            drain,
            served,
        }
    }

    /// As other nodes know it.
    pub(crate) fn holder(&self) -> Holder {
        Holder {
            node: self.name.to_owned(),
            grpc: format!("http://{}", self.address),
            writable: true,
        }
    }

    /// Cuts all connections, and leaves nothing that listens.
    pub(crate) async fn kill(self) {
        self.served.abort();
        let _ = self.served.await;
    }

    /// Takes nothing more, answers what it took, and ends.
    pub(crate) async fn drain(self) {
        self.drain.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.served);
        ended.await.expect("in time").expect("no panic").expect("served");
    }
}

/// These holders of each of these shards.
pub(crate) fn holders(shards: impl IntoIterator<Item = (Shard, Vec<Holder>)>) -> watch::Sender<Arc<Holders>> {
    watch::Sender::new(Arc::new(Holders::new(shards.into_iter().collect())))
}
