//! Connections to other nodes: one each, shared by all shards.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Error},
};

use super::Settings;
use crate::{
    members::ClusterSecret,
    tls::{self, ClientTls},
};

/// A connection with whose calls the cluster's secret goes.
pub(super) type Trusted = InterceptedService<Channel, ClusterSecret>;

/// See the module. A connection is made when it is first needed, and again after it broke.
#[derive(Debug)]
pub(super) struct Peers {
    settings: Settings,
    tls: ClientTls,
    secret: ClusterSecret,
    channels: Mutex<HashMap<String, Channel>>,
}

impl Peers {
    /// So many connections are kept for nodes that are not asked any more.
    const MOST: usize = 256;

    /// `tls` is how those are reached whose URL begins with https, and `secret` what they know this node by.
    pub(super) fn new(settings: Settings, tls: ClientTls, secret: ClusterSecret) -> Self {
        Self {
            settings,
            tls,
            secret,
            channels: Mutex::default(),
        }
    }

    /// The connection to a node, by the URL of its gRPC port.
    pub(super) fn channel(&self, url: &str) -> Result<Trusted, Error> {
        let channel = self.connection(url)?;
        Ok(InterceptedService::new(channel, self.secret.clone()))
    }

    fn connection(&self, url: &str) -> Result<Channel, Error> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(url) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(self.settings.connect_within)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.settings.keep_alive_every)
            .keep_alive_timeout(self.settings.keep_alive_within)
            .keep_alive_while_idle(true);
        let channel = tls::channel(&endpoint, &self.tls);
        if channels.len() >= Self::MOST {
            // Whoever uses one keeps it.
            channels.clear();
        }
        channels.insert(url.to_owned(), channel.clone());
        Ok(channel)
    }
}
