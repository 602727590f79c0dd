//! Memory of idle streams, as the system sees it. What is compared was measured in the same run: no figure is demanded as such.

use std::path::Path;

use tidings::model::UnixMillis;
use tidings_loadtest::{
    Node,
    hold::{Held, Topics},
    process::{Memory, raise_file_limit},
    stream::connect,
};
use tokio::io::AsyncReadExt as _;

const STREAMS: usize = 1_000;
/// Streams that are being opened at the same time: what a request needs for a moment is not what an open stream needs.
const OPENING: usize = 16;

/// How often all streams are opened and closed in a round,
const CYCLES: usize = 5;
/// and how many rounds there are, of which the first brings tables and heap to the size that this takes: what one round leaves behind, the
/// others leave again.
const ROUNDS: usize = 4;

const ONE: Topics = Topics { each: 1, own: 1 };
const FOUR: Topics = Topics { each: 4, own: 1 };

fn serve() -> Node {
    raise_file_limit().expect("allowed");
    // What is noted for the heartbeat of a stream that has ended is forgotten when that would have been due.
    let settings = [("TIDINGS_HTTP__HEARTBEAT", "1s")];
    Node::start(Path::new(env!("CARGO_BIN_EXE_tidings")), None, &settings).expect("started")
}

fn anonymous(node: &Node) -> u64 {
    let pid = node.process().expect("started here");
    Memory::of(pid).expect("readable").anonymous
}

/// The memory that a thousand more streams take.
async fn growth(topics: Topics) -> u64 {
    let node = serve();
    let mut held = Held::new(node.streams(0), topics);
    held.grow(STREAMS / 2, OPENING).await.expect("opened");
    let before = anonymous(&node);
    held.grow(STREAMS / 2 + STREAMS, OPENING).await.expect("opened");
    let after = anonymous(&node);
    assert_eq!(held.open(), STREAMS / 2 + STREAMS);
    after.checked_sub(before).expect("a thousand streams take memory")
}

/// The memory that a thousand more streams take of users with a token of their own.
async fn growth_with_tokens() -> u64 {
    const SECRET: &str = "a secret of more than 32 bytes, for tests alone";
    raise_file_limit().expect("allowed");
    let issuer = format!("[{{ audience = [\"tidings\"], secret = \"{SECRET}\" }}]");
    let settings = [("TIDINGS_HTTP__HEARTBEAT", "1s"), ("TIDINGS_AUTH__ISSUERS", &*issuer)];
    let node = Node::start(Path::new(env!("CARGO_BIN_EXE_tidings")), None, &settings).expect("started");
    let ends = UnixMillis::now().0 / 1_000 + 3_600;
    let open = async |number: usize| {
        let claims = serde_json::json!({
            "aud": "tidings", "sub": number.to_string(), "exp": ends, "iat": ends - 3_600, "jti": format!("{number:032}"),
            "tidings": { "follow": ["orders/*", "news"] },
        });
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("signs");
        let mut socket = connect(node.streams(0), number, &format!("token={token}"))
            .await
            .expect("opened");
        let mut told = Vec::new();
        while !told.windows(7).any(|bytes| bytes == b"retry: ") {
            assert_ne!(
                socket.read_buf(&mut told).await.expect("readable"),
                0,
                "{}",
                String::from_utf8_lossy(&told)
            );
        }
        socket
    };
    let mut held = Vec::new();
    for number in 0..STREAMS / 2 {
        held.push(open(number).await);
    }
    let before = anonymous(&node);
    for number in STREAMS / 2..STREAMS / 2 + STREAMS {
        held.push(open(number).await);
    }
    anonymous(&node)
        .checked_sub(before)
        .expect("a thousand streams take memory")
}

#[tokio::test]
async fn a_token_takes_no_more_than_half_a_stream() {
    let (without, with) = (growth(ONE).await, growth_with_tokens().await);
    println!("{STREAMS} streams take {without} bytes, and {with} with a token each");
    assert!(
        with <= without + without / 2,
        "{STREAMS} streams take {without} bytes, and {with} with a token each"
    );
}

#[tokio::test]
async fn four_topics_take_little_more_than_one() {
    let (one, four) = (growth(ONE).await, growth(FOUR).await);
    assert!(
        four <= one + one / 2,
        "{STREAMS} streams take {one} bytes with one topic each and {four} with four"
    );
}

/// Waits until what the server notes for the heartbeats of streams that have ended has been due: until it has sent some to one that is open.
async fn heartbeats(node: &Node) {
    const OPENING_AND_SOME: usize = 1 + 3;
    let mut socket = connect(node.streams(0), 0, "topic=witness").await.expect("opened");
    let mut told = Vec::new();
    while told.windows(2).filter(|bytes| bytes == b":\n").count() < OPENING_AND_SOME {
        assert_ne!(socket.read_buf(&mut told).await.expect("readable"), 0, "it stays open");
    }
}

#[tokio::test]
async fn streams_that_have_ended_leave_nothing() {
    let node = serve();
    let empty = anonymous(&node);
    let mut full = Vec::new();
    for _ in 0..ROUNDS {
        for _ in 0..CYCLES {
            let mut held = Held::new(node.streams(0), FOUR);
            held.grow(STREAMS, OPENING).await.expect("opened");
            held.close().await.expect("closed");
        }
        heartbeats(&node).await;
        let mut held = Held::new(node.streams(0), FOUR);
        held.grow(STREAMS, OPENING).await.expect("opened");
        full.push(anonymous(&node));
        held.close().await.expect("closed");
    }
    let (settled, last) = (full[0], full[ROUNDS - 1]);
    let (taken, more) = (settled - empty, last.saturating_sub(settled));
    assert!(
        more <= taken / 4,
        "{STREAMS} streams took {taken} bytes, and {more} more when opened another {} times",
        (ROUNDS - 1) * CYCLES
    );
}
