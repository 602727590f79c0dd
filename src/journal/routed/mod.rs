//! The journal of a cluster: each event goes to whoever holds its shard, this process or another node.
//!
//! A publish is [`split`] by shard. Each shard has a [`route`]: a queue and a task that brings what is in it, in order, to one target at a time.
//! Other nodes are reached over `tidings.v1.Journal`, many appends under way on one stream per shard.
//!
//! **Order.** What one caller appends to one shard, one awaited after the other, is appended in that order, also across a failover: a route goes on
//! with another target only when every append at the one before is answered, known not to be taken, or given up as unknown; and what is sent
//! again is sent before everything that came later. Two things are not promised: an append that failed may be missing between those that did
//! not; and one whose outcome is unknown, where it has no key or its caller was told so, may still be appended later, by a node that had hung.
//!
//! **Failures.** Whether a request was sent is known: what was not waits for the next holder, for as long as [`Settings::patience`], and then fails
//! with the reason, certainly not appended. What was sent and lost its answer is sent again if it has a key, before anything else; without
//! one it fails as unknown at once.

mod order;
mod peers;
mod route;
mod split;
mod target;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::{
    order::{Outcome, Part},
    peers::Peers,
    route::Route,
    split::{OfShard, join, split},
};
use super::{AppendError, CloseError, Journal, Ticket, service::Held};
use crate::{
    members::{ClusterSecret, Holders},
    model::{Layout, Publish, Shard},
    tls::ClientTls,
};

/// What can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long an append waits while nobody who takes its shard's events is known or can be reached.
    pub patience: Duration,
    /// How many appends to one shard may be under way or wait; more wait outside.
    pub in_flight: usize,
    /// How many bytes they may have together.
    pub in_flight_bytes: usize,
    /// How many of them may be under way at another node.
    pub in_flight_at_a_node: usize,
    /// How long connecting to a node may take.
    pub connect_within: Duration,
    /// How often a node is asked whether it is still there.
    pub keep_alive_every: Duration,
    /// How long it may take to say so.
    pub keep_alive_within: Duration,
    /// How long a node that is there may take to answer an append, before it counts as gone.
    pub answer_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(2),
            in_flight: 4_096,
            in_flight_bytes: 8 << 20,
            in_flight_at_a_node: 1_024,
            connect_within: Duration::from_secs(1),
            keep_alive_every: Duration::from_secs(1),
            keep_alive_within: Duration::from_secs(2),
            // An election in JetStream takes up to eight seconds.
            answer_within: Duration::from_secs(15),
        }
    }
}

/// What one append takes besides its payload, in bytes: roughly.
const OVERHEAD: usize = 512;
/// HTTP/2 ends a connection on which too much waits to be read, over all its streams: no more than this may be under way on one.
const IN_FLIGHT_ON_A_CONNECTION: usize = 8_192;

/// See the module.
#[derive(Debug)]
pub struct Routed {
    layout: Layout,
    in_flight_bytes: usize,
    /// One per shard.
    queues: Vec<Queue>,
    /// The routes, which end with their queues.
    routes: TaskTracker,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// The way into a route.
#[derive(Debug)]
struct Queue {
    shard: Shard,
    /// `None` once it is closed.
    parts: Mutex<Option<mpsc::UnboundedSender<Part>>>,
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Routed {
    /// Appends to the shards that this node holds by their journals, and to others by the nodes that hold them. `node` is this node's name among
    /// the holders. Must be called within a runtime: each shard has a task there, until it is [closed](Self::close) or dropped.
    #[must_use]
    pub fn start(
        node: &str,
        layout: Layout,
        held: Held,
        holders: &watch::Receiver<Arc<Holders>>,
        settings: Settings,
    ) -> Arc<Self> {
        Self::start_over(
            node,
            layout,
            held,
            holders,
            settings,
            ClientTls::default(),
            ClusterSecret::default(),
        )
    }

    /// The same; nodes whose URL begins with https are reached with these certificates instead of the system's, and all know
    /// this one by the cluster's secret.
    #[must_use]
    pub fn start_over(
        node: &str,
        layout: Layout,
        mut held: Held,
        holders: &watch::Receiver<Arc<Holders>>,
        mut settings: Settings,
        tls: ClientTls,
        secret: ClusterSecret,
    ) -> Arc<Self> {
        let most = (IN_FLIGHT_ON_A_CONNECTION / usize::from(layout.shards())).max(1);
        settings.in_flight_at_a_node = settings.in_flight_at_a_node.clamp(1, most);
        let peers = Arc::new(Peers::new(settings, tls, secret));
        let routes = TaskTracker::new();
        let (mut queues, mut tasks) = (Vec::new(), Vec::new());
        for shard in (0..layout.shards()).map(Shard) {
            let (sender, parts) = mpsc::unbounded_channel();
            let local = held.remove(&shard);
            let route = Route::new(shard, node, local, holders.clone(), Arc::clone(&peers), parts, settings);
            tasks.push(AbortOnDropHandle::new(routes.spawn(route.run())));
            queues.push(Queue {
                shard,
                parts: Mutex::new(Some(sender)),
                count: Arc::new(Semaphore::new(settings.in_flight.clamp(1, Semaphore::MAX_PERMITS))),
                bytes: Arc::new(Semaphore::new(settings.in_flight_bytes.clamp(1, u32::MAX as usize))),
            });
        }
        routes.close();
        Arc::new(Self {
            layout,
            in_flight_bytes: settings.in_flight_bytes.clamp(1, u32::MAX as usize),
            queues,
            routes,
            _tasks: tasks,
        })
    }

    /// Takes nothing more, and waits until what was taken is answered. The journals of this node are closed after it.
    ///
    /// # Errors
    /// If that takes longer than the deadline.
    pub async fn close(&self, deadline: Duration) -> Result<(), CloseError> {
        for queue in &self.queues {
            queue.lock().take();
        }
        tokio::time::timeout(deadline, self.routes.wait())
            .await
            .map_err(|_| CloseError { deadline })
    }

    /// Gives a part its place, and hands back where its outcome comes.
    async fn place(&self, shard: Shard, publish: Publish) -> Result<oneshot::Receiver<Outcome>, AppendError> {
        let queue = self.queues.get(usize::from(shard.0)).ok_or(AppendError::Closed)?;
        let expires = publish.deadline.map(|at| expires(Instant::from_std(at)));
        let cost = (publish.data.len() + publish.topics.len() * OVERHEAD).min(self.in_flight_bytes);
        let began = Instant::now();
        let room = async {
            let bytes = u32::try_from(cost).unwrap_or(u32::MAX);
            let count = Arc::clone(&queue.count).acquire_owned().await;
            let bytes = Arc::clone(&queue.bytes).acquire_many_owned(bytes).await;
            match (count, bytes) {
                (Ok(count), Ok(bytes)) => Ok([count, bytes]),
                _ => Err(AppendError::Closed),
            }
        };
        let room = match expires {
            None => room.await?,
            Some(at) => tokio::time::timeout_at(at, room)
                .await
                .map_err(|_| AppendError::TooSlow {
                    shard: queue.shard,
                    waited: began.elapsed(),
                })??,
        };
        let (part, outcome) = Part::new(publish, expires, room);
        let sender = queue.lock().clone().ok_or(AppendError::Closed)?;
        sender.send(part).map_err(|_| AppendError::Closed)?;
        Ok(outcome)
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<mpsc::UnboundedSender<Part>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Routed {
    fn append(&self, publish: Publish) -> BoxFuture<'_, Result<Ticket, AppendError>> {
        Box::pin(async move {
            let mut parts = split(self.layout, publish);
            if parts.len() == 1
                && let Some(OfShard { shard, publish, .. }) = parts.pop()
            {
                let outcome = self.place(shard, publish).await?;
                return Ok(Ticket::of(outcome));
            }
            let mut placed = Vec::with_capacity(parts.len());
            for part in parts {
                placed.push((part.positions, self.place(part.shard, part.publish).await));
            }
            Ok(Ticket::new(async move {
                let outcomes = placed.into_iter().map(|(positions, placed)| async move {
                    let outcome = match placed {
                        Ok(outcome) => settled(outcome).await,
                        Err(error) => Err(error),
                    };
                    (positions, outcome)
                });
                join(join_all(outcomes).await)
            }))
        })
    }
}

async fn settled(outcome: oneshot::Receiver<Outcome>) -> Outcome {
    outcome.await.unwrap_or_else(|_| {
        Err(AppendError::Unknown {
            cause: "this node stopped".to_owned(),
        })
    })
}

/// When to give up what has a deadline: a little before it, so that the answer still reaches whoever waits.
fn expires(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - (left / 8).min(Duration::from_millis(50))
}
