//! The settings of a node that is part of a cluster: `[cluster]`, `[nats]` and `[jetstream]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Config, Ordinal, Secret, Size, values};
use crate::model::Layout;

/// `[cluster]`: which cluster a node belongs to, and what it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name, with which everything begins that it has on NATS: `A-Z a-z 0-9 _ -`.
    pub name: String,
    /// The node's name, stable across restarts and its own in the cluster; empty: the name of the host.
    pub node: String,
    /// The URL at which clients reach this node's streams; empty: derived from `http.listen` if that is one address.
    pub advertise_http: String,
    /// The URL at which other nodes reach its gRPC port; empty: derived from `grpc.listen` if that is one address.
    pub advertise_grpc: String,
    /// The certificates (PEM) that those of other nodes must come from, where their URL begins with https; empty: the system's.
    pub tls_ca: PathBuf,
    /// What this node shows to other nodes that ask: a certificate (PEM).
    pub tls_cert: PathBuf,
    /// The certificate's key (PEM).
    pub tls_key: PathBuf,
    /// What the nodes know each other by: the same on every node, 16 bytes or more. Needed where publishers or subscribers are asked who they are.
    pub secret: Secret,
    /// The file that the secret is in.
    pub secret_file: PathBuf,
    /// How many slots there are. The same on every node, for the life of the data.
    pub slots: u32,
    /// How many shards there are. The same on every node, for the life of the data.
    pub shards: u16,
    /// How many ingest nodes there are. The same on every node.
    pub ingest_nodes: u16,
    /// Which of them this one is, from 0; `"auto"`: the number that the node's name ends with.
    pub ordinal: Ordinal,
    /// How many ingest nodes hold each shard, as far as there are so many. One with the `rocksdb` journal, whatever this says.
    pub replicas: u16,
    /// This edge's share of the slots, relative to the others'.
    pub weight: u32,
    /// How many misplaced streams are asked a second to move to their owner; 0: none.
    pub moves_per_second: u32,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "tidings".to_owned(),
            node: String::new(),
            advertise_http: String::new(),
            advertise_grpc: String::new(),
            tls_ca: PathBuf::new(),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            secret: Secret::default(),
            secret_file: PathBuf::new(),
            slots: 1_024,
            shards: 8,
            ingest_nodes: 1,
            ordinal: Ordinal::Auto,
            replicas: 2,
            weight: 100,
            moves_per_second: 100,
        }
    }
}

/// `[nats]`: how NATS is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// Its servers; any of them will do, they tell of each other.
    pub urls: Vec<String>,
    /// A user, with a password.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// The file that the password is in.
    pub password_file: PathBuf,
    /// A token, instead of a user.
    pub token: Secret,
    /// The file that the token is in.
    pub token_file: PathBuf,
    /// The file with the seed of an NKEY, instead of a user.
    pub nkey_file: PathBuf,
    /// A credentials file (a JWT and its NKEY), instead of a user.
    pub credentials_file: PathBuf,
    /// Whether a server that does not speak TLS is refused.
    pub tls_required: bool,
    /// The certificates of those who may vouch for a server, instead of the system's.
    pub tls_ca: PathBuf,
    /// This client's certificate.
    pub tls_cert: PathBuf,
    /// The key of this client's certificate.
    pub tls_key: PathBuf,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
            user: String::new(),
            password: Secret::default(),
            password_file: PathBuf::new(),
            token: Secret::default(),
            token_file: PathBuf::new(),
            nkey_file: PathBuf::new(),
            credentials_file: PathBuf::new(),
            tls_required: false,
            tls_ca: PathBuf::new(),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
        }
    }
}

/// `[jetstream]`: the streams, one per shard, of the `jetstream` journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jetstream {
    /// How many servers keep each stream.
    pub replicas: u8,
    /// Where they keep it.
    pub storage: Storage,
    /// For how long a stream keeps what it holds: what a wiped disk is filled from again.
    #[serde(with = "values::duration")]
    pub max_age: Duration,
    /// How large one stream may be: then it refuses what is new. Nothing: as large as its servers allow.
    pub max_bytes: Size,
    /// For how long a stream itself recognises a message that comes again.
    #[serde(with = "values::duration")]
    pub duplicate_window: Duration,
    /// How long a publish is tried through an election before its outcome is said to be unknown.
    #[serde(with = "values::duration")]
    pub patience: Duration,
    /// Where the NATS servers tell of themselves, as `http://host:8222`: asked at start whether they sync what they acknowledge.
    pub monitor_urls: Vec<String>,
}

impl Default for Jetstream {
    fn default() -> Self {
        Self {
            replicas: 3,
            storage: Storage::File,
            max_age: Duration::from_secs(7 * 24 * 60 * 60),
            max_bytes: Size::NOTHING,
            duplicate_window: Duration::from_secs(2 * 60),
            patience: Duration::from_secs(15),
            monitor_urls: Vec::new(),
        }
    }
}

/// Where JetStream keeps a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    File,
    /// In memory: what all its servers lose at once is lost.
    Memory,
}

impl Config {
    /// The node's name: as it is set, or the name of the host in the letters that NATS allows.
    #[must_use]
    pub fn node(&self) -> String {
        if !self.cluster.node.is_empty() {
            return self.cluster.node.clone();
        }
        let host = gethostname::gethostname();
        let host = host.to_string_lossy();
        host.chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .collect()
    }

    /// Which of the ingest nodes this one is; none if nothing says so.
    #[must_use]
    pub fn ordinal(&self) -> Option<u16> {
        match self.cluster.ordinal {
            Ordinal::Number(number) => Some(number),
            Ordinal::Auto => {
                let node = self.node();
                let digits = node.bytes().rev().take_while(u8::is_ascii_digit).count();
                match node[node.len() - digits..].parse() {
                    Ok(number) => Some(number),
                    // The only one there is has no need of a number.
                    Err(_) => (digits == 0 && self.cluster.ingest_nodes == 1).then_some(0),
                }
            }
        }
    }

    /// Where clients reach the streams of this node, which listens at `listen`; none if nothing says so.
    #[must_use]
    pub fn advertised_http(&self, listen: SocketAddr) -> Option<String> {
        advertised(&self.cluster.advertise_http, self.http.speaks_tls(), listen)
    }

    /// Where other nodes reach the gRPC port of this node, which listens at `listen`; none if nothing says so.
    #[must_use]
    pub fn advertised_grpc(&self, listen: SocketAddr) -> Option<String> {
        advertised(&self.cluster.advertise_grpc, self.grpc.speaks_tls(), listen)
    }

    /// How the cluster divides its topics; none if it cannot be.
    #[must_use]
    pub fn layout(&self) -> Option<Layout> {
        Layout::new(self.cluster.slots, self.cluster.shards).ok()
    }
}

fn advertised(set: &str, tls: bool, listen: SocketAddr) -> Option<String> {
    if !set.is_empty() {
        return Some(set.trim_end_matches('/').to_owned());
    }
    let scheme = if tls { "https" } else { "http" };
    (!listen.ip().is_unspecified()).then(|| format!("{scheme}://{listen}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ordinal_is_set_or_what_the_name_ends_with() {
        let ordinal = |node: &str, ordinal, ingest_nodes| {
            let mut config = Config::default();
            config.cluster.node = node.to_owned();
            (config.cluster.ordinal, config.cluster.ingest_nodes) = (ordinal, ingest_nodes);
            config.ordinal()
        };
        assert_eq!(ordinal("ingest-12", Ordinal::Auto, 20), Some(12));
        assert_eq!(ordinal("ingest-12", Ordinal::Number(3), 20), Some(3));
        assert_eq!(ordinal("laptop", Ordinal::Auto, 1), Some(0));
        assert_eq!(ordinal("laptop", Ordinal::Auto, 2), None);
        assert_eq!(ordinal("host99999", Ordinal::Auto, 1), None);
    }

    #[test]
    fn a_url_is_set_or_follows_from_where_the_node_listens() {
        let mut config = Config::default();
        let (one, any) = (([10, 0, 0, 7], 80).into(), ([0, 0, 0, 0], 80).into());
        assert_eq!(config.advertised_http(one).as_deref(), Some("http://10.0.0.7:80"));
        assert_eq!(config.advertised_http(any), None);
        config.cluster.advertise_http = "https://edge-1.example/".to_owned();
        assert_eq!(config.advertised_http(any).as_deref(), Some("https://edge-1.example"));
        assert_eq!(config.advertised_grpc(one).as_deref(), Some("http://10.0.0.7:80"));
        config.grpc.tls_cert = "cert.pem".into();
        assert_eq!(config.advertised_grpc(one).as_deref(), Some("https://10.0.0.7:80"));
    }
}
