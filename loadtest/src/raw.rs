//! The raw limit: the smallest event-stream server that there can be, as the denominator of every figure of one that does more.
//!
//! One thread, one epoll; a frame is rendered once for each event and written once to each connection; no topics, no history, no names, no
//! heartbeat. Every stream gets every event. It is run as a process of its own (`tidings-loadtest raw-server`) and spoken to by
//! `loadtest/peers/raw.toml`.
//!
//! What a socket does not take is kept, without a bound: it is that, or losing something.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    path::Path,
};

use anyhow::{Result, bail};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use tempfile::TempDir;

use crate::{
    Node,
    target::part::{Part, Port, Program},
    template::Template,
};

const LISTENER: Token = Token(usize::MAX);

/// The head of a stream's answer and what comes at once, as an edge of Tidings writes them.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache, no-transform\r\n\
    x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\ne\r\nretry: 3000\n:\n\r\n";

/// The answer to a publish request.
const TAKEN: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// The longest request.
const LONGEST: usize = 2 << 20;

/// A connection.
struct Connection {
    socket: TcpStream,
    /// What was read and is no whole request yet.
    read: Vec<u8>,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
    is_stream: bool,
}

impl Connection {
    /// Writes, once, unless something waits to be written.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.unsent.is_empty() {
            match self.socket.write(bytes) {
                Ok(written) if written == bytes.len() => return Ok(()),
                Ok(written) => self.unsent.extend_from_slice(&bytes[written..]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.unsent.extend_from_slice(bytes),
                Err(error) => return Err(error),
            }
        } else {
            self.unsent.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Writes what waits for it.
    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }
}

/// The server.
pub struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    /// Places of connections that are gone.
    free: Vec<usize>,
    events: u64,
    frame: Vec<u8>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// If it cannot.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let poll = Poll::new()?;
        // As std does, with a queue as long as the system allows.
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(4_096)?;
        let mut listener = TcpListener::from_std(socket.into());
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            events: 0,
            frame: Vec::new(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until the process is ended.
    ///
    /// # Errors
    /// If the system has no more to give.
    pub fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(place) => self.serve(place, event.is_readable(), event.is_writable()),
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => bail!("no more connections: {error}"),
            };
            socket.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(place), interest)?;
            self.connections[place] = Some(Connection {
                socket,
                read: Vec::new(),
                unsent: Vec::new(),
                is_stream: false,
            });
        }
    }

    /// Something can be read from a connection, or written to it. One that fails is gone.
    fn serve(&mut self, place: usize, is_readable: bool, is_writable: bool) {
        let Some(mut connection) = self.connections[place].take() else {
            return;
        };
        let written = if is_writable { connection.flush() } else { Ok(()) };
        let read = if is_readable {
            self.read(&mut connection)
        } else {
            Ok(true)
        };
        if written.is_ok() && matches!(read, Ok(true)) {
            self.connections[place] = Some(connection);
        } else {
            self.free.push(place);
        }
    }

    /// Reads what there is and answers it. False, if that was the end.
    fn read(&mut self, connection: &mut Connection) -> Result<bool> {
        let mut bytes = [0; 16 * 1_024];
        loop {
            match connection.socket.read(&mut bytes) {
                Ok(0) => return Ok(false),
                // Who has a stream has nothing more to say.
                Ok(_) if connection.is_stream => {}
                Ok(read) => {
                    connection.read.extend_from_slice(&bytes[..read]);
                    self.answer(connection)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Answers all whole requests.
    fn answer(&mut self, connection: &mut Connection) -> Result<()> {
        let mut taken = 0;
        while let Some(request) = Request::parse(&connection.read[taken..])? {
            if request.is_get {
                connection.is_stream = true;
                connection.read = Vec::new();
                return Ok(connection.send(HEAD)?);
            }
            let end = taken + request.length;
            self.events += 1;
            render(
                self.events,
                &connection.read[taken + request.head..end],
                &mut self.frame,
            );
            self.broadcast();
            taken = end;
            connection.send(TAKEN)?;
        }
        connection.read.drain(..taken);
        if connection.read.len() > LONGEST {
            bail!("a request without an end");
        }
        Ok(())
    }

    /// Writes the frame to every stream.
    fn broadcast(&mut self) {
        for place in 0..self.connections.len() {
            if let Some(connection) = &mut self.connections[place]
                && connection.is_stream
                && connection.send(&self.frame).is_err()
            {
                self.connections[place] = None;
                self.free.push(place);
            }
        }
    }
}

/// A frame as Tidings has it: an id of the usual length, the payload, in one chunk.
fn render(number: u64, payload: &[u8], frame: &mut Vec<u8>) {
    const AROUND: usize = "data: \nid: 1.0123456789abcdef\n\n".len();
    frame.clear();
    frame.extend_from_slice(format!("{:x}\r\ndata: ", AROUND + payload.len()).as_bytes());
    frame.extend_from_slice(payload);
    frame.extend_from_slice(format!("\nid: 1.{number:016x}\n\n\r\n").as_bytes());
}

/// The places in a whole request.
struct Request {
    is_get: bool,
    head: usize,
    length: usize,
}

impl Request {
    /// The first of these bytes, if it is whole.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(head) = request.parse(bytes)? else {
            return Ok(None);
        };
        let mut body = 0;
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                body = std::str::from_utf8(header.value)?.parse()?;
            }
        }
        let length = head + body;
        Ok((bytes.len() >= length).then_some(Self {
            is_get: request.method == Some("GET"),
            head,
            length,
        }))
    }
}

/// The server as a process of its own. It ends with this value.
pub struct Process {
    // The process goes before its directory.
    part: Part,
    node: Node,
    _port: Port,
    _directory: TempDir,
}

impl Process {
    /// Starts it: `PROGRAM raw-server`, where the program is the load tester.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(program: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("tidings-loadtest-").tempdir()?;
        let port = Port::take()?;
        let address = port.address();
        let program = Program::new("raw", program, directory.path(), |line| line.starts_with("ready"))?;
        let mut part = Part::new(program.arguments(["raw-server", "--listen", &address.to_string()]));
        part.start().await?;
        let mut node = Node::at(vec![address], vec![address], None).speaking(Template::raw());
        node.pid = part.pid();
        Ok(Self {
            part,
            node,
            _port: port,
            _directory: directory,
        })
    }

    /// As any other server.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.part.pid()
    }
}

/// Where the server listens.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
}

/// Serves until the process is ended, and says `ready` when it is.
///
/// # Errors
/// If it cannot listen, or the system has no more to give.
pub fn run(options: &Options) -> Result<()> {
    let server = Server::bind(options.listen)?;
    eprintln!("ready on {}", server.address()?);
    server.run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::events::{self, Piece};

    #[test]
    fn a_frame_is_one_chunk_with_one_event() {
        for payload in ["", "~t0 1 2 ~", &"x".repeat(300)] {
            let mut frame = Vec::new();
            render(7, payload.as_bytes(), &mut frame);
            let (mut chunks, mut body) = (crate::chunked::Chunks::default(), Vec::new());
            chunks.read(&frame, &mut body).expect("a chunk");
            assert!(chunks.is_between() && !chunks.is_complete());
            let Some((Piece::Event(event), length)) = events::next(&body) else {
                panic!("{}", body.escape_ascii());
            };
            assert_eq!(length, body.len());
            assert_eq!(event.get("data"), Some(payload.as_bytes()));
            assert!(event.is_strict());
        }
        let begin = HEAD.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        crate::chunked::Chunks::default()
            .read(&HEAD[begin..], &mut Vec::new())
            .expect("a chunk");
    }
}
