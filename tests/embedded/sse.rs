//! An independent reader of event streams, written from the WHATWG text and not from the program's own: over HTTP/1.1 on a bare socket, or
//! over HTTP/2.

// Told, since other tests include this file from elsewhere.
#[path = "sse/parser.rs"]
mod parser;

use std::{collections::VecDeque, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidings_loadtest::chunked::Chunks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use self::parser::Parser;
pub(crate) use self::parser::{Event, Item};
use crate::patiently;

/// What to ask for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    query: Vec<(String, String)>,
    target: Option<String>,
    last_event_id: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
    receive_buffer: Option<u32>,
}

impl Ask {
    /// These topics.
    pub(crate) fn topics<T: AsRef<str>>(topics: impl IntoIterator<Item = T>) -> Self {
        topics
            .into_iter()
            .fold(Self::default(), |ask, topic| ask.query("topic", topic.as_ref()))
    }

    /// This topic.
    pub(crate) fn topic(topic: &str) -> Self {
        Self::topics([topic])
    }

    /// With a query parameter.
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this for its path and query, as it is.
    #[allow(dead_code, reason = "tests/security uses it")]
    pub(crate) fn target(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }

    /// With the `Last-Event-ID` header, unless the id is empty and means none.
    pub(crate) fn after(mut self, id: impl AsRef<[u8]>) -> Self {
        self.last_event_id = Some(id.as_ref().to_vec());
        self
    }

    /// With another header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a socket that takes no more than about so many bytes before they are read.
    pub(crate) const fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    fn whole_target(&self) -> String {
        if let Some(target) = &self.target {
            return target.clone();
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.query);
        format!("/v1/events?{}", query.finish())
    }

    /// Asks over HTTP/1.1.
    pub(crate) async fn open(&self, address: SocketAddr) -> std::io::Result<Stream> {
        patiently("a stream's head", self.http1(address)).await
    }

    async fn http1(&self, address: SocketAddr) -> std::io::Result<Stream> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let mut socket = socket.connect(address).await?;
        let mut head = format!(
            "GET {} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n",
            self.whole_target()
        )
        .into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(id) = &self.last_event_id {
            head.extend_from_slice(b"last-event-id: ");
            head.extend_from_slice(id);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        socket.write_all(&head).await?;
        let mut read = BytesMut::new();
        let end = loop {
            if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut read).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8(read.split_to(end).to_vec()).expect("a head is text");
        Ok(Stream::new(head, Body::Http1(socket), &read))
    }

    /// Asks over HTTP/2.
    pub(crate) async fn open_http2(&self, address: SocketAddr) -> std::io::Result<Stream> {
        patiently("a stream's head", self.http2(address))
            .await
            .map_err(std::io::Error::other)
    }

    async fn http2(&self, address: SocketAddr) -> Result<Stream, Box<dyn std::error::Error + Send + Sync>> {
        let socket = TcpStream::connect(address).await?;
        let io = TokioIo::new(socket);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        // It ends when the body and the sender are dropped.
        tokio::spawn(connection);
        let mut request = http::Request::get(format!("http://{address}{}", self.whole_target()));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(id) = &self.last_event_id {
            request = request.header("last-event-id", http::HeaderValue::from_bytes(id)?);
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let mut head = format!("HTTP/2 {}\r\n", response.status());
        for (name, value) in response.headers() {
            head.push_str(&format!("{name}: {}\r\n", value.to_str()?));
        }
        Ok(Stream::new(head, Body::Http2(response.into_body()), b""))
    }
}

/// An open stream.
pub(crate) struct Stream {
    head: String,
    body: Body,
    /// If the head announced them.
    chunks: Option<Chunks>,
    parser: Parser,
    items: VecDeque<Item>,
}

enum Body {
    Http1(TcpStream),
    Http2(Incoming),
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Clean,
    /// The connection broke.
    Broken,
}

impl Stream {
    fn new(head: String, body: Body, begin: &[u8]) -> Self {
        let mut stream = Self {
            head,
            body,
            chunks: None,
            parser: Parser::default(),
            items: VecDeque::new(),
        };
        stream.chunks = (stream.header("transfer-encoding") == Some("chunked")).then(Chunks::default);
        stream.push(begin);
        stream
    }

    fn push(&mut self, bytes: &[u8]) {
        let mut body = Vec::new();
        let bytes = match &mut self.chunks {
            Some(chunks) => {
                chunks.read(bytes, &mut body).expect("chunks");
                &body
            }
            None => bytes,
        };
        self.parser.push(bytes, &mut self.items);
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).expect("a status line");
        status.trim().parse().expect("a number")
    }

    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(found, _)| *found == name))
            .map(|(_, value)| value)
    }

    /// The next that it says, or how it ended. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Item, End> {
        patiently("the next of a stream", self.read()).await
    }

    async fn read(&mut self) -> Result<Item, End> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(item);
            }
            let mut chunk = BytesMut::with_capacity(64 << 10);
            match &mut self.body {
                Body::Http1(socket) => match socket.read_buf(&mut chunk).await {
                    Ok(0) if self.chunks.as_ref().is_none_or(Chunks::is_complete) => return Err(End::Clean),
                    Ok(0) => return Err(End::Broken),
                    Ok(_) => {}
                    Err(_) => return Err(End::Broken),
                },
                Body::Http2(body) => match body.frame().await {
                    None => return Err(End::Clean),
                    Some(Ok(frame)) => chunk.extend(frame.into_data()),
                    Some(Err(_)) => return Err(End::Broken),
                },
            }
            self.push(&chunk);
        }
    }

    /// The next event, gaps included.
    pub(crate) async fn event(&mut self) -> Event {
        match self.try_event().await {
            Ok(event) => event,
            Err(end) => panic!("the stream ended: {end:?}"),
        }
    }

    /// The next event, or how the stream ended.
    pub(crate) async fn try_event(&mut self) -> Result<Event, End> {
        loop {
            if let Item::Event(event) = self.next().await? {
                return Ok(event);
            }
        }
    }

    /// The data of the next so many events.
    pub(crate) async fn data(&mut self, count: usize) -> Vec<String> {
        let mut data = Vec::with_capacity(count);
        for _ in 0..count {
            let event = self.event().await;
            assert_eq!(event.gap(), None);
            data.push(event.data);
        }
        data
    }

    /// Everything up to the end, and how it ended.
    pub(crate) async fn rest(&mut self) -> (Vec<Item>, End) {
        let mut items = Vec::new();
        loop {
            match self.next().await {
                Ok(item) => items.push(item),
                Err(end) => return (items, end),
            }
        }
    }
}
