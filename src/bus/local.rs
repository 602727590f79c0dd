//! The bus of one process: each line is a bounded queue in memory.

use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    task::Waker,
};

use futures::future::BoxFuture;
use smallvec::SmallVec;

use super::{
    Announcement, Bus, Digest, Line, Notice,
    queue::{self, Queue, Waiting},
};
use crate::model::{Event, Slot};

/// Carries notices between the threads of one process.
///
/// A line holds a bounded number of notices, of a bounded weight. Those that find it full are lost, and the line says so before it says
/// anything else.
#[derive(Debug)]
pub struct LocalBus {
    lines: Arc<RwLock<Vec<Arc<Queue>>>>,
    capacity: usize,
}

impl LocalBus {
    /// How many notices a line holds unless told otherwise.
    pub const CAPACITY: usize = 4_096;

    /// How much the events of a line's notices weigh at most, in bytes; one may be heavier alone.
    pub const WEIGHT: usize = queue::WEIGHT;

    /// A bus whose lines hold so many notices; at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            lines: Arc::default(),
            capacity: capacity.max(1),
        }
    }

    /// Tells every line that notices may have been lost.
    pub(super) fn doubt(&self) {
        self.each_line(|line| line.lost = true);
    }

    /// Ends every line once it has said what waits in it.
    pub(super) fn close(&self) {
        self.each_line(|line| line.closed = true);
    }

    fn each_line(&self, tell: impl Fn(&mut Waiting)) {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let readers: SmallVec<[Waker; 8]> = lines.iter().filter_map(|line| line.change(&tell)).collect();
        // Woken without the lock: whoever is may open or drop a line.
        drop(lines);
        readers.into_iter().for_each(Waker::wake);
    }
}

impl Default for LocalBus {
    fn default() -> Self {
        Self::new(Self::CAPACITY)
    }
}

impl Bus for LocalBus {
    fn announce(&self, announcements: &[Announcement]) {
        self.each_line(|line| {
            for announcement in announcements {
                if line.slots.contains(&announcement.slot) {
                    line.push(announcement.event.weight(), || {
                        Notice::Announcement(announcement.clone())
                    });
                }
            }
        });
    }

    fn digest(&self, digest: &Digest) {
        let digest = Arc::new(digest.clone());
        self.each_line(|line| line.push(0, || Notice::Digest(Arc::clone(&digest))));
    }

    fn ephemeral(&self, slot: Slot, event: Arc<Event>) {
        self.each_line(|line| {
            if line.slots.contains(&slot) {
                line.push(event.weight(), || Notice::Ephemeral(Arc::clone(&event)));
            }
        });
    }

    fn open(&self) -> Box<dyn Line> {
        let queue = Arc::new(Queue::new(self.capacity));
        self.lines
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&queue));
        Box::new(LocalLine {
            queue,
            lines: Arc::downgrade(&self.lines),
        })
    }
}

impl Drop for LocalBus {
    fn drop(&mut self) {
        self.close();
    }
}

struct LocalLine {
    queue: Arc<Queue>,
    lines: Weak<RwLock<Vec<Arc<Queue>>>>,
}

impl Line for LocalLine {
    fn follow(&mut self, slot: Slot) {
        self.queue.lock().slots.insert(slot);
    }

    fn unfollow(&mut self, slot: Slot) {
        self.queue.lock().slots.remove(&slot);
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Notice>> {
        Box::pin(self.queue.next())
    }
}

impl Drop for LocalLine {
    fn drop(&mut self) {
        if let Some(lines) = self.lines.upgrade() {
            lines
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|line| !Arc::ptr_eq(line, &self.queue));
        }
    }
}
