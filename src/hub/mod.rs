//! The hub: fans out what the feed passes on to the followers of each topic, and brings those who are behind level from the log.
//!
//! One per edge worker, without clock, socket or task: notices and answers of the log come in, [`Effect`]s go out, and followers get
//! their deliveries through their [`Outlet`].

mod core;
mod driver;
mod followers;
mod tail;
#[cfg(test)]
mod world;

use std::{cell::OnceCell, num::NonZeroU64, sync::Arc};

use bytes::Bytes;

pub use self::core::{Hub, HubSettings};
pub use self::driver::{Driver, HubHandle};
pub use self::followers::FollowerId;
pub use crate::feed::GapReason;
use crate::{
    log::{Heads, Located, ReadError, Replay, ReplayRequest},
    model::{Cursor, Event, Shard, Slot, Topic, UnixMillis},
};

/// Where one follower's deliveries go: a socket, an HTTP/2 body, a gRPC stream.
pub trait Outlet {
    /// Takes a delivery, whole, without waiting; or refuses it, whole. After [`Offer::Full`] nothing more is offered until [`Hub::drained`].
    /// An outlet that holds nothing takes any delivery, however large.
    fn offer(&self, delivery: &Delivery<'_>, flow: Flow) -> Offer;

    /// Sends what was held back because more was to follow: what came together can so be sent together.
    fn flush(&self);
}

/// Whether others follow a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It comes by itself, and is sent at once.
    Single,
    /// Others may follow at once. It may be held back until [`Outlet::flush`], which comes before the hub waits for anything.
    More,
}

/// What came of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It will be sent, in its turn.
    Taken,
    /// There is no room: nothing of it will be sent. Whoever owns the outlet calls [`Hub::drained`] once there is.
    Full,
    /// The follower is gone.
    Gone,
}

/// One thing to tell a follower.
#[derive(Debug, Clone, Copy)]
pub enum Delivery<'a> {
    /// An event of one of its topics; with the cursor that resumes after it, unless it is ephemeral.
    Event {
        /// The event.
        event: &'a Arc<Event>,
        /// The text of the cursor; `None` for an ephemeral event.
        cursor: Option<&'a str>,
        /// What others have made of it who are told it with the same cursor, if there may be any.
        shared: Option<&'a Shared>,
    },
    /// Events may have been missed before this cursor.
    Gap {
        /// Why.
        reason: GapReason,
        /// The text of the cursor that goes on from here.
        cursor: &'a str,
    },
    /// Everything older has been delivered; told once, when the follower first is level.
    Level {
        /// The text of the cursor that goes on from here.
        cursor: &'a str,
    },
}

/// What outlets make of an event that many are told with the same cursor: made once for each form, by the first that needs it.
#[derive(Debug, Default)]
pub struct Shared([OnceCell<Bytes>; 2]);

/// The forms of an event on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A block of the event stream.
    Block = 0,
    /// The same, as a chunk of HTTP/1.1.
    Chunk = 1,
}

impl Shared {
    /// The event in this form.
    pub fn form(&self, form: Form, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.0[form as usize].get_or_init(make)
    }
}

/// What a follower asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// Its topics: at least one, none twice.
    pub topics: Vec<Topic>,
    /// Where it begins.
    pub start: Start,
}

/// Where a follower begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Now,
    /// After a cursor.
    After(Cursor),
    /// With a gap, then with what is published from now on: the text it came with is no cursor.
    Unknown,
    /// With what was published since this time.
    Since(UnixMillis),
    /// With the oldest event that is kept.
    Earliest,
}

/// What the hub wants done. Its driver does it and brings the answer back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Have the bus carry a slot.
    Follow(Slot),
    /// Have the bus stop carrying a slot.
    Unfollow(Slot),
    /// Ask the log; bring its answer, or its failure, to [`Hub::answer`] with the ticket. The driver may delay a question but never drops
    /// it unless it is told to.
    Ask {
        /// To be given back with the answer.
        ticket: Ticket,
        /// What to ask.
        question: Question,
        /// How many times in a row it was asked in vain: wait the longer, the more.
        attempt: u32,
    },
    /// Nobody waits for this answer any more: what was not read yet is not to be.
    Forget(Ticket),
}

/// Which question an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(NonZeroU64);

/// A question for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// How far has the shard come?
    Heads(Shard),
    /// What was published?
    Replay(ReplayRequest),
    /// The same, of what those who are live missed.
    Fill(ReplayRequest),
    /// Where does this time stand?
    Locate(Shard, UnixMillis),
}

/// The log's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::Heads`].
    Heads(Heads),
    /// To [`Question::Replay`] and [`Question::Fill`].
    Replay(Replay),
    /// To [`Question::Locate`].
    Located(Located),
    /// To any of them: it could not be read, ask again.
    Failed(ReadError),
}
