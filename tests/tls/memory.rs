//! Memory of idle streams over TLS, as the system sees it. What is compared was measured in the same run: no figure is demanded as such.
//! `cargo test --test tls -- --nocapture memory` prints them.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidings::tls::{ClientFiles, ClientTls, NamedFile, Protocol};
use tidings_loadtest::{
    Node,
    process::{Memory, raise_file_limit},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    authority::{Authority, Key, text},
    node::PROGRAM,
    patiently,
};

const STREAMS: usize = 1_000;

/// How streams are asked for.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Over HTTP/1.1, each on its own connection.
    Http1,
    /// Over HTTP/2, so many on each connection.
    Http2(usize),
}

/// What keeps streams open.
#[derive(Default)]
struct Held {
    http1: Vec<Box<dyn Send>>,
    http2: Vec<(SendRequest<Empty<Bytes>>, Vec<Incoming>)>,
}

impl Held {
    async fn grow(&mut self, node: &Node, tls: &ClientTls, way: Way, count: usize) {
        let address = node.streams(0);
        let connect = |protocol| async move {
            let socket = TcpStream::connect(address).await.expect("it listens");
            tls.connect("localhost", socket, protocol).await.expect("let in")
        };
        match way {
            Way::Http1 => {
                for _ in 0..count {
                    let mut stream = connect(Protocol::Http1).await;
                    let request = b"GET /v1/events?topic=a HTTP/1.1\r\nhost: localhost\r\n\r\n";
                    stream.write_all(request).await.expect("taken");
                    let mut head = Vec::new();
                    while !head.windows(7).any(|bytes| bytes == b"retry: ") {
                        assert_ne!(stream.read_buf(&mut head).await.expect("readable"), 0);
                    }
                    self.http1.push(Box::new(stream));
                }
            }
            Way::Http2(each) => {
                for _ in 0..count / each {
                    let io = TokioIo::new(connect(Protocol::Http2).await);
                    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
                    let (mut sender, connection) = handshake.await.expect("HTTP/2");
                    // It ends when all of it is dropped.
                    tokio::spawn(connection);
                    let mut bodies = Vec::new();
                    for _ in 0..each {
                        let request = http::Request::get(format!("https://{address}/v1/events?topic=a"));
                        let request = request.body(Empty::new()).expect("a request");
                        let mut body = sender.send_request(request).await.expect("an answer").into_body();
                        body.frame().await.expect("a beginning").expect("readable");
                        bodies.push(body);
                    }
                    self.http2.push((sender, bodies));
                }
            }
        }
    }
}

/// What each of a thousand more streams takes, in bytes.
async fn each(way: Way) -> u64 {
    raise_file_limit().expect("allowed");
    let authority = Authority::new(Key::Ec);
    let pair = authority.local("edge");
    let settings = [
        ("TIDINGS_HTTP__TLS_CERT", text(&pair.cert)),
        ("TIDINGS_HTTP__TLS_KEY", text(&pair.key)),
    ];
    let node = Node::start(Path::new(PROGRAM), None, &settings).expect("started");
    let anonymous = || {
        Memory::of(node.process().expect("started here"))
            .expect("readable")
            .anonymous
    };
    let files = ClientFiles {
        ca: Some(NamedFile::new("--ca", authority.ca())),
        identity: None,
    };
    let tls = ClientTls::load(files).expect("good files");
    let mut held = Held::default();
    held.grow(&node, &tls, way, STREAMS).await;
    let before = anonymous();
    held.grow(&node, &tls, way, STREAMS).await;
    let after = anonymous();
    let each = after.checked_sub(before).expect("streams take memory") / STREAMS as u64;
    println!("{way:?}: {each} bytes a stream");
    each
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_share_a_connection_take_less() {
    let measured = async {
        (
            each(Way::Http1).await,
            each(Way::Http2(1)).await,
            each(Way::Http2(100)).await,
        )
    };
    let (http1, alone, shared) = patiently("measuring", measured).await;
    assert!(shared < alone / 2 && shared < http1 / 2, "{shared} {alone} {http1}");
}
