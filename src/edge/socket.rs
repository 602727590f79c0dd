//! A stream over HTTP/1.1 after its socket has left hyper: the socket, what it would not take yet, and a small task.
//!
//! The usual delivery is one non-blocking write from where it is handed over. What the socket does not take is queued up to a bound,
//! and written by the task when there is room; past the bound the follower reads on from the log. A frame that was begun is always
//! completed.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::net::TcpStream;

use super::{
    carrier::{Carrier, End},
    frame::{self, Coding, Frame},
    limits::Permits,
    streams::{Key, Terms, begins_now},
    wheel::Tick,
    worker::Worker,
};
use crate::hub::{Delivery, Follow, FollowerId, Offer, Outlet};

/// What a client may send after its request before it is taken for a nuisance and dropped. It has nothing to say.
const IGNORED_BYTES: usize = 64 * 1024;

/// A stream's socket.
pub(super) struct Socket {
    stream: TcpStream,
    worker: Rc<Worker>,
    coding: Coding,
    ids: Cell<Option<(FollowerId, Key)>>,
    last_sent: Cell<Tick>,
    state: RefCell<State>,
    permits: Permits,
}

#[derive(Default)]
struct State {
    /// The head, while it is held back.
    head: Option<Bytes>,
    /// What the socket did not take yet. Without memory of its own while empty.
    queue: VecDeque<Bytes>,
    queued: usize,
    /// A delivery was refused since the queue was last empty.
    refused: bool,
    /// Nothing more is to be sent: when the queue is empty the stream is over.
    ended: bool,
    /// The socket failed or the stream was abandoned.
    gone: bool,
    task: Option<Waker>,
    ignored: usize,
}

impl Socket {
    /// Opens a stream on a socket: follows, and sends the head as soon as the stream has its place.
    pub(super) fn open(
        worker: &Rc<Worker>,
        stream: TcpStream,
        (head, coding): (Bytes, Coding),
        (follow, terms): (Follow, Terms),
        permits: Permits,
    ) {
        let socket = Rc::new(Self {
            stream,
            worker: Rc::clone(worker),
            coding,
            ids: Cell::new(None),
            last_sent: Cell::new(worker.now()),
            state: RefCell::new(State {
                head: Some(head),
                ..State::default()
            }),
            permits,
        });
        let key = worker.enter(Rc::clone(&socket) as Rc<dyn Carrier>, terms);
        if !begins_now(&follow.start) {
            socket.begin();
        }
        let follower = worker.hub.attach(follow, Box::new(SocketOutlet(Rc::clone(&socket))));
        socket.ids.set(Some((follower, key)));
        // The task ends with the stream: when the peer is gone, when the stream has ended, or with the worker.
        tokio::task::spawn_local(run(socket));
    }

    /// Sends a line of this connection's own and a body that others share.
    fn send(&self, own: &[u8], body: Bytes) -> Offer {
        let front = self.coding.front(own, body.len());
        self.write(&front, body, self.coding.back())
    }

    /// Writes all three or queues what is left of them; or takes nothing.
    fn write(&self, front: &[u8], body: Bytes, back: &'static [u8]) -> Offer {
        let mut state = self.state.borrow_mut();
        if state.ended || state.gone {
            return Offer::Gone;
        }
        let bytes = front.len() + body.len() + back.len();
        if !state.queue.is_empty() {
            if state.queued + bytes > self.worker.settings.send_queue {
                state.refused = true;
                return Offer::Full;
            }
            state.push(front, body, back);
            return Offer::Taken;
        }
        let slices = [front, &body, back].map(IoSlice::new);
        let written = match self.stream.try_write_vectored(&slices) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                state.fail();
                return Offer::Gone;
            }
        };
        self.last_sent.set(self.worker.now());
        if written < bytes {
            state.push(front, body, back);
            state.written(written);
            state.wake();
        }
        Offer::Taken
    }

    /// Reads what the peer sends, to no purpose but to see it go; writes what is queued. Ready when the stream is over.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.gone || self.poll_read(&mut state, cx).is_ready() || self.poll_write(&mut state, cx).is_ready() {
            return Poll::Ready(());
        }
        if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            state.task = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn poll_read(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if ready!(self.stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            let mut ignored = [0; 4_096];
            match self.stream.try_read(&mut ignored) {
                Ok(0) => return Poll::Ready(()),
                Ok(bytes) => {
                    state.ignored += bytes;
                    if state.ignored > IGNORED_BYTES {
                        return Poll::Ready(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    fn poll_write(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<()> {
        while !state.queue.is_empty() {
            if ready!(self.stream.poll_write_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            let mut slices = [IoSlice::new(&[]); 24];
            for (slice, part) in slices.iter_mut().zip(&state.queue) {
                *slice = IoSlice::new(part);
            }
            match self.stream.try_write_vectored(&slices) {
                Ok(written) => {
                    state.written(written);
                    self.last_sent.set(self.worker.now());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        if state.ended { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether there is room again after a delivery was refused.
    fn take_drained(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.queue.is_empty() && std::mem::take(&mut state.refused)
    }
}

impl State {
    fn push(&mut self, front: &[u8], body: Bytes, back: &'static [u8]) {
        self.queued += front.len() + body.len() + back.len();
        let parts = [Bytes::copy_from_slice(front), body, Bytes::from_static(back)];
        self.queue.extend(parts.into_iter().filter(|part| !part.is_empty()));
    }

    fn written(&mut self, mut bytes: usize) {
        self.queued -= bytes;
        while let Some(first) = self.queue.front_mut() {
            if bytes < first.len() {
                first.advance(bytes);
                return;
            }
            bytes -= first.len();
            self.queue.pop_front();
        }
        self.queue = VecDeque::new();
    }

    fn fail(&mut self) {
        self.gone = true;
        self.queue = VecDeque::new();
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

impl Carrier for Socket {
    fn last_sent(&self) -> Tick {
        self.last_sent.get()
    }

    fn begin(&self) {
        let head = self.state.borrow_mut().head.take();
        if let Some(head) = head {
            // A socket that is gone is found out by the task.
            let _ = self.write(&[], head, &[]);
        }
    }

    fn heartbeat(&self) {
        self.begin();
        if self.state.borrow().queue.is_empty() {
            let _ = self.send(&[], Bytes::from_static(frame::HEARTBEAT));
        }
    }

    fn expiring(&self, left: Duration) {
        let body = frame::expiring(left);
        let mut state = self.state.borrow_mut();
        if state.ended || state.gone {
            return;
        }
        if let Some(head) = &mut state.head {
            // It is held back with the head, and follows it at once.
            let mut begun = BytesMut::from(&head[..]);
            self.coding.put(&mut begun, &body);
            *head = begun.freeze();
        } else {
            state.push(&self.coding.front(&[], body.len()), body, self.coding.back());
            state.wake();
        }
    }

    fn end(&self, end: End) {
        self.begin();
        let mut state = self.state.borrow_mut();
        if !state.ended {
            state.push(&[], self.coding.end(end.come_back_after), &[]);
            state.ended = true;
            state.wake();
        }
    }

    fn abandon(&self, _: End) {
        self.state.borrow_mut().fail();
        if let Some((follower, _)) = self.ids.get() {
            self.worker.hub.detach(follower);
        }
    }
}

/// A stream's end of the hub. It never calls back: the task does.
struct SocketOutlet(Rc<Socket>);

impl Outlet for SocketOutlet {
    fn offer(&mut self, delivery: &Delivery<'_>) -> Offer {
        self.0.begin();
        if matches!(delivery, Delivery::Level { .. }) {
            self.0.permits.level();
        }
        match Frame::of(delivery) {
            Some(frame) => self.0.send(&frame.id, frame.body),
            None => Offer::Taken,
        }
    }
}

async fn run(socket: Rc<Socket>) {
    std::future::poll_fn(|cx| {
        let over = socket.poll(cx);
        if over.is_pending()
            && socket.take_drained()
            && let Some((follower, _)) = socket.ids.get()
        {
            // What it offers at once is written, or queued: the queue's waker brings this task back.
            socket.worker.hub.drained(follower);
        }
        over
    })
    .await;
    if let Some((follower, key)) = socket.ids.get() {
        let worker = Rc::clone(&socket.worker);
        worker.hub.detach(follower);
        drop(socket);
        worker.leave(key);
    }
}

#[cfg(test)]
mod tests;
