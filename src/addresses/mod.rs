//! What one address may have: connections at a time, and attempts a second. Each port counts for itself.

mod attempts;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use attempts::Attempts;

use crate::proxies::Client;

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressLimits {
    /// Connections of one address (of an IPv6 client: its /64 network).
    pub connections: usize,
    /// Attempts to connect, per second and address.
    pub attempts_per_second: u32,
    /// Whether those who connect from this machine themselves are free of both.
    pub exempt_loopback: bool,
}

impl Default for AddressLimits {
    fn default() -> Self {
        Self {
            connections: 1_000,
            attempts_per_second: 100,
            exempt_loopback: true,
        }
    }
}

/// What is in use.
#[derive(Debug)]
pub struct Addresses {
    limits: AddressLimits,
    connections: Mutex<HashMap<Address, usize>>,
    attempts: Mutex<Attempts>,
}

/// A client as the limits see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Address {
    V4(u32),
    /// The first half: the second is the client's own to choose.
    V6(u64),
}

impl Address {
    fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6(u64::try_from(address.to_bits() >> 64).unwrap_or_default()),
        }
    }
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverAddress {
    /// Connections at a time.
    #[error("this address has all the connections it may have")]
    Connections,
    /// Attempts per second.
    #[error("this address connects too often")]
    Attempts,
}

impl Addresses {
    /// Nothing is in use yet.
    #[must_use]
    pub fn new(limits: AddressLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            connections: Mutex::default(),
            attempts: Mutex::new(Attempts::new(limits.attempts_per_second, Instant::now())),
        })
    }

    /// A client tries to connect.
    ///
    /// # Errors
    /// If it tried too often.
    pub fn attempt(&self, client: Client, now: Instant) -> Result<(), OverAddress> {
        match self.limited(client) {
            Some(address) if !lock(&self.attempts).take(address, now) => Err(OverAddress::Attempts),
            _ => Ok(()),
        }
    }

    /// A client's share of its address; none is taken from one without limits.
    ///
    /// # Errors
    /// If all is taken.
    pub fn connect(self: &Arc<Self>, client: Client) -> Result<Option<AddressPermit>, OverAddress> {
        let Some(address) = self.limited(client) else {
            return Ok(None);
        };
        let mut connections = lock(&self.connections);
        let count = connections.get(&address).copied().unwrap_or_default();
        if count >= self.limits.connections {
            return Err(OverAddress::Connections);
        }
        connections.insert(address, count + 1);
        Ok(Some(AddressPermit {
            addresses: Arc::clone(self),
            address,
        }))
    }

    fn limited(&self, client: Client) -> Option<Address> {
        let exempt = self.limits.exempt_loopback && client.is_local();
        (client.is_one() && !exempt).then(|| Address::of(client.address()))
    }
}

/// A connection's share; given back when it is dropped.
#[derive(Debug)]
pub struct AddressPermit {
    addresses: Arc<Addresses>,
    address: Address,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut connections = lock(&self.addresses.connections);
        if let Some(count) = connections.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.address);
            }
        }
    }
}

/// The counts are whole between any two statements: a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::proxies::Proxies;

    fn addresses(connections: usize, exempt_loopback: bool) -> Arc<Addresses> {
        Addresses::new(AddressLimits {
            connections,
            attempts_per_second: 1,
            exempt_loopback,
        })
    }

    fn client(text: &str) -> Client {
        Client::direct(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let addresses = addresses(2, true);
        let (one, same, other) = (client("192.0.2.1"), client("::ffff:192.0.2.1"), client("192.0.2.2"));
        let held = [
            addresses.connect(one).expect("room"),
            addresses.connect(same).expect("room"),
        ];
        assert_eq!(addresses.connect(one).err(), Some(OverAddress::Connections));
        assert_eq!(addresses.connect(same).err(), Some(OverAddress::Connections));
        assert!(addresses.connect(other).is_ok());
        drop(held);
        assert!(addresses.connect(one).is_ok());
        assert!(lock(&addresses.connections).is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let addresses = addresses(1, true);
        let _held = addresses.connect(client("2001:db8::1")).expect("room");
        assert_eq!(
            addresses.connect(client("2001:db8::2")).err(),
            Some(OverAddress::Connections)
        );
        assert!(addresses.connect(client("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn loopback_is_exempt_unless_configured() {
        for (exempt, loopback) in [(true, "127.0.0.1"), (true, "::1"), (false, "127.0.0.1"), (false, "::1")] {
            assert_eq!(
                addresses(0, exempt).connect(client(loopback)).is_ok(),
                exempt,
                "{loopback}"
            );
        }
    }

    /// Everybody comes from a proxy; and what it tells of is no process of this machine for sure.
    #[test]
    fn a_proxy_is_not_one_client_but_those_it_tells_of_are() {
        let loopback: IpNet = "127.0.0.0/31".parse().expect("a network");
        let proxies = Proxies::new(vec![loopback], false);
        let addresses = addresses(0, true);
        let now = Instant::now();
        let peer = proxies.peer(IpAddr::from([127, 0, 0, 1]));
        for _ in 0..3 {
            assert!(addresses.connect(peer).expect("no limit").is_none());
            assert_eq!(addresses.attempt(peer, now), Ok(()));
        }
        for told in ["127.0.0.2", "192.0.2.1"] {
            let mut headers = http::HeaderMap::new();
            headers.insert("x-forwarded-for", told.parse().expect("a value"));
            let client = proxies.of_request(peer, &headers);
            assert_eq!(
                addresses.connect(client).err(),
                Some(OverAddress::Connections),
                "{told}"
            );
            assert_eq!(addresses.attempt(client, now), Ok(()));
            assert_eq!(addresses.attempt(client, now), Err(OverAddress::Attempts), "{told}");
        }
    }
}
