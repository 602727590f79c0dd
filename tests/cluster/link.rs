//! A link between two processes that can be cut: a TCP proxy of the tests' own.
//!
//! Network namespaces would cut packets and so be closer to the real thing, but need rights that not every machine gives (containers and
//! laptops do not), and a test that runs here and not there shows little. A proxy works everywhere and cuts one link at a time. What it keeps
//! of the real thing: while a link hangs, nothing that was sent is lost and nothing arrives, closing included, and connecting succeeds but is
//! never answered; when it is whole again, connections go on with every byte, as they do when TCP sends again.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::AbortHandle,
};

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// As it should be.
    Whole,
    /// Nothing passes, and nobody is told.
    Hanging,
    /// What is connected is reset, and so is who tries to.
    Resetting,
}

/// A link to an address.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    target: Arc<OnceLock<SocketAddr>>,
    state: Arc<watch::Sender<State>>,
    listening: AbortHandle,
}

impl Link {
    /// A link on an address of its own that leads to this one, where nobody needs to listen yet.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let link = Self::nowhere().await;
        link.lead_to(target);
        link
    }

    /// A link that leads nowhere yet: who connects is let go.
    pub(crate) async fn nowhere() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(watch::channel(State::Whole).0);
        let target = Arc::new(OnceLock::new());
        let listening = tokio::spawn(listen(listener, Arc::clone(&target), Arc::clone(&state)));
        Self {
            address,
            target,
            state,
            listening: listening.abort_handle(),
        }
    }

    /// Has it lead there, for good.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.set(target).expect("it leads nowhere yet");
    }

    /// Where it begins.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts or mends it.
    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // With the listener goes its handle on the state, by whose end connections know that all is over.
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, target: Arc<OnceLock<SocketAddr>>, state: Arc<watch::Sender<State>>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                if let Some(&target) = target.get() {
                    tokio::spawn(carry(socket, target, state.subscribe()));
                }
            }
            // Too many files are open: some are closed before long.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection, from its beginning to its end.
async fn carry(mut near: TcpStream, target: SocketAddr, state: watch::Receiver<State>) {
    let mut reset = state.clone();
    let carried = async {
        passes(&state).await?;
        let mut far = TcpStream::connect(target).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let both = tokio::try_join!(
            pump(near_read, far_write, state.clone()),
            pump(far_read, near_write, state.clone())
        );
        // One end broke: what it would tell the other has to get through as well.
        passes(&state).await?;
        both
    };
    let ended = tokio::select! {
        carried = carried => carried.map(drop),
        _ = reset.wait_for(|state| *state == State::Resetting) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if ended.is_err() {
        // Closed with a reset. Where it fails, closing tells enough.
        let _ = SockRef::from(&near).set_linger(Some(Duration::ZERO));
    }
}

/// Carries one direction up to its end.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, state: watch::Receiver<State>) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut bytes).await;
        // What was under way when the link was cut stays under way.
        passes(&state).await?;
        match read? {
            0 => return to.shutdown().await,
            read => to.write_all(&bytes[..read]).await?,
        }
    }
}

/// Waits until the link is whole.
async fn passes(state: &watch::Receiver<State>) -> io::Result<()> {
    let whole = state.clone().wait_for(|state| *state == State::Whole).await.map(drop);
    whole.map_err(io::Error::other)
}

/// One that answers everything with itself, at an address.
#[cfg(test)]
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_hangs_loses_nothing_and_one_that_resets_tells() {
    let link = Link::to(echo().await).await;
    let mut socket = TcpStream::connect(link.address()).await.expect("a connection");
    let mut answer = [0; 5];
    socket.write_all(b"first").await.expect("sent");
    socket.read_exact(&mut answer).await.expect("answered");
    assert_eq!(&answer, b"first");

    link.set(State::Hanging);
    socket.write_all(b"later").await.expect("sent");
    let mut new = TcpStream::connect(link.address()).await.expect("a connection");
    new.write_all(b"newer").await.expect("sent");
    let silent = tokio::time::timeout(Duration::from_millis(100), socket.read_exact(&mut answer)).await;
    assert!(silent.is_err(), "it passed through a cut");
    link.set(State::Whole);
    for (socket, expected) in [(&mut socket, b"later"), (&mut new, b"newer")] {
        let read = crate::patiently("the answer", socket.read_exact(&mut answer)).await;
        read.expect("answered");
        assert_eq!(&answer, expected);
    }

    link.set(State::Resetting);
    let told = crate::patiently("the reset", socket.read(&mut answer)).await;
    assert_eq!(told.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
    // Whoever tries to connect may hear of it while doing so.
    let tried = async { TcpStream::connect(link.address()).await?.read(&mut answer).await };
    let told = crate::patiently("the reset", tried).await;
    assert_eq!(told.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
}
