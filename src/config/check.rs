//! What values must keep to beyond their types.

mod auth;
mod cluster;
mod tls;

use std::{net::SocketAddr, time::Duration};

use super::{Config, Role, Size};
use crate::model;

/// Longer than anything is meant to take, and short enough that a time so far ahead can still be told.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Calls `refuse` with the key and the problem of each value that cannot be.
pub(super) fn check(config: &Config, role: Role, insecure: bool, mut refuse: impl FnMut(&str, String)) {
    listeners(config, role, insecure, &mut refuse);
    auth::check(config, &mut refuse);
    cluster::check(config, role, &mut refuse);
    tls::check(config, role, &mut refuse);
    for (key, duration) in [
        ("http.heartbeat", config.http.heartbeat),
        ("http.retry", config.http.retry),
        ("http.header_timeout", config.http.header_timeout),
        ("grpc.body_timeout", config.grpc.body_timeout),
        ("journal.key_window", config.journal.key_window),
        ("log.retention_age", config.log.retention_age),
        ("jetstream.max_age", config.jetstream.max_age),
        ("jetstream.duplicate_window", config.jetstream.duplicate_window),
        ("jetstream.patience", config.jetstream.patience),
    ] {
        if duration < Duration::from_millis(1) {
            refuse(key, "must be longer than nothing: at least \"1ms\"".to_owned());
        }
    }
    for (key, duration) in [
        ("http.heartbeat", config.http.heartbeat),
        ("http.retry", config.http.retry),
        ("http.header_timeout", config.http.header_timeout),
        ("grpc.body_timeout", config.grpc.body_timeout),
        ("journal.key_window", config.journal.key_window),
        ("log.retention_age", config.log.retention_age),
        ("drain.window", config.drain.window),
        ("http.max_age", config.http.max_age),
        ("jetstream.max_age", config.jetstream.max_age),
        ("jetstream.duplicate_window", config.jetstream.duplicate_window),
        ("jetstream.patience", config.jetstream.patience),
    ] {
        if duration > LONGEST {
            refuse(key, "must be at most 100 years: \"36500days\"".to_owned());
        }
    }
    for (key, count, most) in [
        ("journal.max_in_flight", config.journal.max_in_flight, 1 << 20),
        ("log.concurrent_replays", config.log.concurrent_replays, 1 << 16),
        ("limits.topics_per_publish", config.limits.topics_per_publish, 1_000),
        ("limits.topics_per_stream", config.limits.topics_per_stream, 1_000),
        (
            "limits.connections_per_user",
            config.limits.connections_per_user,
            usize::MAX,
        ),
        ("limits.replays_per_user", config.limits.replays_per_user, usize::MAX),
        (
            "limits.connections_per_address",
            config.limits.connections_per_address,
            usize::MAX,
        ),
    ] {
        if !(1..=most).contains(&count) {
            let most = if most == usize::MAX {
                String::new()
            } else {
                format!(" and at most {most}")
            };
            refuse(key, format!("must be at least 1{most}, not {count}"));
        }
    }
    if config.limits.attempts_per_second_per_address == 0 {
        refuse(
            "limits.attempts_per_second_per_address",
            "must be at least 1, not 0".to_owned(),
        );
    }
    if config.http.workers > 1_024 {
        refuse(
            "http.workers",
            format!("must be at most 1024, not {}", config.http.workers),
        );
    }
    if !(1..=100).contains(&config.journal.disk_high_water_percent) {
        let percent = config.journal.disk_high_water_percent;
        refuse(
            "journal.disk_high_water_percent",
            format!("must be 1 to 100, not {percent}"),
        );
    }
    for (key, size, least, most) in [
        (
            "http.max_header_bytes",
            config.http.max_header_bytes,
            Size::kib(8),
            Size::mib(1),
        ),
        ("http.send_queue", config.http.send_queue, Size::kib(1), Size::gib(1)),
        (
            "limits.data_bytes",
            config.limits.data_bytes,
            Size::kib(1),
            Size::mib(1),
        ),
        (
            "log.retention_bytes",
            config.log.retention_bytes,
            Size::mib(1),
            Size::gib(1 << 20),
        ),
    ] {
        if !(least..=most).contains(&size) {
            refuse(key, format!("must be \"{least}\" to \"{most}\", not \"{size}\""));
        }
    }
    if config.data.dir.as_os_str().is_empty() {
        refuse("data.dir", "must name a directory".to_owned());
    }
    for (section, networks, protocol) in [
        ("http", &config.http.trusted_proxies, config.http.proxy_protocol),
        ("grpc", &config.grpc.trusted_proxies, config.grpc.proxy_protocol),
    ] {
        if protocol && networks.is_empty() {
            refuse(
                &format!("{section}.proxy_protocol"),
                format!("is believed of no one: name the proxies in {section}.trusted_proxies"),
            );
        }
    }
    for origin in &config.http.cors_origins {
        if let Err(error) = model::Origin::parse(origin) {
            refuse("http.cors_origins", error.to_string());
        }
    }
    for host in &config.http.hosts {
        if let Err(error) = model::Host::parse(host) {
            refuse("http.hosts", error.to_string());
        }
    }
    if let Err(cause) = tracing_subscriber::EnvFilter::try_new(&config.telemetry.log) {
        refuse(
            "telemetry.log",
            format!("is not a list of log directives such as \"info,tidings=debug\": {cause}"),
        );
    }
}

fn listeners(config: &Config, role: Role, insecure: bool, refuse: &mut impl FnMut(&str, String)) {
    let listeners: [(&str, SocketAddr); 3] = [
        ("http.listen", config.http.listen),
        ("grpc.listen", config.grpc.listen),
        ("admin.listen", config.admin.listen),
    ];
    // An ingest node has no streams.
    let listeners = &listeners[usize::from(role == Role::Ingest)..];
    for (at, (key, address)) in listeners.iter().copied().enumerate() {
        let (is_guarded, guard) = match key {
            "admin.listen" => (
                !config.admin.token.is_empty() || !config.admin.token_file.as_os_str().is_empty(),
                "set `admin.token_file`",
            ),
            _ => (!config.auth.is_open(), "say in [auth] who may do what"),
        };
        if !insecure && !is_guarded && !address.ip().to_canonical().is_loopback() {
            refuse(
                key,
                format!(
                    "{address} can be reached from other machines, and nothing asks who calls: {guard}, listen on 127.0.0.1, or add --insecure if the network around it is trusted"
                ),
            );
        }
        if let Some((other, _)) = listeners[..at]
            .iter()
            .find(|(_, taken)| address.port() != 0 && *taken == address)
        {
            refuse(
                key,
                format!("{address} is what {other} listens on too: each needs its own"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_can_be_reckoned_with() {
        let with = |retry, window| {
            let mut config = Config::default();
            (config.http.retry, config.drain.window) = (retry, window);
            let mut refused = Vec::new();
            check(&config, Role::Serve, false, |key, _| refused.push(key.to_owned()));
            refused
        };
        assert_eq!(with(LONGEST, Duration::ZERO), [""; 0]);
        assert_eq!(with(Duration::ZERO, Duration::MAX), ["http.retry", "drain.window"]);
        assert_eq!(with(Duration::MAX, LONGEST), ["http.retry"]);
    }
}
