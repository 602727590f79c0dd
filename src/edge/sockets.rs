//! The sockets of a worker's streams: all in one epoll of the worker's own, watched by one task.
//!
//! A socket that has left hyper has left the runtime, too: a registration with it and a task that waits would take more memory than the
//! stream itself. What a socket has to say (it is writable again, its peer is gone) comes with the key of its stream, and is dropped if
//! that stream is over: keys are never used twice.
//!
//! ```text
//! socket ─▶ epoll ─▶ the runtime's epoll ─▶ ready ─┐
//!                    a stream's own wish ─▶ due ───┴─▶ a turn of the stream
//! ```

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, ErrorKind},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Registry, Token, event::Event, net::TcpStream};
use tokio::{
    io::{Interest as Watch, unix::AsyncFd},
    sync::Notify,
};
use tracing::{debug, warn};

use super::streams::Key;

/// So many streams have a turn before others on this worker have theirs.
const TURNS: usize = 128;
/// How often it is told, by each worker, that a socket cannot be watched.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What is known of a stream's socket. Nothing: the stream itself wants a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ready {
    /// There is something to read.
    pub(super) read: bool,
    /// There is room to write.
    pub(super) write: bool,
    /// The peer has said all it had to say, or the socket failed.
    pub(super) closed: bool,
}

impl Ready {
    fn of(event: &Event) -> Self {
        Self {
            read: event.is_readable(),
            write: event.is_writable(),
            closed: event.is_read_closed() || event.is_error(),
        }
    }
}

/// Where streams are registered, and ask for a turn.
#[derive(Debug)]
pub(super) struct Sockets {
    registry: Registry,
    due: RefCell<VecDeque<Key>>,
    bell: Notify,
    /// When it was last told that a socket cannot be watched.
    told: Cell<Option<Instant>>,
}

/// Where it is heard what they have to say.
#[derive(Debug)]
pub(super) struct Hearing {
    poll: AsyncFd<Poll>,
    events: Events,
}

/// No sockets yet; within a runtime.
///
/// # Errors
/// If the system has no epoll left.
pub(super) fn sockets() -> io::Result<(Sockets, Hearing)> {
    let poll = Poll::new()?;
    let sockets = Sockets {
        registry: poll.registry().try_clone()?,
        due: RefCell::default(),
        bell: Notify::new(),
        told: Cell::default(),
    };
    // It is deprecated since what it is given might answer with a file that is not its own, or another each time. This one has its own,
    // from its beginning to its end; and what is to be used instead is `unsafe`, which this crate has none of.
    #[expect(deprecated, reason = "see above")]
    let poll = AsyncFd::with_interest(poll, Watch::READABLE)?;
    let hearing = Hearing {
        poll,
        events: Events::with_capacity(TURNS),
    };
    Ok((sockets, hearing))
}

impl Sockets {
    /// Takes a stream's socket from the runtime; from now on the stream has a turn whenever its socket has something to say.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn adopt(&self, key: Key, socket: tokio::net::TcpStream) -> io::Result<TcpStream> {
        let mut socket = TcpStream::from_std(socket.into_std()?);
        // On edges: what stays as it is is told once.
        self.registry
            .register(&mut socket, token(key), Interest::READABLE | Interest::WRITABLE)?;
        Ok(socket)
    }

    /// Says now and then that a stream is given up: if one socket cannot be watched, neither can those of the thousands that come back.
    pub(super) fn tell(&self, error: &io::Error) {
        if self.told.get().is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told.set(Some(Instant::now()));
            warn!(%error, "a stream is given up: its socket cannot be watched");
        } else {
            debug!(%error, "a stream is given up: its socket cannot be watched");
        }
    }

    /// A stream wants a turn.
    pub(super) fn ask(&self, key: Key) {
        self.due.borrow_mut().push_back(key);
        self.bell.notify_one();
    }

    fn take_due(&self) -> Vec<Key> {
        let mut due = self.due.borrow_mut();
        let count = due.len().min(TURNS);
        let turns = due.drain(..count).collect();
        if due.is_empty() {
            *due = VecDeque::new();
        } else {
            self.bell.notify_one();
        }
        turns
    }

    /// Gives streams their turns, for ever; between some and the next, everything else on this worker has its own.
    ///
    /// # Errors
    /// If nothing can be heard any more.
    pub(super) async fn attend(&self, mut hearing: Hearing, turn: impl Fn(Key, Ready)) -> io::Error {
        loop {
            tokio::select! {
                ready = hearing.poll.readable_mut() => {
                    let mut ready = match ready {
                        Ok(ready) => ready,
                        Err(error) => return error,
                    };
                    match ready.get_inner_mut().poll(&mut hearing.events, Some(Duration::ZERO)) {
                        Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                        Err(error) => return error,
                        Ok(()) => {}
                    }
                    if hearing.events.iter().count() < TURNS {
                        ready.clear_ready();
                    }
                    for event in &hearing.events {
                        turn(key(event.token()), Ready::of(event));
                    }
                }
                () = self.bell.notified() => {
                    for key in self.take_due() {
                        turn(key, Ready::default());
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

const _: () = assert!(usize::BITS >= u64::BITS, "a token has room for a key");

fn token(key: Key) -> Token {
    Token((key.generation as usize) << 32 | key.index as usize)
}

fn key(token: Token) -> Key {
    const LOW: usize = u32::MAX as usize;
    Key {
        index: (token.0 & LOW) as u32,
        generation: (token.0 >> 32) as u32,
    }
}

#[cfg(test)]
mod tests;
