//! One stream: where it stands, and what of it is torn. What came is taken apart in a buffer that all share.

use anyhow::{Result, bail, ensure};
use mio::net::TcpStream;

use crate::wire::{
    chunked::Chunks,
    events::{self, Block, Piece},
    head::Head,
};

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// Nobody wants it yet.
    #[default]
    Unwanted,
    /// It is to be opened when it is its turn.
    Away,
    /// Its connection is being opened.
    Connecting,
    /// It was asked for.
    Asked,
    /// It is open.
    Open,
}

/// A stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) socket: Option<TcpStream>,
    /// The cursor after which it is resumed.
    pub(super) cursor: Option<Box<str>>,
    /// What began and is not whole.
    torn: Option<Box<Torn>>,
    /// When its connection began to be opened.
    pub(super) since: u64,
    /// How long the server told it to wait before it comes back, in milliseconds.
    pub(super) retry: u32,
    /// How many times in a row it was opened in vain.
    pub(super) attempts: u16,
    pub(super) state: State,
    pub(super) was_open: bool,
    is_chunked: bool,
}

/// The beginning of what is not whole yet.
#[derive(Debug, Default)]
struct Torn {
    chunks: Chunks,
    bytes: Vec<u8>,
}

/// What a stream said.
#[derive(Debug)]
pub(super) enum Said<'a> {
    /// It is open.
    Open,
    /// An event.
    Event(Block<'a>),
    /// A comment, or how long to wait.
    Line(&'a [u8]),
}

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// More will come.
    More,
    /// The server ended the stream, in order.
    End,
    /// It is none: the server answered something else.
    Refused(Head),
}

impl Stream {
    /// Takes what came out of the socket, and tells of all that is whole. `body` is scratch space.
    ///
    /// # Errors
    /// If it goes against HTTP.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        body: &mut Vec<u8>,
        mut tell: impl FnMut(&mut Self, Said<'_>),
    ) -> Result<Came> {
        let mut torn = self.torn.take();
        body.clear();
        if self.state == State::Open {
            return self.take_body(bytes, torn, body, &mut tell);
        }
        ensure!(self.state == State::Asked, "an answer to nothing");
        let all = torn.get_or_insert_default();
        all.bytes.extend_from_slice(bytes);
        let Some(head) = Head::parse(&all.bytes)? else {
            self.torn = torn;
            return Ok(Came::More);
        };
        if !head.is_stream() {
            return Ok(Came::Refused(head));
        }
        self.state = State::Open;
        self.is_chunked = head.is_chunked;
        tell(self, Said::Open);
        let rest = all.bytes.split_off(head.bytes);
        self.take_body(&rest, None, body, &mut tell)
    }

    fn take_body(
        &mut self,
        bytes: &[u8],
        torn: Option<Box<Torn>>,
        body: &mut Vec<u8>,
        tell: &mut impl FnMut(&mut Self, Said<'_>),
    ) -> Result<Came> {
        let mut chunks = Chunks::default();
        let mut kept = torn;
        if let Some(torn) = &mut kept {
            std::mem::swap(body, &mut torn.bytes);
            chunks = std::mem::take(&mut torn.chunks);
        }
        if self.is_chunked {
            chunks.read(bytes, body)?;
        } else {
            body.extend_from_slice(bytes);
        }
        let mut rest = &body[..];
        while let Some((piece, taken)) = events::next(rest) {
            match piece {
                Piece::Line(line) => tell(self, Said::Line(line)),
                Piece::Event(block) => tell(self, Said::Event(block)),
            }
            rest = &rest[taken..];
        }
        if chunks.is_complete() {
            ensure!(rest.is_empty(), "the stream ended within an event");
            return Ok(Came::End);
        }
        if rest.len() > 64 << 20 {
            bail!("an event without an end");
        }
        if !rest.is_empty() || !chunks.is_between() {
            let mut torn = kept.unwrap_or_default();
            torn.bytes.clear();
            torn.bytes.extend_from_slice(rest);
            torn.chunks = chunks;
            self.torn = Some(torn);
        }
        Ok(Came::More)
    }

    /// It is closed, however that came.
    pub(super) fn close(&mut self) -> Option<TcpStream> {
        self.torn = None;
        self.state = State::Away;
        self.socket.take()
    }

    /// Whether nothing of it is torn: its end may be one that has no last chunk.
    pub(super) fn is_whole(&self) -> bool {
        self.torn.is_none()
    }

    /// Whether only its last chunk says where it ends.
    pub(super) const fn is_chunked(&self) -> bool {
        self.is_chunked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
        c\r\nretry: 3000\n\r\n2\r\n:\n\r\n16\r\nevent: e\ndata: x\nid: a\r\n2\r\n\n\n\r\n0\r\n\r\n";

    fn asked() -> Stream {
        Stream {
            state: State::Asked,
            ..Stream::default()
        }
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        for size in 1..=ANSWER.len() {
            let (mut stream, mut body, mut told) = (asked(), Vec::new(), Vec::new());
            let mut came = Came::More;
            for part in ANSWER.chunks(size) {
                assert_eq!(came, Came::More);
                came = stream
                    .take(part, &mut body, |_, said| {
                        told.push(match said {
                            Said::Open => "open".to_owned(),
                            Said::Line(line) => String::from_utf8_lossy(line).into_owned(),
                            Said::Event(block) => String::from_utf8_lossy(block.bytes()).into_owned(),
                        });
                    })
                    .expect("by the rules");
            }
            assert_eq!(came, Came::End);
            assert_eq!(told, ["open", "retry: 3000", ":", "event: e\ndata: x\nid: a\n"]);
            assert!(stream.is_whole());
        }
    }

    #[test]
    fn what_is_no_stream_is_refused_with_its_head() {
        let mut body = Vec::new();
        let shed = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n";
        let came = asked().take(shed, &mut body, |_, said| panic!("{said:?}"));
        let Came::Refused(head) = came.expect("HTTP") else {
            panic!("no stream")
        };
        assert_eq!((head.status, head.retry_after), (503, Some(3)));
        asked()
            .take(b"nonsense\r\n\r\n", &mut body, |_, _| {})
            .expect_err("not HTTP");
    }
}
