//! A node that holds a shard, as a test wants it: behind, slow, hung, or of another epoch.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tidings::{
    log::{Heads, Located, Log, Page, ReadError, Replay, ReplayRequest},
    model::{Epoch, Event, Seq, Shard, Slot, UnixMillis},
};
use tokio::sync::Semaphore;

use crate::world::{SHARD, topic};

/// What it has, and how it answers.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) epoch: Epoch,
    /// It has every sequence from its floor up to here, all of the topic `a`, each of so many bytes.
    pub(crate) last: Seq,
    pub(crate) floor: Seq,
    pub(crate) bytes: usize,
    /// How long it takes.
    pub(crate) takes: Duration,
    /// It refuses everything.
    pub(crate) refuses: Option<ReadError>,
}

/// The node's log.
pub(crate) struct Holding {
    state: Mutex<State>,
    /// Reads begin only as there are permits.
    pub(crate) gate: Arc<Semaphore>,
    /// So do answers to who asks for heads.
    pub(crate) heads_gate: Arc<Semaphore>,
    heads: AtomicUsize,
    reads: AtomicUsize,
    under_way: Arc<AtomicUsize>,
    most: AtomicUsize,
}

impl Holding {
    pub(crate) fn new(epoch: u32, last: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                epoch: Epoch(epoch),
                last: Seq(last),
                floor: Seq(1),
                bytes: 10,
                takes: Duration::ZERO,
                refuses: None,
            }),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            heads_gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            heads: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            under_way: Arc::default(),
            most: AtomicUsize::new(0),
        })
    }

    pub(crate) fn set(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("whole")
    }

    /// How many times its heads were asked for.
    pub(crate) fn heads_asked(&self) -> usize {
        self.heads.load(Ordering::SeqCst)
    }

    /// How many times it was read.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// How many reads are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// How many reads were under way at once, at most.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl Log for Holding {
    fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
        self.heads.fetch_add(1, Ordering::SeqCst);
        let (state, gate) = (self.set().clone(), Arc::clone(&self.heads_gate));
        Box::pin(async move {
            tokio::time::sleep(state.takes).await;
            gate.acquire().await.expect("open").forget();
            if let Some(error) = state.refuses {
                return Err(error);
            }
            Ok(Heads {
                shard,
                epoch: state.epoch,
                last: state.last,
                floor: state.floor,
                slots: Arc::new(HashMap::from([(Slot(0), state.last)])),
            })
        })
    }

    fn replay(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let (state, gate) = (self.set().clone(), Arc::clone(&self.gate));
        let under_way = UnderWay::begin(&self.under_way);
        self.most.fetch_max(self.under_way(), Ordering::SeqCst);
        Box::pin(async move {
            let _under_way = under_way;
            tokio::time::sleep(state.takes).await;
            gate.acquire().await.expect("open").forget();
            state.refuses.clone().map_or_else(|| Ok(answer(&state, &request)), Err)
        })
    }

    fn locate(&self, _: Shard, _: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
        let epoch = self.set().epoch;
        Box::pin(std::future::ready(Ok(Located { epoch, after: Seq(0) })))
    }
}

fn answer(state: &State, request: &ReplayRequest) -> Replay {
    let &State { epoch, last, floor, .. } = state;
    let after = request.topics[0].1;
    if request.epoch != epoch {
        return Replay::Forked { epoch, last };
    }
    if after.next() < floor {
        return Replay::Gone { epoch, floor };
    }
    let end = last.0.min(after.0.saturating_add(request.max_events as u64));
    let events = (after.0 + 1..=end).map(|seq| {
        let data = "x".repeat(state.bytes).into();
        Arc::new(Event::new(topic("a"), None, data, UnixMillis(seq), Some(Seq(seq))))
    });
    Replay::Page(Page {
        epoch,
        events: events.collect(),
        up_to: Seq(end.min(last.0)),
    })
}

struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A question for what follows a sequence of an epoch.
pub(crate) fn after(epoch: u32, seq: u64, max_events: usize) -> ReplayRequest {
    ReplayRequest {
        shard: SHARD,
        epoch: Epoch(epoch),
        topics: vec![(topic("a"), Seq(seq))],
        max_events,
        max_bytes: usize::MAX,
    }
}
