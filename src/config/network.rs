//! How networks are written.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A network, written as `"10.0.0.0/8"`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// The network itself; of IPv4 never in the clothes of IPv6.
    #[must_use]
    pub const fn into_inner(self) -> IpNet {
        self.0
    }
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It cannot be read.
    #[error("{0:?} is neither an address nor a network: 192.0.2.7 and 10.0.0.0/8 are")]
    Unreadable(String),
    /// It is an address within the network.
    #[error("{0} is not the beginning of a network: write {1}")]
    Within(IpNet, IpNet),
    /// It has every address.
    #[error("{0} is everybody: name the networks of the proxies alone")]
    Everybody(IpNet),
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => text
                .parse::<IpNet>()
                .map_err(|_| NetworkError::Unreadable(text.to_owned()))?,
        };
        if network != network.trunc() {
            return Err(NetworkError::Within(network, network.trunc()));
        }
        let network = canonical(network);
        match network.prefix_len() {
            0 => Err(NetworkError::Everybody(network)),
            _ => Ok(Self(network)),
        }
    }
}

/// Addresses are compared as what they are: a network of IPv4 within IPv6 as one of IPv4.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    match (
        network.network().to_canonical(),
        network.prefix_len().checked_sub(MAPPED),
    ) {
        (address @ IpAddr::V4(_), Some(prefix)) if network.network().is_ipv6() => {
            IpNet::new(address, prefix).unwrap_or(network)
        }
        _ => network,
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_written() {
        for (text, written) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ] {
            let network: Network = text.parse().expect(text);
            assert_eq!(network.to_string(), written);
            assert_eq!(written.parse(), Ok(network));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, expected) in [
            ("", "neither"),
            ("localhost", "neither"),
            ("10.0.0.0/33", "neither"),
            ("10.0.0.0/ 8", "neither"),
            ("10.0.0.0/255.0.0.0", "neither"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("0.0.0.0/0", "everybody"),
            ("::/0", "everybody"),
            ("::ffff:0.0.0.0/96", "everybody"),
        ] {
            let error = text.parse::<Network>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
