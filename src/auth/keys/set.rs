//! The keys of one issuer, as they are now: replaced as a whole, read without waiting.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::sync::Notify;

use super::{Algorithm, Key};
use crate::model::UnixMillis;

/// How many keys an issuer may have. A token that names none is tried with all of its kind.
pub(super) const MAX_KEYS: usize = 64;

/// A token whose key is not known has the keys asked for again, not more often than this.
pub const REFRESH_AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// The keys of an issuer. Shared by those who verify and the one who keeps them up to date.
#[derive(Debug)]
pub struct Keys {
    current: RwLock<Arc<KeySet>>,
    /// Rung when a key is missing that may be there by now; nothing if nobody would come.
    wanted: Option<Notify>,
}

/// The keys at one time.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
    /// When they were last asked for with success.
    asked_at: Option<UnixMillis>,
}

impl Keys {
    /// Keys that come with the configuration, or from files that are looked at anyway.
    #[must_use]
    pub fn given(keys: Vec<Key>) -> Self {
        Self {
            current: RwLock::new(Arc::new(KeySet { keys, asked_at: None })),
            wanted: None,
        }
    }

    /// Keys that are asked for elsewhere; none yet.
    #[must_use]
    pub fn asked_for() -> Self {
        Self {
            current: RwLock::default(),
            wanted: Some(Notify::new()),
        }
    }

    /// From now on it is these.
    pub fn replace(&self, keys: Vec<Key>, now: UnixMillis) {
        let set = Arc::new(KeySet {
            keys,
            asked_at: Some(now),
        });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = set;
    }

    /// Those of now.
    pub(crate) fn current(&self) -> Arc<KeySet> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A key is missing. Has it asked for, and tells whether it may come: not if there is nobody to ask, or who was asked just now does not
    /// know it either.
    pub(crate) fn want(&self, set: &KeySet, now: UnixMillis) -> bool {
        let Some(wanted) = &self.wanted else { return false };
        let most = u64::try_from(REFRESH_AT_MOST_EVERY.as_millis()).unwrap_or(u64::MAX);
        // Clocks are also set back.
        if set.asked_at.is_some_and(|asked_at| asked_at.0.abs_diff(now.0) < most) {
            return false;
        }
        wanted.notify_one();
        true
    }

    /// Waits until a key is wanted; for ever if nobody can be asked.
    pub(crate) async fn wanted(&self) {
        match &self.wanted {
            Some(wanted) => wanted.notified().await,
            None => std::future::pending().await,
        }
    }
}

impl KeySet {
    /// Those that may have signed a token that names this key and this algorithm. Keys without a name may have signed any.
    pub(crate) fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> + 'a {
        self.keys
            .iter()
            .filter(move |key| key.algorithm() == algorithm && (id.is_none() || key.id().is_none() || key.id() == id))
    }

    /// Whether the very key is here that a token names: then no other has signed it. One that names none, or keys without names, leave that open.
    pub(crate) fn has(&self, id: Option<&str>) -> bool {
        id.is_some() && self.keys.iter().any(|key| key.id() == id)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}
