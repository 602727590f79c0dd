//! The name of a host, as requests give it.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// A host without a port, in lower case and without a dot at its end: `events.example.com`, `127.0.0.1`, `[::1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(Box<str>);

impl Host {
    /// Checks a host's text.
    ///
    /// # Errors
    /// If it is none, or has a port.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match split(text) {
            Some((host, None)) => Ok(host),
            _ => Err(HostError { text: text.to_owned() }),
        }
    }

    /// The host of an authority, `events.example.com:8080`; `None` if it is not one. Who somebody is (`user@`) is no part of it.
    #[must_use]
    pub fn of_authority(text: &str) -> Option<Self> {
        split(text).map(|(host, _)| host)
    }

    /// Whether it is this machine under any name server: `localhost`, what ends with `.localhost`, or a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let name = &*self.0;
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match address {
            Some(address) => address
                .parse::<Ipv6Addr>()
                .is_ok_and(|address| address.to_canonical().is_loopback()),
            None => {
                let address = name.parse::<Ipv4Addr>();
                name == "localhost"
                    || name.ends_with(".localhost")
                    || address.is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn split(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
        None => None,
    };
    let host = host.to_ascii_lowercase();
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
        None => host.strip_suffix('.').unwrap_or(&host).to_owned(),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_name = host.ends_with(']') || (!host.is_empty() && host.bytes().all(fits));
    is_name.then(|| (Host(host.into()), port))
}

/// A text that is not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a host: write the name alone, such as \"events.example.com\", without scheme, port or wildcard"
)]
pub struct HostError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_host_are_one() {
        for (text, want) in [
            ("Events.Example.com:8080", Some("events.example.com")),
            ("events.example.com.", Some("events.example.com")),
            ("[::0001]:1", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("a_b", Some("a_b")),
            ("", None),
            (".", None),
            (":80", None),
            ("a:", None),
            ("a:99999", None),
            ("a:+1", None),
            ("a:8080:9", None),
            ("::1", None),
            ("[::1", None),
            ("[::g]", None),
            ("user@localhost", None),
            ("localhost/", None),
            ("local host", None),
            ("localhost,evil.example", None),
            ("%6cocalhost", None),
            ("ｌocalhost", None),
        ] {
            let host = Host::of_authority(text).map(|host| host.to_string());
            assert_eq!(host.as_deref(), want, "{text:?}");
        }
        assert!(Host::parse("events.example.com:80").is_err());
        assert!(Host::parse("*.example.com").is_err());
    }

    #[test]
    fn loopback_is_what_no_name_server_decides() {
        for (text, loopback) in [
            ("localhost", true),
            ("LOCALHOST.", true),
            ("app.localhost", true),
            ("127.0.0.1", true),
            ("127.8.9.10", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.evil.example", false),
            ("notlocalhost", false),
            ("127.0.0.1.evil.example", false),
            ("127.1", false),
            ("0.0.0.0", false),
            ("2130706433", false),
            ("0x7f.0.0.1", false),
            ("[::2]", false),
        ] {
            assert_eq!(Host::parse(text).expect(text).is_loopback(), loopback, "{text}");
        }
    }
}
