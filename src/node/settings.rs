//! What each part is set to, from the one configuration.

use std::{num::NonZeroUsize, thread::available_parallelism, time::Duration};

use super::{NodeError, certificates::Certificates, gates, serve::BLOCK_CACHE};
use crate::{
    addresses::AddressLimits,
    config::{Config, JournalKind, Network, Role, Storage},
    edge::{self, limits},
    ingest::{self, ServerSettings},
    journal::{self, jetstream::StreamSettings, routed},
    log::{RemoteSettings, Retention, StoreMemory},
    proxies::Proxies,
};

/// Files that a node has open beside connections and stores: sockets, logs and what a library needs for a moment.
const OTHER_FILES: usize = 128;
/// Files that are kept for all else beside connections where there is a log. Without them it could not open its files, and a log that cannot write
/// stays that way until a restart.
const RESERVE_OF_A_LOG: usize = 1_024;
/// What another node may take beyond the time that it tries an append itself.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// How many threads serve streams.
pub(super) fn workers(config: &Config) -> NonZeroUsize {
    NonZeroUsize::new(config.http.workers)
        .or_else(|| available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN)
}

pub(super) fn journal(config: &Config) -> journal::Settings {
    journal::Settings {
        key_window: config.journal.key_window,
        disk_high_water_percent: config.journal.disk_high_water_percent,
        max_in_flight: config.journal.max_in_flight,
    }
}

/// How events go to the nodes that hold their shards.
pub(super) fn routed(config: &Config) -> routed::Settings {
    let defaults = routed::Settings::default();
    routed::Settings {
        in_flight: config.journal.max_in_flight,
        // A node that goes on trying for so long is not gone.
        answer_within: defaults.answer_within.max(config.jetstream.patience + ANSWER_GRACE),
        ..defaults
    }
}

/// The stream of each shard.
pub(super) fn stream(config: &Config) -> StreamSettings {
    let jetstream = &config.jetstream;
    StreamSettings {
        replicas: jetstream.replicas.into(),
        in_memory: jetstream.storage == Storage::Memory,
        max_age: jetstream.max_age,
        max_bytes: jetstream.max_bytes.bytes(),
        duplicate_window: jetstream.duplicate_window,
    }
}

/// How the log is read from the nodes that hold it.
pub(super) fn remote_log(config: &Config) -> RemoteSettings {
    RemoteSettings {
        concurrent_replays: config.log.concurrent_replays,
        replay_bytes_per_second: config.log.replay_rate.bytes(),
        ..RemoteSettings::default()
    }
}

pub(super) fn retention(config: &Config) -> Retention {
    Retention {
        age: config.log.retention_age,
        bytes: config.log.retention_bytes.bytes(),
    }
}

/// For how long an event can be read, in a cluster: with JetStream a disk that was wiped is filled again from the streams.
pub(super) fn kept_for(config: &Config) -> Duration {
    match config.journal.kind {
        JournalKind::Rocksdb => config.log.retention_age,
        JournalKind::Jetstream => config.log.retention_age.min(config.jetstream.max_age),
    }
}

pub(super) fn ingest(config: &Config) -> ingest::Settings {
    ingest::Settings {
        topics: config.limits.topics_per_publish,
        data_bytes: config.limits.data_bytes.in_memory(),
        body_within: config.grpc.body_timeout,
        rates: ingest::Rates {
            events: config.limits.publishes_per_second_per_publisher,
            bytes: config.limits.publish_bytes_per_second_per_publisher.bytes(),
        },
        ..ingest::Settings::default()
    }
}

/// `files`: the limit on open files.
pub(super) fn server(config: &Config, files: Option<u64>, certificates: &Certificates) -> ServerSettings {
    ServerSettings {
        tls: certificates.grpc.clone(),
        reflection: config.grpc.reflection,
        connections: publishers(config, files),
        idle: publishers(config, files) * 3 / 4,
        proxies: proxies(&config.grpc.trusted_proxies, config.grpc.proxy_protocol),
        addresses: addresses(config),
        drain_window: config.drain.window,
        ..ServerSettings::default()
    }
}

/// The memory of so many stores, and the files that a limit leaves them beside publishers, other nodes and the rest.
pub(super) fn store_memory(config: &Config, files: Option<u64>, stores: usize) -> StoreMemory {
    let files = files
        .and_then(|files| usize::try_from(files).ok())
        .unwrap_or(usize::MAX);
    let left = files.saturating_sub(publishers(config, u64::try_from(files).ok()) + OTHER_FILES);
    StoreMemory::new(BLOCK_CACHE).with_files(left, stores)
}

/// How many connections publishers may have of a limit on open files.
fn publishers(config: &Config, files: Option<u64>) -> usize {
    let set = config.limits.grpc_connections;
    if set > 0 {
        return set;
    }
    let share = files.and_then(|files| usize::try_from(files / 8).ok());
    let most = ServerSettings::default().connections;
    share.unwrap_or(most).clamp(1, most)
}

pub(super) fn edge(config: &Config) -> Result<edge::Settings, NodeError> {
    Ok(edge::Settings {
        heartbeat: config.http.heartbeat,
        retry: config.http.retry,
        header_timeout: config.http.header_timeout,
        max_header_bytes: config.http.max_header_bytes.in_memory(),
        send_queue: config.http.send_queue.in_memory(),
        proxies: proxies(&config.http.trusted_proxies, config.http.proxy_protocol),
        topics_per_stream: config.limits.topics_per_stream,
        cors_origins: gates::origins(config)?,
        hosts: gates::streams(config)?,
        max_age: config.http.max_age,
        moves_per_second: config.cluster.moves_per_second,
        ..edge::Settings::default()
    })
}

fn proxies(networks: &[Network], protocol: bool) -> Proxies {
    Proxies::new(networks.iter().copied().map(Network::into_inner).collect(), protocol)
}

fn addresses(config: &Config) -> AddressLimits {
    AddressLimits {
        connections: config.limits.connections_per_address,
        attempts_per_second: config.limits.attempts_per_second_per_address,
        exempt_loopback: config.limits.exempt_loopback,
    }
}

/// The limits on connections. What the limit on open `files` leaves is how many streams there may be: more where there is no log.
pub(super) fn limits(config: &Config, files: Option<u64>, role: Role) -> Result<limits::Settings, NodeError> {
    let reserve = match role {
        Role::Edge => limits::Limits::SHEDDING + OTHER_FILES,
        Role::Serve | Role::Ingest => RESERVE_OF_A_LOG,
    };
    let room = limits::connections_within(files, publishers(config, files), reserve);
    let asked = config.limits.connections;
    if asked > room {
        return Err(NodeError::TooManyConnections { asked, room });
    }
    let connections = if asked == 0 { room } else { asked };
    let pending = config.limits.pending_connections;
    Ok(limits::Settings {
        connections,
        pending_connections: if pending == 0 { connections.div_ceil(4) } else { pending },
        connections_per_user: config.limits.connections_per_user,
        replays_per_user: config.limits.replays_per_user,
        connections_per_address: config.limits.connections_per_address,
        attempts_per_second_per_address: config.limits.attempts_per_second_per_address,
        exempt_loopback: config.limits.exempt_loopback,
    })
}
