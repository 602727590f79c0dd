//! A stream over HTTP/1.1 after its socket has left hyper: the socket, and what it would not take yet.
//!
//! The usual delivery is one non-blocking write from where it is handed over; of several that come together, one for all. What the socket
//! does not take is queued up to a bound, and written when there is room; past the bound the follower reads on from the log. A frame that
//! was begun is completed, unless the stream is given up.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind, IoSlice, Read as _, Write},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use mio::net::TcpStream;

use super::{
    carrier::{Carrier, End, Turn},
    frame::{self, Coding, Frame},
    limits::Permits,
    outbox::{Chunk, Outbox},
    sockets::Ready,
    streams::{Key, Terms, begins_now},
    wheel::Tick,
    worker::Worker,
};
use crate::hub::{Delivery, Flow, Follow, FollowerId, Form, Offer, Outlet};

/// What a client may send after its request before it is taken for a nuisance and dropped. It has nothing to say.
const IGNORED_BYTES: u32 = 64 * 1024;

/// A stream's socket.
pub(super) struct Socket {
    /// First to be given back: whoever sees that the stream is over may come again.
    permits: Permits,
    stream: TcpStream,
    worker: Rc<Worker>,
    key: Key,
    follower: Cell<Option<FollowerId>>,
    last_sent: Cell<Tick>,
    ignored: Cell<u32>,
    coding: Coding,
    /// It has asked for a turn.
    is_due: Cell<bool>,
    outbox: RefCell<Outbox>,
}

impl Socket {
    /// Opens a stream on a socket: follows, and sends the head as soon as the stream has its place.
    pub(super) fn open(
        worker: &Rc<Worker>,
        stream: tokio::net::TcpStream,
        (head, coding): (Bytes, Coding),
        (follow, terms): (Follow, Terms),
        permits: Permits,
    ) {
        let key = worker.next_key();
        let stream = match worker.sockets.adopt(key, stream) {
            Ok(stream) => stream,
            Err(error) => return worker.sockets.tell(&error),
        };
        let socket = Rc::new(Self {
            permits,
            stream,
            worker: Rc::clone(worker),
            key,
            follower: Cell::new(None),
            last_sent: Cell::new(worker.now()),
            ignored: Cell::new(0),
            coding,
            is_due: Cell::new(false),
            outbox: RefCell::new(Outbox::new(head)),
        });
        let entered = worker.enter(Rc::clone(&socket) as Rc<dyn Carrier>, terms);
        debug_assert_eq!(entered, key, "it is what the socket was registered with");
        if !begins_now(&follow.start) {
            socket.begin();
        }
        let follower = worker.hub.attach(follow, Rc::clone(&socket) as Rc<dyn Outlet>);
        socket.follower.set(Some(follower));
    }

    /// Does something to the outbox; asks for a turn if the stream is over by that.
    fn with<T>(&self, change: impl FnOnce(&mut Outbox, &Self) -> T) -> T {
        let mut outbox = self.outbox.borrow_mut();
        let changed = change(&mut outbox, self);
        if outbox.is_over() {
            self.ask();
        }
        changed
    }

    fn ask(&self) {
        if !self.is_due.replace(true) {
            self.worker.sockets.ask(self.key);
        }
    }

    /// Reads what the peer sends, to no purpose but to see it go. False once it has.
    fn ignore(&self) -> bool {
        loop {
            let mut ignored = [0; 4_096];
            match (&self.stream).read(&mut ignored) {
                Ok(0) => return false,
                Ok(bytes) => {
                    let ignored = self
                        .ignored
                        .get()
                        .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
                    self.ignored.set(ignored);
                    if ignored > IGNORED_BYTES {
                        return false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn wrote(&self, written: io::Result<usize>) -> io::Result<usize> {
        if written.is_ok() {
            self.last_sent.set(self.worker.now());
        }
        written
    }
}

/// Writes to the socket, and notes when.
impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wrote((&self.stream).write(bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.wrote((&self.stream).write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Carrier for Socket {
    fn last_sent(&self) -> Tick {
        self.last_sent.get()
    }

    fn begin(&self) {
        self.with(|outbox, socket| outbox.begin(socket));
    }

    fn heartbeat(&self) {
        self.begin();
        self.with(|outbox, socket| {
            if outbox.is_empty() {
                outbox.note(&self.coding.whole(frame::HEARTBEAT), socket);
            }
        });
    }

    fn expiring(&self, left: Duration) {
        // Should the head be held back, it follows it at once.
        self.with(|outbox, socket| outbox.note(&self.coding.whole(&frame::expiring(left)), socket));
    }

    fn end(&self, end: End) {
        self.outbox.borrow_mut().end(&self.coding.end(end.come_back_after));
        // The last is written in the turn that gives the permits back: whoever reads it and comes again finds them given back, but for a moment.
        self.ask();
    }

    fn abandon(&self, _: End) {
        self.with(|outbox, socket| {
            // An end that has not had its turn yet.
            outbox.flush(socket);
            outbox.fail();
        });
        if let Some(follower) = self.follower.get() {
            self.worker.hub.detach(follower);
        }
    }

    fn turn(&self, ready: Ready) -> Turn {
        self.is_due.set(false);
        let mut outbox = self.outbox.borrow_mut();
        if ready.closed || (ready.read && !self.ignore()) {
            outbox.fail();
        }
        if ready.write {
            outbox.writable(self);
        } else {
            outbox.flush(self);
        }
        let (is_over, is_drained) = (outbox.is_over(), outbox.take_drained());
        drop(outbox);
        match self.follower.get() {
            Some(follower) if is_over => self.worker.hub.detach(follower),
            // What it offers at once is written, or queued until the socket is writable again.
            Some(follower) if is_drained => self.worker.hub.drained(follower),
            _ => {}
        }
        if is_over { Turn::Over } else { Turn::Open }
    }
}

/// A stream's end of the hub. It never calls back: its turn does.
impl Outlet for Socket {
    fn offer(&self, delivery: &Delivery<'_>, flow: Flow) -> Offer {
        if matches!(delivery, Delivery::Level { .. }) {
            self.permits.level();
        }
        let bound = self.worker.settings.send_queue;
        self.with(|outbox, socket| {
            if let (
                Delivery::Event {
                    shared: Some(shared), ..
                },
                Coding::Chunked,
            ) = (delivery, self.coding)
            {
                let whole = || Frame::of(delivery).map(|frame| self.coding.whole(&frame.into_bytes()));
                let whole = shared.form(Form::Chunk, || whole().unwrap_or_default());
                return outbox.offer(Chunk::Whole(whole), flow, bound, socket);
            }
            match Frame::of(delivery) {
                Some(frame) => {
                    let front = self.coding.front(frame.len());
                    let Frame { body, mut end } = frame;
                    end.extend_from_slice(self.coding.back());
                    let chunk = Chunk::Parts {
                        front: &front,
                        body: &body,
                        back: &end,
                    };
                    outbox.offer(chunk, flow, bound, socket)
                }
                None => {
                    outbox.begin(socket);
                    Offer::Taken
                }
            }
        })
    }

    fn flush(&self) {
        self.with(|outbox, socket| outbox.flush(socket));
    }
}
