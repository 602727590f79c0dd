//! What moves the streams of one process: a thread, an epoll, and a line of those who are to be opened.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    io::{BufRead as _, BufReader, Read, Write},
    net::SocketAddr,
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, Waker};
use rand::Rng as _;
use socket2::SockRef;

use super::{
    check::Check,
    dial::dial,
    plan::Plan,
    say::{Command, How, Part, Sample, Streams, note, record, take},
    stream::{Came, Said, State, Stream},
};
use crate::{
    payload::{Key, Payload, now},
    target::tokens::{Signer, Tokens},
    template::Asked,
    wire::head::Head,
};

/// How often it is told what was seen.
const SAMPLE: u64 = 250_000_000;
/// How often slow readers read, and streams are cut.
const STEP: u64 = 20_000_000;
/// What is read at once.
const BUFFER: usize = 64 * 1_024;
/// The first wait after a connection was refused, in nanoseconds; doubled up to [`LAST_WAIT`].
const FIRST_WAIT: u64 = 20_000_000;
const LAST_WAIT: u64 = 1_000_000_000;

const COMMANDS: Token = Token(usize::MAX);

/// Holds streams as it is told over `input`, and tells over `output`, until it is told to close or `input` ends.
///
/// # Errors
/// If what it is told makes no sense, or nobody listens.
pub fn run(input: impl Read + Send + 'static, output: impl Write) -> Result<()> {
    let mut lines = BufReader::new(input).lines();
    let first = lines.next().context("nothing was told")??;
    let Command::Hold(plan, part) = serde_json::from_str(&first)? else {
        bail!("not told first what to hold: {first}");
    };
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), COMMANDS)?;
    let (sender, commands) = channel();
    // Ends with the input, or once nobody receives.
    thread::spawn(move || {
        for line in lines {
            let command = line
                .map_err(anyhow::Error::from)
                .and_then(|line| Ok(serde_json::from_str(&line)?));
            if sender.send(command).is_err() || waker.wake().is_err() {
                return;
            }
        }
        drop(sender);
        let _ = waker.wake();
    });
    Engine::new(*plan, part, poll, output).run(&commands)
}

struct Engine<W> {
    plan: Plan,
    part: Part,
    signer: Option<Signer>,
    poll: Poll,
    output: W,
    streams: Vec<Stream>,
    check: Check,
    /// Those who are to be opened as soon as there is room.
    turn: VecDeque<u32>,
    /// Those who come back then.
    later: BinaryHeap<Reverse<(u64, u32)>>,
    at_a_time: u32,
    opening: u32,
    open: u32,
    stay_away: bool,
    cut_every: (f64, How),
    to_cut: f64,
    seen: Streams,
    latency: Histogram<u64>,
    opened_in: Histogram<u64>,
    last_event: u64,
    complaint: Option<String>,
    told: u64,
    buffer: Box<[u8]>,
    body: Vec<u8>,
}

impl<W: Write> Engine<W> {
    fn new(plan: Plan, part: Part, poll: Poll, output: W) -> Self {
        Self {
            signer: plan.tokens.as_ref().map(Tokens::signer),
            check: Check::new(plan.follows.clone(), part.first, part.streams),
            plan,
            poll,
            output,
            streams: std::iter::repeat_with(Stream::default)
                .take(part.streams as usize)
                .collect(),
            part,
            turn: VecDeque::new(),
            later: BinaryHeap::new(),
            at_a_time: 1,
            opening: 0,
            open: 0,
            stay_away: false,
            cut_every: (0.0, How::Reset),
            to_cut: 0.0,
            seen: Streams::default(),
            latency: record(),
            opened_in: record(),
            last_event: 0,
            complaint: None,
            told: 1,
            buffer: vec![0; BUFFER].into(),
            body: Vec::new(),
        }
    }

    fn run(mut self, commands: &Receiver<Result<Command>>) -> Result<()> {
        let mut events = Events::with_capacity(1_024);
        let (mut sample, mut step) = (now() + SAMPLE, now() + STEP);
        loop {
            let time = now();
            let due = self.later.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
            let next = sample.min(due).min(if self.has_steps() { step } else { u64::MAX });
            let wait = Duration::from_nanos(next.saturating_sub(time));
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                polled => polled.context("epoll failed")?,
            }
            for event in &events {
                if event.token() == COMMANDS {
                    continue;
                }
                let index = u32::try_from(event.token().0).unwrap_or(u32::MAX);
                if event.is_writable() {
                    self.writable(index);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.readable(index, event.is_read_closed() || event.is_error());
                }
            }
            loop {
                match commands.try_recv() {
                    Ok(command) => {
                        if !self.told(command?) {
                            return self.tell(true);
                        }
                    }
                    Err(TryRecvError::Empty) => break,
                    // Whoever gave the commands is gone.
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            let time = now();
            while let Some(&Reverse((due, index))) = self.later.peek()
                && due <= time
            {
                self.later.pop();
                self.turn.push_back(index);
            }
            if time >= step {
                self.step((time - step + STEP) as f64 / 1e9);
                step = time + STEP;
            }
            while self.opening < self.at_a_time
                && !self.stay_away
                && let Some(index) = self.turn.pop_front()
            {
                self.connect(index);
            }
            if time >= sample {
                sample = time + SAMPLE;
                self.tell(false)?;
            }
        }
    }

    /// Does what it was told; tells whether it goes on.
    fn told(&mut self, command: Command) -> bool {
        self.told += 1;
        match command {
            // It has its streams.
            Command::Hold(..) => {}
            Command::Open {
                streams,
                at_a_time,
                after,
            } => {
                self.at_a_time = at_a_time.max(1);
                for index in 0..streams.min(self.part.streams) {
                    let stream = &mut self.streams[index as usize];
                    if stream.state == State::Unwanted {
                        stream.state = State::Away;
                        self.turn.push_back(index);
                        self.check.begin(self.part.first + index, &after);
                    }
                }
            }
            Command::Cut(share, how) => {
                let mut random = rand::rng();
                for index in 0..self.part.streams {
                    if self.streams[index as usize].state == State::Open && random.random_bool(share.clamp(0.0, 1.0)) {
                        self.cut(index, how);
                    }
                }
            }
            Command::CutEvery(per_second, how) => self.cut_every = (per_second, how),
            Command::StayAway(stay_away) => self.stay_away = stay_away,
            Command::Edges(edges) => self.plan.edges = edges,
            Command::Expect(published) => self.check.expect(&published),
            Command::Close => {
                for index in 0..self.part.streams {
                    // Whatever still comes is read first: what was delivered counts.
                    self.readable(index, true);
                    self.close(index, How::Goodbye);
                }
                return false;
            }
        }
        true
    }

    const fn has_steps(&self) -> bool {
        self.plan.slow.is_some() || self.cut_every.0 > 0.0
    }

    /// Cuts streams, and reads those that are slow, as is due after so many seconds.
    fn step(&mut self, seconds: f64) {
        let (per_second, how) = self.cut_every;
        self.to_cut = (self.to_cut + per_second * seconds).min(f64::from(self.part.streams));
        while self.to_cut >= 1.0 && self.open > 0 {
            self.to_cut -= 1.0;
            let index = rand::rng().random_range(0..self.part.streams);
            if self.streams[index as usize].state == State::Open {
                self.cut(index, how);
            }
        }
        if let Some(slow) = self.plan.slow {
            let bytes = (f64::from(slow.bytes_per_second) * seconds) as usize;
            let first = self.part.first.next_multiple_of(slow.one_in.max(1)) - self.part.first;
            for index in (first..self.part.streams).step_by(slow.one_in.max(1) as usize) {
                if self.streams[index as usize].state == State::Open {
                    self.read(index, bytes.clamp(1, BUFFER));
                }
            }
        }
    }

    fn is_slow(&self, index: u32) -> bool {
        let number = self.part.first + index;
        self.plan
            .slow
            .is_some_and(|slow| number.is_multiple_of(slow.one_in.max(1)))
    }

    /// Opens a connection.
    fn connect(&mut self, index: u32) {
        let number = (self.part.first + index) as usize;
        let is_slow = self.is_slow(index);
        let stream = &mut self.streams[index as usize];
        let edges = &self.plan.edges;
        let edge = match stream.attempts {
            0 => edges[number % edges.len()],
            // Where it belongs nobody answers, or not well.
            _ => edges[rand::rng().random_range(0..edges.len())],
        };
        stream.since = now();
        stream.state = State::Connecting;
        let socket = dial(edge, self.part.source, is_slow).and_then(|mut socket| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut socket, Token(index as usize), interest)?;
            Ok(socket)
        });
        self.opening += 1;
        match socket {
            Ok(socket) => stream.socket = Some(socket),
            Err(error) => {
                self.seen.refused += 1;
                self.lost(index, &error);
            }
        }
    }

    fn writable(&mut self, index: u32) {
        let stream = &self.streams[index as usize];
        let (State::Connecting, Some(socket)) = (stream.state, &stream.socket) else {
            return;
        };
        let peer = match socket.take_error() {
            Ok(None) => match socket.peer_addr() {
                Ok(peer) => peer,
                // Not yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotConnected => return,
                Err(error) => return self.refused(index, &error),
            },
            Ok(Some(error)) | Err(error) => return self.refused(index, &error),
        };
        let request = match self.request(index, peer) {
            Ok(request) => request,
            Err(error) => {
                self.complain(|| format!("a stream cannot be asked for: {error:#}"));
                return self.away(index, None);
            }
        };
        let stream = &mut self.streams[index as usize];
        let Some(socket) = &mut stream.socket else { return };
        // A request is far smaller than a socket's buffer.
        match socket.write_all(&request) {
            Ok(()) => stream.state = State::Asked,
            Err(error) => self.refused(index, &error),
        }
    }

    fn request(&self, index: u32, server: SocketAddr) -> Result<Vec<u8>> {
        let number = self.part.first + index;
        let mut shared = Vec::new();
        let mut user = None;
        for key in self.plan.follows.keys(number) {
            match key {
                Key::Inbox(inbox) => user = Some(inbox),
                Key::Shared(topic) => shared.push(topic),
            }
        }
        let signer = self.signer.as_ref();
        let token = signer.map(|signer| signer.user(&number.to_string())).transpose()?;
        let cursor = self.streams[index as usize].cursor.as_deref();
        let asked = Asked {
            user,
            shared: &shared,
            token: token.as_deref(),
            last_event_id: cursor.map(str::as_bytes),
        };
        let mut request = Vec::with_capacity(512);
        self.plan.template.ask(server, &asked, &mut request)?;
        Ok(request)
    }

    fn refused(&mut self, index: u32, error: &std::io::Error) {
        self.seen.refused += 1;
        self.lost(index, error);
    }

    /// There is something to read; with `ends` the end too, of which nothing more will be told.
    fn readable(&mut self, index: u32, ends: bool) {
        let is_open = self.streams[index as usize].state == State::Open;
        if is_open && self.is_slow(index) {
            return;
        }
        loop {
            match self.read(index, BUFFER) {
                Took::All => {}
                // What the socket did not fill the buffer with it does not have yet: it tells when there is more.
                Took::Part if ends => {}
                Took::Part | Took::Nothing => return,
            }
        }
    }

    /// Reads so much.
    fn read(&mut self, index: u32, bytes: usize) -> Took {
        let stream = &mut self.streams[index as usize];
        let (State::Asked | State::Open, Some(socket)) = (stream.state, &mut stream.socket) else {
            return Took::Nothing;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = socket.read(&mut buffer[..bytes]);
        let took = match read {
            Ok(0) => {
                self.ended(index);
                Took::Nothing
            }
            Ok(read) => {
                self.seen.bytes += read as u64;
                match self.came(index, &buffer[..read]) {
                    true if read == bytes => Took::All,
                    true => Took::Part,
                    false => Took::Nothing,
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Took::Nothing,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Took::All,
            Err(error) => {
                self.seen.broken += 1;
                self.lost(index, &error);
                Took::Nothing
            }
        };
        self.buffer = buffer;
        took
    }

    /// Takes apart what came; tells whether the stream is still there.
    fn came(&mut self, index: u32, bytes: &[u8]) -> bool {
        let number = self.part.first + index;
        let mut stream = std::mem::take(&mut self.streams[index as usize]);
        let mut body = std::mem::take(&mut self.body);
        let came = stream.take(bytes, &mut body, |stream, said| self.said(number, stream, said));
        self.body = body;
        self.streams[index as usize] = stream;
        match came {
            Ok(Came::More) => return true,
            Ok(Came::End) => {
                self.seen.ended += 1;
                self.away(index, None);
            }
            Ok(Came::Refused(head)) => self.answered(index, head),
            Err(error) => {
                self.seen.violations += 1;
                self.complain(|| format!("stream {number}: {error:#}"));
                self.away(index, None);
            }
        }
        false
    }

    fn said(&mut self, number: u32, stream: &mut Stream, said: Said<'_>) {
        match said {
            Said::Open => {
                let time = now().saturating_sub(stream.since);
                note(&mut self.opened_in, time, 1);
                self.opening -= 1;
                self.open += 1;
                self.seen.opened += 1;
                self.seen.reopened += u64::from(stream.was_open);
                stream.was_open = true;
                stream.attempts = 0;
            }
            Said::Line(line) => {
                self.seen.lines += 1;
                if let Some(retry) = line.strip_prefix(b"retry:") {
                    let text = std::str::from_utf8(retry).unwrap_or_default();
                    stream.retry = text.trim().parse().unwrap_or_default();
                }
            }
            Said::Event(block) => {
                if self.plan.strict && !block.is_strict() {
                    self.seen.violations += 1;
                    self.complain(|| format!("stream {number}: {}", block.bytes().escape_ascii()));
                }
                if let Some(id) = block.get("id").and_then(|id| std::str::from_utf8(id).ok()) {
                    stream.cursor = Some(id.into());
                }
                if block.get("event") == Some(b"tidings.gap") {
                    self.seen.gaps += 1;
                    self.complain(|| format!("stream {number}: {}", block.bytes().escape_ascii()));
                } else if let Some(payload) = Payload::find(block.bytes()) {
                    let time = now();
                    // Whoever reads slowly is late for reasons of its own.
                    if !self.is_slow(number - self.part.first) {
                        note(&mut self.latency, time.saturating_sub(payload.due), 1);
                    }
                    self.last_event = time;
                    self.check.got(number, &payload);
                }
            }
        }
    }

    /// The peer has closed the connection.
    fn ended(&mut self, index: u32) {
        let stream = &self.streams[index as usize];
        if stream.state == State::Open && !stream.is_chunked() && stream.is_whole() {
            self.seen.ended += 1;
        } else {
            self.seen.broken += 1;
        }
        self.away(index, None);
    }

    /// The server answered with something else than a stream.
    fn answered(&mut self, index: u32, head: Head) {
        if matches!(head.status, 429 | 503) {
            self.seen.shed += 1;
        } else {
            self.seen.failed += 1;
            self.complain(|| format!("a stream was answered with {}", head.status));
        }
        let stream = &mut self.streams[index as usize];
        stream.attempts = stream.attempts.saturating_add(1);
        self.away(
            index,
            head.retry_after.map(|seconds| u64::from(seconds) * 1_000_000_000),
        );
    }

    /// The connection failed.
    fn lost(&mut self, index: u32, error: &std::io::Error) {
        let stream = &mut self.streams[index as usize];
        let attempts = u32::from(stream.attempts);
        stream.attempts = stream.attempts.saturating_add(1);
        let wait = (FIRST_WAIT << attempts.min(10)).min(LAST_WAIT);
        if error.kind() == std::io::ErrorKind::AddrNotAvailable {
            self.complain(|| format!("no port is left to connect from: {error}"));
        }
        self.away(index, Some(wait / 2 + rand::rng().random_range(0..=wait / 2)));
    }

    fn cut(&mut self, index: u32, how: How) {
        self.seen.cut += 1;
        self.close(index, how);
        self.come_back(index, None);
    }

    /// Closes a stream that comes back: after the wait at least, if there is one.
    fn away(&mut self, index: u32, wait: Option<u64>) {
        self.close(index, How::Goodbye);
        self.come_back(index, wait);
    }

    fn come_back(&mut self, index: u32, wait: Option<u64>) {
        let comeback = self.plan.comeback;
        let (after, within) = (nanoseconds(comeback.after), nanoseconds(comeback.within));
        let own = rand::rng().random_range(after..=within.max(after));
        let told = match comeback.listens {
            true => u64::from(self.streams[index as usize].retry) * 1_000_000,
            false => 0,
        };
        let wait = own.max(told).max(wait.unwrap_or_default());
        self.later.push(Reverse((now() + wait, index)));
    }

    fn close(&mut self, index: u32, how: How) {
        let stream = &mut self.streams[index as usize];
        match stream.state {
            State::Connecting | State::Asked => self.opening -= 1,
            State::Open => self.open -= 1,
            State::Unwanted | State::Away => {}
        }
        if let Some(socket) = stream.close()
            && how == How::Reset
        {
            // Without effect it ends in order.
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
    }

    fn complain(&mut self, complaint: impl FnOnce() -> String) {
        self.complaint.get_or_insert_with(complaint);
    }

    fn tell(&mut self, is_last: bool) -> Result<()> {
        let sample = Sample {
            told: self.told,
            open: self.open,
            opening: self.opening,
            away: u32::try_from(self.turn.len() + self.later.len()).unwrap_or(u32::MAX),
            streams: self.seen,
            events: self.check.found(),
            missing: self.check.missing(),
            last_event: self.last_event,
            latency: take(&mut self.latency),
            opened_in: take(&mut self.opened_in),
            complaint: self.complaint.clone(),
            is_last,
        };
        let mut line = serde_json::to_vec(&sample)?;
        line.push(b'\n');
        self.output.write_all(&line).context("nobody listens")?;
        self.output.flush().context("nobody listens")
    }
}

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Took {
    /// As much as there was room for.
    All,
    /// Less than there was room for.
    Part,
    /// Nothing, for now or for good.
    Nothing,
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
