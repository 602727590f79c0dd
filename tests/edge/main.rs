//! The edge over real sockets, on a log and a bus in memory.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod bearer;
mod client;
mod drain;
mod grpc;
mod http1;
mod http2;
mod identity;
mod leases;
mod limits;
mod proxies;
mod quotas;
mod revocations;
mod routing;
mod secrets;
mod slow;
mod world;
