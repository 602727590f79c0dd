//! Reads of the disk, a bounded number at a time, in the order in which they were asked for.
//!
//! Reading a disk blocks, so it is done on the blocking threads of a runtime. A thread that has read goes on with whatever read waits: where
//! thousands come back at once, they are not a thread's start and a wake-up each, and no more threads than may read contend for the processors.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{runtime::Handle, sync::oneshot};

type Read = Box<dyn FnOnce() + Send>;

/// See the module.
#[derive(Debug)]
pub(super) struct Readers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    runtime: Handle,
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Read>,
    threads: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("waiting", &self.waiting.len())
            .field("threads", &self.threads)
            .finish()
    }
}

impl Readers {
    /// At most so many threads of a runtime, at least one.
    pub(super) fn new(runtime: Handle, most: usize) -> Self {
        Self(Arc::new(Shared {
            runtime,
            most: most.max(1),
            state: Mutex::default(),
        }))
    }

    /// Reads when its turn comes, unless nobody waits for the answer any more. There is none if the read panics, or the runtime ends.
    pub(super) fn read<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.0.lock();
        state.waiting.push_back(Box::new(move || {
            if !reply.is_closed() {
                // Who left meanwhile needs no answer.
                let _ = reply.send(read());
            }
        }));
        let is_enough = state.threads == self.0.most;
        if !is_enough {
            state.threads += 1;
        }
        drop(state);
        if !is_enough {
            Thread::start(&self.0);
        }
        answer
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that is counted among the threads.
struct Thread {
    shared: Arc<Shared>,
    is_counted: bool,
}

impl Thread {
    fn start(shared: &Arc<Shared>) {
        let thread = Self {
            shared: Arc::clone(shared),
            is_counted: true,
        };
        // It ends by itself, and nobody waits for it.
        drop(shared.runtime.spawn_blocking(move || thread.run()));
    }

    fn run(mut self) {
        while let Some(read) = self.next() {
            read();
        }
    }

    fn next(&mut self) -> Option<Read> {
        let mut state = self.shared.lock();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.threads -= 1;
            self.is_counted = false;
        }
        next
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if !self.is_counted {
            return;
        }
        let mut state = self.shared.lock();
        if std::thread::panicking() {
            // Another takes its place.
            drop(state);
            Self::start(&self.shared);
        } else {
            // It never ran: the runtime ends, and nothing is read any more.
            state.threads -= 1;
            let unread = std::mem::take(&mut state.waiting);
            drop(state);
            drop(unread);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn reads_have_their_turn_in_order_and_those_of_nobody_are_left_out() {
        let readers = Readers::new(Handle::current(), 1);
        let (go, held) = mpsc::channel::<()>();
        let first = readers.read(move || held.recv().is_ok());
        let read = Arc::new(Mutex::new(Vec::new()));
        let mut answers: Vec<_> = (0..5)
            .map(|number| {
                let read = Arc::clone(&read);
                readers.read(move || read.lock().unwrap().push(number))
            })
            .collect();
        drop(answers.remove(2));
        go.send(()).unwrap();
        assert!(first.await.unwrap());
        for answer in answers {
            answer.await.unwrap();
        }
        assert_eq!(*read.lock().unwrap(), [0, 1, 3, 4]);
    }

    #[tokio::test]
    async fn as_many_read_at_once_as_may() {
        let readers = Readers::new(Handle::current(), 2);
        let (met, meeting) = (Arc::new(std::sync::Barrier::new(2)), 6);
        let answers: Vec<_> = (0..meeting)
            .map(|_| {
                let met = Arc::clone(&met);
                readers.read(move || met.wait().is_leader())
            })
            .collect();
        for answer in answers {
            answer.await.unwrap();
        }
        assert!(readers.0.lock().threads <= 2);
    }

    #[tokio::test]
    async fn a_read_that_panics_has_no_answer_and_the_others_have() {
        let readers = Readers::new(Handle::current(), 1);
        let panics = readers.read(|| panic!("on purpose"));
        let after = readers.read(|| 7);
        assert!(panics.await.is_err());
        assert_eq!(after.await, Ok(7));
    }

    #[test]
    fn when_the_runtime_ends_nobody_waits_for_ever() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let readers = Readers::new(runtime.handle().clone(), 1);
        drop(runtime);
        let answer = readers.read(|| 7);
        assert!(answer.blocking_recv().is_err());
    }
}
