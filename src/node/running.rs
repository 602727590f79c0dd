//! A node that runs, whatever its role, and how it ends.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::join_all};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{NodeError, ports::Addresses};
use crate::{
    bus::NatsBus,
    edge::EdgeHandle,
    ingest::ServeError,
    journal::{CloseError, LocalJournal, jetstream::Replica, routed::Routed},
    members::Members,
};

/// What the ends of streams and calls may take beyond the drain window.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// What the answers of other nodes to what was forwarded may take.
const FORWARD_DEADLINE: Duration = Duration::from_secs(2);
/// What it may take until NATS has the last announcements.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);
/// What writing the last events and closing the log may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(20);

/// A running node.
pub(super) struct Node {
    pub(super) addresses: Addresses,
    /// Its streams, if it has any.
    pub(super) edge: Option<EdgeHandle>,
    /// What it takes events with, if it does.
    pub(super) journals: Journals,
    /// What it announces on, if others are to hear of it.
    pub(super) bus: Option<Arc<NatsBus>>,
    /// The cluster, if it is part of one.
    pub(super) members: Option<Arc<Members>>,
    /// Cancelled when the drain begins.
    pub(super) draining: CancellationToken,
    /// Cancelled when all that drains has.
    pub(super) stop: CancellationToken,
    /// The one task that serves the gRPC port, until it has drained.
    pub(super) port: JoinSet<Result<(), ServeError>>,
    /// Digests, retention, the admin port and the like: they end when they are told to, and nothing waits for them.
    pub(super) background: JoinSet<()>,
}

impl Node {
    /// Waits until a part ends that should not, or panics.
    pub(super) async fn fails(&mut self) -> NodeError {
        let edge = async {
            match &self.edge {
                Some(edge) => edge.stopped().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stopped = edge => match stopped {
                Err(failed) => failed.into(),
                Ok(()) => NodeError::Ended("the edge"),
            },
            Some(served) = self.port.join_next() => match served {
                Ok(Err(error)) => error.into(),
                Ok(Ok(())) | Err(_) => NodeError::Ended("the gRPC port"),
            },
            Some(_) = self.background.join_next() => {
                NodeError::Ended("a background task (digests, retention or the admin port)")
            }
        }
    }

    /// Ends in good order: streams and calls over the window, then the journals, then the rest. Each phase has its own deadline.
    pub(super) async fn drain(mut self, window: Duration) {
        self.draining.cancel();
        if let Some(members) = &self.members {
            members.tell();
        }
        if let Some(edge) = &self.edge {
            edge.drain(window);
        }
        let streams = self.edge.as_ref().map(EdgeHandle::streams);
        info!(streams, ?window, "draining; a second signal ends it at once");
        let edge = async {
            if let Some(edge) = &self.edge {
                edge.ended().await;
            }
        };
        let port = async {
            match self.port.join_next().await {
                None | Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => warn!(%error, "calls were cut off"),
                Some(Err(error)) => warn!(%error, "calls were cut off"),
            }
        };
        phase("streams and calls end", window + DRAIN_GRACE, async {
            tokio::join!(edge, port)
        })
        .await;
        self.journals.close().await;
        if let Some(bus) = &self.bus
            && let Err(error) = bus.flush(FLUSH_DEADLINE).await
        {
            debug!(%error, "the last announcements may not have been heard: digests tell of them");
        }
        if let Some(members) = &self.members {
            members.leave().await;
        }
        self.stop.cancel();
        self.background.shutdown().await;
    }
}

/// What a node takes events with; nothing for an edge.
#[derive(Clone, Default)]
pub(super) struct Journals {
    /// That of the cluster.
    pub(super) routed: Option<Arc<Routed>>,
    /// Those of the shards on its own disk.
    pub(super) local: Vec<Arc<LocalJournal>>,
    /// Those of the streams that it follows.
    pub(super) replicas: Vec<Arc<Replica>>,
}

impl Journals {
    /// Writes what was taken and closes the logs. A process must not exit without that: RocksDB's threads would be at work in what is left of it.
    pub(super) async fn close(&self) {
        if let Some(routed) = &self.routed
            && let Err(error) = routed.close(FORWARD_DEADLINE).await
        {
            warn!(%error, "what other nodes have not answered is unknown to its publishers");
        }
        let tell = |closed: Result<(), CloseError>| {
            if let Err(error) = closed {
                warn!(%error, "what was acknowledged is durable all the same");
            }
        };
        let local = self.local.iter().map(|journal| journal.close(CLOSE_DEADLINE).map(tell));
        let replicas = self
            .replicas
            .iter()
            .map(|replica| replica.close(CLOSE_DEADLINE).map(tell));
        phase("the journals are closed", CLOSE_DEADLINE, async {
            tokio::join!(join_all(local), join_all(replicas))
        })
        .await;
    }

    /// Hands on what was started, and closes the journals if it was not.
    pub(super) async fn or_close<T>(&self, started: Result<T, NodeError>) -> Result<T, NodeError> {
        if started.is_err() {
            self.close().await;
        }
        started
    }
}

/// One step of the drain, which may not hold up the next.
pub(super) async fn phase<T>(what: &'static str, deadline: Duration, work: impl Future<Output = T>) {
    if tokio::time::timeout(deadline, work).await.is_err() {
        warn!(phase = what, ?deadline, "not done in time, going on");
    }
}
