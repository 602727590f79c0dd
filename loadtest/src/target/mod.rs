//! What is measured: a server or a cluster that runs already, or one that is started for this and ended after it.
//!
//! [`server`] is one server, [`cluster`] is NATS, ingest nodes and edges, both made of [`part`]s: processes that can be killed and started again on
//! the same ports and data. [`tokens`] are what streams and publishers show where they are asked who they are.

pub mod cluster;
pub mod part;
pub mod server;
pub mod tokens;

pub use self::{
    cluster::Cluster,
    server::{Node, Options},
    tokens::Tokens,
};
