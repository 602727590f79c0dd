//! What the applier sees of what the writer has sent: it tells where an append is whose answer was lost.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::model::Seq;

/// The appends that somebody waits for, by the number each drew, and the sequence of the first message of those that were seen.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    awaited: Mutex<HashMap<u64, Option<Seq>>>,
}

impl Sightings {
    /// Looks out for an append, until the guard is dropped. To be called before it is sent.
    pub(super) fn await_append(&self, append: u64) -> Awaited<'_> {
        self.lock().insert(append, None);
        Awaited {
            sightings: self,
            append,
        }
    }

    /// These were applied, in the order of the stream.
    pub(super) fn saw(&self, applied: impl IntoIterator<Item = (u64, Seq)>) {
        let mut awaited = self.lock();
        if awaited.is_empty() {
            return;
        }
        for (append, seq) in applied {
            if let Some(first) = awaited.get_mut(&append) {
                first.get_or_insert(seq);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Option<Seq>>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks out for an append.
#[derive(Debug)]
pub(super) struct Awaited<'s> {
    sightings: &'s Sightings,
    append: u64,
}

impl Awaited<'_> {
    /// The sequence of its first message, once it was seen.
    pub(super) fn seen(&self) -> Option<Seq> {
        self.sightings.lock().get(&self.append).copied().flatten()
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.sightings.lock().remove(&self.append);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_of_what_is_awaited_is_kept() {
        let sightings = Sightings::default();
        let awaited = sightings.await_append(7);
        assert_eq!(awaited.seen(), None);
        sightings.saw([(6, Seq(1)), (7, Seq(2)), (7, Seq(3))]);
        sightings.saw([(7, Seq(4))]);
        assert_eq!(awaited.seen(), Some(Seq(2)));
        drop(awaited);
        sightings.saw([(7, Seq(5))]);
        assert_eq!(sightings.await_append(7).seen(), None);
    }
}
