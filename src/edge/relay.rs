//! A stream whose deliveries go through a channel to whoever writes them out: hyper for HTTP/2, tonic for gRPC.

use std::{
    cell::{Cell, OnceCell},
    marker::PhantomData,
    rc::Rc,
    time::Duration,
};

use super::{
    carrier::{Carrier, End},
    channel::{Sender, Turn},
    limits::Permits,
    streams::{Terms, begins_now},
    wheel::Tick,
    worker::Worker,
};
use crate::hub::{Delivery, Flow, Follow, FollowerId, Offer, Outlet};

/// What deliveries are on the other side of a channel.
pub(super) trait Wire: 'static {
    /// A piece of the stream.
    type Item: 'static;

    /// A delivery and how many bytes it counts as; `None` if it is nothing there.
    fn delivery(delivery: &Delivery<'_>) -> Option<(Self::Item, usize)>;

    /// Something that means nothing, if there is a need for that.
    fn heartbeat() -> Option<Self::Item>;

    /// Word that the caller's token is over so soon.
    fn expiring(left: Duration) -> Self::Item;

    /// The last that is sent when the stream is ended from here.
    fn end(end: End) -> Self::Item;
}

/// A stream. It holds its permits, and `H`, for as long as it lives.
pub(super) struct Relay<W: Wire, H> {
    sender: Sender<W::Item>,
    worker: Rc<Worker>,
    follower: OnceCell<FollowerId>,
    last_sent: Cell<Tick>,
    /// The beginning, while it is held back, and what is to follow it at once.
    beginning: Cell<Option<Vec<W::Item>>>,
    permits: Permits,
    _held: H,
    _wire: PhantomData<W>,
}

impl<W: Wire, H: 'static> Relay<W, H> {
    /// Opens a stream on a channel: follows, and sends its beginning as soon as the stream has its place.
    pub(super) fn open(
        worker: &Rc<Worker>,
        sender: Sender<W::Item>,
        beginning: Option<W::Item>,
        (follow, terms): (Follow, Terms),
        (permits, held): (Permits, H),
    ) {
        let relay = Rc::new(Self {
            sender,
            worker: Rc::clone(worker),
            follower: OnceCell::new(),
            last_sent: Cell::new(worker.now()),
            beginning: Cell::new(beginning.map(|item| vec![item])),
            permits,
            _held: held,
            _wire: PhantomData,
        });
        let key = worker.enter(Rc::clone(&relay) as Rc<dyn Carrier>, terms);
        if !begins_now(&follow.start) {
            relay.begin();
        }
        let outlet = Rc::clone(&relay) as Rc<dyn Outlet>;
        let follower = *relay.follower.get_or_init(|| worker.hub.attach(follow, outlet));
        let worker = Rc::clone(worker);
        // The task ends with the stream: when nobody receives any more, when it has ended, or with the worker.
        tokio::task::spawn_local(async move {
            while relay.sender.turn().await == Turn::Drained {
                worker.hub.drained(follower);
            }
            worker.hub.detach(follower);
            drop(relay);
            worker.leave(key);
        });
    }
}

impl<W: Wire, H> Carrier for Relay<W, H> {
    fn last_sent(&self) -> Tick {
        self.last_sent.get()
    }

    fn begin(&self) {
        // One that nobody receives is found out by the task.
        self.beginning
            .take()
            .into_iter()
            .flatten()
            .for_each(|item| self.sender.note(item));
    }

    fn heartbeat(&self) {
        self.begin();
        if let Some(item) = W::heartbeat()
            && self.sender.offer_idle(item)
        {
            self.last_sent.set(self.worker.now());
        }
    }

    fn expiring(&self, left: Duration) {
        let item = W::expiring(left);
        match self.beginning.take() {
            Some(mut beginning) => {
                beginning.push(item);
                self.beginning.set(Some(beginning));
            }
            None => self.sender.note(item),
        }
    }

    fn end(&self, end: End) {
        self.begin();
        self.sender.end(W::end(end));
    }

    fn abandon(&self, end: End) {
        self.beginning.take();
        self.sender.cut(W::end(end));
        if let Some(&follower) = self.follower.get() {
            self.worker.hub.detach(follower);
        }
    }
}

/// A stream's end of the hub. It never calls back: the task does.
impl<W: Wire, H> Outlet for Relay<W, H> {
    /// What follows need not be waited for: whoever receives takes all that is there.
    fn offer(&self, delivery: &Delivery<'_>, _: Flow) -> Offer {
        self.begin();
        if matches!(delivery, Delivery::Level { .. }) {
            self.permits.level();
        }
        let Some((item, bytes)) = W::delivery(delivery) else {
            return Offer::Taken;
        };
        let offer = self.sender.offer(item, bytes);
        if offer == Offer::Taken {
            self.last_sent.set(self.worker.now());
        }
        offer
    }

    fn flush(&self) {}
}
