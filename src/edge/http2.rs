//! HTTP/2, agreed on in the TLS handshake, or in clear text from clients that know: hyper keeps the connection, each stream's body comes
//! out of a channel.

use std::{cell::Cell, convert::Infallible, pin::pin, rc::Rc, sync::Arc};

use futures::{FutureExt as _, future::LocalBoxFuture};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    server::conn::http2,
    service::Service,
};
use hyper_util::rt::TokioTimer;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    answer::{Answer, Opening, Shed},
    http::Connection,
    limits::{Over, Permits},
    streamed::{self, Body},
    streams::aged,
    worker::Worker,
};
use crate::{gate::Place, model::UnixMillis, proxies::Client};

/// Streams on one connection at a time.
const STREAMS: u32 = 256;

/// What hyper and h2 gather of one stream before the channel fills.
const SEND_BUFFER: usize = 16 * 1024;

/// Serves a connection. Its first request, or all of it if it is over a limit, has time until the deadline.
pub(super) async fn serve<IO>(connection: Connection, io: IO, deadline: Instant)
where
    IO: Read + Write + Unpin + 'static,
{
    let worker = Rc::clone(&connection.worker);
    let settings = &worker.settings;
    let requests = Rc::new(Cell::new(0));
    let asked = Rc::new(Notify::new());
    let desk = Desk {
        worker: Rc::clone(&worker),
        client: connection.client,
        over: connection.over,
        place: Arc::clone(&connection.place),
        requests: Rc::clone(&requests),
        asked: Rc::clone(&asked),
        open: Rc::new(()),
    };
    let open = Rc::clone(&desk.open);
    let header_bytes = u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX);
    let mut hyper = pin!(
        http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(header_bytes)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(settings.heartbeat)
            .keep_alive_timeout(settings.heartbeat)
            .serve_connection(io, desk)
    );
    // One without streams is given the time that a request may take, then told to go, then cut off.
    let is_over = connection.over.is_some();
    let mut told = false;
    let mut next = deadline;
    let mut seen = requests.get();
    // What comes back after this comes on another connection, and so perhaps to another node.
    let ages = !settings.max_age.is_zero();
    let old = Instant::now() + aged(settings.max_age);
    loop {
        tokio::select! {
            outcome = hyper.as_mut() => {
                if let Err(error) = outcome {
                    debug!(peer = %connection.client, %error, "a connection failed");
                }
                break;
            }
            // One that is over a limit makes room for the next to be told so.
            () = asked.notified(), if is_over && !told => {
                hyper.as_mut().graceful_shutdown();
                told = true;
            }
            () = sleep_until(old), if ages && !told => {
                hyper.as_mut().graceful_shutdown();
                told = true;
            }
            () = sleep_until(next) => {
                if is_over {
                    break;
                }
                // The desk holds one of these, this function another.
                let is_idle = Rc::strong_count(&open) == 2 && requests.get() == seen;
                match (is_idle, told) {
                    (true, true) => break,
                    (true, false) => {
                        hyper.as_mut().graceful_shutdown();
                        told = true;
                    }
                    (false, _) => {}
                }
                next = Instant::now() + settings.header_timeout;
                seen = requests.get();
            }
        }
    }
    drop(connection.permit);
}

/// Runs hyper's tasks on the worker's own thread. They end with their connection.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Answers the requests of one connection.
struct Desk {
    worker: Rc<Worker>,
    client: Client,
    over: Option<Over>,
    place: Arc<Place>,
    requests: Rc<Cell<u64>>,
    /// Told with each request.
    asked: Rc<Notify>,
    /// Cloned into each stream.
    open: Rc<()>,
}

impl Service<Request<Incoming>> for Desk {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = LocalBoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.requests.set(self.requests.get().wrapping_add(1));
        self.asked.notify_one();
        let answered = self.answer(&request);
        async { Ok(answered.await) }.boxed_local()
    }
}

impl Desk {
    fn answer(&self, request: &Request<Incoming>) -> LocalBoxFuture<'static, Response<Body>> {
        let rules = &self.worker.rules;
        let client = self.worker.settings.proxies.of_request(self.client, request.headers());
        let over = || self.over(client);
        let (response, reason) = match rules.answer(request, &self.worker.routes(), over, UnixMillis::now()) {
            Answer::Whole(response) => return streamed::whole(response),
            Answer::Shed(response, reason) => (response, reason),
            Answer::Stream(opening) => match self.admit(client, &opening) {
                Ok(permits) => {
                    debug!(peer = %client, "a stream begins");
                    return self.open(opening, permits);
                }
                Err(reason) => (rules.shed(opening), reason),
            },
        };
        debug!(peer = %client, %reason, "a stream is shed");
        streamed::whole(response)
    }

    /// The limit that a request is over.
    fn over(&self, client: Client) -> Option<Over> {
        let attempt = || self.worker.limits.attempt(client, std::time::Instant::now()).err();
        self.over.or_else(attempt)
    }

    fn admit(&self, client: Client, opening: &Opening) -> Result<Permits, Shed> {
        let connection = self.worker.limits.room(Some(client))?;
        Ok(Permits::of_user(self.worker.admit(opening)?).with_connection(connection))
    }

    fn open(&self, opening: Opening, permits: Permits) -> LocalBoxFuture<'static, Response<Body>> {
        let open = (Rc::clone(&self.open), self.place.used());
        streamed::open(&self.worker, opening, permits, open).boxed_local()
    }
}
