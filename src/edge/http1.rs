//! HTTP/1.1 in clear text: hyper reads requests and answers those that are no stream; the socket of one that is leaves hyper.
//!
//! hyper's API allows for that: the service parks the request and says so in a cell beside it, the connection is polled without
//! shutting down, and once the cell is filled it is taken apart. Nothing of hyper stays with the stream.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{self, Future as _},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures::future::Either;
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::TokioTimer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::{
    Settings,
    answer::{Answer, Opening, Shed},
    frame::{self, Coding},
    http::{Connection, Io},
    limits::{Over, Permits, come_back_after},
    socket::Socket,
    worker::Worker,
};
use crate::{model::UnixMillis, proxies::Client};

/// How long, and how much, a client may still send after it has its last answer before it is cut off.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 256 * 1024);

/// The smallest buffer that hyper allows.
const LEAST_BUFFER: usize = 8_192;

/// A stream that was admitted, with what it takes beside its connection, and the version of HTTP that it was asked for in.
pub(super) type Admitted = Box<(Opening, Permits, Version)>;

/// What becomes of a request.
pub(super) enum Verdict {
    /// It has this answer.
    Whole(Response<Bytes>),
    /// It is a stream.
    Stream(Admitted),
}

/// Serves a connection. Its first request's head, or all of it if it is over a limit, has time until the deadline.
pub(super) async fn serve(connection: Connection, io: Io, deadline: Instant) {
    let blocked = Rc::clone(&io.blocked);
    let parked = Rc::new(RefCell::new(None));
    let is_asked = Rc::new(Cell::new(false));
    let parking = Parking {
        desk: Desk::new(&connection, &is_asked),
        parked: Rc::clone(&parked),
    };
    let worker = connection.worker;
    let settings = &worker.settings;
    let mut hyper = hyper(settings).serve_connection(io, parking);
    let mut deadline = pin!(sleep_until(deadline));
    let stream: Option<Admitted> = future::poll_fn(|cx| {
        let polled = hyper.poll_without_shutdown(cx);
        // Answers to earlier requests on this connection go out first.
        if !blocked.get()
            && let Some(stream) = parked.borrow_mut().take()
        {
            return Poll::Ready(Some(stream));
        }
        if let Poll::Ready(outcome) = polled {
            if let Err(error) = outcome {
                debug!(peer = %connection.client, %error, "a connection failed");
            }
            return Poll::Ready(None);
        }
        // hyper's own timer began only with the first byte, and starts again with each request.
        if (connection.over.is_some() || !is_asked.get()) && deadline.as_mut().poll(cx).is_ready() {
            debug!(peer = %connection.client, "a connection is cut off: its time is over");
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await;
    let socket = hyper.into_parts().io.into_stream();
    match stream {
        Some(admitted) => {
            let (opening, permits, version) = *admitted;
            let coding = Coding::of(version);
            let headers = opening.headers.iter().map(|(name, value)| (name.as_str(), value));
            let date = httpdate::fmt_http_date(std::time::SystemTime::now());
            let terms = opening.terms();
            let head = frame::http1_head(&date, headers, coding, come_back_after(settings.retry));
            Socket::open(
                &worker,
                socket,
                (head, coding),
                (opening.follow, terms),
                permits.with_connection(connection.permit),
            );
        }
        None => close(socket).await,
    }
}

/// hyper, as it is set up for HTTP/1.1.
pub(super) fn hyper(settings: &Settings) -> http1::Builder {
    let mut hyper = http1::Builder::new();
    hyper
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(settings.max_header_bytes.max(LEAST_BUFFER))
        .max_header_size(settings.max_header_bytes);
    hyper
}

/// Closes a connection such that its last answer arrives: closing while the peer's bytes are unread would reset it.
pub(super) async fn close(mut socket: impl AsyncRead + AsyncWrite + Unpin) {
    let (time, bytes) = LINGER;
    // Over TLS the end has to be written, too: whoever reads nothing could put it off for ever.
    let closed = async {
        socket.shutdown().await?;
        let mut rest = socket.take(bytes);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = timeout(time, closed).await;
}

/// Has hyper end the connection with this answer.
pub(super) fn close_after<B>(response: &mut Response<B>) {
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// Answers the requests of one connection.
pub(super) struct Desk {
    worker: Rc<Worker>,
    client: Client,
    over: Option<Over>,
    /// Whether there was any request yet.
    is_asked: Rc<Cell<bool>>,
    /// Whether nothing was asked for yet that counts as an attempt.
    is_first: Cell<bool>,
}

impl Desk {
    /// The desk of a connection; the cell is filled once there was a request.
    pub(super) fn new(connection: &Connection, is_asked: &Rc<Cell<bool>>) -> Self {
        Self {
            worker: Rc::clone(&connection.worker),
            client: connection.client,
            over: connection.over,
            is_asked: Rc::clone(is_asked),
            is_first: Cell::new(true),
        }
    }

    /// What becomes of a request.
    pub(super) fn answer(&self, request: &Request<Incoming>) -> Verdict {
        self.is_asked.set(true);
        let rules = &self.worker.rules;
        let client = self.worker.settings.proxies.of_request(self.client, request.headers());
        let answered = rules.answer(request, &self.worker.routes(), || self.over(client), UnixMillis::now());
        let (mut response, reason) = match answered {
            Answer::Whole(mut response) => {
                // One that is over a limit makes room for the next to be told so.
                if self.over.is_some() {
                    close_after(&mut response);
                }
                return Verdict::Whole(response);
            }
            Answer::Shed(response, reason) => (response, reason),
            Answer::Stream(opening) => match self.admit(client, &opening) {
                Ok(permits) => {
                    debug!(peer = %client, "a stream begins");
                    return Verdict::Stream(Box::new((opening, permits, request.version())));
                }
                Err(reason) => (rules.shed(opening), reason),
            },
        };
        debug!(peer = %client, %reason, "a stream is shed");
        close_after(&mut response);
        Verdict::Whole(response)
    }

    /// The limit that a request is over.
    fn over(&self, client: Client) -> Option<Over> {
        // The first was counted with the connection, unless that is a proxy's: it is no client's own.
        self.over
            .or_else(|| match self.is_first.replace(false) && !self.client.is_proxy() {
                true => None,
                false => self.worker.limits.attempt(client, std::time::Instant::now()).err(),
            })
    }

    fn admit(&self, client: Client, opening: &Opening) -> Result<Permits, Shed> {
        // The connection has its client's share of the address, unless it is a proxy's.
        let address = match self.client.is_proxy() {
            true => self.worker.limits.address(client)?,
            false => None,
        };
        Ok(Permits::of_user(self.worker.admit(opening)?).with_address(address))
    }
}

/// Has requests answered; one for a stream is parked.
struct Parking {
    desk: Desk,
    parked: Rc<RefCell<Option<Admitted>>>,
}

type Answered = Result<Response<Full<Bytes>>, Infallible>;

impl Service<Request<Incoming>> for Parking {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Either<future::Ready<Answered>, future::Pending<Answered>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        match self.desk.answer(&request) {
            Verdict::Whole(response) => Either::Left(future::ready(Ok(response.map(Full::new)))),
            Verdict::Stream(admitted) => {
                *self.parked.borrow_mut() = Some(admitted);
                Either::Right(future::pending())
            }
        }
    }
}
