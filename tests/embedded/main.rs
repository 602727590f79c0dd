//! The real program as a black box: started, fed, killed and restarted, with clients of these tests' own.
//!
//! | module | what is shown |
//! |---|---|
//! | `earthquakes` | the main job: real records, two readers, five kills, everything once and in order |
//! | `lifecycle`, `starting` | draining, signals, and the mistakes that keep it from starting |
//! | `faults`, `small_disk` | a disk that fails, a disk that is full, a disk that is small |
//! | `resuming` | cursors of every kind, retention, keys across `kill -9` |
//! | `revoking` | tokens that are taken back, across retention and `kill -9` |
//! | `leases` | tokens that end while their streams are open |
//! | `slow` | a reader that stops reading |
//! | `http` | what is not a stream, pages of other origins, half-sent heads, JSON publishing |
//! | `chaos` | all of it at random |
//!
//! Beside them: `node` starts and ends the program, `sse` reads streams, `client` publishes, `growing` waits for files.

mod chaos;
mod client;
mod earthquakes;
mod faults;
mod growing;
mod http;
mod leases;
mod lifecycle;
#[allow(dead_code, reason = "tests/cluster uses the rest of it")]
mod node;
mod resuming;
mod revoking;
mod slow;
mod small_disk;
mod sse;
mod starting;

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
