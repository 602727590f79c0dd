//! The addresses that a node listens on: all are bound before anything is served on any of them.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;
use tracing::{field, info};

use super::{NodeError, certificates::Certificates, settings};
use crate::{config::Config, edge::Listeners};

/// The sockets of the two ports that every role has, and the certificates of all.
pub(super) struct Ports {
    pub(super) certificates: Certificates,
    pub(super) grpc: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) addresses: Addresses,
}

impl Ports {
    pub(super) async fn bind(config: &Config) -> Result<Self, NodeError> {
        let certificates = Certificates::load(config)?;
        let grpc = at(
            "--grpc",
            config.grpc.listen,
            TcpListener::bind(config.grpc.listen).await,
        )?;
        let admin = at(
            "--admin",
            config.admin.listen,
            TcpListener::bind(config.admin.listen).await,
        )?;
        let addresses = Addresses {
            http: None,
            grpc: grpc.local_addr().map_err(NodeError::Runtime)?,
            admin: admin.local_addr().map_err(NodeError::Runtime)?,
        };
        Ok(Self {
            certificates,
            grpc,
            admin,
            addresses,
        })
    }

    /// The same, and those of the streams.
    pub(super) async fn bind_with_streams(config: &Config) -> Result<(Self, Listeners), NodeError> {
        let mut ports = Self::bind(config).await?;
        let listen = config.http.listen;
        let http = at(
            "--http",
            listen,
            Listeners::bind(listen, settings::workers(config), None),
        )?;
        ports.addresses.http = Some(http.address());
        Ok((ports, http))
    }
}

fn at<T>(flag: &'static str, address: SocketAddr, bound: io::Result<T>) -> Result<T, NodeError> {
    bound.map_err(|cause| NodeError::Listen { address, flag, cause })
}

/// Where a node can be reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    /// Its streams, if it has any.
    pub(super) http: Option<SocketAddr>,
    pub(super) grpc: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Addresses {
    /// Says where it is, now that it serves there.
    pub(super) fn announce(&self) {
        let Self { http, grpc, admin } = self;
        info!(http = http.map(field::display), %grpc, %admin, "ready");
    }
}
