//! A cluster of real processes: NATS servers, ingest nodes and edges on loopback, with links between them that the tests cut.
//!
//! | module | what is shown |
//! |---|---|
//! | `following` | what is published at any ingest node reaches followers on every edge; cursors hold on all of them |
//! | `outages` | what goes on without NATS, without an ingest node, and while an edge drains |
//! | `revoking` | tokens that are taken back, and the cluster's secret |
//! | `roles` | what a node does by itself, without NATS or beside one that claims to be it |
//! | `routing` | where a user's streams belong, and who says so |
//! | `chaos` | all of it at random, with a ledger |
//!
//! Beside them: `world` starts and ends a cluster, `link` is a connection that can be cut; `node`, `sse` and `client` are those of
//! `tests/embedded`, `server` that of `tests/nats`.

mod chaos;
#[path = "../embedded/client.rs"]
#[allow(dead_code, reason = "tests/embedded uses more of it")]
mod client;
mod following;
mod link;
#[path = "../embedded/node.rs"]
#[allow(dead_code, reason = "tests/embedded uses more of it")]
mod node;
mod outages;
mod revoking;
mod roles;
mod routing;
#[path = "../nats/server.rs"]
#[allow(dead_code, reason = "tests/contract uses more of it")]
mod server;
#[path = "../embedded/sse.rs"]
#[allow(dead_code, reason = "tests/embedded uses more of it")]
mod sse;
mod world;

use std::{fmt::Display, future::Future, time::Duration};

/// How long anything may take before a test is said to hang. Nothing is expected to come near it.
const PATIENCE: Duration = Duration::from_secs(180);

/// Waits, but not for ever: a test that hangs tells nothing.
async fn patiently<T>(what: impl Display, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("hangs: {what}"),
    }
}
