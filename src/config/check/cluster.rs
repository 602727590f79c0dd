//! The rules of `[cluster]`, `[nats]` and `[jetstream]`.

use std::path::Path;

use http::Uri;

use super::super::{Config, JournalKind, Nats, Role, Secret, Size};
use crate::model::Layout;

/// The shortest secret of a cluster, in bytes: nobody can try them all.
const LEAST_SECRET: usize = 16;

/// Calls `refuse` with the key and the problem of each value that cannot be, for this role.
pub(super) fn check(config: &Config, role: Role, refuse: &mut impl FnMut(&str, String)) {
    values(config, refuse);
    nats(&config.nats, refuse);
    secret(config, role, refuse);
    if role == Role::Serve {
        return;
    }
    if config.nats.urls.is_empty() {
        let problem =
            "names no server, and the nodes of a cluster find each other over NATS: [\"nats://127.0.0.1:4222\"]";
        refuse("nats.urls", problem.to_owned());
    }
    if role == Role::Edge && config.advertised_http(config.http.listen).is_none() {
        let problem = unreachable("this node's streams", "http.listen", "a client");
        refuse("cluster.advertise_http", problem);
    }
    if role == Role::Ingest {
        if config.advertised_grpc(config.grpc.listen).is_none() {
            let problem = unreachable("this node", "grpc.listen", "another node");
            refuse("cluster.advertise_grpc", problem);
        }
        ordinal(config, refuse);
    }
}

fn secret(config: &Config, role: Role, refuse: &mut impl FnMut(&str, String)) {
    let (secret, file) = (&config.cluster.secret, &config.cluster.secret_file);
    let has_file = !file.as_os_str().is_empty();
    if secret.reveal() == Secret::MASK {
        let problem = "is what is shown in place of the secret, not the secret";
        refuse("cluster.secret", problem.to_owned());
    } else if !secret.is_empty() && secret.reveal().len() < LEAST_SECRET {
        let problem = format!("is too short: {LEAST_SECRET} bytes or more, such as `openssl rand -hex 32` prints");
        refuse("cluster.secret", problem);
    }
    if has_file && !secret.is_empty() {
        let problem = "is set as well as `cluster.secret`: one of them will do";
        refuse("cluster.secret_file", problem.to_owned());
    }
    if role != Role::Serve && !config.auth.is_open() && !has_file && secret.is_empty() {
        let problem = "is needed, since it is asked who publishes and follows: without it whoever reaches another node can read and append everything";
        refuse("cluster.secret", problem.to_owned());
    }
}

fn unreachable(what: &str, listen: &str, who: &str) -> String {
    format!("is needed, since `{listen}` names no single address: the URL at which {who} reaches {what}")
}

fn ordinal(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let nodes = config.cluster.ingest_nodes;
    let node = config.node();
    match config.ordinal() {
        None => refuse(
            "cluster.ordinal",
            format!(
                "the name of this node, {node}, does not end with its number: set it, 0 to {}",
                nodes.saturating_sub(1)
            ),
        ),
        Some(ordinal) if ordinal >= nodes => refuse(
            "cluster.ordinal",
            format!(
                "is {ordinal} for the node {node}, and there are {nodes} ingest nodes (`cluster.ingest_nodes`), counted from 0"
            ),
        ),
        Some(_) => {}
    }
}

fn values(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let cluster = &config.cluster;
    let is_word = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if cluster.name.is_empty() || !is_word(&cluster.name) {
        refuse(
            "cluster.name",
            format!("{:?} is not made of A-Z a-z 0-9 _ -", cluster.name),
        );
    }
    if !is_word(&cluster.node) {
        refuse(
            "cluster.node",
            format!("{:?} is not made of A-Z a-z 0-9 _ -", cluster.node),
        );
    }
    for (key, url, schemes) in [
        (
            "cluster.advertise_http",
            &cluster.advertise_http,
            &["http", "https"][..],
        ),
        (
            "cluster.advertise_grpc",
            &cluster.advertise_grpc,
            &["http", "https"][..],
        ),
    ] {
        if !url.is_empty() && !is_base(url, schemes) {
            let schemes = schemes.join(":// or ");
            refuse(
                key,
                format!("{url:?} is not the address of a server: {schemes}://HOST:PORT"),
            );
        }
    }
    if let Err(error) = Layout::new(cluster.slots, cluster.shards) {
        refuse("cluster.slots", error.to_string());
    }
    for (key, count, most) in [
        ("cluster.ingest_nodes", u32::from(cluster.ingest_nodes), 1_024),
        ("cluster.replicas", u32::from(cluster.replicas), 16),
        ("cluster.weight", cluster.weight, 10_000),
        ("jetstream.replicas", u32::from(config.jetstream.replicas), 5),
    ] {
        if !(1..=most).contains(&count) {
            refuse(key, format!("must be 1 to {most}, not {count}"));
        }
    }
    if cluster.moves_per_second > 100_000 {
        refuse(
            "cluster.moves_per_second",
            format!("must be at most 100000, not {}", cluster.moves_per_second),
        );
    }
    let jetstream = &config.jetstream;
    let (least, most) = (Size::mib(1), Size::gib(1 << 20));
    if jetstream.max_bytes.bytes() != 0 && !(least..=most).contains(&jetstream.max_bytes) {
        let problem = format!(
            "must be \"0B\", or \"{least}\" to \"{most}\", not \"{}\"",
            jetstream.max_bytes
        );
        refuse("jetstream.max_bytes", problem);
    }
    if let Some(url) = jetstream.monitor_urls.iter().find(|url| !is_base(url, &["http"])) {
        refuse(
            "jetstream.monitor_urls",
            format!("{url:?} is not where a NATS server tells of itself: http://HOST:8222"),
        );
    }
    if jetstream.patience > jetstream.duplicate_window / 2 {
        refuse(
            "jetstream.patience",
            "must be at most half of `jetstream.duplicate_window`: what is tried again has to be recognised".to_owned(),
        );
    }
    if config.journal.kind == JournalKind::Jetstream && config.journal.key_window < jetstream.duplicate_window {
        refuse(
            "journal.key_window",
            "must not be shorter than `jetstream.duplicate_window`".to_owned(),
        );
    }
    if config.jetstream.duplicate_window > config.jetstream.max_age {
        refuse(
            "jetstream.duplicate_window",
            "must not be longer than `jetstream.max_age`".to_owned(),
        );
    }
}

/// Whether a text is a URL that a path can be put after.
fn is_base(url: &str, schemes: &[&str]) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let is_plain = |authority: &http::uri::Authority| !authority.as_str().contains('@') && !authority.host().is_empty();
    uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme))
        && uri.authority().is_some_and(is_plain)
        && uri.query().is_none()
}

fn nats(nats: &Nats, refuse: &mut impl FnMut(&str, String)) {
    for server in &nats.urls {
        let problem = match server.parse::<async_nats::ServerAddr>() {
            // What is wrong may be wrong around a password: the text is not repeated.
            Ok(address) if address.has_user_pass() || server.contains('@') => {
                "an address holds no user and no password: they are `nats.user` and `nats.password`"
            }
            Ok(address) if !matches!(address.scheme(), "nats" | "tls") => "an address begins with nats:// or tls://",
            Ok(_) => continue,
            Err(_) => "is not a list of addresses such as nats://127.0.0.1:4222",
        };
        refuse("nats.urls", problem.to_owned());
    }
    for (key, secret) in [("nats.password", &nats.password), ("nats.token", &nats.token)] {
        if secret.reveal() == Secret::MASK {
            refuse(
                key,
                "is what is shown in place of the secret, not the secret".to_owned(),
            );
        }
    }
    let is_set = |path: &Path| !path.as_os_str().is_empty();
    for (key, file, twin) in [
        (
            "nats.password_file",
            &nats.password_file,
            ("nats.password", &nats.password),
        ),
        ("nats.token_file", &nats.token_file, ("nats.token", &nats.token)),
    ] {
        if is_set(file) && !twin.1.is_empty() {
            refuse(key, format!("is set as well as `{}`: one of them will do", twin.0));
        }
    }
    let has_password = !nats.password.is_empty() || is_set(&nats.password_file);
    if nats.user.is_empty() == has_password {
        let (key, problem) = if has_password {
            ("nats.user", "is missing: there is a password")
        } else {
            ("nats.password", "is missing: there is a user")
        };
        refuse(key, problem.to_owned());
    }
    let ways = [
        ("nats.user", !nats.user.is_empty()),
        ("nats.token", !nats.token.is_empty() || is_set(&nats.token_file)),
        ("nats.nkey_file", is_set(&nats.nkey_file)),
        ("nats.credentials_file", is_set(&nats.credentials_file)),
    ];
    let mut chosen = ways.iter().filter(|(_, chosen)| *chosen).map(|(key, _)| *key);
    if let Some(first) = chosen.next() {
        for other in chosen {
            refuse(
                other,
                format!("is set as well as `{first}`: a node says in one way who it is"),
            );
        }
    }
    if is_set(&nats.tls_cert) != is_set(&nats.tls_key) {
        let (missing, there) = if is_set(&nats.tls_key) {
            ("nats.tls_cert", "nats.tls_key")
        } else {
            ("nats.tls_key", "nats.tls_cert")
        };
        refuse(missing, format!("is missing: there is `{there}`"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_somebody_is_asked_nodes_are_too() {
        let refused = |role, asks: bool, text: &str, file: &str| {
            let mut config = Config::default();
            if asks {
                config.auth.public = vec!["a".to_owned()];
            }
            (config.cluster.secret, config.cluster.secret_file) = (text.into(), file.into());
            let mut refused = Vec::new();
            secret(&config, role, &mut |key, _| refused.push(key.to_owned()));
            refused.join(" ")
        };
        let (short, long, file) = ("fifteen letters", "sixteen letters!", "/run/secrets/cluster");
        for role in [Role::Edge, Role::Ingest] {
            assert_eq!(refused(role, true, "", ""), "cluster.secret");
            assert_eq!(refused(role, false, "", ""), "");
            assert_eq!(refused(role, true, long, ""), "");
            assert_eq!(refused(role, true, "", file), "");
        }
        assert_eq!(refused(Role::Serve, true, "", ""), "", "it has no others");
        assert_eq!(refused(Role::Edge, false, short, ""), "cluster.secret");
        assert_eq!(refused(Role::Edge, false, long, file), "cluster.secret_file");
        assert_eq!(refused(Role::Edge, false, Secret::MASK, ""), "cluster.secret");
    }
}
