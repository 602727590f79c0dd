//! What has been taken back before its time: a token, a user's tokens, or everything issued before some moment.
//!
//! A set that only grows, but for what has expired by itself; adding twice is adding once, and the order does not matter. It is asked for every
//! stream whenever it has changed: what is asked for is found by its name, however many there are.

mod text;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

pub use self::text::RevocationError;
use super::{Digest, TokenFacts};
use crate::model::UnixMillis;

/// What is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The token of this id (`jti`).
    Token(Arc<str>),
    /// The tokens of this user (`sub`) that were issued before a moment.
    User {
        /// Who.
        subject: Arc<str>,
        /// When; far ahead: the user is shut out until the revocation expires.
        issued_before: UnixMillis,
    },
    /// Every token that was issued before a moment.
    All {
        /// When.
        issued_before: UnixMillis,
    },
}

/// Something that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revocation {
    /// What.
    pub target: Target,
    /// Until when: tokens must have expired by themselves by then.
    pub until: UnixMillis,
}

/// What came of adding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    New,
    /// It was there, or what takes back as much for as long, or it is over already.
    Known,
    /// There is no room: it has no effect.
    Full,
}

/// All that has been taken back.
#[derive(Debug)]
pub struct Revocations {
    index: RwLock<Index>,
    changes: watch::Sender<u64>,
    /// What was taken back before this process began is yet to be heard.
    behind: AtomicBool,
}

impl Default for Revocations {
    fn default() -> Self {
        Self {
            index: RwLock::default(),
            changes: watch::Sender::new(0),
            behind: AtomicBool::new(false),
        }
    }
}

impl Revocations {
    /// How many there may be at a time: with names of the longest kind about 200 MB, usually a third of that.
    pub const MAX: usize = 250_000;

    /// Takes something back.
    pub fn add(&self, revocation: Revocation, now: UnixMillis) -> Added {
        let added = {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            index.forget(now);
            index.add(revocation, now, Self::MAX)
        };
        if added == Added::New {
            self.changes.send_modify(|count| *count += 1);
        }
        added
    }

    /// Whether one more can be added.
    #[must_use]
    pub fn has_room(&self, now: UnixMillis) -> bool {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.forget(now);
        index.count < Self::MAX
    }

    /// Whether a token was taken back.
    #[must_use]
    pub fn covers(&self, token: &TokenFacts, now: UnixMillis) -> bool {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.covers(token, now)
    }

    /// Those that have an effect, the first to expire first.
    #[must_use]
    pub fn list(&self, now: UnixMillis) -> Vec<Revocation> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = index.all(now);
        all.sort_by(|a, b| (a.until, &a.target).cmp(&(b.until, &b.target)));
        all
    }

    /// Changes with every revocation that is new.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What was taken back before this process began is yet to be heard: until then no token that can be taken back is accepted.
    pub fn set_behind(&self) {
        self.behind.store(true, Ordering::Release);
    }

    /// It has been heard. That is not undone: what is known goes on to count, however long nothing more is heard.
    pub fn set_level(&self) {
        self.behind.store(false, Ordering::Release);
    }

    /// Whether everything that was taken back before this process began has been heard.
    #[must_use]
    pub fn is_level(&self) -> bool {
        !self.behind.load(Ordering::Acquire)
    }
}

/// How many expiries may be of what is there no longer.
const NEEDLESS: usize = 1_024;

/// By name, each found by its digest: that is what is known of a token that was looked at earlier.
#[derive(Debug, Default)]
struct Index {
    tokens: HashMap<Digest, (Arc<str>, UnixMillis)>,
    users: HashMap<Digest, (Arc<str>, Bounds)>,
    all: Bounds,
    /// How many there are.
    count: usize,
    /// What to look at again when: all those there are, and some that are there no longer.
    expiries: BinaryHeap<Reverse<(UnixMillis, Name)>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Token(Arc<str>),
    User(Arc<str>),
    All,
}

/// What was issued before a moment, each until some time. None that another makes needless: the later the moment, the sooner it ends.
#[derive(Debug, Default)]
struct Bounds(Vec<(UnixMillis, UnixMillis)>);

impl Bounds {
    fn knows(&self, before: UnixMillis, until: UnixMillis) -> bool {
        self.0.iter().any(|bound| bound.0 >= before && bound.1 >= until)
    }

    fn has_less(&self, before: UnixMillis, until: UnixMillis) -> bool {
        self.0.iter().any(|bound| bound.0 <= before && bound.1 <= until)
    }

    /// Adds one; tells how many became needless by it.
    fn add(&mut self, before: UnixMillis, until: UnixMillis) -> usize {
        let count = self.0.len();
        self.0.retain(|bound| bound.0 > before || bound.1 > until);
        let needless = count - self.0.len();
        self.0.push((before, until));
        needless
    }

    /// Drops what is over; tells how many.
    fn forget(&mut self, now: UnixMillis) -> usize {
        let count = self.0.len();
        self.0.retain(|bound| bound.1 > now);
        count - self.0.len()
    }

    fn covers(&self, issued_at: Option<UnixMillis>, now: UnixMillis) -> bool {
        let issued_at = issued_at.unwrap_or(UnixMillis(0));
        self.0.iter().any(|bound| bound.1 > now && issued_at < bound.0)
    }
}

impl Index {
    fn add(&mut self, revocation: Revocation, now: UnixMillis, most: usize) -> Added {
        let until = revocation.until;
        if until <= now || self.knows(&revocation) {
            return Added::Known;
        }
        if self.count >= most && !self.has_less(&revocation) {
            return Added::Full;
        }
        let name = match revocation.target {
            Target::Token(id) => {
                let had = self.tokens.insert(Digest::of(&id), (Arc::clone(&id), until));
                self.count += usize::from(had.is_none());
                Name::Token(id)
            }
            Target::User { subject, issued_before } => {
                self.count += 1;
                let user = self.users.entry(Digest::of(&subject));
                let (_, bounds) = user.or_insert_with(|| (Arc::clone(&subject), Bounds::default()));
                self.count -= bounds.add(issued_before, until);
                Name::User(subject)
            }
            Target::All { issued_before } => {
                self.count += 1;
                self.count -= self.all.add(issued_before, until);
                Name::All
            }
        };
        self.expiries.push(Reverse((until, name)));
        if self.expiries.len() > 2 * self.count + NEEDLESS {
            self.sort_out();
        }
        Added::New
    }

    /// Whether it takes the place of one that takes back less.
    fn has_less(&self, revocation: &Revocation) -> bool {
        let until = revocation.until;
        match &revocation.target {
            Target::Token(id) => self.tokens.contains_key(&Digest::of(id)),
            Target::User { subject, issued_before } => {
                let user = self.users.get(&Digest::of(subject));
                user.is_some_and(|(_, bounds)| bounds.has_less(*issued_before, until))
            }
            Target::All { issued_before } => self.all.has_less(*issued_before, until),
        }
    }

    fn knows(&self, revocation: &Revocation) -> bool {
        let until = revocation.until;
        match &revocation.target {
            Target::Token(id) => {
                let token = self.tokens.get(&Digest::of(id));
                token.is_some_and(|(_, known)| *known >= until)
            }
            Target::User { subject, issued_before } => {
                let user = self.users.get(&Digest::of(subject));
                user.is_some_and(|(_, bounds)| bounds.knows(*issued_before, until))
            }
            Target::All { issued_before } => self.all.knows(*issued_before, until),
        }
    }

    /// Leaves out the expiries of what is there no longer.
    fn sort_out(&mut self) {
        let tokens = self.tokens.values();
        let tokens = tokens.map(|(id, until)| (*until, Name::Token(id.clone())));
        let users = self.users.values().flat_map(|(subject, bounds)| {
            let bounds = bounds.0.iter();
            bounds.map(|bound| (bound.1, Name::User(subject.clone())))
        });
        let all = self.all.0.iter().map(|bound| (bound.1, Name::All));
        self.expiries = tokens.chain(users).chain(all).map(Reverse).collect();
    }

    /// Drops what is over.
    fn forget(&mut self, now: UnixMillis) {
        while self.expiries.peek().is_some_and(|Reverse((until, _))| *until <= now) {
            let Some(Reverse((until, name))) = self.expiries.pop() else {
                return;
            };
            self.count -= match name {
                Name::Token(id) => {
                    let digest = Digest::of(&id);
                    // It may have been taken back for longer since.
                    let is_over = self.tokens.get(&digest).is_some_and(|(_, known)| *known == until);
                    usize::from(is_over && self.tokens.remove(&digest).is_some())
                }
                Name::User(subject) => {
                    let digest = Digest::of(&subject);
                    let Some((_, bounds)) = self.users.get_mut(&digest) else {
                        continue;
                    };
                    let gone = bounds.forget(now);
                    if bounds.0.is_empty() {
                        self.users.remove(&digest);
                    }
                    gone
                }
                Name::All => self.all.forget(now),
            };
        }
    }

    fn covers(&self, token: &TokenFacts, now: UnixMillis) -> bool {
        let by_id = || token.id.and_then(|id| self.tokens.get(&id));
        let by_subject = || token.subject.and_then(|subject| self.users.get(&subject));
        self.all.covers(token.issued_at, now)
            || by_id().is_some_and(|(_, until)| *until > now)
            || by_subject().is_some_and(|(_, bounds)| bounds.covers(token.issued_at, now))
    }

    fn all(&self, now: UnixMillis) -> Vec<Revocation> {
        let tokens = self.tokens.values();
        let tokens = tokens.map(|(id, until)| (Target::Token(id.clone()), *until));
        let users = self.users.values().flat_map(|(subject, bounds)| {
            bounds.0.iter().map(move |(issued_before, until)| {
                let (subject, issued_before) = (subject.clone(), *issued_before);
                (Target::User { subject, issued_before }, *until)
            })
        });
        let all = self.all.0.iter().map(|(issued_before, until)| {
            let issued_before = *issued_before;
            (Target::All { issued_before }, *until)
        });
        let live = tokens.chain(users).chain(all).filter(|(_, until)| *until > now);
        live.map(|(target, until)| Revocation { target, until }).collect()
    }
}

#[cfg(test)]
mod tests;
