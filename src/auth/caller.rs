//! Those who ask, once it is known who they are.

use std::sync::Arc;

use super::{Digest, Patterns};
use crate::model::{Topic, TopicError, UnixMillis};

/// A user: whoever connects as one follows the inbox `user:<id>` without asking.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    inbox: Topic,
}

impl User {
    /// The user of this id. Whether the caller is that user is for others to say.
    ///
    /// # Errors
    /// If the id holds a character that topics do not have, is empty, or is too long.
    pub fn unverified(id: &str) -> Result<Self, TopicError> {
        Topic::inbox(id).map(|inbox| Self { inbox })
    }

    /// The topic that carries what is meant for this user alone.
    #[must_use]
    pub const fn inbox(&self) -> &Topic {
        &self.inbox
    }

    /// The user's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.inbox.as_str().strip_prefix("user:").unwrap_or_default()
    }
}

/// What of a token decides whether it was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenFacts {
    /// Its id (`jti`).
    pub id: Option<Digest>,
    /// Whose it is (`sub`).
    pub subject: Option<Digest>,
    /// When it was issued (`iat`). One that does not say so counts as issued before everything.
    pub issued_at: Option<UnixMillis>,
}

/// For how long a caller may stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// When its holder is told that it ends; past if that is now.
    pub notice: UnixMillis,
    /// When what was opened with it is over at the latest; streams end a little before.
    pub ends: UnixMillis,
    /// The token it comes from.
    pub token: TokenFacts,
}

/// Who follows.
#[derive(Debug, Clone)]
pub struct Subscriber {
    user: Option<User>,
    /// What they may follow beside their inbox; nothing said: everything (in an open node).
    follow: Option<Patterns>,
    /// What anybody may follow.
    public: Patterns,
    lease: Option<Arc<Lease>>,
}

impl Subscriber {
    /// Whoever they say they are, in an open node: they may follow everything.
    #[must_use]
    pub fn unverified(user: Option<User>) -> Self {
        Self {
            user,
            follow: None,
            public: Patterns::default(),
            lease: None,
        }
    }

    /// Somebody of whom nothing is known: they may follow what is public.
    pub(super) fn anonymous(public: Patterns) -> Self {
        Self {
            user: None,
            follow: Some(Patterns::default()),
            public,
            lease: None,
        }
    }

    /// The holder of a token.
    pub(super) const fn known(user: Option<User>, follow: Patterns, public: Patterns, lease: Arc<Lease>) -> Self {
        Self {
            user,
            follow: Some(follow),
            public,
            lease: Some(lease),
        }
    }

    /// With what was granted to them, for tests of others.
    #[cfg(test)]
    pub(crate) fn granted(user: Option<User>, follow: Patterns, lease: Option<Arc<Lease>>) -> Self {
        Self {
            user,
            follow: Some(follow),
            public: Patterns::default(),
            lease,
        }
    }

    /// The user they are, if they are one.
    #[must_use]
    pub const fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Whether they may follow a topic. Nobody follows those of the service itself.
    #[must_use]
    pub fn may_follow(&self, topic: &Topic) -> bool {
        let is_inbox = || self.user.as_ref().is_some_and(|user| user.inbox() == topic);
        let is_granted = |patterns: &Patterns| is_inbox() || patterns.matches(topic) || self.public.matches(topic);
        !topic.is_reserved() && self.follow.as_ref().is_none_or(is_granted)
    }

    /// For how long they may stay; nothing: for ever.
    #[must_use]
    pub const fn lease(&self) -> Option<&Arc<Lease>> {
        self.lease.as_ref()
    }
}

/// Who publishes.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// Who they are, in the audit log and in quotas; nothing in an open node.
    name: Option<Arc<str>>,
    /// What they may publish to; nothing said: everything (in an open node).
    publish: Option<Patterns>,
    /// Whether they may revoke.
    control: bool,
    lease: Option<Arc<Lease>>,
}

impl Publisher {
    /// Whoever it is, in an open node: they may do everything.
    #[must_use]
    pub const fn unverified() -> Self {
        Self {
            name: None,
            publish: None,
            control: true,
            lease: None,
        }
    }

    /// Somebody who said who they are.
    pub(super) const fn known(name: Arc<str>, publish: Patterns, control: bool, lease: Option<Arc<Lease>>) -> Self {
        Self {
            name: Some(name),
            publish: Some(publish),
            control,
            lease,
        }
    }

    /// Who they are; nothing in an open node.
    #[must_use]
    pub const fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// Whether they may publish to a topic. Nobody publishes to those of the service itself.
    #[must_use]
    pub fn may_publish(&self, topic: &Topic) -> bool {
        !topic.is_reserved() && self.publish.as_ref().is_none_or(|patterns| patterns.matches(topic))
    }

    /// Whether they may take back what was granted.
    #[must_use]
    pub const fn may_control(&self) -> bool {
        self.control
    }

    /// For how long they may go on; nothing: for ever.
    #[must_use]
    pub const fn lease(&self) -> Option<&Arc<Lease>> {
        self.lease.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_an_inbox() {
        let user = User::unverified("42").expect("valid");
        assert_eq!((user.inbox().as_str(), user.id()), ("user:42", "42"));
        assert!(User::unverified("").is_err());
        assert!(User::unverified("a b").is_err());
        assert!(User::unverified(&"a".repeat(251)).is_err());
    }
}
