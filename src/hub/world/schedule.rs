//! Virtual time: what happens when, always in the same order.

use std::collections::BTreeMap;

/// What is yet to happen; times are in milliseconds. What is due at the same time happens in the order it was planned.
pub(super) struct Schedule<A> {
    now: u64,
    planned: u64,
    due: BTreeMap<(u64, u64), A>,
}

impl<A> Schedule<A> {
    pub(super) const fn new() -> Self {
        Self {
            now: 0,
            planned: 0,
            due: BTreeMap::new(),
        }
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// Plans something for a time from now on.
    pub(super) fn at(&mut self, at: u64, action: A) {
        self.planned += 1;
        self.due.insert((at.max(self.now), self.planned), action);
    }

    /// What happens next, if it does before or at `until`; then it is that time.
    pub(super) fn next(&mut self, until: u64) -> Option<A> {
        match self.due.first_entry() {
            Some(first) if first.key().0 <= until => {
                self.now = first.key().0;
                Some(first.remove())
            }
            _ => {
                self.now = until;
                None
            }
        }
    }

    /// What happens next, if that is such a thing and does before or at `until`.
    pub(super) fn next_if(&mut self, until: u64, is_such: impl Fn(&A) -> bool) -> Option<A> {
        let first = self.due.first_entry()?;
        if first.key().0 > until || !is_such(first.get()) {
            return None;
        }
        self.now = first.key().0;
        Some(first.remove())
    }
}
