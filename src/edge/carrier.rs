//! What carries a stream, whatever the protocol, as its worker sees it; and why one is ended from here.

use std::{rc::Rc, time::Duration};

use super::{
    limits::{come_back_after, stay_away},
    sockets::Ready,
    wheel::Tick,
};

/// A live stream, whatever carries it.
pub(super) trait Carrier {
    /// When anything was last sent.
    fn last_sent(&self) -> Tick;

    /// Sends the beginning of the stream if it is still held back.
    fn begin(&self);

    /// Sends something that means nothing, unless other things are waiting to be sent anyway.
    fn heartbeat(&self);

    /// Tells that the caller's token is over so soon, after what is waiting; nothing after the end. It is small, comes once, and so may go
    /// over any bound.
    fn expiring(&self, left: Duration);

    /// Ends the stream after what is waiting. The first call counts.
    fn end(&self, end: End);

    /// The stream is over now: whatever does not go out at once is dropped.
    fn abandon(&self, end: End);

    /// Goes on: its socket has something to say, or it has asked for it. Only what is written here has turns.
    fn turn(&self, _ready: Ready) -> Turn {
        Turn::Open
    }
}

/// What is left of a stream after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It goes on.
    Open,
    /// It is over, and has left the hub.
    Over,
}

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Why.
    pub(super) cause: Cause,
    /// The client is to come back after so long.
    pub(super) come_back_after: Duration,
}

/// Why a stream is ended from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It is better off elsewhere, or later.
    Leave,
    /// Its caller's token is over: it comes back with another, or gets 401.
    Expired,
    /// Its caller's token was taken back: what comes back with it gets 401.
    Revoked,
}

impl End {
    /// The node goes away, or has no room: stay away for a while.
    pub(super) fn later() -> Self {
        Self {
            cause: Cause::Leave,
            come_back_after: stay_away(),
        }
    }

    /// An end that is no trouble of this node's: come back as after any interruption.
    pub(super) fn because(cause: Cause, retry: Duration) -> Self {
        let retry = match cause {
            Cause::Leave | Cause::Expired => retry,
            // The client is to learn soon that it is for good.
            Cause::Revoked => Duration::from_secs(1),
        };
        Self {
            cause,
            come_back_after: come_back_after(retry),
        }
    }
}

/// Something to be done to a stream.
pub(super) enum Due {
    Begin(Rc<dyn Carrier>),
    Heartbeat(Rc<dyn Carrier>),
    /// Its token is over so soon.
    Expiring(Rc<dyn Carrier>, Duration),
    End(Rc<dyn Carrier>, End),
    Abandon(Rc<dyn Carrier>, End),
}

impl Due {
    /// Does it.
    pub(super) fn carry_out(self) {
        match self {
            Self::Begin(carrier) => carrier.begin(),
            Self::Heartbeat(carrier) => carrier.heartbeat(),
            Self::Expiring(carrier, left) => carrier.expiring(left),
            Self::End(carrier, end) => carrier.end(end),
            Self::Abandon(carrier, end) => carrier.abandon(end),
        }
    }
}
