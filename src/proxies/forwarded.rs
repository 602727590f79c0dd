//! `X-Forwarded-For`: each proxy adds, at the right, the address that connected to it. What is further left came in with the request, and is
//! worth as much as whoever wrote it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;

/// The header.
pub const NAME: &str = "x-forwarded-for";

/// The client that the proxies tell of: from the right the first address that is no proxy's, or the left-most if all are. None if there is
/// none, or what stands there is no address: then nobody knows more than that a proxy connected.
pub fn client(headers: &HeaderMap, is_proxy: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut client = None;
    for line in headers.get_all(NAME).iter().rev() {
        for entry in line.as_bytes().rsplit(|byte| *byte == b',') {
            let address = address(entry)?;
            client = Some(address);
            if !is_proxy(address) {
                return client;
            }
        }
    }
    client
}

/// An entry: an address, as proxies write it, some of them with a port, and IPv6 in brackets or without.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address = text
        .parse()
        .ok()
        .or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
        .or_else(|| Some(bracketed()?.into()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn lines<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(NAME, HeaderValue::from_bytes(line).expect("a value"));
        }
        headers
    }

    /// Proxies are in 10/8.
    fn is_proxy(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
    }

    fn found(text: &[&str]) -> Option<String> {
        let headers = lines(text.iter().map(|line| line.as_bytes()));
        client(&headers, is_proxy).map(|address| address.to_string())
    }

    #[test]
    fn the_right_most_that_is_no_proxy() {
        for (text, expected) in [
            (&[][..], None),
            (&["192.0.2.1"], Some("192.0.2.1")),
            // What the client wrote itself is further left.
            (&["127.0.0.1, 192.0.2.1"], Some("192.0.2.1")),
            (&["nonsense, 192.0.2.1"], Some("192.0.2.1")),
            (&["10.0.0.9, 192.0.2.1"], Some("192.0.2.1")),
            (&["127.0.0.1", "192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.9", "192.0.2.1, 10.0.0.2", "10.0.0.1"], Some("192.0.2.1")),
            // Clients within the proxies' network.
            (&["10.0.0.3,10.0.0.2 , 10.0.0.1"], Some("10.0.0.3")),
            (&["192.0.2.1:4711"], Some("192.0.2.1")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["[2001:db8::1]:80"], Some("2001:db8::1")),
            (&["::ffff:192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.7, ::ffff:10.0.0.1"], Some("192.0.2.7")),
            (&["\t 192.0.2.1\t"], Some("192.0.2.1")),
        ] {
            assert_eq!(found(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_address_tells_nothing() {
        for text in [
            "",
            " ",
            ",",
            "192.0.2.1,",
            "unknown",
            "_hidden",
            "192.0.2.1, unknown",
            "192.0.2.1, unknown, 10.0.0.1",
            "192.0.2.256",
            "192.0.2",
            "0300.0.2.1",
            "192.0.2.1:",
            "192.0.2.1:99999",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[[2001:db8::1]]",
            "fe80::1%eth0",
            "\"192.0.2.1\"",
            "for=192.0.2.1",
            "192.0.2.1 192.0.2.2",
            "localhost",
        ] {
            assert_eq!(found(&[text]), None, "{text:?}");
        }
        assert_eq!(client(&lines([&b"\xff\xfe"[..]]), is_proxy), None);
        assert_eq!(client(&lines([&b"192.0.2.1, \xc2\xa0192.0.2.2"[..]]), is_proxy), None);
    }

    proptest! {
        /// Whatever a client sends, what the proxy adds decides.
        #[test]
        fn nothing_sent_ahead_matters(
            sent in prop::collection::vec("[ -~]{0,40}", 0..4),
            own in any::<[u8; 4]>().prop_map(IpAddr::from).prop_filter("no proxy", |ip| !is_proxy(*ip)),
            joined: bool,
        ) {
            let mut sent: Vec<String> = sent.into_iter().map(|line| line.trim().to_owned()).collect();
            match sent.last_mut() {
                Some(last) if joined => *last = format!("{last}, {own}"),
                _ => sent.push(own.to_string()),
            }
            let headers = lines(sent.iter().map(String::as_bytes));
            prop_assert_eq!(client(&headers, is_proxy), Some(own));
        }
    }
}
