//! HTTP/1.1 over TLS: hyper reads requests and writes all answers. There is no bare socket that a stream could take along: what goes over it
//! has to pass through TLS, so each stream's body comes out of a channel.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{self, poll_fn},
    rc::Rc,
    sync::Arc,
};

use futures::{FutureExt as _, future::LocalBoxFuture};
use http::{Request, Response};
use hyper::{body::Incoming, service::Service};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::{
    http::Connection,
    http1::{Desk, Verdict, close, close_after, hyper},
    streamed::{self, Body},
    worker::Worker,
};
use crate::gate::Place;

/// Serves a connection. Its first request's head, or all of it if it is over a limit, has time until the deadline.
pub(super) async fn serve(connection: Connection, stream: Box<TlsStream<TcpStream>>, deadline: Instant) {
    let worker = Rc::clone(&connection.worker);
    let is_asked = Rc::new(Cell::new(false));
    let answering = Answering {
        desk: Desk::new(&connection, &is_asked),
        worker: Rc::clone(&worker),
        place: Arc::clone(&connection.place),
    };
    let mut hyper = hyper(&worker.settings).serve_connection(TokioIo::new(stream), answering);
    // hyper's own timer starts again with each request, and has no end for one that is over a limit.
    let too_late = async {
        sleep_until(deadline).await;
        if connection.over.is_none() && is_asked.get() {
            future::pending::<()>().await;
        }
    };
    tokio::select! {
        outcome = poll_fn(|cx| hyper.poll_without_shutdown(cx)) => {
            if let Err(error) = outcome {
                debug!(peer = %connection.client, %error, "a connection failed");
            }
        }
        () = too_late => debug!(peer = %connection.client, "a connection is cut off: its time is over"),
    }
    close(hyper.into_parts().io.into_inner()).await;
    drop(connection.permit);
}

/// Has requests answered, and streams opened.
struct Answering {
    desk: Desk,
    worker: Rc<Worker>,
    place: Arc<Place>,
}

impl Service<Request<Incoming>> for Answering {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = LocalBoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answered = match self.desk.answer(&request) {
            Verdict::Whole(response) => streamed::whole(response),
            Verdict::Stream(admitted) => {
                let (opening, permits, _) = *admitted;
                let opened = streamed::open(&self.worker, opening, permits, self.place.used());
                // What comes back after the stream comes on another connection, and so perhaps to another node.
                let last = opened.map(|mut response| {
                    close_after(&mut response);
                    response
                });
                last.boxed_local()
            }
        };
        answered.map(Ok).boxed_local()
    }
}
