//! When a connection of a router is in use: from when a request has arrived whole, or is being answered, until it has been answered. One whose
//! request does not go on is not in use.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use http_body::{Frame, SizeHint};

use super::{Place, Used};

/// The router of one connection, whose calls are uses of its place.
pub fn in_use(place: Arc<Place>, router: Router) -> Router {
    router.layer(from_fn_with_state(place, call))
}

async fn call(State(place): State<Arc<Place>>, request: Request, next: Next) -> Response {
    let call = Arc::new(Call {
        place,
        used: OnceLock::new(),
    });
    let arriving = request.map(|body| Body::new(Watched::new(body, Arc::clone(&call))));
    let response = next.run(arriving).await;
    call.begin();
    response.map(|body| Body::new(Watched::new(body, call)))
}

/// A request on its way, and its answer.
struct Call {
    place: Arc<Place>,
    used: OnceLock<Used>,
}

impl Call {
    fn begin(&self) {
        self.used.get_or_init(|| self.place.used());
    }
}

/// A body that keeps its call alive, and begins it with its own end.
struct Watched {
    body: Body,
    call: Arc<Call>,
}

impl Watched {
    fn new(body: Body, call: Arc<Call>) -> Self {
        if body.is_end_stream() {
            call.begin();
        }
        Self { body, call }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.call.begin();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
