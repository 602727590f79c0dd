//! What a node says about itself.

use crate::Layout;

/// What a node tells the others about itself, once a second. `proto/tidings/v1/member.proto` says what each field means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The node's name.
    pub node: String,
    /// Ascends with each start: the later one wins.
    pub incarnation: u64,
    /// Counts the beats of an incarnation, from 1.
    pub number: u64,
    /// What it does.
    pub role: Role,
    /// Where its streams are reached from outside, as a URL; empty if it has none.
    pub http: String,
    /// Where its gRPC port is, as a URL; empty if it has none.
    pub grpc: String,
    /// How many streams it has.
    pub connections: u64,
    /// Its share of the load, relative to the others'.
    pub weight: u32,
    /// It is going away: nothing new is sent there.
    pub draining: bool,
    /// It is gone: its last beat.
    pub leaving: bool,
    /// The shards that it holds.
    pub shards: Vec<HeldShard>,
    /// Its version.
    pub version: String,
    /// How many slots it believes there are.
    pub layout_slots: u32,
    /// How many shards it believes there are.
    pub layout_shards: u32,
}

/// What a node of a cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// It serves streams.
    Edge,
    /// It takes publishes, and holds shards.
    Ingest,
}

/// A shard that a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldShard {
    /// Which.
    pub shard: u16,
    /// The epoch of what it has.
    pub epoch: u32,
    /// How far what it has reaches.
    pub last: u64,
    /// It takes appends for the shard.
    pub writable: bool,
    /// Its place among those who are to hold the shard: 0 is the first.
    pub rank: u32,
}

impl Beat {
    /// Whether the node has the same layout as we do.
    pub(super) fn has(&self, layout: Layout) -> bool {
        (self.layout_slots, self.layout_shards) == (layout.slots(), u32::from(layout.shards()))
    }
}
