//! The nodes of a cluster, as this one sees them.

mod holders;

pub use self::holders::{Holder, Holders};
