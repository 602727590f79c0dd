//! Whom each port answers for.

use std::net::SocketAddr;

use super::NodeError;
use crate::{
    config::Config,
    gate::{Gate, Hosts, Pages},
    model::{Host, Origin},
};

/// The hosts of the streams. Those that are named, if any are; else all, unless only being on this machine is what lets a caller in.
pub(super) fn streams(config: &Config) -> Result<Hosts, NodeError> {
    let listed = listed(config)?;
    let guards = !listed.is_empty() || is_guarded(config, config.http.listen);
    Ok(if guards { Hosts::only(listed) } else { Hosts::any() })
}

/// The gate of the publishing port. Nodes reach each other there under addresses of their own.
pub(super) fn publishing(config: &Config) -> Result<Gate, NodeError> {
    let hosts = if is_guarded(config, config.grpc.listen) {
        Hosts::only(listed(config)?)
    } else {
        Hosts::any()
    };
    Ok(Gate {
        hosts,
        pages: Pages::of(origins(config)?),
    })
}

/// The gate of the admin port, which takes whoever reaches it whatever `auth` says.
pub(super) fn admin(config: &Config) -> Result<Gate, NodeError> {
    let hosts = if is_loopback(config.admin.listen) {
        Hosts::only(listed(config)?)
    } else {
        Hosts::any()
    };
    Ok(Gate {
        hosts,
        pages: Pages::of(origins(config)?),
    })
}

/// The origins whose pages may ask.
pub(super) fn origins(config: &Config) -> Result<Vec<Origin>, NodeError> {
    let origins = config.http.cors_origins.iter().map(|text| Origin::parse(text));
    origins.collect::<Result<_, _>>().map_err(NodeError::Origin)
}

/// Whether a port takes whoever reaches it, and only this machine does: then a page that a browser on it shows must not.
fn is_guarded(config: &Config, listen: SocketAddr) -> bool {
    config.auth.is_open() && is_loopback(listen)
}

fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

fn listed(config: &Config) -> Result<Vec<Host>, NodeError> {
    let hosts = config.http.hosts.iter().map(|text| Host::parse(text));
    hosts.collect::<Result<_, _>>().map_err(NodeError::Host)
}
