//! The nodes of a cluster, as this one sees them.
//!
//! Each node tells all others about itself once a second over NATS ([`Beat`]); a pure state machine ([`Membership`]) makes of that who
//! is there. While the connection to NATS is down nobody is heard, so the view stays as it is.

mod holders;
mod log;
mod secret;
mod task;
mod wire;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::AbortHandle,
};

use self::task::Task;
pub use self::{
    holders::{Holder, Holders},
    secret::{AskedFor, ClusterSecret},
};
pub use tidings_cluster::{Beat, HeldShard, Membership, MembershipSettings, Role, View};

use crate::{
    model::{Layout, UnixMillis},
    nats::Nats,
};

/// How long the last beat may take.
const LEAVING: Duration = Duration::from_secs(1);

/// What does not change about this node while it runs.
#[derive(Debug, Clone)]
pub struct Me {
    /// Its name: stable across its restarts, unique in the cluster.
    pub node: String,
    /// What it does.
    pub role: Role,
    /// Where its streams are reached from outside, as a URL; empty if it has none.
    pub http: String,
    /// Where other nodes reach its gRPC port, as a URL; empty if it has none.
    pub grpc: String,
    /// Its layout.
    pub layout: Layout,
}

/// What does change: asked for before each beat.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// How many streams it has.
    pub connections: u64,
    /// Its share of the load, relative to the others'; 100 as a rule.
    pub weight: u32,
    /// It is going away: nothing new is to be sent there.
    pub draining: bool,
    /// The shards that it holds.
    pub shards: Vec<HeldShard>,
}

/// Tells of this node, and hears of the others. Ends when dropped, without a word: the others notice the silence.
pub struct Members {
    view: watch::Receiver<Arc<View>>,
    holders: watch::Receiver<Arc<Holders>>,
    tell: Arc<Notify>,
    leave: mpsc::Sender<oneshot::Sender<()>>,
    task: AbortHandle,
}

impl Members {
    /// Starts to tell of this node and to hear the others, as soon as there is a connection. Must be called within a runtime.
    ///
    /// Each start draws a new incarnation from the clock: the later of two with the same name counts.
    #[must_use]
    pub fn start(nats: &Nats, me: Me, condition: impl Fn() -> Condition + Send + Sync + 'static) -> Self {
        Self::start_with(nats, MembershipSettings::new(me.layout), me, condition)
    }

    /// As [`Members::start`], with other times.
    #[must_use]
    pub fn start_with(
        nats: &Nats,
        settings: MembershipSettings,
        me: Me,
        condition: impl Fn() -> Condition + Send + Sync + 'static,
    ) -> Self {
        let membership = Membership::new(settings);
        let (view_sender, view) = watch::channel(Arc::clone(membership.view()));
        let (holders_sender, holders) = watch::channel(Arc::default());
        let (leave, leaving) = mpsc::channel(1);
        let tell = Arc::<Notify>::default();
        let task = Task {
            nats: nats.clone(),
            me,
            condition: Box::new(condition),
            incarnation: UnixMillis::now().0,
            membership,
            view: view_sender,
            holders: holders_sender,
            tell: Arc::clone(&tell),
            leaving,
        };
        Self {
            view,
            holders,
            tell,
            leave,
            task: tokio::spawn(task.run()).abort_handle(),
        }
    }

    /// Who is there, now and whenever it changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Who holds which shard, now and whenever it changes.
    #[must_use]
    pub fn holders(&self) -> watch::Receiver<Arc<Holders>> {
        self.holders.clone()
    }

    /// Tells of this node at once: its condition changed in a way that others should not learn of a second later, such as that it drains or
    /// takes appends.
    pub fn tell(&self) {
        self.tell.notify_one();
    }

    /// Says that this node is gone, and says nothing any more. The view stays as it was.
    pub async fn leave(&self) {
        let (sent, told) = oneshot::channel();
        if self.leave.send(sent).await.is_ok() {
            // In vain if there is no connection: the silence will say it.
            let _ = tokio::time::timeout(LEAVING, told).await;
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members")
            .field("view", &*self.view.borrow())
            .finish_non_exhaustive()
    }
}
