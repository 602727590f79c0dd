//! A client that shows everything: the head, and every line of the stream that means something.

use std::{net::SocketAddr, time::Duration};

use tidings_loadtest::chunked::Chunks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Nothing here takes this long: what does, hangs.
const HANG: Duration = Duration::from_secs(60);

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Comment,
    Retry(u64),
    Event {
        id: String,
        event_type: String,
        data: String,
    },
}

/// Cuts a stream into what it says.
#[derive(Default)]
pub(crate) struct Parser {
    buffer: Vec<u8>,
    id: String,
    event_type: String,
    data: Vec<String>,
}

impl Parser {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing is left half-said.
    pub(crate) fn is_between(&self) -> bool {
        self.buffer.is_empty() && self.data.is_empty() && self.event_type.is_empty()
    }

    pub(crate) fn next(&mut self) -> Option<Said> {
        while let Some(end) = self.buffer.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).take(end).collect();
            let line = String::from_utf8(line).expect("UTF-8");
            assert!(!line.contains('\r'), "{line:?}");
            if line.is_empty() {
                assert!(!self.data.is_empty(), "an empty block");
                return Some(Said::Event {
                    id: self.id.clone(),
                    event_type: std::mem::take(&mut self.event_type),
                    data: std::mem::take(&mut self.data).join("\n"),
                });
            }
            let (field, value) = line.split_once(':').expect("a field");
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => return Some(Said::Comment),
                "retry" => return Some(Said::Retry(value.parse().expect("digits"))),
                "id" => {
                    assert!(!self.data.is_empty(), "the id is not last");
                    value.clone_into(&mut self.id);
                }
                "event" => value.clone_into(&mut self.event_type),
                "data" => self.data.push(value.to_owned()),
                _ => panic!("an unknown field: {line:?}"),
            }
        }
        None
    }
}

/// An HTTP/1.1 connection.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    parser: Parser,
    rest: Vec<u8>,
    /// If the last head announced them.
    chunks: Option<Chunks>,
}

/// A status line and headers.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) lines: Vec<String>,
}

impl Head {
    pub(crate) fn has(&self, line: &str) -> bool {
        self.lines.iter().any(|have| have == line)
    }

    fn length(&self) -> usize {
        let length = self.lines.iter().find_map(|line| line.strip_prefix("content-length: "));
        length.map_or(0, |digits| digits.parse().expect("digits"))
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = guard(TcpStream::connect(address)).await.expect("connects");
        Self::on(socket)
    }

    pub(crate) fn on(socket: TcpStream) -> Self {
        Self {
            socket,
            parser: Parser::default(),
            rest: Vec::new(),
            chunks: None,
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        guard(self.socket.write_all(bytes)).await.expect("writes");
    }

    pub(crate) async fn request(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) {
        let mut request = format!("{method} {uri} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.send(request.as_bytes()).await;
    }

    /// Opens a stream and reads its head.
    pub(crate) async fn stream(address: SocketAddr, uri: &str, headers: &[(&str, &str)]) -> Self {
        let mut client = Self::connect(address).await;
        client.request("GET", uri, headers).await;
        let head = client.head().await;
        assert_eq!(head.status, 200, "{head:?}");
        client
    }

    /// Opens a stream and reads its beginning.
    pub(crate) async fn follow(address: SocketAddr, uri: &str) -> Self {
        let mut client = Self::stream(address, uri, &[]).await;
        assert!(matches!(client.said().await, Some(Said::Retry(3_000..=4_500))));
        assert_eq!(client.said().await, Some(Said::Comment));
        client
    }

    /// Opens a stream and returns all that it says; it must end.
    pub(crate) async fn shed(address: SocketAddr, uri: &str) -> Vec<Said> {
        let mut client = Self::connect(address).await;
        client.request("GET", uri, &[]).await;
        let head = client.head().await;
        assert_eq!(head.status, 200, "{head:?}");
        assert!(head.has("content-type: text/event-stream"), "{head:?}");
        client.all().await
    }

    /// Reads more; false at the end, which may be a reset.
    async fn read(&mut self) -> bool {
        let mut chunk = vec![0; 16 * 1024];
        match guard(self.socket.read(&mut chunk)).await {
            Ok(0) | Err(_) => false,
            Ok(bytes) => {
                self.rest.extend_from_slice(&chunk[..bytes]);
                true
            }
        }
    }

    /// The head of the next answer.
    pub(crate) async fn head(&mut self) -> Head {
        let end = loop {
            if let Some(end) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            assert!(
                self.read().await,
                "ended before a head: {:?}",
                String::from_utf8_lossy(&self.rest)
            );
        };
        let head: Vec<u8> = self.rest.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("UTF-8");
        let mut lines = head.trim_end().lines().map(str::to_owned);
        let status = lines.next().expect("a status line");
        let head = Head {
            status: status.split(' ').nth(1).expect("a status").parse().expect("digits"),
            lines: lines.collect(),
        };
        self.chunks = head.has("transfer-encoding: chunked").then(Chunks::default);
        head
    }

    /// The next answer, whole.
    pub(crate) async fn answer(&mut self) -> (Head, String) {
        let head = self.head().await;
        while self.rest.len() < head.length() {
            assert!(self.read().await, "ended within a body");
        }
        let body = self.rest.drain(..head.length()).collect();
        (head, String::from_utf8(body).expect("UTF-8"))
    }

    /// The next chunk as it is; empty if it is the last.
    pub(crate) async fn chunk(&mut self) -> String {
        loop {
            if let Some(end) = self.rest.windows(2).position(|two| two == b"\r\n") {
                let digits = std::str::from_utf8(&self.rest[..end]).expect("UTF-8");
                let size = usize::from_str_radix(digits, 16).expect("a size");
                let whole = end + 2 + size + 2;
                if self.rest.len() >= whole {
                    let mut chunk: Vec<u8> = self.rest.drain(..whole).skip(end + 2).collect();
                    assert_eq!(chunk.split_off(size), b"\r\n");
                    return String::from_utf8(chunk).expect("UTF-8");
                }
            }
            assert!(self.read().await, "ended within a chunk");
        }
    }

    /// The next thing that the stream says; none at its end.
    pub(crate) async fn said(&mut self) -> Option<Said> {
        loop {
            let rest = std::mem::take(&mut self.rest);
            match &mut self.chunks {
                Some(chunks) => chunks.read(&rest, &mut self.parser.buffer).expect("chunks"),
                None => self.parser.push(&rest),
            }
            if let Some(said) = self.parser.next() {
                return Some(said);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Said {
        loop {
            match self.said().await.expect("the stream goes on") {
                Said::Comment | Said::Retry(_) => {}
                event @ Said::Event { .. } => return event,
            }
        }
    }

    /// The data of the next event.
    pub(crate) async fn data(&mut self) -> String {
        match self.event().await {
            Said::Event { data, .. } => data,
            other => panic!("{other:?}"),
        }
    }

    /// Whether the stream has said that it ends here, and not only ended.
    pub(crate) fn has_said_its_end(&self) -> bool {
        self.chunks.as_ref().is_some_and(Chunks::is_complete)
    }

    /// Everything up to the end, which is no interruption.
    pub(crate) async fn all(&mut self) -> Vec<Said> {
        let mut all = Vec::new();
        while let Some(said) = self.said().await {
            all.push(said);
        }
        assert!(self.parser.is_between(), "the stream ended within an event");
        assert!(
            self.chunks.is_none() || self.has_said_its_end(),
            "the stream ended without a last chunk"
        );
        all
    }

    /// Reads until the connection is closed by the other side.
    pub(crate) async fn closed(&mut self) {
        while self.read().await {}
    }
}

/// Fails rather than hangs.
pub(crate) async fn guard<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANG, future).await.expect("does not hang")
}
