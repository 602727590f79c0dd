//! The journal of this process' own disk: a queue, and one thread that writes what is in it.

use std::{
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::sync::{
    Semaphore, TryAcquireError,
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};

use super::{
    AppendError, Attempt, Journal, Ticket,
    clock::Clock,
    disk::{Disk, DiskFull, DiskProbe, DiskSpace},
    writer::{Entry, Writer},
};
use crate::{
    bus::Bus,
    log::Store,
    model::{Publish, UnixMillis},
};

/// At most this much waits to be written, in bytes; the rest waits outside.
pub(super) const QUEUE_BYTES: u32 = 64 << 20;

/// What can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a publisher's key is remembered, from its first use.
    pub key_window: Duration,
    /// Nothing is appended while the disk is fuller than this, in per cent, or less than [`Store::RESERVE`] is left on it.
    pub disk_high_water_percent: u8,
    /// At most this many appends wait to be written.
    pub max_in_flight: usize,
}

/// What the journal takes from the machine; tests bring their own.
pub struct Surroundings {
    /// Tells the time.
    pub clock: Box<dyn Fn() -> UnixMillis + Send>,
    /// Tells how full the disk is.
    pub disk: DiskProbe,
}

impl Surroundings {
    /// The machine's clock, and the disk that a path is on.
    #[must_use]
    pub fn real(path: &Path) -> Self {
        let path = path.to_path_buf();
        Self {
            clock: Box::new(UnixMillis::now),
            disk: Box::new(move || DiskSpace::of(&path)),
        }
    }
}

/// Whether the journal takes events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Writable,
    /// Not while the disk is as full as this.
    DiskFull(DiskFull),
    /// Not any more: a write failed, and only a restart can tell what came of it.
    ReadOnly {
        /// What failed.
        cause: String,
    },
    /// Not any more: it was closed.
    Closed,
}

/// Appends to the store of one shard. See [`Journal`] for what it promises.
///
/// One thread takes all that waits, writes it as one batch with one sync, lets readers see it, announces it, and then resolves the
/// tickets: the more is in flight, the more events share a sync.
///
/// After a write has failed nothing more is written, since what the disk then holds is known only to the next start. Reading goes on.
#[derive(Debug)]
pub struct LocalJournal {
    /// `None` once it is closed.
    queue: Mutex<Option<mpsc::Sender<Entry>>>,
    room: Arc<Semaphore>,
    health: Arc<Health>,
    /// Its sender is the writer's, and goes with it.
    written: watch::Receiver<()>,
}

/// What the writer and those who ask it share.
#[derive(Debug)]
pub(super) struct Health {
    disk: Disk,
    failed: OnceLock<String>,
}

impl Health {
    /// Whether an append can be taken now.
    pub(super) fn admit(&self) -> Result<(), AppendError> {
        if let Some(cause) = self.failed.get() {
            return Err(AppendError::ReadOnly { cause: cause.clone() });
        }
        self.disk.0.check().map_err(AppendError::DiskFull)
    }

    /// Notes that so many bytes were written.
    pub(super) fn wrote(&self, bytes: usize) {
        self.disk.0.wrote(bytes as u64);
    }

    /// Refuses everything from now on.
    pub(super) fn fail(&self, cause: &str) {
        if self.failed.set(cause.to_owned()).is_ok() {
            tracing::error!(
                cause,
                "writing failed, nothing more is written until a restart; reading goes on"
            );
        }
    }
}

impl LocalJournal {
    /// Starts the writer of a store, which closes the store when it ends. There must be only one.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        store: Arc<Store>,
        bus: Arc<dyn Bus>,
        settings: Settings,
        surroundings: Surroundings,
    ) -> std::io::Result<Arc<Self>> {
        let disk = Disk::new(surroundings.disk, settings.disk_high_water_percent, 1);
        Self::start_on(&disk, store, bus, settings, surroundings.clock)
    }

    /// The same for one of several stores on a disk, whose mark it goes by.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start_on(
        disk: &Disk,
        store: Arc<Store>,
        bus: Arc<dyn Bus>,
        settings: Settings,
        clock: Box<dyn Fn() -> UnixMillis + Send>,
    ) -> std::io::Result<Arc<Self>> {
        let (sender, queue) = mpsc::channel(settings.max_in_flight.clamp(1, Semaphore::MAX_PERMITS));
        let (writing, written) = watch::channel(());
        let health = Arc::new(Health {
            disk: disk.clone(),
            failed: OnceLock::new(),
        });
        let room = Arc::new(Semaphore::new(QUEUE_BYTES as usize));
        let name = format!("journal-{}", store.shard());
        let writer = Writer {
            store,
            bus,
            queue,
            clock: Clock::new(clock),
            key_window: settings.key_window,
            health: Arc::clone(&health),
            room: Arc::clone(&room),
            _writing: writing,
        };
        thread::Builder::new().name(name).spawn(move || writer.run())?;
        Ok(Arc::new(Self {
            queue: Mutex::new(Some(sender)),
            room,
            health,
            written,
        }))
    }

    /// Whether it takes events now.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.health.admit() {
            Err(AppendError::ReadOnly { cause }) => Status::ReadOnly { cause },
            _ if self.sender().is_none() => Status::Closed,
            Err(AppendError::DiskFull(full)) => Status::DiskFull(full),
            // Nothing else is said of a local journal as a whole.
            Ok(()) | Err(_) => Status::Writable,
        }
    }

    /// Takes nothing more, waits until what was taken is written, and closes the store.
    ///
    /// # Errors
    /// If that takes longer than the deadline. It then goes on by itself; what was acknowledged is durable either way.
    pub async fn close(&self, deadline: Duration) -> Result<(), CloseError> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut written = self.written.clone();
        let ended = async { while written.changed().await.is_ok() {} };
        tokio::time::timeout(deadline, ended)
            .await
            .map_err(|_| CloseError { deadline })
    }

    fn sender(&self) -> Option<mpsc::Sender<Entry>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the writer takes nothing: whoever holds a sender keeps the queue open, so it is closed only when the writer has failed.
    fn failed(&self) -> AppendError {
        self.health.admit().err().unwrap_or(AppendError::Closed)
    }
}

impl Journal for LocalJournal {
    fn append(&self, publish: Publish) -> BoxFuture<'_, Result<Ticket, AppendError>> {
        Box::pin(async move {
            let queue = self.sender().ok_or(AppendError::Closed)?;
            let room = self.room.acquire_many(Entry::share(&publish)).await;
            let room = room.map_err(|_| self.failed())?;
            let place = queue.reserve().await.map_err(|_| self.failed())?;
            room.forget();
            let (reply, answer) = oneshot::channel();
            place.send(Entry { publish, reply });
            Ok(Ticket::of(answer))
        })
    }

    fn try_append(&self, publish: Publish) -> Attempt {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = &*queue else {
            return Attempt::Done(Err(AppendError::Closed));
        };
        let room = match self.room.try_acquire_many(Entry::share(&publish)) {
            Ok(room) => room,
            Err(TryAcquireError::NoPermits) => return Attempt::Waits(publish),
            Err(TryAcquireError::Closed) => return Attempt::Done(Err(self.failed())),
        };
        match queue.try_reserve() {
            Ok(place) => {
                room.forget();
                let (reply, answer) = oneshot::channel();
                place.send(Entry { publish, reply });
                Attempt::Done(Ok(Ticket::of(answer)))
            }
            Err(TrySendError::Full(())) => Attempt::Waits(publish),
            Err(TrySendError::Closed(())) => Attempt::Done(Err(self.failed())),
        }
    }
}

/// The journal was not closed in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal was not closed within {deadline:?}")]
pub struct CloseError {
    /// How long it was given.
    pub deadline: Duration,
}
