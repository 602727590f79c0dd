//! One shard on one holder: the stream is checked, the replica is opened and follows it, publishes are appended.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream;
use futures::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    group::{Claim, Waiting},
    keeper::Keeper,
    known::Known,
    progress::{Progress, State, Status},
    sightings::Sightings,
    stream::{Names, StreamSettings},
    writer::{Session, Writer, behind, late, not_now, unavailable},
};
use crate::{
    journal::{AppendError, CloseError, Disk, Journal, Ticket, Unavailable, clock::Clock},
    log::{LocalLog, OpenError, Retention, Store, StoreMemory},
    model::{Layout, Publish, Shard, UnixMillis},
    nats::Nats,
};

/// At most this much waits to be appended, in bytes; the rest waits outside.
const QUEUE_BYTES: usize = 64 << 20;
/// How long an answer of `JetStream` may take, other than to an append.
const ASKING: Duration = Duration::from_secs(2);

/// What can be chosen of a shard's journal.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node's name.
    pub node: String,
    /// The streams.
    pub stream: StreamSettings,
    /// How long a publisher's key is remembered, from its first use; no shorter than the stream's duplicate window.
    pub key_window: Duration,
    /// How long a publish is tried, from when it came: longer than an election, and at most half of the stream's duplicate window.
    pub patience: Duration,
    /// At most this many appends wait to be appended.
    pub max_in_flight: usize,
    /// What is kept of the replica, and how often that is applied; nothing is dropped without.
    pub retention: Option<(Retention, Duration)>,
    /// For how long a stream that is said to be shorter than what was applied has to be said so before it is believed.
    pub loss_confirmed_after: Duration,
}

impl Settings {
    /// How long a publisher's key is known from its first use. After the window in which it counts, that use is known for as long again as the
    /// stream knows its message's id: until then the next use has another id, which all holders agree on.
    pub(super) const fn known_for(&self) -> Duration {
        self.key_window.saturating_add(self.stream.duplicate_window)
    }
}

/// Where a replica is kept.
#[derive(Debug, Clone)]
pub struct Home {
    /// The data directory.
    pub dir: PathBuf,
    /// The cluster's layout.
    pub layout: Layout,
    /// The shard.
    pub shard: Shard,
    /// What its store shares with the node's others.
    pub memory: StoreMemory,
}

/// One shard on one holder. See [`Journal`] for what it promises.
///
/// It begins whether NATS is there or not, and goes on trying; until then it takes nothing, and says why. Readers find the replica in the node's
/// log while it is of the stream's epoch.
#[derive(Debug)]
pub struct Replica {
    shard: Shard,
    context: jetstream::Context,
    /// `None` once it is closed.
    queue: Mutex<Option<mpsc::Sender<Waiting>>>,
    room: Arc<Semaphore>,
    patience: Duration,
    furthest_behind: Duration,
    disk: Disk,
    progress: Arc<Progress>,
    session: watch::Receiver<Option<Session>>,
    stop: CancellationToken,
    writer: Mutex<Option<JoinHandle<()>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Replica {
    /// Starts it, on the runtime that this is called on. The node's log holds the replica from when it is known to be of the stream's epoch.
    ///
    /// # Errors
    /// If the directory is not to be used for it.
    pub fn start(
        nats: &Nats,
        log: Arc<LocalLog>,
        settings: Settings,
        home: Home,
        clock: Box<dyn Fn() -> UnixMillis + Send>,
        disk: &Disk,
    ) -> Result<Arc<Self>, OpenError> {
        Store::claim_replica(&home.dir, home.layout, home.shard)?;
        let shard = home.shard;
        let names = Names::new(nats.subjects().clone(), shard);
        let mut context = jetstream::new(nats.client().clone());
        context.set_timeout(ASKING);
        let progress = Arc::new(Progress::new(shard));
        let sightings = Arc::new(Sightings::default());
        let (sessions, session) = watch::channel(None);
        let (sender, queue) = mpsc::channel(settings.max_in_flight.clamp(1, Semaphore::MAX_PERMITS));
        let furthest_behind = settings.stream.duplicate_window.saturating_sub(settings.patience);
        let stop = CancellationToken::new();
        let writer = Writer {
            shard,
            names: names.clone(),
            context: context.clone(),
            queue,
            session: session.clone(),
            progress: Arc::clone(&progress),
            status: progress.watch(),
            sightings: Arc::clone(&sightings),
            clock: Clock::new(clock),
            key_window: settings.key_window,
            known_for: settings.known_for(),
            furthest_behind,
            known: Known::default(),
            epoch: None,
            last_time: UnixMillis::default(),
            held: None,
        };
        let replica = Arc::new(Self {
            shard,
            context: context.clone(),
            queue: Mutex::new(Some(sender)),
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            patience: settings.patience,
            furthest_behind,
            disk: disk.clone(),
            progress: Arc::clone(&progress),
            session,
            stop: stop.clone(),
            writer: Mutex::default(),
            keeper: Mutex::default(),
        });
        let keeper = Keeper {
            context,
            names,
            settings,
            home,
            log,
            progress,
            sightings,
            sessions,
            stop,
            opening: None,
            closing: None,
            told: Vec::new(),
        };
        let writer = Handle::current().spawn(writer.run());
        let keeper = Handle::current().spawn(keeper.run());
        *replica.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        *replica.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        Ok(replica)
    }

    /// How it is, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.progress.watch()
    }

    /// Whether it takes events of every kind now: why not, if it does not.
    ///
    /// # Errors
    /// If it does not.
    pub fn ready(&self) -> Result<(), AppendError> {
        self.admit(true)
    }

    /// The replica, while it is of the stream's epoch.
    #[must_use]
    pub fn store(&self) -> Option<Arc<Store>> {
        self.session.borrow().as_ref().map(|session| Arc::clone(&session.store))
    }

    /// Takes nothing more, waits until it is known what became of what was taken, and closes the replica.
    ///
    /// # Errors
    /// If that takes longer than the deadline. What is still under way is then given up: it may be appended or not.
    pub async fn close(&self, deadline: Duration) -> Result<(), CloseError> {
        let until = tokio::time::Instant::now() + deadline;
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut in_time = true;
        if let Some(mut writer) = writer {
            in_time = tokio::time::timeout_at(until, &mut writer).await.is_ok();
            writer.abort();
        }
        self.stop.cancel();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            // Closing a store flushes it, which nothing may interrupt.
            in_time &= tokio::time::timeout_at(until, keeper).await.is_ok();
        }
        if in_time { Ok(()) } else { Err(CloseError { deadline }) }
    }

    /// Whether an append can be taken now.
    fn admit(&self, is_keyed: bool) -> Result<(), AppendError> {
        let status = self.progress.now();
        if status.state != State::Following {
            return Err(not_now(self.shard, &status));
        }
        let now = Instant::now();
        if is_keyed && !status.is_within(self.furthest_behind, now) {
            return Err(unavailable(
                self.shard,
                Unavailable::CatchingUp {
                    cause: behind(&status, now),
                },
            ));
        }
        self.disk.0.check().map_err(AppendError::DiskFull)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Journal for Replica {
    fn append(&self, publish: Publish) -> BoxFuture<'_, Result<Ticket, AppendError>> {
        Box::pin(async move {
            let since = Instant::now();
            let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let queue = queue.ok_or(AppendError::Closed)?;
            self.admit(publish.key.is_some())?;
            let cost = Waiting::cost(&publish).min(QUEUE_BYTES);
            let patience = since + self.patience;
            let deadline = publish.deadline.map_or(patience, |deadline| deadline.min(patience));
            let taken = async {
                let room = Arc::clone(&self.room).acquire_many_owned(u32::try_from(cost).unwrap_or(u32::MAX));
                let room = room.await.map_err(|_| AppendError::Closed)?;
                let place = queue.reserve().await.map_err(|_| AppendError::Closed)?;
                Ok((room, place))
            };
            let taken = tokio::time::timeout_at(deadline.into(), taken).await;
            let (room, place) = taken.unwrap_or_else(|_| {
                Err(AppendError::TooSlow {
                    shard: self.shard,
                    waited: since.elapsed(),
                })
            })?;
            self.disk.0.wrote(cost as u64);
            let (reply, mut answer) = oneshot::channel();
            let claim = Claim::default();
            place.send(Waiting {
                publish,
                reply: Some(reply),
                since,
                deadline,
                drawn: rand::random(),
                claim: claim.clone(),
                _room: room,
            });
            let (shard, context) = (self.shard, self.context.clone());
            Ok(Ticket::new(async move {
                let answered = tokio::time::timeout_at(deadline.into(), &mut answer).await;
                let answered = match answered {
                    Ok(answered) => answered,
                    // It has not even had its turn.
                    Err(_) if claim.take() => return Err(late(shard, since, &context)),
                    // Under way: the writer knows what becomes of it, or that nobody does.
                    Err(_) => answer.await,
                };
                answered.unwrap_or_else(|_| {
                    Err(if claim.take() {
                        AppendError::Closed
                    } else {
                        AppendError::Unknown {
                            cause: "the node stopped".to_owned(),
                        }
                    })
                })
            }))
        })
    }
}
