//! A connection over HTTP/1.1, kept alive, with requests by a template.

use std::{
    collections::VecDeque,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{net::TcpStream, sync::mpsc::UnboundedReceiver, time::Instant};

use super::{Backoff, Shared, queue::Queue};
use crate::{
    payload::Payload,
    template::{Http, Place, Request},
    wire::{chunked::Chunks, head::Head},
};

/// Events that are looked at in one go.
const BATCH: usize = 256;

/// The time before an event that could not be taken is sent again.
const AGAIN: Duration = Duration::from_millis(20);

/// One connection, and the events that go over it.
pub(super) struct Lane {
    shared: Arc<Shared>,
    http: Http,
    /// Which of the addresses it is connected to.
    address: usize,
    waiting: UnboundedReceiver<Payload>,
    queue: Queue,
    socket: TcpStream,
    /// What is to be written, and what of it is.
    out: Vec<u8>,
    written: usize,
    /// What was read and is no whole answer yet.
    read: Vec<u8>,
    /// The events of each request without an answer.
    sent: VecDeque<Vec<Payload>>,
    /// The server has said that it closes the connection.
    is_closing: bool,
    /// Nothing is sent before this.
    pause: Option<Instant>,
    scratch: Vec<u8>,
}

/// Why a connection is to be used no more.
enum Over {
    /// The publisher ends.
    End,
    /// The server closed it while nothing was asked of it, as servers do after so many requests.
    Closed,
    /// It failed.
    Failed(anyhow::Error),
}

impl Lane {
    pub(super) async fn open(
        shared: Arc<Shared>,
        http: Http,
        number: usize,
        waiting: UnboundedReceiver<Payload>,
    ) -> Result<Self> {
        let addresses = &shared.sending.to.addresses;
        let address = number % addresses.len();
        Ok(Self {
            http,
            address,
            waiting,
            queue: Queue::new(shared.sending.persists),
            socket: dial(addresses[address]).await?,
            out: Vec::new(),
            written: 0,
            read: Vec::new(),
            sent: VecDeque::new(),
            is_closing: false,
            pause: None,
            scratch: Vec::new(),
            shared,
        })
    }

    pub(super) async fn run(mut self) -> Result<()> {
        loop {
            let mut error = match self.exchange().await? {
                Over::End => return Ok(()),
                Over::Closed => None,
                Over::Failed(error) if self.shared.sending.persists => Some(error),
                Over::Failed(error) => return Err(error),
            };
            let lost: Vec<_> = self.sent.drain(..).flatten().collect();
            self.shared.retried.fetch_add(lost.len() as u64, Ordering::Relaxed);
            self.queue.all_again(lost.into_iter());
            self.out.clear();
            self.written = 0;
            self.read.clear();
            self.is_closing = false;
            // One that is closed while idle is not opened before it is needed.
            if error.is_none() && self.queue.is_empty() {
                match self.waiting.recv().await {
                    Some(event) => self.queue.push(event),
                    None => return Ok(()),
                }
            }
            let mut backoff = Backoff::new();
            self.socket = loop {
                let addresses = &self.shared.sending.to.addresses;
                if let Some(error) = error {
                    backoff.wait(error).await?;
                    self.address = (self.address + 1) % addresses.len();
                }
                match dial(addresses[self.address]).await {
                    Ok(socket) => break socket,
                    Err(failed) => error = Some(failed),
                }
            };
        }
    }

    /// Sends and reads answers, until the connection is over.
    async fn exchange(&mut self) -> Result<Over> {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            self.fill();
            if let Err(error) = self.write() {
                return Ok(Over::Failed(error));
            }
            let pause = self
                .pause
                .unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                count = self.waiting.recv_many(&mut events, BATCH) => {
                    if count == 0 {
                        return Ok(Over::End);
                    }
                    events.drain(..).for_each(|event| self.queue.push(event));
                }
                readable = self.socket.readable() => {
                    readable?;
                    // The last answer and the end may come together.
                    let open = self.receive();
                    let is_closing = self.answers()?;
                    match open {
                        Ok(is_open) if self.sent.is_empty() && (is_closing || !is_open) => return Ok(Over::Closed),
                        Ok(true) => {}
                        Ok(false) => return Ok(Over::Failed(anyhow::anyhow!("the server closed the connection"))),
                        Err(error) => return Ok(Over::Failed(error)),
                    }
                }
                writable = self.socket.writable(), if self.written < self.out.len() => writable?,
                () = tokio::time::sleep_until(pause) => self.pause = None,
            }
        }
    }

    /// Renders what can be sent.
    fn fill(&mut self) {
        if self.is_closing {
            return;
        }
        if self.pause.is_some_and(|pause| Instant::now() < pause) {
            return;
        }
        while self.sent.len() < self.http.pipelined
            && let Some(first) = self.queue.pop()
        {
            let most = self.http.batch.as_ref().map_or(1, |batch| batch.most);
            let mut events = vec![first];
            while events.len() < most
                && let Some(event) = self.queue.pop()
            {
                events.push(event);
            }
            self.render(&events);
            self.sent.push_back(events);
        }
    }

    fn render(&mut self, events: &[Payload]) {
        let Self {
            shared,
            http,
            out,
            scratch,
            address,
            ..
        } = self;
        let sending = &shared.sending;
        let host = sending.to.addresses[*address];
        let token = sending.to.token.as_deref();
        let mut render = |request: &Request, event: Option<&Filling>, items: Option<&[u8]>| {
            let value = |place| match place {
                Place::Token => token.map(str::as_bytes),
                Place::Items => items,
                place => event.and_then(|event| event.value(place)),
            };
            request.render(host, value, scratch, out);
        };
        match (&http.batch, events) {
            (Some(batch), [_, _, ..]) => {
                let mut items = Vec::new();
                for event in events {
                    if !items.is_empty() {
                        items.extend_from_slice(batch.join.as_bytes());
                    }
                    let event = Filling::of(event, shared);
                    batch.each.fill(&mut items, |place| event.value(place));
                }
                render(&batch.request, None, Some(&items));
            }
            _ => {
                for event in events {
                    render(&http.request, Some(&Filling::of(event, shared)), None);
                }
            }
        }
    }

    /// Writes as much as the socket takes.
    fn write(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.socket.try_write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what there is. False, if that was the end.
    fn receive(&mut self) -> Result<bool> {
        loop {
            self.read.reserve(16 * 1_024);
            match self.socket.try_read_buf(&mut self.read) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the whole answers from what was read. True, if the server closes the connection after the last. An error ends the publisher.
    fn answers(&mut self) -> Result<bool> {
        let mut taken = 0;
        let mut acknowledged = Vec::new();
        while let Some(answer) = Answer::parse(&self.read[taken..])? {
            let Answer {
                status,
                body,
                length,
                closes,
            } = answer;
            taken += length;
            self.is_closing |= closes;
            let events = self.sent.pop_front().context("an answer to nothing")?;
            let refused = self.http.refused.as_deref().is_some_and(|text| body.contains(text));
            if self.http.acknowledged.contains(&status) && !refused {
                for &event in &events {
                    self.queue.acknowledged(event);
                }
                acknowledged.extend(events);
            } else if self.shared.sending.persists && (status == 429 || status >= 500) {
                self.shared.retried.fetch_add(events.len() as u64, Ordering::Relaxed);
                self.queue.all_again(events.into_iter());
                self.pause = Some(Instant::now() + AGAIN);
            } else {
                let name = &self.shared.sending.to.template.name;
                bail!("an event was refused: {name} answers {status}: {}", body.trim());
            }
        }
        self.read.drain(..taken);
        self.shared.acknowledge(acknowledged);
        Ok(self.is_closing)
    }
}

async fn dial(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect(address).await;
    let socket = socket.with_context(|| format!("cannot connect to {address}"))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// What an event's places are filled with.
struct Filling {
    topic: String,
    payload: String,
    key: Option<String>,
}

impl Filling {
    fn of(event: &Payload, shared: &Shared) -> Self {
        let sending = &shared.sending;
        Self {
            topic: sending.to.template.name(event.key),
            payload: event.text(sending.payload),
            key: sending.key(event),
        }
    }

    fn value(&self, place: Place) -> Option<&[u8]> {
        match place {
            Place::Topic => Some(self.topic.as_bytes()),
            Place::Payload => Some(self.payload.as_bytes()),
            Place::Key => self.key.as_deref().map(str::as_bytes),
            _ => None,
        }
    }
}

/// An answer.
struct Answer {
    status: u16,
    body: String,
    /// How many bytes it took.
    length: usize,
    /// Whether the server closes the connection after it.
    closes: bool,
}

impl Answer {
    /// The first of these bytes; none if it is not whole yet.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(head) = Head::parse(bytes)? else {
            return Ok(None);
        };
        let (fields, rest) = bytes.split_at(head.bytes);
        let fields = String::from_utf8_lossy(fields).to_ascii_lowercase();
        let answer = |body: &[u8], length| Self {
            status: head.status,
            body: String::from_utf8_lossy(body).into_owned(),
            length: head.bytes + length,
            closes: fields.contains("\r\nconnection: close\r\n"),
        };
        if head.is_chunked {
            let (mut chunks, mut body) = (Chunks::default(), Vec::new());
            for (read, byte) in rest.iter().enumerate() {
                // One after another: what follows belongs to the next answer.
                chunks.read(std::slice::from_ref(byte), &mut body)?;
                if chunks.is_complete() {
                    return Ok(Some(answer(&body, read + 1)));
                }
            }
            return Ok(None);
        }
        let length = match head.length {
            Some(length) => length,
            None => {
                ensure!(matches!(head.status, 204 | 304), "an answer without a length");
                0
            }
        };
        Ok(rest.get(..length).map(|body| answer(body, length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_however_they_are_framed() {
        let answers =
            b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok\
            HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nid\r\n0\r\n\r\n";
        let expected = [(204, "", false), (200, "ok", true), (201, "id", false)];
        let mut rest = &answers[..];
        for expected in expected {
            let answer = Answer::parse(rest).expect("HTTP").expect("whole");
            assert_eq!((answer.status, answer.body.as_str(), answer.closes), expected);
            for end in 0..answer.length {
                assert!(Answer::parse(&rest[..end]).expect("HTTP").is_none(), "{end}");
            }
            rest = &rest[answer.length..];
        }
        assert!(rest.is_empty());
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "without an end");
    }
}
