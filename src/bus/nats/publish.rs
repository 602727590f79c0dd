//! From a process to NATS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use async_nats::{PublishErrorKind, Subject};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::wire;
use crate::{
    bus::{Announcement, Digest, LocalBus},
    model::{Event, Slot},
    nats::{Nats, Seldom},
};

/// What is to be sent.
#[derive(Debug)]
pub(super) enum Sent {
    Announcement(Announcement),
    Digest(Digest),
    Ephemeral(Slot, Arc<Event>),
    /// To be told once all before it has been sent.
    Barrier(oneshot::Sender<()>),
}

impl Sent {
    fn weight(&self) -> usize {
        match self {
            Self::Announcement(announcement) => announcement.event.weight(),
            Self::Ephemeral(_, event) => event.weight(),
            Self::Digest(_) | Self::Barrier(_) => 0,
        }
    }
}

/// What waits to be sent, bounded in number and weight. Nobody waits for room: what does not fit is lost, and digests tell of it.
#[derive(Debug)]
pub(super) struct Outgoing {
    sender: mpsc::Sender<Sent>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    weight: AtomicUsize,
    lost: AtomicU64,
}

/// The other end of [`Outgoing`].
pub(super) struct Publisher {
    receiver: mpsc::Receiver<Sent>,
    counts: Arc<Counts>,
    nats: Nats,
    local: Arc<LocalBus>,
}

impl Outgoing {
    /// Holds so many at most.
    pub(super) fn new(capacity: usize, nats: Nats, local: Arc<LocalBus>) -> (Self, Publisher) {
        let (sender, receiver) = mpsc::channel(capacity);
        let counts = Arc::<Counts>::default();
        let publisher = Publisher {
            receiver,
            counts: Arc::clone(&counts),
            nats,
            local,
        };
        (Self { sender, counts }, publisher)
    }

    pub(super) fn push(&self, sent: Sent) {
        let weight = sent.weight();
        let before = self.counts.weight.fetch_add(weight, Ordering::Relaxed);
        let has_room = before == 0 || before + weight <= LocalBus::WEIGHT;
        if !has_room || self.sender.try_send(sent).is_err() {
            self.counts.weight.fetch_sub(weight, Ordering::Relaxed);
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all that waits is sent, or dropped.
    pub(super) async fn flush(&self) {
        let (tell, told) = oneshot::channel();
        if self.sender.send(Sent::Barrier(tell)).await.is_ok() {
            let _ = told.await;
        }
    }
}

impl Publisher {
    /// Sends what is to be sent. One task per bus. While there is no connection everything is dropped: whoever comes back reads the log.
    pub(super) async fn run(mut self) {
        let link = self.nats.link();
        let mut overflows = Seldom::default();
        let mut oversized = Seldom::default();
        while let Some(sent) = self.receiver.recv().await {
            self.counts.weight.fetch_sub(sent.weight(), Ordering::Relaxed);
            let is_up = link.borrow().up;
            let lost = self.counts.lost.swap(0, Ordering::Relaxed);
            if lost > 0 && is_up {
                self.local.doubt();
                if overflows.happened(Instant::now()).is_some() {
                    warn!(
                        lost,
                        "announcements came faster than nats took them, and were lost: followers read the log"
                    );
                }
            }
            let Some((subject, payload)) = self.render(sent) else {
                continue;
            };
            if !is_up {
                continue;
            }
            let Err(error) = self.nats.client().publish(subject, payload).await else {
                continue;
            };
            if error.kind() != PublishErrorKind::MaxPayloadExceeded {
                debug!(%error, "the nats client is closed");
                return;
            }
            if let Some(times) = oversized.happened(Instant::now()) {
                warn!(%error, times, "an announcement is larger than nats takes: raise `max_payload` of its servers");
            }
        }
    }

    /// The message; none if it is not for others.
    fn render(&self, sent: Sent) -> Option<(Subject, Bytes)> {
        let subjects = self.nats.subjects();
        match sent {
            Sent::Announcement(announcement) => Some((
                subjects.slot(announcement.slot),
                wire::encode_announcement(&announcement),
            )),
            Sent::Digest(digest) => Some((subjects.digest(digest.shard), wire::encode_digest(&digest))),
            Sent::Ephemeral(slot, event) => Some((subjects.once(slot), wire::encode_ephemeral(&event))),
            Sent::Barrier(tell) => {
                let _ = tell.send(());
                None
            }
        }
    }
}
