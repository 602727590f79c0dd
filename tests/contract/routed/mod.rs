//! The journal of a cluster: it appends by whoever holds the shard, over real connections on loopback.

mod owner;
mod world;

pub(crate) use self::world::RoutedWorld;
