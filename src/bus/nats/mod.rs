//! The bus of a cluster: core NATS between the processes, a [`LocalBus`] within each.

mod follows;
mod listen;
mod publish;
mod silence;
pub mod wire;

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_nats::Subject;
use futures::future::BoxFuture;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
};

use self::{
    follows::{Follows, subscribe},
    listen::Listener,
    publish::{Outgoing, Sent},
};
use super::{Announcement, Bus, Digest, Line, LocalBus, Notice};
use crate::{
    model::{Event, Slot},
    nats::{Nats, RoundTripError, Subjects},
};

/// Carries notices between the processes of a cluster over core NATS.
///
/// A process subscribes to the slots that any of its lines follows, and hands what it hears to those lines as [`LocalBus`] does, so that
/// a slow line loses its own notices and holds up nobody. Digests are heard as long as there is any line. A subscription is dropped with
/// the last line that follows its slot: how long a slot without followers is kept is up to the hub, which sweeps them, so there is no
/// second grace here.
///
/// [`Notice::Unverified`] is said to every line when the connection to NATS was made anew (once the server has the subscriptions again), when
/// messages came too fast, when the server is about to end or complains, when this process announced faster than NATS took it, and about
/// every second while there is no connection, or no digest was heard for three seconds, be it of one shard: so followers still get what the log
/// has. A server on which no digest at all is heard for so long is taken to hang or to be cut off, and is left for another; if that does not help, ever more
/// rarely, down to every thirty seconds.
#[derive(Debug)]
pub struct NatsBus {
    local: Arc<LocalBus>,
    follows: Arc<Follows>,
    outgoing: Outgoing,
    tasks: Vec<AbortHandle>,
    nats: Nats,
}

/// Notices that wait to be sent at most.
const OUTGOING: usize = 64 << 10;
/// Subscriptions that wait to be listened to at most.
const MADE: usize = 64;

impl NatsBus {
    /// Starts on a connection, which may not be made yet. Must be called within a runtime; ends when dropped.
    #[must_use]
    pub fn start(nats: &Nats) -> Self {
        let local = Arc::new(LocalBus::default());
        let follows = Arc::<Follows>::default();
        let (outgoing, publisher) = Outgoing::new(OUTGOING, nats.clone(), Arc::clone(&local));
        let (made, subscriptions) = mpsc::channel(MADE);
        let listener = Listener::new(nats.clone(), Arc::clone(&local), Arc::clone(&follows), subscriptions);
        let tasks: [JoinHandle<()>; 3] = [
            tokio::spawn(publisher.run()),
            tokio::spawn(listener.run()),
            tokio::spawn(subscribe(nats.clone(), Arc::clone(&follows), made)),
        ];
        Self {
            local,
            follows,
            outgoing,
            tasks: tasks.iter().map(JoinHandle::abort_handle).collect(),
            nats: nats.clone(),
        }
    }

    /// Waits until what was announced has arrived at the server, so that a process that ends takes no announcement with it. What is
    /// announced after that may still be lost.
    ///
    /// # Errors
    /// If there is no connection, or it takes too long.
    pub async fn flush(&self, patience: Duration) -> Result<(), RoundTripError> {
        let flush = async {
            self.outgoing.flush().await;
            self.nats.round_trip(patience).await
        };
        tokio::time::timeout(patience, flush)
            .await
            .unwrap_or(Err(RoundTripError::TimedOut(patience)))
    }
}

impl Bus for NatsBus {
    fn announce(&self, announcements: &[Announcement]) {
        for announcement in announcements {
            self.outgoing.push(Sent::Announcement(announcement.clone()));
        }
    }

    fn digest(&self, digest: &Digest) {
        self.outgoing.push(Sent::Digest(digest.clone()));
    }

    fn ephemeral(&self, slot: Slot, event: Arc<Event>) {
        self.outgoing.push(Sent::Ephemeral(slot, event));
    }

    fn open(&self) -> Box<dyn Line> {
        self.follows.open();
        Box::new(NatsLine {
            line: self.local.open(),
            follows: Arc::clone(&self.follows),
            slots: HashSet::new(),
        })
    }
}

impl Drop for NatsBus {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.local.close();
    }
}

struct NatsLine {
    line: Box<dyn Line>,
    follows: Arc<Follows>,
    slots: HashSet<Slot>,
}

impl Line for NatsLine {
    fn follow(&mut self, slot: Slot) {
        self.line.follow(slot);
        if self.slots.insert(slot) {
            self.follows.follow(slot);
        }
    }

    fn unfollow(&mut self, slot: Slot) {
        self.line.unfollow(slot);
        if self.slots.remove(&slot) {
            self.follows.unfollow(slot);
        }
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Notice>> {
        self.line.next()
    }
}

impl Drop for NatsLine {
    fn drop(&mut self) {
        for slot in self.slots.drain() {
            self.follows.unfollow(slot);
        }
        self.follows.close();
    }
}

/// What can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Digests,
    Announcements(Slot),
    Ephemeral(Slot),
}

impl Source {
    fn subject(self, subjects: &Subjects) -> Subject {
        match self {
            Self::Digests => subjects.digests(),
            Self::Announcements(slot) => subjects.slot(slot),
            Self::Ephemeral(slot) => subjects.once(slot),
        }
    }
}
