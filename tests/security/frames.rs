//! HTTP/2, frame by frame: floods of what costs the sender nothing, and requests that another server would read differently.

use std::{net::SocketAddr, time::Duration};

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::Publisher,
    node::{Node, Setup},
    patiently,
    witness::Witness,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Headers as they are, without tables or Huffman's code. Each is shorter than 127 bytes.
fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A request for a stream of this edge, or for the JSON of the other port, which is refused: neither has a body.
fn request(path: &str) -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
    ])
}

async fn connect(address: SocketAddr, settings: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
    socket.write_all(&begin).await.expect("it is open");
    socket
}

/// Writes as much of it as is taken, and reads, or does not; answers how many bytes were taken before the connection was closed, or the flood stood
/// still for so long that it is known not to be read on.
async fn flood(address: SocketAddr, reads: bool, most: usize, mut next: impl FnMut() -> Vec<u8>) -> usize {
    let socket = connect(address, &[]).await;
    let (mut read, mut write) = socket.into_split();
    let reading = async {
        let mut chunk = vec![0; 64 * 1024];
        while reads && matches!(read.read(&mut chunk).await, Ok(1..)) {}
        if !reads {
            std::future::pending::<()>().await;
        }
    };
    let mut taken = 0;
    let writing = async {
        while taken < most {
            let bytes = next();
            match tokio::time::timeout(Duration::from_secs(3), write.write_all(&bytes)).await {
                Ok(Ok(())) => taken += bytes.len(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
    };
    patiently("a flood", async {
        tokio::select! { () = reading => {}, () = writing => {} }
    })
    .await;
    taken
}

/// Runs a flood against both ports that speak HTTP/2 until so many bytes, and shows that it costs little memory and nobody's service.
async fn withstands(name: &str, most: usize, make: impl Fn() -> Vec<u8> + Copy) {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    witness.is_served().await;
    let before = node.memory();
    for reads in [true, false] {
        let floods =
            join_all([node.addresses().http, node.addresses().grpc].map(|address| flood(address, reads, most, make)));
        let (_, took) = futures::join!(floods, witness.is_served());
        eprintln!("{name}: served within {took:?} meanwhile");
    }
    witness.is_served().await;
    let grown = node.most_memory().saturating_sub(before);
    assert!(grown < 96 << 20, "{name}: {} MiB", grown >> 20);
    let mut publisher = Publisher::connect(node.addresses()).await;
    publisher.publish(crate::client::event("after", name)).await;
}

const MUCH: usize = 24 << 20;

#[tokio::test]
async fn a_flood_of_settings() {
    withstands("settings", MUCH, || {
        frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(1_000)
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_pings() {
    withstands("pings", MUCH, || frame(PING, 0, 0, &[7; 8]).repeat(1_000)).await;
}

#[tokio::test]
async fn a_flood_of_priorities_and_windows() {
    withstands("priorities", MUCH, || {
        let priority = frame(PRIORITY, 0, 1_001, &[0, 0, 0, 0, 1]);
        let window = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
        [priority, window].concat().repeat(1_000)
    })
    .await;
}

#[tokio::test]
async fn a_head_that_goes_on_for_ever() {
    let node = Setup::new().start().await;
    let mut witness = Witness::of(&node).await;
    let before = node.memory();
    for size in [0, 1, 1_000, 16_384] {
        for address in [node.addresses().http, node.addresses().grpc] {
            let mut begun = false;
            let taken = flood(address, true, 64 << 20, || {
                let begin = if begun {
                    Vec::new()
                } else {
                    frame(HEADERS, END_STREAM, 1, &request("/v1/events?topic=a"))
                };
                begun = true;
                let field = block(&[("x", &"y".repeat(100))]);
                let payload: Vec<u8> = field.iter().copied().cycle().take(size).collect();
                [begin, frame(CONTINUATION, 0, 1, &payload).repeat(64)].concat()
            })
            .await;
            assert!(
                taken < 64 << 20,
                "continuations of {size} bytes: all of {taken} were taken"
            );
        }
    }
    witness.is_served().await;
    let grown = node.most_memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
}

#[tokio::test]
async fn streams_that_are_asked_for_and_reset() {
    const RESETS: u32 = 200_000;
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let before = node.memory();
    for (address, path) in [
        (node.addresses().http, "/v1/events?topic=a"),
        (node.addresses().http, "/nowhere"),
        (node.addresses().grpc, "/v1/publish"),
    ] {
        let mut stream = 1;
        let block = request(path);
        let floods = flood(address, true, RESETS as usize * 64, || {
            let mut frames = Vec::new();
            for _ in 0..100 {
                frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block));
                frames.extend(frame(RESET, 0, stream, &[0, 0, 0, 8]));
                stream += 2;
            }
            frames
        });
        let (taken, took) = futures::join!(floods, witness.is_served());
        assert!(taken < RESETS as usize * 64, "{path}: all {RESETS} resets were taken");
        eprintln!("resets of {path}: closed after {taken} bytes; others were served within {took:?}");
    }
    witness.is_served().await;
    let grown = node.most_memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
}

/// The window is closed from the start: nothing of any stream can be sent, and none may cost more than its queue.
#[tokio::test]
async fn windows_that_never_open() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    let data = "x".repeat(60_000);
    publisher.publish_many("much", (0..500).map(|_| data.clone())).await;
    let before = node.memory();
    let mut shut = Vec::new();
    for _ in 0..4 {
        let mut socket = connect(node.addresses().http, &[0, 4, 0, 0, 0, 0]).await;
        let asked: Vec<u8> = (0..200)
            .flat_map(|number| {
                let block = request("/v1/events?topic=much&since=earliest");
                frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &block)
            })
            .collect();
        socket.write_all(&asked).await.expect("it is open");
        shut.push(socket);
    }
    publisher.publish_many("much", (0..500).map(|_| data.clone())).await;
    witness.is_served().await;
    let grown = node.most_memory().saturating_sub(before);
    assert!(grown < 512 << 20, "{} MiB for 800 streams", grown >> 20);
    drop(shut);
    witness.is_served().await;
}

/// What becomes of a request that RFC 9113 calls malformed, or that names two hosts.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Answered(u16),
    Refused,
}

async fn ask(address: SocketAddr, block: &[u8]) -> Fate {
    let mut socket = connect(address, &[]).await;
    let asked = frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
    socket.write_all(&asked).await.expect("it is open");
    let mut heard = Vec::new();
    patiently("an answer", async {
        loop {
            let mut rest = &heard[..];
            while let [a, b, c, kind, _, _, _, _, stream, ..] = *rest {
                let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).expect("short");
                let Some(payload) = rest.get(9..9 + length) else { break };
                match (kind, stream, payload) {
                    (HEADERS, 1, [0x88, ..]) => return Fate::Answered(200),
                    (HEADERS, 1, [0x8c, ..]) => return Fate::Answered(400),
                    (HEADERS, 1, [0x8d, ..]) => return Fate::Answered(404),
                    // `:status` by name, 421 and 431 in Huffman's code.
                    (HEADERS, 1, [0x48, 0x82, 0x68, 0x41, ..]) => return Fate::Answered(421),
                    (HEADERS, 1, [0x48, 0x83, 0x69, 0x90, 0xff, ..]) => return Fate::Answered(431),
                    (HEADERS, 1, other) => panic!("another answer: {other:?}"),
                    (RESET, 1, _) | (7, ..) => return Fate::Refused,
                    _ => {}
                }
                rest = &rest[9 + length..];
            }
            match socket.read_buf(&mut heard).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Fate::Refused,
            }
        }
    })
    .await
}

#[tokio::test]
async fn heads_are_read_one_way() {
    let node = Setup::new().start().await;
    let mut witness = Witness::of(&node).await;
    let whole = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/nowhere"),
    ];
    let with = |more: &[(&'static str, &'static str)]| block(&[&whole[..], more].concat());
    let cases = [
        ("as it should be", with(&[]), Fate::Answered(404)),
        ("te: trailers", with(&[("te", "trailers")]), Fate::Answered(404)),
        (
            "the same host twice told",
            with(&[("host", "localhost")]),
            Fate::Answered(404),
        ),
        ("another host", with(&[("host", "127.0.0.1")]), Fate::Answered(400)),
        (
            "two hosts",
            with(&[("host", "localhost"), ("host", "localhost")]),
            Fate::Answered(400),
        ),
        ("connection", with(&[("connection", "keep-alive")]), Fate::Refused),
        ("keep-alive", with(&[("keep-alive", "1")]), Fate::Refused),
        ("proxy-connection", with(&[("proxy-connection", "x")]), Fate::Refused),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
            Fate::Refused,
        ),
        ("upgrade", with(&[("upgrade", "h2c")]), Fate::Refused),
        ("te: chunked", with(&[("te", "chunked")]), Fate::Refused),
        ("a name in upper case", with(&[("X-Y", "z")]), Fate::Refused),
        ("a name with a space", with(&[("x y", "z")]), Fate::Refused),
        ("a line break in a value", with(&[("x", "a\r\nb: c")]), Fate::Refused),
        ("a null in a value", with(&[("x", "a\0b")]), Fate::Refused),
        ("a length, and no body", with(&[("content-length", "5")]), Fate::Refused),
        (
            "lengths",
            with(&[("content-length", "0"), ("content-length", "5")]),
            Fate::Refused,
        ),
        (
            "a pseudo-header after another",
            with(&[("x", "y"), (":path", "/")]),
            Fate::Refused,
        ),
        ("two paths", with(&[(":path", "/v1/events?topic=a")]), Fate::Refused),
        ("two authorities", with(&[(":authority", "localhost")]), Fate::Refused),
        ("a status", with(&[(":status", "200")]), Fate::Refused),
        ("an unknown pseudo-header", with(&[(":x", "y")]), Fate::Refused),
        (
            "no path",
            block(&[(":method", "GET"), (":scheme", "http"), (":authority", "localhost")]),
            Fate::Refused,
        ),
        (
            "no method",
            block(&[(":scheme", "http"), (":authority", "localhost"), (":path", "/nowhere")]),
            Fate::Refused,
        ),
        (
            "no scheme",
            block(&[(":method", "GET"), (":authority", "localhost"), (":path", "/nowhere")]),
            Fate::Refused,
        ),
        (
            "an empty path",
            block(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "localhost"),
                (":path", ""),
            ]),
            Fate::Refused,
        ),
        (
            "a path with a space",
            block(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "localhost"),
                (":path", "/no where"),
            ]),
            Fate::Refused,
        ),
        (
            "a path with a line break",
            block(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "localhost"),
                (":path", "/\r\nx: y"),
            ]),
            Fate::Refused,
        ),
        (
            "no authority",
            block(&[(":method", "GET"), (":scheme", "http"), (":path", "/nowhere")]),
            Fate::Answered(400),
        ),
        (
            "a name that was led here",
            block(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "evil.example"),
                (":path", "/nowhere"),
            ]),
            Fate::Answered(421),
        ),
        (
            "somebody at a host",
            block(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "evil@localhost"),
                (":path", "/nowhere"),
            ]),
            Fate::Answered(400),
        ),
    ];
    let mut wrong = Vec::new();
    for (port, address) in [
        ("streams", node.addresses().http),
        ("publishing", node.addresses().grpc),
    ] {
        for (name, block, want) in &cases {
            let got = ask(address, block).await;
            if got != *want {
                wrong.push(format!("{port}: {name}: {got:?}, not {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    witness.is_served().await;
}
