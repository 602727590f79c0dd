//! Streams whose body hyper writes out, because the connection is not theirs alone, or not a bare socket: it comes out of a channel.

use std::{convert::Infallible, future, rc::Rc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::LocalBoxFuture};
use http::{HeaderMap, Response};
use http_body::Frame as BodyFrame;
use http_body_util::{Either, Full, StreamBody};

use super::{
    answer::Opening,
    carrier::End,
    channel::{Receiver, channel},
    frame::{self, Frame},
    limits::{Permits, come_back_after},
    relay::{Relay, Wire},
    worker::Worker,
};
use crate::hub::{Delivery, Form};

type Frames = futures::stream::Map<Receiver<Bytes>, fn(Bytes) -> Result<BodyFrame<Bytes>, Infallible>>;

/// The body of an answer, short or a stream.
pub(super) type Body = Either<Full<Bytes>, StreamBody<Frames>>;

/// A short answer.
pub(super) fn whole(response: Response<Bytes>) -> LocalBoxFuture<'static, Response<Body>> {
    let response = response.map(|body| Either::Left(Full::new(body)));
    future::ready(response).boxed_local()
}

/// Opens a stream that was admitted; it holds its permits, and `held`, for as long as it lives. The answer is there once the stream has begun.
pub(super) fn open<H: 'static>(
    worker: &Rc<Worker>,
    opening: Opening,
    permits: Permits,
    held: H,
) -> impl Future<Output = Response<Body>> + use<H> {
    let (sender, receiver) = channel(worker.settings.send_queue);
    let beginning = frame::opening(come_back_after(worker.settings.retry));
    let terms = opening.terms();
    Relay::<EventStream, _>::open(
        worker,
        sender,
        Some(beginning),
        (opening.follow, terms),
        (permits, held),
    );
    respond(receiver, opening.headers)
}

async fn respond(mut receiver: Receiver<Bytes>, headers: HeaderMap) -> Response<Body> {
    receiver.filled().await;
    let frames: Frames = receiver.map(|bytes| Ok(BodyFrame::data(bytes)));
    let mut response = Response::new(Either::Right(StreamBody::new(frames)));
    *response.headers_mut() = headers;
    response
}

/// Deliveries as pieces of the event stream.
struct EventStream;

impl Wire for EventStream {
    type Item = Bytes;

    fn delivery(delivery: &Delivery<'_>) -> Option<(Bytes, usize)> {
        let block = || Frame::of(delivery).map(Frame::into_bytes);
        let bytes = match delivery {
            Delivery::Event {
                shared: Some(shared), ..
            } => shared.form(Form::Block, || block().unwrap_or_default()).clone(),
            _ => block()?,
        };
        let len = bytes.len();
        Some((bytes, len))
    }

    fn heartbeat() -> Option<Bytes> {
        Some(Bytes::from_static(frame::HEARTBEAT))
    }

    fn expiring(left: Duration) -> Bytes {
        frame::expiring(left)
    }

    fn end(end: End) -> Bytes {
        frame::retry(end.come_back_after)
    }
}
