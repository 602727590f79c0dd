//! One address that takes all it can get, while others on other addresses are served.

use std::{net::Ipv4Addr, time::Duration};

use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    node::{Node, Setup},
    patiently,
    raw::connect_from,
    witness::Witness,
};

const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 66, 6, 6);

async fn node() -> Node {
    let setup = Setup::new().set("limits.exempt_loopback", "false");
    let setup = setup.set("limits.connections_per_address", "50");
    setup.set("limits.attempts_per_second_per_address", "100").start().await
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// A stream that stays.
    Served,
    /// Told to come back later.
    Shed,
    /// Closed without a word.
    Closed,
}

async fn attempt(node: &Node) -> (Fate, Option<tokio::net::TcpStream>) {
    let Ok(mut socket) = connect_from(GREEDY, node.addresses().http).await else {
        return (Fate::Closed, None);
    };
    let ask = b"GET /v1/events?topic=a HTTP/1.1\r\nhost: localhost\r\n\r\n";
    if socket.write_all(ask).await.is_err() {
        return (Fate::Closed, None);
    }
    let mut heard = Vec::new();
    loop {
        let closed = !matches!(socket.read_buf(&mut heard).await, Ok(1..));
        let text = String::from_utf8_lossy(&heard);
        if text.contains("\n:\n") {
            return (Fate::Served, Some(socket));
        }
        if closed {
            let fate = if text.contains("retry: ") {
                Fate::Shed
            } else {
                Fate::Closed
            };
            return (fate, None);
        }
    }
}

#[tokio::test]
async fn streams_of_one_address() {
    const ATTEMPTS: usize = 2_000;
    let node = node().await;
    let mut witness = Witness::of(&node).await;
    let attempts = async {
        let mut held = Vec::new();
        let mut fates = Vec::new();
        for _ in 0..ATTEMPTS / 100 {
            let some = join_all((0..100).map(|_| attempt(&node))).await;
            for (fate, socket) in some {
                fates.push(fate);
                held.extend(socket);
            }
        }
        (held, fates)
    };
    let lives = async {
        for _ in 0..10 {
            witness.is_served().await;
        }
    };
    let ((held, fates), ()) = patiently("a flood", async { futures::join!(attempts, lives) }).await;
    let count = |wanted| fates.iter().filter(|fate| **fate == wanted).count();
    assert_eq!((held.len(), count(Fate::Served)), (50, 50), "{fates:?}");
    assert!(count(Fate::Shed) > 0, "nobody is told to come back");
    drop(held);
    witness.is_served().await;
}

/// Whole answers are not counted as attempts: they cost no place, and those of one address do not keep others from theirs.
#[tokio::test]
async fn requests_of_one_address() {
    let node = node().await;
    let mut witness = Witness::of(&node).await;
    let ask = b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(500);
    let asking = join_all((0..20).map(async |_| {
        let socket = connect_from(GREEDY, node.addresses().http).await.expect("it listens");
        let (mut read, mut write) = socket.into_split();
        let saying = async {
            for _ in 0..20 {
                if write.write_all(&ask).await.is_err() {
                    return;
                }
            }
        };
        let hearing = async {
            let mut chunk = vec![0; 64 * 1024];
            while matches!(
                tokio::time::timeout(Duration::from_secs(5), read.read(&mut chunk)).await,
                Ok(Ok(1..))
            ) {}
        };
        futures::join!(saying, hearing);
    }));
    let lives = async {
        for _ in 0..10 {
            witness.is_served().await;
        }
    };
    patiently("a flood", async { futures::join!(asking, lives) }).await;
    witness.is_served().await;
}
