//! A connection that can freeze: it stays open, and nothing moves on it, as when a process hangs or a cable is pulled.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// Passes everything on to an address, until it is frozen.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    frozen: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let frozen = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let flag = frozen.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((from, _)) = listener.accept().await {
                let Ok(to) = TcpStream::connect(target).await else {
                    continue;
                };
                let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
                connections.spawn(pass(from_read, to_write, flag.subscribe()));
                connections.spawn(pass(to_read, from_write, flag.subscribe()));
            }
        });
        Self {
            address,
            frozen,
            _tasks: tasks,
        }
    }

    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut frozen: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
