//! A bounded queue of notices, for one reader.

use std::{
    collections::{HashSet, VecDeque},
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::Notice;
use crate::model::Slot;

/// How much the events of a queue's notices weigh at most, in bytes; one may be heavier alone.
pub(super) const WEIGHT: usize = 32 << 20;

/// What waits for one reader. Notices that find it full are lost, and it says so before it says anything else.
#[derive(Debug)]
pub(super) struct Queue(Mutex<Waiting>);

impl Queue {
    /// An empty one that holds so many notices.
    pub(super) fn new(capacity: usize) -> Self {
        Self(Mutex::new(Waiting {
            slots: HashSet::new(),
            notices: VecDeque::new(),
            weight: 0,
            capacity,
            lost: false,
            closed: false,
            reader: None,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits. Answers whom to wake, if there is anything to hear and someone waits for it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Waiting)) -> Option<Waker> {
        let mut waiting = self.lock();
        change(&mut waiting);
        if waiting.has_news() {
            waiting.reader.take()
        } else {
            None
        }
    }

    /// The next notice; `None` when the queue is closed and empty. Cancelling loses nothing.
    pub(super) async fn next(&self) -> Option<Notice> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<Option<Notice>> {
        let mut waiting = self.lock();
        match waiting.pop() {
            Some(notice) => Poll::Ready(Some(notice)),
            None if waiting.closed => Poll::Ready(None),
            None => {
                waiting.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The inside of a queue.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The slots that its reader follows.
    pub(super) slots: HashSet<Slot>,
    notices: VecDeque<Notice>,
    weight: usize,
    capacity: usize,
    /// Whether notices were lost and the reader does not know yet.
    pub(super) lost: bool,
    /// Whether nothing more comes.
    pub(super) closed: bool,
    reader: Option<Waker>,
}

impl Waiting {
    /// Adds a notice whose event weighs so much, or loses it.
    pub(super) fn push(&mut self, weight: usize, notice: impl FnOnce() -> Notice) {
        let has_room = self.weight == 0 || self.weight + weight <= WEIGHT;
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

/// How much a notice weighs.
fn weight(notice: &Notice) -> usize {
    match notice {
        Notice::Announcement(announcement) => announcement.event.weight(),
        Notice::Ephemeral(event) => event.weight(),
        Notice::Digest(_) | Notice::Unverified => 0,
    }
}
