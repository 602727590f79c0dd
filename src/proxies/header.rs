//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before it passes on the first byte.
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::{io, net::IpAddr};

use ppp::{v1, v2};
use tokio::net::TcpStream;

/// The longest header that is read. Addresses take up to 232 bytes; what comes after them (TLVs) is read to be skipped.
pub const MAX_BYTES: usize = 4_096;
/// What both versions have at least, and tells them apart.
const LEAST: usize = 12;
/// The part of version 2 that says how long the rest is.
const V2_FIXED: usize = 16;
/// The longest header of version 1.
const V1_MAX: usize = 107;
const V1_BEGIN: &[u8] = b"PROXY ";
const V1_END: &[u8] = b"\r\n";

/// Whom a header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The client that the proxy connects for.
    Client(IpAddr),
    /// Nobody: the proxy connects for itself (`LOCAL`), or for one without an address (`UNKNOWN`).
    Proxy,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It is none, or broken.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// The connection ended.
    #[error("the connection ended before its PROXY header did")]
    Ended,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bytes that are no PROXY header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// They begin with something else.
    #[error("the connection does not begin with a PROXY header: have the proxy send one, or unset proxy_protocol")]
    Missing,
    /// It says that it is longer than any should be.
    #[error("the PROXY header is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It breaks the rules of its version.
    #[error("the PROXY header is broken: {0}")]
    Broken(String),
}

/// Reads a header, and no byte of what follows.
pub(super) async fn read(stream: &TcpStream) -> Result<Source, HeaderError> {
    let mut header = Vec::new();
    loop {
        let missing = missing(&header)?;
        if missing == 0 {
            return Ok(parse(&header)?);
        }
        let begin = header.len();
        header.resize(begin + missing, 0);
        let read = loop {
            stream.readable().await?;
            match stream.try_read(&mut header[begin..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => break read?,
            }
        };
        if read == 0 {
            return Err(HeaderError::Ended);
        }
        header.truncate(begin + read);
    }
}

/// How many more bytes surely belong to a header that begins like this; 0 if it is complete. So it can be read without reading past it.
///
/// # Errors
/// If no header begins like this.
pub fn missing(begin: &[u8]) -> Result<usize, Wrong> {
    if begin.len() < LEAST {
        let common = |text: &[u8]| begin.iter().zip(text).all(|(have, want)| have == want);
        return match common(v2::PROTOCOL_PREFIX) || common(V1_BEGIN) {
            true => Ok(LEAST - begin.len()),
            false => Err(Wrong::Missing),
        };
    }
    if begin.starts_with(v2::PROTOCOL_PREFIX) {
        let Some(length) = begin.get(V2_FIXED - 2..V2_FIXED) else {
            return Ok(V2_FIXED - begin.len());
        };
        let whole = V2_FIXED + usize::from(u16::from_be_bytes([length[0], length[1]]));
        return match whole > MAX_BYTES {
            true => Err(Wrong::TooLong),
            false => Ok(whole.saturating_sub(begin.len())),
        };
    }
    if !begin.starts_with(V1_BEGIN) {
        return Err(Wrong::Missing);
    }
    if begin.ends_with(V1_END) {
        return Ok(0);
    }
    // The shortest of each kind: what is shorter is read past its end, and is wrong.
    let least = match begin.get(V1_BEGIN.len()..LEAST - 1) {
        Some(b"TCP4 ") => "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".len(),
        Some(b"TCP6 ") => "PROXY TCP6 :: :: 0 0\r\n".len(),
        _ => "PROXY UNKNOWN\r\n".len(),
    };
    let end = if begin.ends_with(b"\r") { 1 } else { V1_END.len() };
    match begin.len() + end > V1_MAX {
        true => Err(Wrong::TooLong),
        false => Ok(end.max(least.saturating_sub(begin.len()))),
    }
}

/// What a complete header says.
///
/// # Errors
/// If it breaks the rules, or has more bytes than its own.
pub fn parse(header: &[u8]) -> Result<Source, Wrong> {
    let (source, length) = if header.starts_with(v2::PROTOCOL_PREFIX) {
        let parsed = v2::Header::try_from(header).map_err(|error| Wrong::Broken(error.to_string()))?;
        (source_of_v2(&parsed)?, parsed.len())
    } else {
        let parsed = v1::Header::try_from(header).map_err(|error| Wrong::Broken(error.to_string()))?;
        let source = match parsed.addresses {
            v1::Addresses::Tcp4(addresses) => Source::Client(addresses.source_address.into()),
            v1::Addresses::Tcp6(addresses) => Source::Client(addresses.source_address.into()),
            v1::Addresses::Unknown => Source::Proxy,
        };
        (source, parsed.header.len())
    };
    match length == header.len() {
        true => Ok(source),
        false => Err(Wrong::Broken("it ends within itself".to_owned())),
    }
}

fn source_of_v2(header: &v2::Header<'_>) -> Result<Source, Wrong> {
    if header.command == v2::Command::Local {
        return Ok(Source::Proxy);
    }
    match (header.protocol, &header.addresses) {
        (v2::Protocol::Datagram, _) => Err(Wrong::Broken("this is no datagram".to_owned())),
        (v2::Protocol::Stream, v2::Addresses::IPv4(addresses)) => Ok(Source::Client(addresses.source_address.into())),
        (v2::Protocol::Stream, v2::Addresses::IPv6(addresses)) => Ok(Source::Client(addresses.source_address.into())),
        // Something that has no address here.
        _ => Ok(Source::Proxy),
    }
}

#[cfg(test)]
mod tests;
