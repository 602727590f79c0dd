//! Clients that take their time for ever. Each is cut off in the end, and none of them before a client that merely has little to say.

use std::{net::SocketAddr, time::Duration};

use futures::future::join_all;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::{Publisher, post},
    node::{Node, Setup},
    patiently,
    raw::statuses,
    sse::Ask,
    witness::Witness,
};

/// Says the beginning, then a byte of the rest now and then, again and again, until it is cut off; answers what came back.
async fn trickle(address: SocketAddr, begin: &str, rest: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    socket.write_all(begin.as_bytes()).await.expect("it is open");
    let (mut read, mut write) = socket.split();
    let saying = async {
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        for byte in rest.bytes().cycle() {
            pace.tick().await;
            if write.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut heard = Vec::new();
    let hearing = async { while let Ok(1..) = read.read_buf(&mut heard).await {} };
    patiently(format_args!("the end of {begin:?}"), async {
        tokio::select! { () = saying => {}, () = hearing => {} }
    })
    .await;
    heard
}

#[tokio::test]
async fn heads_that_never_end() {
    let node = Setup::new().set("http.header_timeout", "2s").start().await;
    let mut witness = Witness::of(&node).await;
    let addresses = node.addresses();
    let trickles = [addresses.http, addresses.grpc, addresses.admin].map(|address| async move {
        join_all([
            trickle(address, "GET / HTTP/1.1\r\nhost: localhost\r\n", "x: y\r\n"),
            trickle(address, "GET /", "x"),
            trickle(address, "", "\r\n"),
        ])
        .await
    });
    for heard in join_all(trickles).await.into_iter().flatten() {
        assert!(
            matches!(statuses(&heard)[..], [] | [400 | 408 | 414 | 431]),
            "{heard:?}"
        );
    }
    // Half a preface, which is neither of the versions.
    join_all([addresses.http, addresses.grpc].map(|address| trickle(address, "PRI * HTTP/2.0\r\n\r\nSM\r\n", "")))
        .await;
    witness.is_served().await;
}

#[tokio::test]
async fn bodies_that_never_end() {
    let node = Setup::new().set("grpc.body_timeout", "2s").start().await;
    let mut witness = Witness::of(&node).await;
    let grpc = node.addresses().grpc;
    let head = |content_type: &str, length: &str| {
        format!("POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n{length}\r\n")
    };
    let length = "content-length: 1000000\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let heard = join_all([
        // One object: all of it must be there in time.
        trickle(grpc, &head("application/json", length), " "),
        trickle(
            grpc,
            &format!("{}{{\"topics\":[\"a\"],\"data\":\"", head("application/json", length)),
            "x",
        ),
        trickle(grpc, &head("application/json", chunked), "1\r\nx\r\n"),
        trickle(grpc, &head("application/json", length), ""),
        // Lines: each of them must.
        trickle(grpc, &head("application/x-ndjson", length), "x"),
        trickle(
            grpc,
            &format!("{}{{\"topics\":[\"a\"]}}\n{{\"to", head("application/x-ndjson", length)),
            "",
        ),
    ])
    .await;
    for (heard, want) in heard.iter().zip([408, 408, 408, 408, 200, 200]) {
        let text = String::from_utf8_lossy(heard);
        assert_eq!(statuses(heard), [want], "{text}");
        assert!(text.contains("did not arrive within 2s"), "{text}");
    }
    let text = String::from_utf8_lossy(&heard[5]);
    assert!(
        text.contains("\"sequence\":") && text.contains("{\"line\":2,\"error\":{"),
        "{text}"
    );
    witness.is_served().await;
}

/// Little to say, for longer than a body may be silent: blank lines are enough, and no answer is lost.
#[tokio::test]
async fn a_stream_of_lines_may_last() {
    let node = Setup::new().set("grpc.body_timeout", "1s").start().await;
    let mut witness = Witness::of(&node).await;
    let mut stream = Ask::topic("lasting")
        .open(node.addresses().http)
        .await
        .expect("a stream");
    let mut socket = TcpStream::connect(node.addresses().grpc).await.expect("it listens");
    let head = "POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.expect("it is open");
    let mut pace = tokio::time::interval(Duration::from_millis(250));
    for number in 0..20 {
        pace.tick().await;
        let line = match number % 5 {
            0 => format!("{{\"topics\":[\"lasting\"],\"data\":\"{number}\"}}\n"),
            _ => "\n".to_owned(),
        };
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        socket.write_all(chunk.as_bytes()).await.expect("it is open");
    }
    socket.write_all(b"0\r\n\r\n").await.expect("it is open");
    assert_eq!(stream.data(4).await, ["0", "5", "10", "15"]);
    let mut answers = String::new();
    while answers.matches("\"sequence\":").count() < 4 {
        let mut chunk = vec![0; 4_096];
        let bytes = patiently("the answers", socket.read(&mut chunk))
            .await
            .expect("it is open");
        assert_ne!(bytes, 0, "{answers}");
        answers.push_str(&String::from_utf8_lossy(&chunk[..bytes]));
    }
    assert!(!answers.contains("error"), "{answers}");
    witness.is_served().await;
}

/// They cost what their queue may hold, each, and nobody else waits for them.
#[tokio::test]
async fn readers_that_never_read() {
    const STUCK: usize = 200;
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let mut stuck = Vec::new();
    for number in 0..STUCK {
        let ask = Ask::topic("much").receive_buffer(4_096);
        let stream = if number % 2 == 0 {
            ask.open(node.addresses().http).await
        } else {
            ask.open_http2(node.addresses().http).await
        };
        stuck.push(stream.expect("a stream"));
    }
    let before = node.memory();
    let mut publisher = Publisher::connect(node.addresses()).await;
    let data = "x".repeat(60_000);
    // More than all queues together could hold, if they had no bound.
    publisher.publish_many("much", (0..1_000).map(|_| data.clone())).await;
    witness.is_served().await;
    let grown = node.memory().saturating_sub(before);
    assert!(grown < 512 << 20, "{} MiB for {STUCK} readers", grown >> 20);
    drop(stuck);
    witness.is_served().await;
}

/// Nobody reads the answers: then nothing more of the lines is read either.
#[tokio::test]
async fn publishers_that_never_read() {
    let node = Node::start().await;
    let mut witness = Witness::of(&node).await;
    let before = node.memory();
    let mut socket = TcpStream::connect(node.addresses().grpc).await.expect("it listens");
    let head = "POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.expect("it is open");
    // Lines that are refused at length.
    let line = format!("{{\"{}\":1}}\n", "n".repeat(1_000)).repeat(100);
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let write = async { while socket.write_all(chunk.as_bytes()).await.is_ok() {} };
    assert!(
        tokio::time::timeout(Duration::from_secs(5), write).await.is_err(),
        "it is closed rather than left waiting"
    );
    let grown = node.memory().saturating_sub(before);
    assert!(grown < 128 << 20, "{} MiB", grown >> 20);
    let answer = post(
        node.addresses(),
        &[("content-type", "application/json")],
        r#"{"topics":["a"]}"#,
    )
    .await;
    let answer: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert!(answer["results"][0]["sequence"].is_u64(), "{answer}");
    witness.is_served().await;
}
