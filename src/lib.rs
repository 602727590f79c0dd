//! Tidings, a distributed notification service. The modules in the order of the data:
//!
//! ```text
//! publisher ─gRPC/JSON─▶ ingest ─▶ journal ─▶ log (RocksDB) ─▶ bus ─▶ feed ─▶ hub ─▶ edge ─SSE─▶ subscriber
//!                        admit     durable    keyed by          per    gap-    fan-   frame,
//!                        check     order      (topic, seq)      slot   free    out    socket
//!                                                 └────────────── replay ───────────────┘
//! ```

// The words that all the others use.
pub mod model;

// The way of an event.
pub mod ingest;

pub mod journal;

pub mod log;

pub mod bus;

pub mod feed;

pub mod hub;

pub mod edge;

// What makes a cluster of it.
pub mod nats;

pub mod members;

// At every door: whose connection it is, and what they may.
pub mod proxies;

pub mod addresses;

pub mod tls;

pub mod gate;

pub mod auth;

// Around it.
pub mod problem;

pub mod telemetry;

pub mod config;

pub mod admin;

pub mod node;

pub mod cli;
