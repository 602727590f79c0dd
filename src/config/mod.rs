//! The configuration: one typed tree, from defaults < file < environment < flags.
//!
//! | source | form |
//! |---|---|
//! | file | `tidings.toml` in the working directory if there is one, or `--config FILE` |
//! | environment | `TIDINGS_SECTION__KEY`: a bare value, or TOML; a list may be separated by commas, a list of tables may be JSON |
//! | flags | `--http`, `--grpc`, `--admin`, `--data`, `--nats` |
//!
//! Durations are text such as `"10m"`, sizes text such as `"64KiB"`. Unknown keys are refused, all mistakes are reported together, each with
//! where it came from, and nothing is bound before the whole is valid. `examples/tidings.toml` shows every key.

mod auth;
mod check;
mod cluster;
mod error;
mod layers;
mod network;
mod tls;
mod values;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    auth::{Auth, Issuer, Publisher},
    cluster::{Cluster, Jetstream, Nats, Storage},
    error::{ConfigError, Mistake, Origin},
    layers::{Flag, Sources},
    network::{Network, NetworkError},
    values::{Ordinal, Size, SizeError},
};
pub use crate::model::Secret;

/// What a node does, as its command says. Each needs other settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Everything, in one process.
    #[default]
    Serve,
    /// Streams, of a cluster.
    Edge,
    /// Publishing and the log, of a cluster.
    Ingest,
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The streams: Server-Sent Events.
    pub http: Http,
    /// Publishing, and subscribing from backends.
    pub grpc: Grpc,
    /// Health, for operators.
    pub admin: Admin,
    /// Who may follow and publish what.
    pub auth: Auth,
    /// Where things are kept.
    pub data: Data,
    /// How events become durable.
    pub journal: Journal,
    /// How long they are kept, and how they are read again.
    pub log: Log,
    /// What one caller may ask for.
    pub limits: Limits,
    /// Which cluster the node belongs to.
    pub cluster: Cluster,
    /// How the nodes of a cluster reach each other.
    pub nats: Nats,
    /// The streams of the `jetstream` journal.
    pub jetstream: Jetstream,
    /// How the process ends.
    pub drain: Drain,
    /// What the process tells about itself.
    pub telemetry: Telemetry,
}

impl Config {
    /// The effective values as TOML that can be read back.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a tree of named tables and plain values is always TOML")
    }
}

/// `[http]`: the streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where it listens. Anything but loopback needs `[auth]`, or `--insecure`.
    pub listen: SocketAddr,
    /// The certificate that is shown, and those between it and the root (PEM), for HTTPS; empty: plain HTTP. It is read again when it changes.
    pub tls_cert: PathBuf,
    /// The certificate's key (PEM).
    pub tls_key: PathBuf,
    /// How many threads serve streams; 0: one per core.
    pub workers: usize,
    /// The origins whose pages may follow streams: exactly as browsers send them, `https://app.example.com`.
    pub cors_origins: Vec<String>,
    /// The hosts that requests may be for beside the names of loopback, without port: `events.example.com`. Empty: all, unless nobody is asked who
    /// they are; then the names of loopback alone, so that no page can have its own name lead here.
    pub hosts: Vec<String>,
    /// How long a stream may be silent before a heartbeat goes out.
    #[serde(with = "values::duration")]
    pub heartbeat: Duration,
    /// How long clients are asked to wait before they reconnect; each is asked for up to half as much again, so that they do not come together.
    #[serde(with = "values::duration")]
    pub retry: Duration,
    /// How long a request's head may take.
    #[serde(with = "values::duration")]
    pub header_timeout: Duration,
    /// How large a request's head may be: 8 KiB to 1 MiB.
    pub max_header_bytes: Size,
    /// The proxies that are believed for whom they connect: addresses, or networks such as `10.0.0.0/8`.
    pub trusted_proxies: Vec<Network>,
    /// Whether each connection of theirs begins with a PROXY header (version 1 or 2); else they send `X-Forwarded-For`.
    pub proxy_protocol: bool,
    /// How much may wait for one slow reader before it goes back to reading the log.
    pub send_queue: Size,
    /// After how long a stream is asked to come back, give or take a fifth, so that load stays even; nothing: never.
    #[serde(with = "values::duration")]
    pub max_age: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            workers: 0,
            cors_origins: Vec::new(),
            hosts: Vec::new(),
            heartbeat: Duration::from_secs(15),
            retry: Duration::from_secs(3),
            header_timeout: Duration::from_secs(10),
            max_header_bytes: Size::kib(16),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            send_queue: Size::kib(64),
            max_age: Duration::ZERO,
        }
    }
}

/// `[grpc]`: publishing, and subscribing from backends; JSON publishing too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grpc {
    /// Where it listens. Anything but loopback needs `[auth]`, or `--insecure`.
    pub listen: SocketAddr,
    /// The certificate that is shown, and those between it and the root (PEM), for TLS; empty: none. It is read again when it changes.
    pub tls_cert: PathBuf,
    /// The certificate's key (PEM).
    pub tls_key: PathBuf,
    /// The certificates (PEM) that those of clients must come from, which are then asked for one; empty: nobody is asked. Who shows none needs a
    /// token; who shows another is refused.
    pub tls_client_ca: PathBuf,
    /// Whether it describes itself by server reflection.
    pub reflection: bool,
    /// How long a JSON body may take to arrive; of one with an object per line, how long each line may: a blank one will do.
    #[serde(with = "values::duration")]
    pub body_timeout: Duration,
    /// The proxies that are believed for whom they connect: addresses, or networks such as `10.0.0.0/8`. Not the other nodes of the cluster.
    pub trusted_proxies: Vec<Network>,
    /// Whether each connection of theirs begins with a PROXY header (version 1 or 2); else they send `X-Forwarded-For`.
    pub proxy_protocol: bool,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            listen: loopback(50_051),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            tls_client_ca: PathBuf::new(),
            reflection: false,
            body_timeout: Duration::from_secs(60),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

/// `[admin]`: for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Where it listens. Anything but loopback needs a token, or `--insecure`.
    pub listen: SocketAddr,
    /// The token that whoever asks for `/metrics` brings: `Authorization: Bearer …`. Health is told to everybody.
    pub token: Secret,
    /// The file that the token is in.
    pub token_file: PathBuf,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: loopback(8081),
            token: Secret::default(),
            token_file: PathBuf::new(),
        }
    }
}

/// `[data]`: where things are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The directory of the log; made if it is missing.
    pub dir: PathBuf,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("./data"),
        }
    }
}

/// `[journal]`: how events become durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// What makes events durable in a cluster. Embedded it is always RocksDB.
    pub kind: JournalKind,
    /// How long a publisher's key is remembered, across restarts.
    #[serde(with = "values::duration")]
    pub key_window: Duration,
    /// How full the disk may be, in percent, before publishing is refused: 1 to 100. It is also refused when little is left in bytes.
    pub disk_high_water_percent: u8,
    /// How many publishes may wait for the disk.
    pub max_in_flight: usize,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            kind: JournalKind::Rocksdb,
            key_window: Duration::from_secs(10 * 60),
            disk_high_water_percent: 95,
            max_in_flight: 4_096,
        }
    }
}

/// What makes events durable in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalKind {
    /// The disk of the one ingest node that owns the shard.
    Rocksdb,
    /// NATS JetStream, replicated.
    Jetstream,
}

/// `[log]`: how long events are kept, and how they are read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Events older than this are dropped.
    #[serde(with = "values::duration")]
    pub retention_age: Duration,
    /// The oldest events are dropped when the log is larger than this.
    pub retention_bytes: Size,
    /// How many pages may be read at the same time.
    pub concurrent_replays: usize,
    /// How much an edge of a cluster gives those who catch up, a second; nothing: as much as there is.
    pub replay_rate: Size,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            retention_age: Duration::from_secs(7 * 24 * 60 * 60),
            retention_bytes: Size::gib(10),
            concurrent_replays: 16,
            replay_rate: Size::mib(64),
        }
    }
}

/// `[limits]`: what one caller may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How large an event's data may be: 1 MiB at most.
    pub data_bytes: Size,
    /// To how many topics one call may publish: 1 to 1,000.
    pub topics_per_publish: usize,
    /// How many topics one stream may name; its user's inbox does not count.
    pub topics_per_stream: usize,
    /// How many streams there may be in all; 0: as many as the limit on open files allows.
    pub connections: usize,
    /// How many connections there may be for publishing and for following over gRPC; 0: an eighth of the limit on open files, at most 4,096.
    pub grpc_connections: usize,
    /// How many of the connections may be without a stream, still to send their request: the oldest makes room; 0: a quarter of all.
    pub pending_connections: usize,
    /// How many streams one user may have.
    pub connections_per_user: usize,
    /// How many streams of one user may catch up at the same time: read what was published before they came.
    pub replays_per_user: usize,
    /// How many connections one address may have, on each port.
    pub connections_per_address: usize,
    /// How many connections one address may open a second, on each port.
    pub attempts_per_second_per_address: u32,
    /// Whether loopback addresses are free of the two limits per address.
    pub exempt_loopback: bool,
    /// How many events one publisher may publish a second, at one node, once for each topic; 0: any number. Where nobody is asked who they are, one
    /// peer address.
    pub publishes_per_second_per_publisher: u64,
    /// How much data, likewise; nothing: any amount.
    pub publish_bytes_per_second_per_publisher: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            data_bytes: Size::kib(64),
            topics_per_publish: 1_000,
            topics_per_stream: 64,
            connections: 0,
            grpc_connections: 0,
            pending_connections: 0,
            connections_per_user: 100,
            replays_per_user: 16,
            connections_per_address: 1_000,
            attempts_per_second_per_address: 100,
            exempt_loopback: true,
            publishes_per_second_per_publisher: 0,
            publish_bytes_per_second_per_publisher: Size::NOTHING,
        }
    }
}

/// `[drain]`: how the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Over how long streams are ended, each at its own random time.
    #[serde(with = "values::duration")]
    pub window: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(5),
        }
    }
}

/// `[telemetry]`: what the process tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Which log lines are written: directives such as `info` or `tidings::edge=debug,warn`. What matters of the connection to NATS is told by
    /// `tidings::nats`, not by the library.
    pub log: String,
    /// How log lines are written, on stderr.
    pub format: LogFormat,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log: "info,async_nats=off".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
mod tests;
