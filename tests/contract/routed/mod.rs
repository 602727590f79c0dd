//! The journal of a cluster: it appends by whoever holds the shard, over real connections on loopback.

mod failover;
mod load;
mod memory;
mod owner;
mod proxy;
mod world;

pub(crate) use self::world::RoutedWorld;
