//! Whose turn it is: how many reads are under way at once, and at which pace those who catch up are served.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{RemoteSettings, pace::Pace};
use crate::{
    log::{ReadError, Replay},
    model::Event,
};

/// What a page has at most, about: nodes give no more at once.
const PAGE: usize = 2 << 20;

/// Gives turns, in the order in which they were asked for. Those who are live do not wait for those who catch up; what they read counts all the
/// same, so that those who catch up leave them room.
#[derive(Debug)]
pub(super) struct Turns {
    replays: Arc<Semaphore>,
    fills: Arc<Semaphore>,
    /// Whoever is to go on next, as soon as the pace allows.
    first: Arc<tokio::sync::Mutex<()>>,
    bytes: Arc<Mutex<Pace>>,
}

/// A turn. The next one's begins when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    bytes: Arc<Mutex<Pace>>,
    /// What has been spent for it, and not been read.
    ahead: u64,
    _place: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new(settings: RemoteSettings) -> Self {
        let at_once = |reads: usize| Arc::new(Semaphore::new(reads.clamp(1, Semaphore::MAX_PERMITS)));
        let pace = Pace::new(settings.replay_bytes_per_second, Instant::now().into_std());
        Self {
            replays: at_once(settings.concurrent_replays),
            fills: at_once(settings.concurrent_replays / 4),
            first: Arc::default(),
            bytes: Arc::new(Mutex::new(pace)),
        }
    }

    /// The turn of one who catches up, to read so many bytes at most.
    pub(super) async fn replay(&self, at_most: usize) -> Result<Turn, ReadError> {
        let mut turn = self.turn(&self.replays).await?;
        // Held while waiting, so that whoever came first goes on first.
        let _first = self.first.lock().await;
        loop {
            let wait = {
                let mut bytes = lock(&self.bytes);
                let wait = bytes.wait(Instant::now().into_std());
                if wait.is_zero() {
                    turn.ahead = u64::try_from(at_most.min(PAGE)).unwrap_or_default();
                    bytes.spend(turn.ahead);
                    return Ok(turn);
                }
                wait
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// The turn of those who are live.
    pub(super) async fn fill(&self) -> Result<Turn, ReadError> {
        self.turn(&self.fills).await
    }

    async fn turn(&self, places: &Arc<Semaphore>) -> Result<Turn, ReadError> {
        let place = Arc::clone(places).acquire_owned().await.map_err(ReadError::failed)?;
        Ok(Turn {
            bytes: Arc::clone(&self.bytes),
            ahead: 0,
            _place: place,
        })
    }
}

impl Turn {
    /// This is what was read.
    pub(super) fn read(self, replay: &Replay) {
        if let Replay::Page(page) = replay {
            let bytes_of = |event: &Arc<Event>| event.topic.as_str().len() + event.data.len();
            let bytes: usize = page.events.iter().map(bytes_of).sum();
            lock(&self.bytes).spend(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.bytes).give_back(self.ahead);
    }
}

fn lock(pace: &Mutex<Pace>) -> MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}
