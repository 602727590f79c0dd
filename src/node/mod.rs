//! The composition root: the only module that knows which implementations were chosen. A node's life reads from top to bottom:
//! open → build → bind → spawn → drain.
//!
//! `serve`, `edge` and `ingest` are the roles: each opens, builds, binds and spawns what it is made of, and hands over what is the same for
//! all from then on, a `running` node. `cluster` is what the nodes of a cluster have in common; an `owner` is an ingest node whose shards are on
//! its own disk, a `replica` one that follows the streams of JetStream.

mod access;
mod certificates;
mod claims;
mod cluster;
mod edge;
mod error;
mod gates;
mod health;
mod ingest;
mod owner;
mod ports;
mod replica;
mod revocations;
mod running;
mod serve;
mod settings;
mod signals;

use tracing::{info, warn};

pub use self::error::NodeError;
use self::{running::Node, signals::Signals};
use crate::config::{Config, Role};

/// Runs a role until a signal ends it, and then until it has drained.
///
/// # Errors
/// If it cannot start, or a part of it fails.
pub fn run(role: Role, config: &Config) -> Result<(), NodeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(NodeError::Runtime)?;
    let outcome = runtime.block_on(live(role, config));
    // What still runs has had its deadline.
    runtime.shutdown_background();
    outcome
}

async fn live(role: Role, config: &Config) -> Result<(), NodeError> {
    let mut signals = Signals::listen().map_err(NodeError::Runtime)?;
    let mut node = start(role, config, &mut signals).await?;
    node.addresses.announce();
    let failure = tokio::select! {
        signal = signals.next() => {
            info!(signal, "told to end");
            None
        }
        failure = node.fails() => Some(failure),
    };
    tokio::select! {
        () = node.drain(config.drain.window) => {}
        signal = signals.next() => {
            warn!(signal, "ended before it had drained");
            // What was acknowledged is durable: nothing is lost but the good manners.
            exit(signals::exit_code(signal));
        }
    }
    info!("stopped");
    failure.map_or(Ok(()), Err)
}

async fn start(role: Role, config: &Config, signals: &mut Signals) -> Result<Node, NodeError> {
    match role {
        Role::Serve => serve::start(config, signals).await,
        Role::Edge => edge::start(config).await,
        Role::Ingest => ingest::start(config, signals).await,
    }
}

/// Waits for stores to be opened, which may take long after a crash: meanwhile signals are heard.
async fn opening<T>(opening: impl Future<Output = T>, signals: &mut Signals) -> T {
    tokio::select! {
        opened = opening => opened,
        signal = signals.next() => {
            info!(signal, "told to end while the data directory was being opened");
            // Nothing was served yet, and what is interrupted here the next start does again. That cannot be waited for: a recovery may take minutes.
            exit(0);
        }
    }
}

/// Ends the process while RocksDB is at work. What C++ has registered for an orderly exit is left out, since it takes away what RocksDB's
/// threads are still using.
fn exit(code: i32) -> ! {
    signal_hook::low_level::exit(code)
}
