//! HTTP/1.1: hyper reads requests and answers those that are no stream; the socket of one that is leaves hyper.
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
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::{
    answer::{Answer, Opening, Shed},
    frame::{self, Coding},
    http::{Connection, Io},
    limits::{Over, UserPermit, come_back_after},
    socket::Socket,
    worker::Worker,
};
use crate::{addresses::AddressPermit, model::UnixMillis, proxies::Client};

/// How long, and how much, a client may still send after it has its last answer before it is cut off.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 256 * 1024);

/// The smallest buffer that hyper allows.
const LEAST_BUFFER: usize = 8_192;

/// A stream that was admitted, on its way out of hyper, with what it takes beside its connection, and the version of HTTP that it was asked
/// for in.
type Parked = (Opening, Share, Version);

/// What a stream takes of its address, if its connection does not, and of its user.
type Share = (Option<AddressPermit>, Option<UserPermit>);

/// Serves a connection. Its first request's head, or all of it if it is over a limit, has time until the deadline.
pub(super) async fn serve(connection: Connection, io: Io, deadline: Instant) {
    let worker = connection.worker;
    let blocked = Rc::clone(&io.blocked);
    let parked = Rc::new(RefCell::new(None));
    let is_asked = Rc::new(Cell::new(false));
    let desk = Desk {
        worker: Rc::clone(&worker),
        client: connection.client,
        over: connection.over,
        is_asked: Rc::clone(&is_asked),
        is_first: Cell::new(true),
        parked: Rc::clone(&parked),
    };
    let settings = &worker.settings;
    let mut hyper = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(settings.max_header_bytes.max(LEAST_BUFFER))
        .max_header_size(settings.max_header_bytes)
        .serve_connection(io, desk);
    let mut deadline = pin!(sleep_until(deadline));
    let stream: Option<Parked> = future::poll_fn(|cx| {
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
        Some((opening, share, version)) => {
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
                (connection.permit, share),
            );
        }
        None => close(socket).await,
    }
}

/// Closes a connection such that its last answer arrives: closing while the peer's bytes are unread would reset it.
async fn close(mut socket: TcpStream) {
    if socket.shutdown().await.is_err() {
        return;
    }
    let (time, bytes) = LINGER;
    let discard = async {
        let mut rest = socket.take(bytes);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = timeout(time, discard).await;
}

/// Has hyper end the connection with this answer.
fn close_after<B>(response: &mut Response<B>) {
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// Answers the requests of one connection.
struct Desk {
    worker: Rc<Worker>,
    client: Client,
    over: Option<Over>,
    /// Whether there was any request yet.
    is_asked: Rc<Cell<bool>>,
    /// Whether there was no stream yet.
    is_first: Cell<bool>,
    parked: Rc<RefCell<Option<Parked>>>,
}

type Answered = Result<Response<Full<Bytes>>, Infallible>;

impl Service<Request<Incoming>> for Desk {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Either<future::Ready<Answered>, future::Pending<Answered>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.is_asked.set(true);
        match self.answer(&request) {
            Some(mut response) => {
                // One that is over a limit makes room for the next to be told so.
                if self.over.is_some() {
                    close_after(&mut response);
                }
                Either::Left(future::ready(Ok(response.map(Full::new))))
            }
            None => Either::Right(future::pending()),
        }
    }
}

impl Desk {
    /// The answer; none if the request is parked.
    fn answer(&self, request: &Request<Incoming>) -> Option<Response<Bytes>> {
        let rules = &self.worker.rules;
        match rules.answer(request, &self.worker.routes(), UnixMillis::now()) {
            Answer::Whole(response) => Some(response),
            Answer::Stream(opening) => {
                let client = self.worker.settings.proxies.of_request(self.client, request.headers());
                match self.admit(client, &opening) {
                    Ok(share) => {
                        debug!(peer = %client, "a stream begins");
                        *self.parked.borrow_mut() = Some((opening, share, request.version()));
                        None
                    }
                    Err(reason) => {
                        debug!(peer = %client, %reason, "a stream is shed");
                        let mut response = rules.shed(opening);
                        close_after(&mut response);
                        Some(response)
                    }
                }
            }
        }
    }

    fn admit(&self, client: Client, opening: &Opening) -> Result<Share, Shed> {
        if let Some(over) = self.over {
            return Err(over.into());
        }
        let limits = &self.worker.limits;
        // The first was counted with the connection, unless that is a proxy's: it is no client's own.
        if self.client.is_proxy() || !self.is_first.replace(false) {
            limits.attempt(client, std::time::Instant::now())?;
        }
        let address = match self.client.is_proxy() {
            true => limits.address(client)?,
            false => None,
        };
        Ok((address, self.worker.admit(opening)?))
    }
}
