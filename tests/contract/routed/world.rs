//! The world of the local journal, with the routed one before it.

use std::sync::{Arc, Mutex};

use tidings::{
    journal::routed::{Routed, Settings},
    log::Retention,
    members::Holders,
    model::{Layout, UnixMillis},
};
use tokio::sync::watch;

use super::owner::{Owner, holders};
use crate::{
    local::{DEADLINE, LocalWorld},
    world::{Node, SHARD, World},
};

/// A process that appends by a holder of the shard: itself, or another one.
pub(crate) struct RoutedWorld {
    holder: LocalWorld,
    is_elsewhere: bool,
    running: Mutex<Option<Running>>,
}

struct Running {
    routed: Arc<Routed>,
    held: Node,
    owner: Option<Owner>,
    _holders: watch::Sender<Arc<Holders>>,
}

impl RoutedWorld {
    /// The shard is held by the process itself.
    pub(crate) fn here() -> Self {
        Self::new(false)
    }

    /// It is held by another, which is reached over gRPC.
    pub(crate) fn elsewhere() -> Self {
        Self::new(true)
    }

    fn new(is_elsewhere: bool) -> Self {
        Self {
            holder: LocalWorld::new(),
            is_elsewhere,
            running: Mutex::default(),
        }
    }
}

impl World for RoutedWorld {
    fn layout(&self) -> Layout {
        self.holder.layout()
    }

    async fn start(&self) -> Node {
        let held = self.holder.start().await;
        let journals = [(SHARD, Arc::clone(&held.journal))].into();
        let (owner, local, known) = if self.is_elsewhere {
            let owner = Owner::start("there", self.layout(), journals).await;
            let known = holders([(SHARD, vec![owner.holder()])]);
            (Some(owner), [].into(), known)
        } else {
            (None, journals, holders([]))
        };
        let routed = Routed::start("here", self.layout(), local, &known.subscribe(), Settings::default());
        let node = Node {
            journal: Arc::clone(&routed) as _,
            ..held.clone()
        };
        *self.running.lock().expect("whole") = Some(Running {
            routed,
            held,
            owner,
            _holders: known,
        });
        node
    }

    async fn stop(&self, node: Node) {
        drop(node);
        let running = self.running.lock().expect("whole").take().expect("running");
        running.routed.close(DEADLINE).await.expect("closed in time");
        if let Some(owner) = running.owner {
            owner.drain().await;
        }
        self.holder.stop(running.held).await;
    }

    fn set_time(&self, now: UnixMillis) {
        self.holder.set_time(now);
    }

    async fn retain(&self, node: &Node, retention: Retention) {
        self.holder.retain(node, retention).await;
    }
}
