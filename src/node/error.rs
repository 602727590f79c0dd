//! Why a node cannot start, or stopped by itself.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{
    edge::WorkerFailed,
    ingest::ServeError,
    log::OpenError,
    model::{HostError, OriginError},
    nats::NatsError,
    tls::TlsError,
};

/// Why a node could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} ({cause}): stop what else listens there, or choose another address with {flag}"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// What NATS is set up with can never work.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file that holds a secret cannot be read.
    #[error("`{setting}` names {}, which cannot be read: {cause}", path.display())]
    SecretFile {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Nobody could be let in: keys cannot be had, or the like.
    #[error("`{key}`: {problem}")]
    Auth {
        /// The setting.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A file's secret can be guessed.
    #[error("`{0}` names a file whose secret is too short: 16 bytes or more, such as `openssl rand -hex 32` prints")]
    ShortSecret(&'static str),
    /// Something was not set, and nothing stands for it.
    #[error("`{0}` is not set: `tidings check-config` with the role says what to set it to")]
    NotSet(&'static str),
    /// An origin that pages may follow from is none.
    #[error("`http.cors_origins`: {0}")]
    Origin(OriginError),
    /// A host that requests may be for is none.
    #[error("`http.hosts`: {0}")]
    Host(HostError),
    /// More streams are asked for than the limit on open files allows.
    #[error(
        "`limits.connections` is {asked}, but the limit on open files leaves room for {room}: raise the hard limit (`ulimit -Hn`, `LimitNOFILE`) or lower the setting"
    )]
    TooManyConnections {
        /// The setting.
        asked: usize,
        /// How many there can be.
        room: usize,
    },
    /// The machine refuses threads, signals or the like.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    /// An edge worker failed.
    #[error(transparent)]
    Worker(#[from] WorkerFailed),
    /// Publishers cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A part ended without being told to.
    #[error("{0} ended by itself")]
    Ended(&'static str),
}
