//! TLS, with certificates made by openssl, and clients that are not this program's: curl, and openssl itself.
//!
//! | module | what is shown |
//! |---|---|
//! | `streams` | streams over HTTP/1.1 and HTTP/2, their drain and their moves to another connection |
//! | `rotation` | certificates that are replaced while streams live, whole and broken |
//! | `publishers` | client certificates: who is let in, and as whom |
//! | `refusals` | those who speak something else, something old, or nothing |
//! | `starting` | what is said of files that cannot be used |
//! | `command_line` | `publish`, `listen` and `route` over TLS |
//! | `memory` | what streams take |
//! | `cluster` | TLS between all roles, and to NATS |
//!
//! Beside them: `authority` makes certificates, `curl` and `handshake` are the clients; `node`, `sse` and `client` are those of `tests/embedded`,
//! `server` that of `tests/nats`.

mod authority;
#[path = "../embedded/client.rs"]
#[allow(dead_code, reason = "tests/embedded uses more of it")]
mod client;
mod cluster;
mod command_line;
mod curl;
mod handshake;
mod memory;
#[path = "../embedded/node.rs"]
#[allow(dead_code, reason = "tests/embedded uses more of it")]
mod node;
mod publishers;
mod refusals;
mod rotation;
#[path = "../nats/server.rs"]
#[allow(dead_code, reason = "tests/contract uses more of it")]
mod server;
mod starting;
mod streams;

use std::{fmt::Display, future::Future, time::Duration};

/// How long anything may take before a test is said to hang. Nothing is expected to come near it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits, but not for ever: a test that hangs tells nothing.
async fn patiently<T>(what: impl Display, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("hangs: {what}"),
    }
}
