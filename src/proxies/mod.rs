//! Who is really at the other end, where proxies stand before this service.
//!
//! A proxy says for whom it connects, in one of two ways: a PROXY header before everything else on the connection ([`header`]), or
//! `X-Forwarded-For` with each request ([`forwarded`]). Anybody can say such things, so only those are believed who connect from an address
//! that the configuration names. `Forwarded` (RFC 7239) is ignored on purpose: a proxy that adds to the one passes the other on as the client
//! sent it.

mod client;
pub mod forwarded;
pub mod header;

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;
use tokio::net::TcpStream;

use self::header::Source;
pub use self::{client::Client, header::HeaderError};

/// The proxies that are believed, and how they speak.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    protocol: bool,
}

impl Proxies {
    /// Proxies in these networks; with `protocol` each of their connections begins with a PROXY header, else requests may have an
    /// `X-Forwarded-For`.
    #[must_use]
    pub const fn new(trusted: Vec<IpNet>, protocol: bool) -> Self {
        Self { trusted, protocol }
    }

    /// Whether what this address says about others is believed.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// Who connected, as far as the address of the connection tells.
    #[must_use]
    pub fn peer(&self, address: IpAddr) -> Client {
        match self.trusts(address) {
            true => Client::proxy(address),
            false => Client::direct(address),
        }
    }

    /// Whether a connection of this peer must begin with a PROXY header.
    #[must_use]
    pub const fn must_introduce(&self, peer: Client) -> bool {
        self.protocol && peer.is_proxy()
    }

    /// Reads the PROXY header that the connection of a proxy begins with, and not a byte more. It waits for as long as the peer takes: the
    /// deadline is the caller's.
    ///
    /// Whoever the header names as a proxy again is believed what its requests say; a proxy that names nobody is not, for it may be passing on
    /// what a stranger wrote.
    ///
    /// # Errors
    /// If there is no header, or a wrong one: then there is nothing to be made of this connection.
    pub async fn introduced(&self, peer: Client, stream: &TcpStream) -> Result<Client, HeaderError> {
        Ok(match header::read(stream).await? {
            Source::Client(address) if self.trusts(address) => Client::proxy(address),
            Source::Client(address) => Client::told(address),
            Source::Proxy => Client::mute(peer.address()),
        })
    }

    /// Whom a request is from that came over a connection of this peer.
    #[must_use]
    pub fn of_request(&self, peer: Client, headers: &HeaderMap) -> Client {
        if !peer.is_proxy() {
            return peer;
        }
        match forwarded::client(headers, |address| self.trusts(address)) {
            Some(address) if self.trusts(address) => Client::mute(address),
            Some(address) => Client::told(address),
            None => peer,
        }
    }
}

#[cfg(test)]
mod tests;
