//! How a connection begins.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// What the system may hold of a stream that is read slowly, in bytes.
const SLOW_BUFFER: usize = 4 * 1_024;

/// Begins one. To the loopback it comes from the address of this process.
///
/// # Errors
/// If the system refuses.
pub(super) fn dial(server: SocketAddr, source: Ipv4Addr, is_slow: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if server.is_ipv4() && server.ip().is_loopback() {
        // The ports of connections that are over may be taken again.
        socket.set_reuse_address(true)?;
        // The port is chosen when it connects, when it is known to whom: that is a look-up, where a port that nobody else of this address has
        // is a search, and a long one when most of them are taken.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    if is_slow {
        // What the system takes off the server's hands beforehand does not wait for the reader.
        socket.set_recv_buffer_size(SLOW_BUFFER)?;
    }
    match socket.connect(&server.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    socket.set_tcp_nodelay(true)?;
    Ok(TcpStream::from_std(socket.into()))
}
