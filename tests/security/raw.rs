//! Bytes to a port, and what comes back.

use std::net::{IpAddr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::patiently;

/// Connects from an address of this machine: any of 127.0.0.0/8 is one.
pub(crate) async fn connect_from(from: impl Into<IpAddr>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.into(), 0))?;
    socket.connect(to).await
}

/// Says this, and hears everything until the connection is closed from the other side, in whichever way.
pub(crate) async fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = patiently("a connection", TcpStream::connect(address))
        .await
        .expect("it listens");
    let (mut read, mut write) = socket.split();
    let mut heard = Vec::new();
    // It may be closed while there is more to say.
    let said = async {
        let _ = write.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    let hearing = async {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(bytes @ 1..) = read.read(&mut chunk).await {
            heard.extend_from_slice(&chunk[..bytes]);
            // A stream does not end: its head is what there is to hear.
            if String::from_utf8_lossy(&heard).contains("text/event-stream") {
                return;
            }
        }
    };
    patiently("the end of a connection", async {
        tokio::select! { () = said => {}, () = hearing => {} }
    })
    .await;
    heard
}

/// The statuses of the answers in what was heard over HTTP/1, in their order.
pub(crate) fn statuses(heard: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(heard);
    text.match_indices("HTTP/1.")
        .filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok())
        .collect()
}
