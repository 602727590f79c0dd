//! Where things live: topics in slots, slots in shards.
//!
//! Pure: no clock, no socket, no task. What is here is agreed on by every node of a cluster, so each rule is stable and has
//! published test vectors.

mod layout;

pub use layout::{Layout, LayoutError, slot_of};
