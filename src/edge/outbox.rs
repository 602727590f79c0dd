//! What a stream has to say and its socket has not taken yet.
//!
//! ```text
//! offer ─▶ nothing waits, and nothing follows ──▶ one write; what is not taken waits
//!      └─▶ the head is held back, or more follows ─▶ it waits for `flush`: one write for all
//!      └─▶ the socket is full ──────────────────▶ it waits for `writable`, up to a bound; past it the offer is refused
//! ```
//!
//! Pure: it owns no socket, and writes to the one it is given. Whatever is taken is written whole and in order, unless the socket fails.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice, Write},
};

use bytes::{Buf as _, Bytes};

use crate::hub::{Flow, Offer};

/// So many pieces are written at once, at most.
const PIECES: usize = if cfg!(test) { 6 } else { 64 };

const _: () = assert!(PIECES >= 3, "a chunk fits into one write");

/// What belongs together, in the order of the stream's bytes. It is not empty.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chunk<'a> {
    /// In one piece.
    Whole(&'a Bytes),
    /// What is this stream's own before and after what others share.
    Parts {
        /// Before it.
        front: &'a [u8],
        /// What others share.
        body: &'a Bytes,
        /// After it.
        back: &'a [u8],
    },
}

impl Chunk<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Parts { front, body, back } => front.len() + body.len() + back.len(),
        }
    }

    fn write(&self, mut socket: impl Write) -> io::Result<usize> {
        match self {
            Self::Whole(bytes) => socket.write(bytes),
            Self::Parts { front, body, back } => {
                let body: &[u8] = body;
                socket.write_vectored(&[front, body, back].map(IoSlice::new))
            }
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Nothing waits: no memory is taken.
    waiting: Option<Box<Waiting>>,
    /// The head may go out, and what comes after it.
    begun: bool,
    /// The socket takes no more: nothing is tried before it is writable.
    blocked: bool,
    /// An offer was refused since nothing waited.
    refused: bool,
    /// Nothing more is to be said.
    ended: bool,
    /// The socket failed, or was given up.
    gone: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

/// A chunk, or one of its parts. It is not empty.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// A chunk ends with it.
    is_last: bool,
}

impl Waiting {
    /// Writes what comes first: as much as goes into one write, and chunks in one with all their parts. A write that ended within a chunk
    /// would let a client whose connection breaks there note the id of an event that it has not.
    fn write(&self, mut socket: impl Write) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let mut whole = 0;
        for (index, (slice, piece)) in slices.iter_mut().zip(&self.pieces).enumerate() {
            *slice = IoSlice::new(&piece.bytes);
            if piece.is_last {
                whole = index + 1;
            }
        }
        match &slices[..whole] {
            [one] => socket.write(one),
            several => socket.write_vectored(several),
        }
    }
}

impl Outbox {
    /// One that has a head to say, which is held back.
    pub(super) fn new(head: Bytes) -> Self {
        let mut outbox = Self::default();
        outbox.push(Chunk::Whole(&head));
        outbox
    }

    /// Takes a piece, whole, or refuses it, whole: if it would make what waits more than `bound` bytes. The head goes out before it.
    pub(super) fn offer(&mut self, chunk: Chunk<'_>, flow: Flow, bound: usize, mut socket: impl Write) -> Offer {
        if self.ended || self.gone {
            return Offer::Gone;
        }
        self.begun = true;
        if !self.has_room(&chunk, bound) {
            // What waits only for more to be written with it makes room.
            self.flush(&mut socket);
            if self.gone {
                return Offer::Gone;
            }
            if !self.has_room(&chunk, bound) {
                self.refused = true;
                return Offer::Full;
            }
        }
        let mut written = 0;
        if flow == Flow::Single && self.waiting.is_none() {
            written = match chunk.write(&mut socket) {
                Ok(bytes) if bytes == chunk.len() => return Offer::Taken,
                Ok(bytes) => bytes,
                Err(error) if is_passing(&error) => {
                    self.blocked = error.kind() == ErrorKind::WouldBlock;
                    0
                }
                Err(_) => {
                    self.fail();
                    return Offer::Gone;
                }
            };
        }
        self.push(chunk);
        self.written(written);
        if flow == Flow::Single {
            self.flush(socket);
        }
        if self.gone { Offer::Gone } else { Offer::Taken }
    }

    /// Adds a piece whatever waits: for what is small and rare. It is written with what waits, and after it.
    pub(super) fn note(&mut self, piece: &Bytes, socket: impl Write) {
        if !self.ended && !self.gone {
            self.push(Chunk::Whole(piece));
            self.flush(socket);
        }
    }

    /// Lets the head go out.
    pub(super) fn begin(&mut self, socket: impl Write) {
        if !self.begun {
            self.begun = true;
            self.flush(socket);
        }
    }

    /// Has a last piece wait after what waits, for `flush`. The first call counts.
    pub(super) fn end(&mut self, last: &Bytes) {
        self.begun = true;
        if !self.ended && !self.gone {
            self.push(Chunk::Whole(last));
        }
        self.ended = true;
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self, mut socket: impl Write) {
        if !self.begun {
            return;
        }
        while let Some(waiting) = &self.waiting
            && !self.blocked
        {
            match waiting.write(&mut socket) {
                // No socket does that: it would be tried for ever.
                Ok(0) => self.fail(),
                Ok(bytes) => self.written(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if is_passing(&error) => {}
                Err(_) => self.fail(),
            }
        }
    }

    /// The socket takes more.
    pub(super) fn writable(&mut self, socket: impl Write) {
        self.blocked = false;
        self.flush(socket);
    }

    /// The socket failed, or is given up: whatever waits is dropped.
    pub(super) fn fail(&mut self) {
        self.gone = true;
        self.waiting = None;
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_none()
    }

    /// Whether everything was said that is to be, or can be.
    pub(super) fn is_over(&self) -> bool {
        self.gone || (self.ended && self.waiting.is_none())
    }

    /// Whether nothing waits any more since an offer was refused. Told once.
    pub(super) fn take_drained(&mut self) -> bool {
        self.waiting.is_none() && std::mem::take(&mut self.refused)
    }

    /// Whether a piece may wait with what waits; alone it may, however large.
    fn has_room(&self, chunk: &Chunk<'_>, bound: usize) -> bool {
        self.waiting.is_none() || self.bytes() + chunk.len() <= bound
    }

    fn bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    fn push(&mut self, chunk: Chunk<'_>) {
        let waiting = self.waiting.get_or_insert_default();
        waiting.bytes += chunk.len();
        let parts = match chunk {
            Chunk::Whole(bytes) => [Bytes::new(), bytes.clone(), Bytes::new()],
            Chunk::Parts { front, body, back } => [
                Bytes::copy_from_slice(front),
                body.clone(),
                Bytes::copy_from_slice(back),
            ],
        };
        let parts = parts.into_iter().filter(|bytes| !bytes.is_empty());
        waiting
            .pieces
            .extend(parts.map(|bytes| Piece { bytes, is_last: false }));
        if let Some(last) = waiting.pieces.back_mut() {
            last.is_last = true;
        }
    }

    fn written(&mut self, mut bytes: usize) {
        let Some(waiting) = &mut self.waiting else { return };
        waiting.bytes -= bytes;
        while let Some(first) = waiting.pieces.front_mut() {
            if bytes < first.bytes.len() {
                first.bytes.advance(bytes);
                return;
            }
            bytes -= first.bytes.len();
            waiting.pieces.pop_front();
        }
        self.waiting = None;
    }
}

/// Whether a write that failed can be tried again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
