//! Connections of a port that are not in use: opened and silent, half of a request sent, done with one and not yet with the next.
//!
//! Each of them costs a file, and opening one costs its owner nothing. So there may be only so many of them, fewer than the port has
//! connections for; beyond that the one that has not been in use for the longest makes room. Who sends a request without delay is not among
//! them for long enough to notice.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The connections of a port that are not in use.
#[derive(Debug)]
pub struct Idlers {
    most: usize,
    line: Mutex<Line>,
}

/// Those who came first are first.
#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

impl Idlers {
    /// None yet, and so many at most.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            line: Mutex::default(),
        })
    }

    /// A connection that was accepted, and is not in use yet.
    pub fn enter(self: &Arc<Self>) -> Arc<Place> {
        let told = Arc::new(Notify::new());
        let standing = Standing {
            uses: 0,
            number: Some(self.wait(&told)),
        };
        Arc::new(Place {
            idlers: Arc::clone(self),
            told,
            standing: Mutex::new(standing),
        })
    }

    /// One more that waits, at the end of the line. If there are too many, the first is told to go.
    fn wait(&self, told: &Arc<Notify>) -> u64 {
        let mut line = lock(&self.line);
        let number = line.next;
        line.next += 1;
        line.waiting.insert(number, Arc::clone(told));
        if line.waiting.len() > self.most
            && let Some((_, first)) = line.waiting.pop_first()
        {
            first.notify_one();
        }
        number
    }

    fn leave(&self, number: u64) {
        lock(&self.line).waiting.remove(&number);
    }
}

/// A connection's place among those of its port.
#[derive(Debug)]
pub struct Place {
    idlers: Arc<Idlers>,
    told: Arc<Notify>,
    standing: Mutex<Standing>,
}

#[derive(Debug)]
struct Standing {
    /// What it is in use for.
    uses: usize,
    /// Its number in the line, if it is in none.
    number: Option<u64>,
}

impl Place {
    /// It is in use until this is dropped.
    pub fn used(self: &Arc<Self>) -> Used {
        let mut standing = lock(&self.standing);
        standing.uses += 1;
        if let Some(number) = standing.number.take() {
            self.idlers.leave(number);
        }
        drop(standing);
        Used(Arc::clone(self))
    }

    /// Runs a connection to its end, or until it is to make room while it is not in use.
    pub async fn hold<T>(self: Arc<Self>, connection: impl Future<Output = T>) -> Option<T> {
        let mut connection = std::pin::pin!(connection);
        loop {
            tokio::select! {
                biased;
                done = &mut connection => return Some(done),
                () = self.told.notified() => {
                    // It may have come into use since.
                    if lock(&self.standing).uses == 0 {
                        return None;
                    }
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = lock(&self.standing).number {
            self.idlers.leave(number);
        }
    }
}

/// A use of a connection.
#[derive(Debug)]
pub struct Used(Arc<Place>);

impl Drop for Used {
    fn drop(&mut self) {
        let mut standing = lock(&self.0.standing);
        standing.uses -= 1;
        if standing.uses == 0 {
            standing.number = Some(self.0.idlers.wait(&self.0.told));
        }
    }
}

/// What is within is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::FutureExt as _;

    use super::*;

    /// Whether a place has to make room now.
    fn is_told(place: &Arc<Place>) -> bool {
        let held = Arc::clone(place).hold(pending::<()>());
        held.now_or_never() == Some(None)
    }

    #[test]
    fn the_one_that_waited_longest_makes_room() {
        let idlers = Idlers::new(2);
        let places: Vec<_> = (0..3).map(|_| idlers.enter()).collect();
        assert_eq!(places.iter().map(is_told).collect::<Vec<_>>(), [true, false, false]);
        drop(places);
        assert!(lock(&idlers.line).waiting.is_empty());
    }

    #[test]
    fn one_in_use_waits_for_nothing_and_comes_last_after_it() {
        let idlers = Idlers::new(2);
        let (first, second) = (idlers.enter(), idlers.enter());
        let uses = (first.used(), first.used());
        let third = idlers.enter();
        assert!(![&first, &second, &third].into_iter().any(is_told));
        drop(uses.0);
        assert!(!is_told(&second), "it is still in use");
        drop(uses.1);
        assert_eq!([&first, &second, &third].map(is_told), [false, true, false]);
        drop((first, second, third));
        assert!(lock(&idlers.line).waiting.is_empty());
    }

    #[test]
    fn one_that_came_into_use_in_time_stays() {
        let idlers = Idlers::new(1);
        let first = idlers.enter();
        let _second = idlers.enter();
        let use_ = first.used();
        assert!(!is_told(&first));
        drop(use_);
        assert_eq!(
            Arc::clone(&first).hold(async { 7 }).now_or_never(),
            Some(Some(7)),
            "what is done is done"
        );
    }
}
