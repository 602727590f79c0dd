//! What of the limits is in use: each share is given back when its permit is dropped.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering},
};

use super::{Limits, lock};
use crate::{addresses::AddressPermit, model::Topic};

/// As what a connection counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Counted {
    /// Not at all: somebody else's permit has its share.
    #[default]
    Not,
    /// One that is served.
    Open,
    /// One that is told to come back later.
    Shed,
}

impl Limits {
    fn give_back(&self, counted: Counted) {
        let counter = match counted {
            Counted::Not => return,
            Counted::Open => &self.open,
            Counted::Shed => &self.shedding,
        };
        counter.fetch_sub(1, Ordering::Relaxed);
    }

    fn level(&self, inbox: &Topic) {
        if let Some(has) = lock(&self.users).get_mut(inbox) {
            has.replays -= 1;
        }
    }

    fn leave(&self, inbox: &Topic, replays: bool) {
        let mut users = lock(&self.users);
        if let Some(has) = users.get_mut(inbox) {
            has.replays -= u32::from(replays);
            has.streams -= 1;
            if has.streams == 0 {
                users.remove(inbox);
            }
        }
    }
}

/// A connection's share.
#[derive(Debug)]
pub(in crate::edge) struct ConnectionPermit {
    limits: Arc<Limits>,
    pub(super) address: Option<AddressPermit>,
    counted: Counted,
}

impl ConnectionPermit {
    pub(super) const fn new(limits: Arc<Limits>, counted: Counted) -> Self {
        Self {
            limits,
            address: None,
            counted,
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limits.give_back(self.counted);
    }
}

/// A user's share of one stream.
#[derive(Debug)]
pub(in crate::edge) struct UserPermit {
    limits: Arc<Limits>,
    /// Nothing: somebody else's permit has its share.
    inbox: Option<Topic>,
    /// It still counts as one that catches up.
    replays: bool,
}

impl UserPermit {
    pub(super) const fn new(limits: Arc<Limits>, inbox: Topic, replays: bool) -> Self {
        Self {
            limits,
            inbox: Some(inbox),
            replays,
        }
    }
}

impl Drop for UserPermit {
    fn drop(&mut self) {
        if let Some(inbox) = &self.inbox {
            self.limits.leave(inbox, self.replays);
        }
    }
}

/// What a stream holds for as long as it lives, of all of these in one: there are many streams.
#[derive(Debug, Default)]
pub(in crate::edge) struct Permits {
    limits: Option<Arc<Limits>>,
    inbox: Option<Topic>,
    _address: Option<AddressPermit>,
    counted: Counted,
    /// It still counts as one that catches up.
    replays: Cell<bool>,
}

impl Permits {
    /// The share of its user, if it has one; its connection's may be held by the connection.
    pub(in crate::edge) fn of_user(user: Option<UserPermit>) -> Self {
        let mut permits = Self::default();
        if let Some(mut user) = user {
            permits.limits = Some(Arc::clone(&user.limits));
            permits.inbox = user.inbox.take();
            permits.replays.set(user.replays);
        }
        permits
    }

    /// With its connection's.
    pub(in crate::edge) fn with_connection(mut self, mut connection: ConnectionPermit) -> Self {
        self.limits = Some(Arc::clone(&connection.limits));
        self.counted = std::mem::take(&mut connection.counted);
        match connection.address.take() {
            None => self,
            address => self.with_address(address),
        }
    }

    /// With its address's, if its connection has none for it.
    pub(in crate::edge) fn with_address(mut self, address: Option<AddressPermit>) -> Self {
        debug_assert!(self._address.is_none(), "a stream is of one address");
        self._address = address;
        self
    }

    /// The stream has caught up: another one of its user may catch up.
    pub(in crate::edge) fn level(&self) {
        if let (Some(limits), Some(inbox)) = (&self.limits, &self.inbox)
            && self.replays.take()
        {
            limits.level(inbox);
        }
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        if let Some(limits) = &self.limits {
            limits.give_back(self.counted);
            if let Some(inbox) = &self.inbox {
                limits.leave(inbox, self.replays.get());
            }
        }
    }
}
