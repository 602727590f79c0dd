//! Hostile input against the real program: what is tried, and what comes of it. Each test ends with clients that are still served as if nothing had
//! happened. `docs/security.md` has a row for each.
//!
//! | module | what is tried |
//! |---|---|
//! | `smuggling` | requests that two servers in a row could read differently, on all three ports |
//! | `slow` | heads and bodies that never end, readers that never read, HTTP/2 connections that never ask |
//! | `frames` | floods of HTTP/2 frames: resets, continuations, settings, pings; forbidden headers |
//! | `half_open` | as many connections as there may be, opened and left there |
//! | `floods` | one address that takes all it can get |
//! | `bombs` | gRPC and JSON that are larger, deeper or other than they look |
//! | `tokens` | tokens that are forged, over, somebody else's; the inbox of another by every spelling; what logs and settings tell of secrets |
//! | `pages` | pages in browsers: names that lead elsewhere, posts that nobody asked for, answers taken for something else |
//!
//! Beside them: `mint` makes tokens, good and bad; `raw` says bytes and hears bytes, `witness` is the client that must be served meanwhile, `swarm` is a process of its own that holds many
//! connections; `node`, `sse` and `client` are those of `tests/embedded`.

mod bombs;
#[path = "../embedded/client.rs"]
#[allow(dead_code, reason = "tests/embedded uses more of it")]
mod client;
mod floods;
mod frames;
mod half_open;
mod mint;
#[path = "../embedded/node.rs"]
#[allow(dead_code, reason = "tests/embedded uses more of it")]
mod node;
mod pages;
mod raw;
mod slow;
mod smuggling;
#[path = "../embedded/sse.rs"]
#[allow(dead_code, reason = "tests/embedded uses more of it")]
mod sse;
mod swarm;
mod tokens;
mod witness;

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
