//! Where things live: topics in slots, slots in shards, slots on edges, shards on ingest nodes; and who is there.
//!
//! Pure: no clock, no socket, no task. What is here is agreed on by every node of a cluster, so each rule is stable and has
//! published test vectors.

mod hash;
mod layout;
mod membership;
mod placement;
mod ring;

pub use layout::{Layout, LayoutError, slot_of};
pub use membership::{Beat, Held, HeldShard, Holder, Member, Membership, MembershipSettings, Role, Stranger, View};
pub use placement::Placement;
pub use ring::Ring;
