//! What the lines of a process follow together, and the subscriptions that follow from it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_nats::Subscriber;
use futures::stream::{AbortHandle, Abortable, abortable};
use tokio::sync::{Notify, mpsc};
use tracing::debug;

use super::Source;
use crate::{
    model::Slot,
    nats::{Link, Nats},
};

/// How many lines there are, and how many follow each slot.
#[derive(Debug, Default)]
pub(super) struct Follows {
    wanted: Mutex<Wanted>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Wanted {
    lines: usize,
    slots: HashMap<Slot, usize>,
}

impl Follows {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One line more.
    pub(super) fn open(&self) {
        self.lock().lines += 1;
        self.changed.notify_one();
    }

    /// One line less.
    pub(super) fn close(&self) {
        self.lock().lines -= 1;
        self.changed.notify_one();
    }

    /// A line follows a slot that it did not follow.
    pub(super) fn follow(&self, slot: Slot) {
        *self.lock().slots.entry(slot).or_default() += 1;
        self.changed.notify_one();
    }

    /// A line no longer follows a slot.
    pub(super) fn unfollow(&self, slot: Slot) {
        let mut wanted = self.lock();
        if let Some(lines) = wanted.slots.get_mut(&slot) {
            *lines -= 1;
            if *lines == 0 {
                wanted.slots.remove(&slot);
            }
        }
        drop(wanted);
        self.changed.notify_one();
    }

    /// Whether anyone follows anything.
    pub(super) fn any(&self) -> bool {
        !self.lock().slots.is_empty()
    }

    fn sources(&self) -> Vec<Source> {
        let wanted = self.lock();
        let digests = (wanted.lines > 0).then_some(Source::Digests);
        let slots = wanted.slots.keys();
        let slots = slots.flat_map(|&slot| [Source::Announcements(slot), Source::Ephemeral(slot)]);
        digests.into_iter().chain(slots).collect()
    }
}

/// A subscription that ends when it is not wanted any more.
pub(super) type Subscription = Abortable<Subscriber>;

/// Makes and drops subscriptions as they are wanted. One task per bus: it may have to wait for a client that is not connected, which must
/// not hold up those that listen.
pub(super) async fn subscribe(nats: Nats, follows: Arc<Follows>, made: mpsc::Sender<(Source, Subscription)>) {
    let mut running: HashMap<Source, AbortHandle> = HashMap::new();
    let mut link = nats.link();
    loop {
        // While there is no connection, what comes and goes again costs nothing.
        if link.wait_for(|link: &Link| link.up).await.is_err() {
            return;
        }
        let wanted = follows.sources();
        let mut kept = HashMap::with_capacity(wanted.len());
        for source in wanted {
            if let Some(handle) = running.remove(&source) {
                kept.insert(source, handle);
                continue;
            }
            match nats.client().subscribe(source.subject(nats.subjects())).await {
                Ok(subscriber) => {
                    let (subscription, handle) = abortable(subscriber);
                    if made.send((source, subscription)).await.is_err() {
                        return;
                    }
                    kept.insert(source, handle);
                }
                Err(error) => {
                    debug!(%error, "the nats client is closed");
                    return;
                }
            }
        }
        for handle in running.into_values() {
            handle.abort();
        }
        running = kept;
        follows.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_wanted_as_long_as_any_line_follows_it() {
        let follows = Follows::default();
        assert!(follows.sources().is_empty());
        follows.open();
        assert_eq!(follows.sources(), [Source::Digests]);
        follows.follow(Slot(1));
        follows.follow(Slot(1));
        follows.unfollow(Slot(1));
        assert!(follows.any());
        assert!(follows.sources().contains(&Source::Announcements(Slot(1))));
        follows.unfollow(Slot(1));
        assert!(!follows.any());
        follows.close();
        assert!(follows.sources().is_empty());
    }
}
