//! The names that a cluster uses in NATS: every subject and stream, in one place.
//!
//! ```text
//! <cluster>.slot.<slot>          announcements: durable events; JetStream republishes to it
//! <cluster>.once.<slot>          ephemeral events
//! <cluster>.digest.<shard>       how far a shard has come
//! <cluster>.beat.<node>          what a node tells of itself
//! <cluster>.hello                a node that is new asks all others to tell of themselves
//! <cluster>.log.<shard>.<slot>   what JetStream stores, in the stream <cluster>-shard-<shard>
//! <cluster>.inbox.…              answers to requests
//! <cluster>.nobody               nobody listens: the server itself answers that
//! ```
//!
//! So a user of NATS may be confined to publishing and subscribing to `<cluster>.>`, and, where streams are the journal, to publishing to
//! `$JS.API.>` and `$JS.ACK.>`.

use std::{fmt, sync::Arc};

use async_nats::Subject;

use crate::model::{Shard, Slot};

/// The names of one cluster. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects(Arc<str>);

impl Subjects {
    /// The names of the cluster that is called so.
    ///
    /// # Errors
    /// If the name has other characters than `A-Z a-z 0-9 _ -`, or none.
    pub fn new(cluster: &str) -> Result<Self, ClusterNameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if cluster.is_empty() || cluster.len() > 64 || !cluster.chars().all(allowed) {
            return Err(ClusterNameError {
                name: cluster.to_owned(),
            });
        }
        Ok(Self(cluster.into()))
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.0
    }

    /// Announcements of a slot.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> Subject {
        self.subject(format_args!("slot.{slot}"))
    }

    /// Ephemeral events of a slot.
    #[must_use]
    pub fn once(&self, slot: Slot) -> Subject {
        self.subject(format_args!("once.{slot}"))
    }

    /// Digests of a shard.
    #[must_use]
    pub fn digest(&self, shard: Shard) -> Subject {
        self.subject(format_args!("digest.{shard}"))
    }

    /// Digests of all shards.
    #[must_use]
    pub fn digests(&self) -> Subject {
        self.subject(format_args!("digest.*"))
    }

    /// What a node tells of itself. Names that differ only in unusual characters share a subject; who speaks is in the message.
    #[must_use]
    pub fn beat(&self, node: &str) -> Subject {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let node: String = node.chars().map(plain).collect();
        self.subject(format_args!("beat.{}", if node.is_empty() { "_" } else { &node }))
    }

    /// What all nodes tell of themselves.
    #[must_use]
    pub fn beats(&self) -> Subject {
        self.subject(format_args!("beat.*"))
    }

    /// A new node asks all others to tell of themselves.
    #[must_use]
    pub fn hello(&self) -> Subject {
        self.subject(format_args!("hello"))
    }

    /// What the stream of a shard stores of a slot.
    #[must_use]
    pub fn log(&self, shard: Shard, slot: Slot) -> Subject {
        self.subject(format_args!("log.{shard}.{slot}"))
    }

    /// All that the stream of a shard stores.
    #[must_use]
    pub fn logs(&self, shard: Shard) -> Subject {
        self.subject(format_args!("log.{shard}.*"))
    }

    /// The stream of a shard.
    #[must_use]
    pub fn stream(&self, shard: Shard) -> String {
        format!("{}-shard-{shard}", self.0)
    }

    /// Where the server itself answers that nobody listens.
    #[must_use]
    pub fn nobody(&self) -> Subject {
        self.subject(format_args!("nobody"))
    }

    /// What the subjects for answers begin with.
    #[must_use]
    pub fn inbox(&self) -> String {
        format!("{}.inbox", self.0)
    }

    /// The slot that a subject of announcements or of ephemeral events ends with.
    #[must_use]
    pub fn slot_in(subject: &str) -> Option<Slot> {
        subject.rsplit('.').next()?.parse().ok().map(Slot)
    }

    fn subject(&self, rest: fmt::Arguments<'_>) -> Subject {
        format!("{}.{rest}", self.0).into()
    }
}

/// A text that cannot name a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot name a cluster: 1 to 64 characters of `A-Z a-z 0-9 _ -` can")]
pub struct ClusterNameError {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_begin_with_the_cluster() {
        let subjects = Subjects::new("tidings").expect("valid");
        assert_eq!(subjects.slot(Slot(7)).as_str(), "tidings.slot.7");
        assert_eq!(subjects.log(Shard(3), Slot(7)).as_str(), "tidings.log.3.7");
        assert_eq!(subjects.stream(Shard(3)), "tidings-shard-3");
        assert_eq!(Subjects::slot_in("tidings.slot.7"), Some(Slot(7)));
        assert_eq!(Subjects::slot_in("tidings.slot.x"), None);
        // A node's name is no subject by itself.
        assert_eq!(
            subjects.beat("edge-0.edge.example *>").as_str(),
            "tidings.beat.edge-0_edge_example___"
        );
    }

    #[test]
    fn names_that_are_no_part_of_a_subject_are_refused() {
        for name in ["", "a.b", "a b", "*", ">", "ä"] {
            assert!(Subjects::new(name).is_err(), "{name:?}");
        }
    }
}
