//! The log of the nodes that hold a shard, read over gRPC.
//!
//! ```text
//! heads  ─▶ flights: one question per shard at a time ─┐
//! fill   ─▶ turns: few at once, at once ───────────────┼─▶ ask: the best holder, then the next ─▶ view: does the answer count?
//! replay ─▶ turns: so many at once, at a pace ─────────┘
//! ```
//!
//! - `peers`: a connection to each node, and which nodes are to be asked last for a while.
//! - `ask`: failover, hedging, the deadline.
//! - `hedging`: when the next holder is asked though the first may yet answer.
//! - `weigh`: which of several answers is passed on.
//! - `view`: what is known of a shard: its epoch, how far it had come, who lags. No answer is passed on that contradicts it.
//! - `turns`, `pace`: how much is read at once, and how fast.
//! - `flights`: several who ask for the same heads share the answer to a question that was put after they asked.

mod ask;
mod flights;
mod hedging;
mod pace;
mod peers;
mod turns;
mod view;
mod weigh;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::task::AbortOnDropHandle;

use self::{
    ask::{Answer, Asking, Question},
    flights::Flights,
    turns::Turns,
};
#[cfg(test)]
pub(crate) use self::{
    ask::{Answer as HolderAnswer, Question as HolderQuestion},
    view::View as ShardView,
    weigh::Weighing,
};
use super::{Heads, Located, Log, ReadError, Replay, ReplayRequest};
use crate::{
    members::{ClusterSecret, Holders},
    model::{Shard, UnixMillis},
    tls::ClientTls,
};

/// How the holders are asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RemoteSettings {
    /// How many replays are under way at once in this process.
    pub concurrent_replays: usize,
    /// How many bytes of events those who catch up are given each second, in this process; 0: as many as there are.
    pub replay_bytes_per_second: u64,
    /// How long an answer may take, once it is the question's turn, whoever gives it.
    pub deadline: Duration,
    /// How long one node may take for it.
    pub attempt: Duration,
    /// The next holder is asked as well when there is no answer for this long, at least: longer when answers take longer as a rule.
    pub hedge_after: Duration,
    /// How many questions out of one may be put to another holder as well for that reason.
    pub hedge_share: f64,
}

impl Default for RemoteSettings {
    fn default() -> Self {
        Self {
            concurrent_replays: 64,
            replay_bytes_per_second: 64 << 20,
            deadline: Duration::from_secs(6),
            attempt: Duration::from_secs(3),
            hedge_after: Duration::from_millis(20),
            hedge_share: 0.1,
        }
    }
}

/// What has been asked of the holders since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoteCounts {
    /// Questions: of several who shared an answer, one.
    pub questions: u64,
    /// What was sent to a holder, first or not.
    pub attempts: u64,
    /// Attempts that were made because the first one took long.
    pub hedges: u64,
    /// Questions that had no answer in the end.
    pub failed: u64,
}

/// Reads the log of the nodes that hold a shard. Lives as long as the process; dropped, what is under way ends.
#[derive(Debug)]
pub struct RemoteLog {
    asking: Arc<Asking>,
    flights: Arc<Flights>,
    turns: Arc<Turns>,
    runtime: Handle,
}

#[derive(Debug, Default)]
struct Counters {
    questions: AtomicU64,
    attempts: AtomicU64,
    hedges: AtomicU64,
    failed: AtomicU64,
}

impl RemoteLog {
    /// A log that is read from whoever holds a shard at the time. Connections are made as they are needed, and driven on `runtime`.
    #[must_use]
    pub fn new(holders: watch::Receiver<Arc<Holders>>, runtime: Handle, settings: RemoteSettings) -> Self {
        Self::over(
            holders,
            runtime,
            settings,
            ClientTls::default(),
            ClusterSecret::default(),
        )
    }

    /// The same; nodes whose URL begins with https are reached with these certificates instead of the system's, and all know
    /// this one by the cluster's secret.
    #[must_use]
    pub fn over(
        holders: watch::Receiver<Arc<Holders>>,
        runtime: Handle,
        settings: RemoteSettings,
        tls: ClientTls,
        secret: ClusterSecret,
    ) -> Self {
        Self {
            asking: Arc::new(Asking::new(holders, settings, tls, secret)),
            flights: Arc::default(),
            turns: Arc::new(Turns::new(settings)),
            runtime,
        }
    }

    /// What has been asked so far.
    #[must_use]
    pub fn counts(&self) -> RemoteCounts {
        let Counters {
            questions,
            attempts,
            hedges,
            failed,
        } = self.asking.counters();
        RemoteCounts {
            questions: questions.load(Ordering::Relaxed),
            attempts: attempts.load(Ordering::Relaxed),
            hedges: hedges.load(Ordering::Relaxed),
            failed: failed.load(Ordering::Relaxed),
        }
    }

    fn read(&self, request: ReplayRequest, live: bool) -> BoxFuture<'static, Result<Replay, ReadError>> {
        let (asking, turns) = (Arc::clone(&self.asking), Arc::clone(&self.turns));
        let (flights, runtime) = (Arc::clone(&self.flights), self.runtime.clone());
        self.run(async move {
            let turn = if live {
                turns.fill().await?
            } else {
                turns.replay(request.max_bytes).await?
            };
            let shard = request.shard;
            let replay = asking.replay(request, live).await?;
            turn.read(&replay);
            if asking.should_compare(shard, &replay) {
                runtime.spawn(heads(&asking, &flights, shard, &runtime));
            }
            Ok(replay)
        })
    }

    /// Runs on the runtime of the connections, until whoever waits for it does not any more.
    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ReadError>> {
        let runtime = self.runtime.clone();
        Box::pin(async move {
            let task = AbortOnDropHandle::new(runtime.spawn(work));
            task.await.unwrap_or_else(|error| Err(ReadError::failed(error)))
        })
    }
}

fn heads(
    asking: &Arc<Asking>,
    flights: &Arc<Flights>,
    shard: Shard,
    runtime: &Handle,
) -> BoxFuture<'static, Result<Heads, ReadError>> {
    let asking = Arc::clone(asking);
    let ask = move || {
        let asking = Arc::clone(&asking);
        async move {
            match asking.ask(Question::Heads(shard)).await? {
                Answer::Heads(heads) => Ok(heads),
                Answer::Replay(_) | Answer::Located(_) => Err(ask::another_kind()),
            }
        }
    };
    flights.join(shard, runtime, ask)
}

impl Log for RemoteLog {
    fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
        heads(&self.asking, &self.flights, shard, &self.runtime)
    }

    fn replay(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        self.read(request, false)
    }

    fn fill(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        self.read(request, true)
    }

    fn locate(&self, shard: Shard, time: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
        let (asking, turns) = (Arc::clone(&self.asking), Arc::clone(&self.turns));
        self.run(async move {
            let _turn = turns.replay(0).await?;
            match asking.ask(Question::Locate(shard, time)).await? {
                Answer::Located(located) => Ok(located),
                _ => Err(ask::another_kind()),
            }
        })
    }
}
