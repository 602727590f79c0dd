//! The journal over NATS `JetStream`: a shard is a stream, which orders and replicates; each holder applies it to a store of its own.
//!
//! ```text
//! publish ─▶ group ─▶ atomic batch ─▶ stream ─▶ pull ─▶ apply ─▶ replica (RocksDB) ─▶ log
//!              ▲          answer         └─ republish ─▶ bus         │
//!              └──────────────── which keys were used ───────────────┘
//! ```
//! - The stream is the truth: an append is acknowledged when the stream has. What it has not, no replica has.
//! - A publisher's key is looked for in the replica, and is the message's id besides: the stream recognises for two minutes what a replica may
//!   not have come to yet. So a holder that is further behind than that takes no keys.
//! - The position of a replica is the sequence in the stream, written with what it stands for. A wiped disk is filled again from the stream.

mod apply;
mod differences;
mod follow;
mod group;
mod keeper;
mod known;
mod message;
pub mod monitoring;
mod progress;
mod pull;
mod replica;
mod send;
mod sightings;
mod stream;
mod version;
mod writer;

pub use self::{
    differences::Difference,
    progress::{State, Status},
    replica::{Home, Replica, Settings},
    stream::{StreamError, StreamSettings},
    version::TooOld,
};
