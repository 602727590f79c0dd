//! A client's address, and how it is known.

use std::{fmt, net::IpAddr};

/// The address that a connection or a request is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    address: IpAddr,
    known: Known,
}

/// How an address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is the connection's own.
    Directly,
    /// A proxy told it.
    Told,
    /// It is a proxy's, and each request says whom it is for.
    Proxy,
    /// It is a proxy's, and nobody says whom it is for.
    Mute,
}

impl Client {
    /// One that connected itself.
    #[must_use]
    pub fn direct(address: IpAddr) -> Self {
        Self::new(address, Known::Directly)
    }

    pub(super) fn told(address: IpAddr) -> Self {
        Self::new(address, Known::Told)
    }

    pub(super) fn proxy(address: IpAddr) -> Self {
        Self::new(address, Known::Proxy)
    }

    pub(super) fn mute(address: IpAddr) -> Self {
        Self::new(address, Known::Mute)
    }

    fn new(address: IpAddr, known: Known) -> Self {
        let address = address.to_canonical();
        Self { address, known }
    }

    /// The address; of IPv4 never in the clothes of IPv6.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether each of its requests says whom it is for.
    #[must_use]
    pub const fn is_proxy(&self) -> bool {
        matches!(self.known, Known::Proxy)
    }

    /// Whether the address is that of one client. A proxy's is everybody's who comes through it.
    #[must_use]
    pub const fn is_one(&self) -> bool {
        matches!(self.known, Known::Directly | Known::Told)
    }

    /// Whether it is a process of this machine, as far as that can be known: what a proxy tells is about its own surroundings.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(self.known, Known::Directly) && self.address.is_loopback()
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
