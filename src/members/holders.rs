//! Which nodes hold which shard.

use std::collections::BTreeMap;

use crate::model::Shard;

/// Who holds each shard now, the best to ask first. Replaced whole whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    shards: BTreeMap<Shard, Vec<Holder>>,
}

/// A node that holds a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The node's name.
    pub node: String,
    /// Where its gRPC port is, as a URL.
    pub grpc: String,
    /// Whether it takes appends for the shard; it can be read either way.
    pub writable: bool,
}

impl Holders {
    /// These holders, by shard.
    #[must_use]
    pub const fn new(shards: BTreeMap<Shard, Vec<Holder>>) -> Self {
        Self { shards }
    }

    /// The holders of a shard, the best to ask first; none if nobody is known to hold it.
    #[must_use]
    pub fn of(&self, shard: Shard) -> &[Holder] {
        self.shards.get(&shard).map_or(&[], Vec::as_slice)
    }

    /// All holders; one that holds several shards, once for each.
    pub fn all(&self) -> impl Iterator<Item = &Holder> {
        self.shards.values().flatten()
    }
}
