//! Listening sockets: one per worker, all on the same address, among which the kernel shares out the connections.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tracing::warn;

/// Connections that may wait to be accepted, as far as `net.core.somaxconn` lets them: many come back at the same time.
const BACKLOG: i32 = 16_384;

/// How long to wait after there was no file descriptor or memory for a connection. It is not lost: it waits in the backlog.
const SHORTAGE: Duration = Duration::from_millis(100);

/// The listening sockets of an edge, bound and not yet served.
#[derive(Debug)]
pub struct Listeners {
    pub(super) sockets: Vec<TcpListener>,
    address: SocketAddr,
}

impl Listeners {
    /// Binds as many sockets as there are workers. If the port is 0 the first gets one, which the others take too.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind(address: SocketAddr, workers: NonZeroUsize, send_buffer: Option<usize>) -> io::Result<Self> {
        is_free(address)?;
        let mut address = address;
        let mut sockets = Vec::with_capacity(workers.get());
        for _ in 0..workers.get() {
            let socket = listen(address, send_buffer)?;
            address = socket.local_addr()?;
            sockets.push(socket);
        }
        Ok(Self { sockets, address })
    }

    /// The address they listen on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Sockets that share a port share it with other processes of the same user, too: two servers started by mistake on the same address
/// would each get half of the connections. A socket that does not share tells.
fn is_free(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn listen(address: SocketAddr, send_buffer: Option<usize>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if let Some(bytes) = send_buffer {
        // Inherited by the connections.
        socket.set_send_buffer_size(bytes)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The next connection. Outlasts every error: those of a single connection are passed over, a shortage is waited out.
pub(super) async fn accept(listener: &tokio::net::TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Frames are whole writes: holding one back for the next only makes it late. A failure means the peer is gone.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept connections, trying again");
                tokio::time::sleep(SHORTAGE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_one_port() {
        let workers = NonZeroUsize::new(3).expect("not 0");
        let listeners = Listeners::bind(([127, 0, 0, 1], 0).into(), workers, None).expect("loopback");
        assert_ne!(listeners.address().port(), 0);
        for socket in &listeners.sockets {
            assert_eq!(socket.local_addr().expect("bound"), listeners.address());
        }
    }

    #[test]
    fn a_taken_port_is_refused() {
        let any = ([127, 0, 0, 1], 0).into();
        let other = Listeners::bind(any, NonZeroUsize::MIN, None).expect("loopback");
        let address = other.address();
        let error = Listeners::bind(address, NonZeroUsize::MIN, None).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(other);
        Listeners::bind(address, NonZeroUsize::MIN, None).expect("free again");
    }
}
