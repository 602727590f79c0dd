//! Which nodes hold which shard.

use std::collections::{BTreeMap, BTreeSet};

use tidings_cluster::View;

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

    /// Those that a view knows. Who has another epoch of a shard than its first holder has another history of it, and does not count.
    #[must_use]
    pub fn of_view(view: &View) -> Self {
        let shards: BTreeSet<u16> = view
            .ingest()
            .flat_map(|member| member.shards.iter().map(|held| held.shard))
            .collect();
        let holders = |shard: u16| {
            let all = view.holders(shard);
            let epoch = all.first().map(|first| first.held.epoch);
            let of_epoch = all.iter().filter(move |holder| Some(holder.held.epoch) == epoch);
            of_epoch
                .filter(|holder| !holder.member.grpc.is_empty())
                .map(|holder| Holder {
                    node: holder.member.node.to_string(),
                    grpc: holder.member.grpc.clone(),
                    writable: holder.held.writable,
                })
        };
        Self::new(
            shards
                .into_iter()
                .map(|shard| (Shard(shard), holders(shard).collect()))
                .collect(),
        )
    }

    /// The same, but for the shards that nobody holds any more with those who last did. They may be there and out of sight, cut off from NATS
    /// but not from us: nobody else can be asked. They are not taken to take appends.
    #[must_use]
    pub fn or_last(mut self, before: &Self) -> Self {
        for (shard, last) in &before.shards {
            let holders = self.shards.entry(*shard).or_default();
            if holders.is_empty() {
                let last = last.iter().cloned();
                holders.extend(last.map(|holder| Holder {
                    writable: false,
                    ..holder
                }));
            }
        }
        self
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
