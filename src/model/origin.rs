//! The origin of a page, as its browser names it.

use std::{fmt, net::Ipv6Addr};

/// An origin as a browser names it in the `origin` header: `https://app.example`, `http://localhost:3000`.
///
/// It is compared byte for byte, so that only what a browser sends is one: scheme, host in lower case and, unless it is the
/// scheme's own, port (RFC 6454, section 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Box<str>);

impl Origin {
    /// Checks an origin's text.
    ///
    /// # Errors
    /// If no browser would name an origin like this, so that it would never match.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        match check(text) {
            Ok(()) => Ok(Self(text.into())),
            Err(problem) => Err(OriginError {
                text: text.to_owned(),
                problem,
            }),
        }
    }

    /// Its text: visible ASCII.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    let (scheme, rest) = text
        .split_once("://")
        .ok_or("it begins with https:// or http:// (there is no wildcard)")?;
    if !matches!(scheme, "https" | "http") {
        return Err("it begins with https:// or http://");
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    check_host(host)?;
    match port {
        None => Ok(()),
        Some("443") if scheme == "https" => Err("browsers leave out the port 443 of https"),
        Some("80") if scheme == "http" => Err("browsers leave out the port 80 of http"),
        Some(port)
            if port
                .parse()
                .is_ok_and(|number: u16| number != 0 && number.to_string() == port) =>
        {
            Ok(())
        }
        Some(_) => Err("the port is a number from 1 to 65535"),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() || host.contains(['/', '?', '#', '@']) {
        return Err("after the scheme comes a host and nothing else: no path, no slash at the end");
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let is_lower_case = !address.bytes().any(|b| b.is_ascii_uppercase());
        return match address.parse::<Ipv6Addr>() {
            Ok(_) if is_lower_case => Ok(()),
            _ => Err("between brackets stands an IPv6 address, in lower case"),
        };
    }
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if !host.bytes().all(fits) {
        return Err("browsers send the host in lower case, in ASCII");
    }
    Ok(())
}

/// A text that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an origin: {problem}")]
pub struct OriginError {
    text: String,
    problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_send() {
        for text in [
            "https://app.example.com",
            "http://localhost:3000",
            "https://[::1]:8443",
            "http://[::1]",
            "http://app.example:443",
        ] {
            assert_eq!(Origin::parse(text).expect(text).as_str(), text);
        }
        for text in [
            "*",
            "null",
            "",
            "app.example.com",
            "://x",
            "ftp://example.com",
            "https://",
            "https://example.com/",
            "https://Example.com",
            "https://a b",
            "https://example.com:",
            "https://example.com:443",
            "http://example.com:80",
            "https://example.com:0",
            "https://example.com:+1",
            "https://example.com:99999",
            "https://user@example.com",
            "https://[::1",
            "https://[::g]",
            "https://[2001:DB8::1]",
            "https://::1",
        ] {
            let error = Origin::parse(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("{text:?} is not an origin: ")), "{error}");
        }
    }
}
