//! The bus of one process: each line is a bounded queue in memory.

use std::{
    collections::{HashSet, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    task::{Poll, Waker},
};

use futures::future::BoxFuture;
use smallvec::SmallVec;

use super::{Announcement, Bus, Digest, Line, Notice};
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
    pub const WEIGHT: usize = 32 << 20;

    /// A bus whose lines hold so many notices; at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            lines: Arc::default(),
            capacity: capacity.max(1),
        }
    }

    fn each_line(&self, tell: impl Fn(&mut Waiting)) {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let followers: SmallVec<[Waker; 8]> = lines.iter().filter_map(|line| line.change(&tell)).collect();
        // Woken without the lock: whoever is may open or drop a line.
        drop(lines);
        followers.into_iter().for_each(Waker::wake);
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
        let queue = Arc::new(Queue(Mutex::new(Waiting::new(self.capacity))));
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
        self.each_line(|line| line.closed = true);
    }
}

/// How much a notice weighs.
fn weight(notice: &Notice) -> usize {
    match notice {
        Notice::Announcement(announcement) => announcement.event.weight(),
        Notice::Ephemeral(event) => event.weight(),
        Notice::Digest(_) | Notice::Unverified => 0,
    }
}

/// What waits for one follower.
#[derive(Debug)]
struct Queue(Mutex<Waiting>);

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits. Answers whom to wake, if there is anything to hear and someone waits for it.
    fn change(&self, change: impl FnOnce(&mut Waiting)) -> Option<Waker> {
        let mut waiting = self.lock();
        change(&mut waiting);
        if waiting.has_news() {
            waiting.follower.take()
        } else {
            None
        }
    }
}

#[derive(Debug)]
struct Waiting {
    slots: HashSet<Slot>,
    notices: VecDeque<Notice>,
    weight: usize,
    capacity: usize,
    /// Whether notices were lost and the follower does not know yet.
    lost: bool,
    closed: bool,
    follower: Option<Waker>,
}

impl Waiting {
    fn new(capacity: usize) -> Self {
        Self {
            slots: HashSet::new(),
            notices: VecDeque::new(),
            weight: 0,
            capacity,
            lost: false,
            closed: false,
            follower: None,
        }
    }

    fn push(&mut self, weight: usize, notice: impl FnOnce() -> Notice) {
        let has_room = self.weight == 0 || self.weight + weight <= LocalBus::WEIGHT;
        if has_room && self.notices.len() < self.capacity {
            self.weight += weight;
            self.notices.push_back(notice());
        } else {
            self.lost = true;
        }
    }

    fn pop(&mut self) -> Option<Notice> {
        if std::mem::take(&mut self.lost) {
            return Some(Notice::Unverified);
        }
        let notice = self.notices.pop_front()?;
        self.weight -= weight(&notice);
        Some(notice)
    }

    fn has_news(&self) -> bool {
        self.lost || self.closed || !self.notices.is_empty()
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
        Box::pin(poll_fn(|context| {
            let mut waiting = self.queue.lock();
            match waiting.pop() {
                Some(notice) => Poll::Ready(Some(notice)),
                None if waiting.closed => Poll::Ready(None),
                None => {
                    waiting.follower = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
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
