//! What has been taken back before its time: a token, a user's tokens, or everything issued before some moment.
//!
//! A set that only grows, but for what has expired by itself; adding twice is adding once, and the order does not matter.
//!
//! Each is stored as the payload of an event. Its text, version 1; times in milliseconds since 1970, names to the end of the text:
//!
//! | text | takes back |
//! |---|---|
//! | `1 token UNTIL ID` | the token of this id |
//! | `1 user UNTIL BEFORE SUBJECT` | the tokens of this user that were issued before a time |
//! | `1 all UNTIL BEFORE` | every token that was issued before a time |

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use super::TokenFacts;
use crate::model::UnixMillis;

/// What is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revocation {
    /// What.
    pub target: Target,
    /// Until when: tokens must have expired by themselves by then.
    pub until: UnixMillis,
}

impl Revocation {
    /// How it is stored: see the module.
    #[must_use]
    pub fn to_text(&self) -> String {
        let until = self.until.0;
        match &self.target {
            Target::Token(id) => format!("1 token {until} {id}"),
            Target::User { subject, issued_before } => format!("1 user {until} {} {subject}", issued_before.0),
            Target::All { issued_before } => format!("1 all {until} {}", issued_before.0),
        }
    }

    /// Reads what was stored.
    ///
    /// # Errors
    /// If it is of another form: of a later version, say.
    pub fn parse(text: &str) -> Result<Self, RevocationError> {
        let read = || {
            let (kind, rest) = text.strip_prefix("1 ")?.split_once(' ')?;
            let time = |text: &str| text.parse().ok().map(UnixMillis);
            let name = |text: &str| (!text.is_empty()).then(|| text.into());
            let (until, target) = match kind {
                "token" => {
                    let (until, id) = rest.split_once(' ')?;
                    (until, Target::Token(name(id)?))
                }
                "user" => {
                    let (until, rest) = rest.split_once(' ')?;
                    let (before, subject) = rest.split_once(' ')?;
                    let (subject, issued_before) = (name(subject)?, time(before)?);
                    (until, Target::User { subject, issued_before })
                }
                "all" => {
                    let (until, before) = rest.split_once(' ')?;
                    let issued_before = time(before)?;
                    (until, Target::All { issued_before })
                }
                _ => return None,
            };
            let until = time(until)?;
            Some(Self { target, until })
        };
        read().ok_or(RevocationError)
    }
}

/// A text that is no revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no revocation that this version knows: run the latest version on every node")]
pub struct RevocationError;

/// All that has been taken back.
#[derive(Debug)]
pub struct Revocations {
    set: RwLock<Set>,
    changes: watch::Sender<u64>,
    behind: AtomicBool,
}

/// What is taken back, by what it is looked up with.
#[derive(Debug, Default)]
struct Set {
    /// Until when, by the token's id.
    tokens: HashMap<Arc<str>, UnixMillis>,
    /// By the tokens' user.
    users: HashMap<Arc<str>, Moments>,
    all: Moments,
}

/// Up to when tokens must have been issued, each with until when that counts; none says no more than another.
#[derive(Debug, Default)]
struct Moments(Vec<(UnixMillis, UnixMillis)>);

impl Moments {
    /// Adds one; false if nothing follows from it that did not before.
    fn add(&mut self, before: UnixMillis, until: UnixMillis) -> bool {
        if self.0.iter().any(|&(b, u)| b >= before && u >= until) {
            return false;
        }
        self.0.retain(|&(b, u)| b > before || u > until);
        self.0.push((before, until));
        true
    }

    fn covers(&self, token: &TokenFacts, now: UnixMillis) -> bool {
        self.0
            .iter()
            .any(|&(before, until)| until > now && token.issued_at.is_none_or(|issued| issued < before))
    }

    fn sweep(&mut self, now: UnixMillis) {
        self.0.retain(|&(_, until)| until > now);
    }
}

impl Set {
    fn sweep(&mut self, now: UnixMillis) {
        self.tokens.retain(|_, until| *until > now);
        self.users.values_mut().for_each(|moments| moments.sweep(now));
        self.users.retain(|_, moments| !moments.0.is_empty());
        self.all.sweep(now);
    }

    fn add(&mut self, Revocation { target, until }: Revocation) -> bool {
        match target {
            Target::Token(id) => {
                let known = self.tokens.entry(id).or_default();
                let is_new = *known < until;
                *known = until.max(*known);
                is_new
            }
            Target::User { subject, issued_before } => self.users.entry(subject).or_default().add(issued_before, until),
            Target::All { issued_before } => self.all.add(issued_before, until),
        }
    }

    fn all(&self) -> impl Iterator<Item = Revocation> {
        let of = |target, until| Revocation { target, until };
        let tokens = self
            .tokens
            .iter()
            .map(move |(id, &until)| of(Target::Token(id.clone()), until));
        let users = self.users.iter().flat_map(move |(subject, moments)| {
            moments.0.iter().map(move |&(issued_before, until)| {
                let subject = subject.clone();
                of(Target::User { subject, issued_before }, until)
            })
        });
        let all = self
            .all
            .0
            .iter()
            .map(move |&(issued_before, until)| of(Target::All { issued_before }, until));
        tokens.chain(users).chain(all)
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Self {
            set: RwLock::default(),
            changes: watch::Sender::new(0),
            behind: AtomicBool::new(false),
        }
    }
}

impl Revocations {
    /// Takes something back.
    pub fn add(&self, revocation: Revocation, now: UnixMillis) {
        if revocation.until <= now {
            return;
        }
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        set.sweep(now);
        let is_new = set.add(revocation);
        drop(set);
        if is_new {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Whether a token was taken back.
    #[must_use]
    pub fn covers(&self, token: &TokenFacts, now: UnixMillis) -> bool {
        let set = self.set.read().unwrap_or_else(PoisonError::into_inner);
        let by_id = token.id.as_ref().and_then(|id| set.tokens.get(id));
        let of_user = token.subject.as_ref().and_then(|subject| set.users.get(subject));
        by_id.is_some_and(|until| *until > now)
            || of_user.is_some_and(|moments| moments.covers(token, now))
            || set.all.covers(token, now)
    }

    /// What is taken back at a time.
    #[must_use]
    pub fn live(&self, now: UnixMillis) -> Vec<Revocation> {
        let set = self.set.read().unwrap_or_else(PoisonError::into_inner);
        set.all().filter(|revocation| revocation.until > now).collect()
    }

    /// Changes with every revocation that is new.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What was taken back before this process began is yet to be heard: until then no token can be trusted.
    pub fn set_behind(&self) {
        self.behind.store(true, Ordering::Release);
    }

    /// It has been heard. That is not taken back: what is known goes on to count.
    pub fn set_level(&self) {
        self.behind.store(false, Ordering::Release);
    }

    /// Whether everything that was taken back before this process began has been heard.
    #[must_use]
    pub fn is_level(&self) -> bool {
        !self.behind.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn targets() -> impl Strategy<Value = Target> {
        let name = || "[a-c ]{1,2}".prop_map(Arc::from);
        let time = || (0_u64..6).prop_map(UnixMillis);
        prop_oneof![
            name().prop_map(Target::Token),
            (name(), time()).prop_map(|(subject, issued_before)| Target::User { subject, issued_before }),
            time().prop_map(|issued_before| Target::All { issued_before }),
        ]
    }

    fn revocations() -> impl Strategy<Value = Revocation> {
        (targets(), 0_u64..8).prop_map(|(target, until)| Revocation {
            target,
            until: UnixMillis(until),
        })
    }

    fn tokens() -> impl Strategy<Value = TokenFacts> {
        let name = || prop::option::of("[a-c ]{1,2}".prop_map(Arc::from));
        (name(), name(), prop::option::of((0_u64..6).prop_map(UnixMillis)))
            .prop_map(|(id, subject, issued_at)| TokenFacts { id, subject, issued_at })
    }

    /// The plain meaning of one of them.
    fn means(revocation: &Revocation, token: &TokenFacts, now: UnixMillis) -> bool {
        let before = |time| token.issued_at.is_none() || token.issued_at < Some(time);
        revocation.until > now
            && match &revocation.target {
                Target::Token(id) => token.id.as_ref() == Some(id),
                Target::User { subject, issued_before } => {
                    token.subject.as_ref() == Some(subject) && before(*issued_before)
                }
                Target::All { issued_before } => before(*issued_before),
            }
    }

    proptest! {
        #[test]
        fn what_is_stored_is_what_is_read(revocation in revocations()) {
            prop_assert_eq!(Revocation::parse(&revocation.to_text()), Ok(revocation));
        }

        #[test]
        fn a_token_is_covered_if_any_of_them_means_it(
            added in prop::collection::vec((revocations(), 0_u64..3), 0..12), token in tokens(),
        ) {
            let revocations = Revocations::default();
            let mut now = UnixMillis(0);
            for (revocation, passed) in added.clone() {
                now = UnixMillis(now.0 + passed);
                revocations.add(revocation, now);
            }
            let covered = added.iter().any(|(revocation, _)| means(revocation, &token, now));
            prop_assert_eq!(revocations.covers(&token, now), covered);
            prop_assert_eq!(revocations.live(now).iter().any(|revocation| means(revocation, &token, now)), covered);
        }

        #[test]
        fn no_text_is_too_strange(text in any::<String>()) {
            if let Ok(revocation) = Revocation::parse(&text) {
                prop_assert_eq!(Revocation::parse(&revocation.to_text()), Ok(revocation));
            }
        }
    }

    #[test]
    fn the_stored_form_is_fixed() {
        let (subject, issued_before, until) = (Arc::from("a b"), UnixMillis(5), UnixMillis(7));
        let texts = [
            Target::Token("x y".into()),
            Target::User { subject, issued_before },
            Target::All { issued_before },
        ]
        .map(|target| Revocation { target, until }.to_text());
        assert_eq!(texts, ["1 token 7 x y", "1 user 7 5 a b", "1 all 7 5"]);
        for text in [
            "",
            "2 all 7 5",
            "1 all 7",
            "1 all 7 5 6",
            "1 token 7 ",
            "1 user 7 5 ",
            "1 all -7 5",
            "1 other 7 5",
        ] {
            assert_eq!(Revocation::parse(text), Err(RevocationError), "{text:?}");
        }
    }

    #[test]
    fn only_what_is_new_is_told() {
        let revocations = Revocations::default();
        let mut changes = revocations.changes();
        let one = |issued_before, until| Revocation {
            target: Target::All {
                issued_before: UnixMillis(issued_before),
            },
            until: UnixMillis(until),
        };
        for (revocation, is_new) in [
            (one(5, 7), true),
            (one(5, 7), false),
            (one(4, 6), false),
            (one(6, 6), true),
            (one(9, 3), false),
        ] {
            revocations.add(revocation, UnixMillis(3));
            assert_eq!(changes.has_changed().expect("there"), is_new);
            changes.borrow_and_update();
        }
    }

    #[test]
    fn behind_until_level() {
        let revocations = Revocations::default();
        assert!(revocations.is_level());
        revocations.set_behind();
        assert!(!revocations.is_level());
        revocations.set_level();
        assert!(revocations.is_level());
    }
}
