use proptest::prelude::*;

use super::*;

/// Reads as the socket does, and says how many bytes it took.
fn read_from(mut bytes: &[u8]) -> (Result<Source, Wrong>, usize) {
    let all = bytes.len();
    let mut header = Vec::new();
    loop {
        let missing = match missing(&header) {
            Ok(0) => return (parse(&header), all - bytes.len()),
            Ok(missing) => missing,
            Err(wrong) => return (Err(wrong), all - bytes.len()),
        };
        let Some((more, rest)) = bytes.split_at_checked(missing) else {
            return (Err(Wrong::Missing), all);
        };
        header.extend_from_slice(more);
        bytes = rest;
    }
}

fn v1(source: IpAddr, destination: IpAddr, ports: (u16, u16)) -> Vec<u8> {
    let kind = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {kind} {source} {destination} {} {}\r\n", ports.0, ports.1).into_bytes()
}

fn v2(source: IpAddr, destination: IpAddr, ports: (u16, u16), tlvs: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let addresses = v2::Addresses::from((
        std::net::SocketAddr::new(source, ports.0),
        std::net::SocketAddr::new(destination, ports.1),
    ));
    let version = v2::Version::Two | v2::Command::Proxy;
    let mut builder = v2::Builder::with_addresses(version, v2::Protocol::Stream, addresses);
    for (kind, value) in tlvs {
        builder = builder.write_tlv(*kind, value).expect("short");
    }
    builder.build().expect("short")
}

fn pair() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into()));
    // Text of an IPv4 address within IPv6 is read as what it is.
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into()));
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn every_header_is_read_to_its_end(
        (source, destination) in pair(),
        ports: (u16, u16),
        tlvs in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..100)), 0..5),
        rest in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        for header in [v1(source, destination, ports), v2(source, destination, ports, &tlvs)] {
            let length = header.len();
            let sent = [header, rest.clone()].concat();
            prop_assert_eq!(read_from(&sent), (Ok(Source::Client(source)), length));
        }
    }

    /// It ends, reads no more than it may, and asks for nothing absurd.
    #[test]
    fn anything_is_read_within_bounds(
        begin in prop::sample::select(vec![&b""[..], v2::PROTOCOL_PREFIX, b"\r\n\r\n\0\r\nQUIT\n\x21\x11", V1_BEGIN, b"PROXY TCP4 ", b"PROXY TCP6 "]),
        rest in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b'1'), Just(b'.')], 0..6_000),
    ) {
        let (source, read) = read_from(&[begin, &rest].concat());
        prop_assert!(source.is_err() || read <= MAX_BYTES);
    }

    #[test]
    fn a_byte_changed_is_another_header_or_none(
        (source, destination) in pair(),
        at: prop::sample::Index,
        to: u8,
        version2: bool,
    ) {
        let mut header = match version2 {
            true => v2(source, destination, (1, 2), &[]),
            false => v1(source, destination, (1, 2)),
        };
        let at = at.index(header.len());
        header[at] = to;
        let (read, _) = read_from(&header);
        if read == Ok(Source::Proxy) {
            prop_assert!(version2, "{}", header.escape_ascii());
        }
    }
}
