//! Who is asking, and what they may follow.
//!
//! So far there is the open mode alone: whoever connects names the user they are, unverified, and may follow every topic. It is for
//! loopback and for trying things out; anything else needs `--insecure`.

use crate::model::{Topic, TopicError};

/// A user: whoever connects as one follows the inbox `user:<id>` without asking.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    inbox: Topic,
}

impl User {
    /// The user that a caller says it is, unverified.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_an_inbox() {
        assert_eq!(User::unverified("42").expect("valid").inbox().as_str(), "user:42");
        assert!(User::unverified("").is_err());
        assert!(User::unverified("a b").is_err());
        assert!(User::unverified(&"a".repeat(251)).is_err());
    }
}
