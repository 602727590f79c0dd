//! The edge over real sockets, on a log and a bus in memory.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod client;
mod drain;
mod grpc;
mod http1;
mod http2;
mod limits;
mod proxies;
mod routing;
mod slow;
mod world;
