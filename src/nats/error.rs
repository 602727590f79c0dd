//! What can be wrong with the connection to NATS.

use std::{io, path::PathBuf, time::Duration};

use super::subjects::ClusterNameError;
use crate::tls::TlsError;

/// Settings that can never work. A server that is away is no such error.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// There is no server to connect to.
    #[error("`nats.urls` names no server: set it to the addresses of your NATS servers, such as nats://nats-0:4222")]
    NoServers,
    /// It is not the address of a server.
    #[error("`nats.urls` has {url:?}: {cause}")]
    Url {
        /// What it says.
        url: String,
        /// What is wrong.
        cause: String,
    },
    /// An address holds a password or a token, which would be shown wherever the address is. It is not repeated here.
    #[error(
        "`nats.urls` has an address of {host} with a user, password or token in it: set `nats.user` and `nats.password`, or \
         `nats.token`, instead"
    )]
    SecretInUrl {
        /// The host of the address.
        host: String,
    },
    /// It cannot name a cluster.
    #[error("`cluster.name`: {0}")]
    ClusterName(#[from] ClusterNameError),
    /// A file cannot be read.
    #[error("`{setting}` names {}, which cannot be read: {cause}", path.display())]
    File {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{setting}` names {}, which {problem}", path.display())]
    Content {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client library refused the settings.
    #[error("NATS cannot be set up: {0}")]
    Setup(String),
}

/// Why there was no way to the server and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoundTripError {
    /// There is no connection.
    #[error("there is no connection to NATS")]
    Away,
    /// The server did not answer.
    #[error("NATS did not answer within {0:?}")]
    TimedOut(Duration),
    /// The client refused.
    #[error("the connection to NATS is closed")]
    Closed,
}
