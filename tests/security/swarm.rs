//! A process of its own that holds many connections, since this one may not open enough files: the same test program, told by its environment what to do.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{patiently, raw::connect_from};

const TARGET: &str = "SWARM_TARGET";
const COUNT: &str = "SWARM_COUNT";
const NUMBER: &str = "SWARM_NUMBER";

/// What one of them says before it says no more.
const BEGINNINGS: [&[u8]; 5] = [
    b"",
    b"GET /v1/events?topic=a HTTP/1.1\r\nhost: loc",
    b"PRI * HTTP/2.0\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    b"\r\n",
];

/// How long one that was cut off stays away.
const PAUSE: Duration = Duration::from_secs(5);

/// Connections that are opened, begun and left there, and opened again when they are cut off. They go with this.
pub(crate) struct Swarm(#[expect(dead_code, reason = "it is held")] Vec<(Child, Output)>);

/// What a process says: one that nobody hears ends when it says something.
type Output = Lines<BufReader<ChildStdout>>;

impl Swarm {
    /// So many processes with so many connections each, once each connection was there.
    pub(crate) async fn start(target: SocketAddr, processes: usize, count: usize) -> Self {
        let mut children = Vec::new();
        for number in 0..processes {
            let mut child = Command::new(std::env::current_exe().expect("this program"))
                .args(["swarm::a_process_of_the_swarm", "--exact", "--nocapture"])
                .env(TARGET, target.to_string())
                .env(COUNT, count.to_string())
                .env(NUMBER, number.to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .expect("it starts");
            let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
            children.push(async move {
                while let Some(line) = lines.next_line().await.expect("text") {
                    if line.contains("the swarm is there") {
                        return (child, lines);
                    }
                }
                panic!("the swarm ended");
            });
        }
        Self(patiently("the swarm", futures::future::join_all(children)).await)
    }
}

/// Does nothing unless it was started by [`Swarm::start`].
#[tokio::test]
async fn a_process_of_the_swarm() {
    let said = |name: &str| std::env::var(name).ok();
    let (Some(target), Some(count), Some(number)) = (said(TARGET), said(COUNT), said(NUMBER)) else {
        return;
    };
    let target: SocketAddr = target.parse().expect("an address");
    let count: u32 = count.parse().expect("a number");
    let number: u8 = number.parse().expect("a number");
    tidings::edge::limits::raise_file_limit().expect("allowed");
    let (there, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    for index in 0..count {
        let there = there.clone();
        tokio::spawn(async move {
            // Fifty from each address: nobody is over a limit of an address.
            let [_, _, high, low] = (index / 50).to_be_bytes();
            let from = Ipv4Addr::new(127, 100 + number, high, low);
            let beginning = BEGINNINGS[index as usize % BEGINNINGS.len()];
            loop {
                if let Ok(mut socket) = connect_from(from, target).await {
                    let _ = socket.write_all(beginning).await;
                    let _ = there.send(());
                    while matches!(socket.read(&mut [0; 512]).await, Ok(1..)) {}
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    for _ in 0..count {
        arrived.recv().await.expect("they are many");
    }
    println!("the swarm is there");
    std::future::pending::<()>().await;
}
