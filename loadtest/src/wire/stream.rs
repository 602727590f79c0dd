//! A client for event streams that is strict: what the server promises beyond the format (line feeds alone, `id:` last) is demanded.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::chunked::Chunks;

/// Connections from one address to another are told apart by 16 bits of port, of which not all can be had.
const PER_SOURCE: usize = 16_384;

/// An event as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The cursor that resumes after it; empty if it had none.
    pub id: String,
    /// Its type; empty if it had none.
    pub event: String,
    /// Its payload.
    pub data: String,
}

/// Connects to the server on the loopback and asks for a stream. The `number` of the connection spreads many over source addresses.
///
/// # Errors
/// If the connection fails.
pub async fn connect(server: SocketAddr, number: usize, query: &str) -> Result<TcpStream> {
    let socket = if server.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if server.is_ipv4() && server.ip().is_loopback() && number >= PER_SOURCE {
        let host = u8::try_from(1 + number / PER_SOURCE).context("too many connections")?;
        socket.bind(([127, 0, 0, host], 0).into())?;
    }
    let mut stream = socket.connect(server).await.context("cannot connect")?;
    let request = format!("GET /v1/events?{query} HTTP/1.1\r\nhost: {server}\r\naccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// A stream of events.
#[derive(Debug)]
pub struct EventStream {
    socket: TcpStream,
    chunks: Chunks,
    parser: Parser,
}

impl EventStream {
    /// Opens one. The query is that of `/v1/events`.
    ///
    /// # Errors
    /// If the server cannot be reached or answers with something else.
    pub async fn open(server: SocketAddr, number: usize, query: &str) -> Result<Self> {
        let mut socket = connect(server, number, query).await?;
        let rest = read_head(&mut socket).await?;
        let mut stream = Self {
            socket,
            chunks: Chunks::default(),
            parser: Parser::default(),
        };
        stream.push(&rest)?;
        Ok(stream)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let mut body = Vec::with_capacity(bytes.len());
        self.chunks.read(bytes, &mut body)?;
        self.parser.push(&body);
        Ok(())
    }

    /// The next event; none if the server ended the stream.
    ///
    /// # Errors
    /// If the connection fails, or the server breaks a rule of the format.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.parser.next()? {
                return Ok(Some(event));
            }
            let mut chunk = [0; 16 * 1_024];
            let bytes = self.socket.read(&mut chunk).await?;
            if bytes == 0 {
                ensure!(self.chunks.is_complete(), "the stream broke off");
                return Ok(None);
            }
            self.push(&chunk[..bytes])?;
        }
    }
}

/// Reads an answer up to the end of its head, demands that it is a stream in chunks, and returns what was read beyond it.
///
/// # Errors
/// If the connection fails, or the answer is another.
pub async fn read_head(socket: &mut TcpStream) -> Result<Vec<u8>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(END.len()).position(|window| window == END) {
            let rest = answer.split_off(end + END.len());
            let head = String::from_utf8_lossy(&answer);
            let has = |line| head.lines().any(|has| has == line);
            ensure!(
                has("HTTP/1.1 200 OK") && has("content-type: text/event-stream") && has("transfer-encoding: chunked"),
                "the server answered: {head}"
            );
            return Ok(rest);
        }
        let read = socket.read_buf(&mut answer).await?;
        ensure!(read > 0, "the server closed the connection before it answered");
    }
}

/// Makes events of bytes.
#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
    /// What comes before this was parsed.
    parsed: usize,
    event: Event,
    has_data: bool,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.parsed);
        self.parsed = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Result<Option<Event>> {
        while let Some(length) = self.bytes[self.parsed..].iter().position(|&byte| byte == b'\n') {
            let begin = self.parsed;
            self.parsed += length + 1;
            let line = std::str::from_utf8(&self.bytes[begin..begin + length]).context("a line is not UTF-8")?;
            if line.is_empty() {
                // Without data there would be nothing to dispatch, and some clients dispatch it nevertheless.
                ensure!(std::mem::take(&mut self.has_data), "a blank line without an event");
                self.event.data.pop();
                return Ok(Some(std::mem::take(&mut self.event)));
            }
            ensure!(!line.contains('\r'), "a carriage return went out: {line:?}");
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            let first = self.event == Event::default() && !self.has_data;
            ensure!(self.event.id.is_empty(), "{line:?} after the id");
            match field {
                "" | "retry" => ensure!(first, "{line:?} within an event"),
                "id" => {
                    ensure!(self.has_data, "the id is not an event's last line");
                    value.clone_into(&mut self.event.id);
                }
                "event" => value.clone_into(&mut self.event.event),
                "data" => {
                    self.event.data.push_str(value);
                    self.event.data.push('\n');
                    self.has_data = true;
                }
                _ => bail!("a field that the format does not have: {line:?}"),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"retry: 3000\n:\nevent: order\ndata: one\ndata:\ndata:  two\nid: v1.a\n\n:\ndata:\n\ndata: \xc3\xa9\nid: v1.b\n\n";

    fn event(id: &str, event: &str, data: &str) -> Event {
        Event {
            id: id.to_owned(),
            event: event.to_owned(),
            data: data.to_owned(),
        }
    }

    fn parse(chunks: impl Iterator<Item = impl AsRef<[u8]>>) -> Result<Vec<Event>> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.push(chunk.as_ref());
            while let Some(event) = parser.next()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let expected = [
            event("v1.a", "order", "one\n\n two"),
            event("", "", ""),
            event("v1.b", "", "é"),
        ];
        for size in 1..=STREAM.len() {
            assert_eq!(parse(STREAM.chunks(size)).expect("by the rules"), expected);
        }
    }

    #[test]
    fn what_breaks_the_rules_is_told() {
        let wrong: [&[u8]; 7] = [
            b"data: a\rid: forged\n\n",
            b"id: early\ndata: a\n\n",
            b"data: a\nid: b\ndata: c\n\n",
            b"id: alone\n\n",
            b"data: a\n\n\n",
            b"date: a\n\n",
            b"data: \xff\n\n",
        ];
        for bytes in wrong {
            parse(std::iter::once(bytes)).expect_err("refused");
        }
    }
}
