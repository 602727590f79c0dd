//! Calls that have to be there soon. Whoever may call without saying who they are could otherwise begin calls and never finish their messages: a call
//! takes some 14 KiB, and what has come of its message is held in memory until it is whole.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use http::Request;
use http_body::{Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::{Status, body::Body, codegen::Service, server::NamedService};

/// How many messages of one service may be waited for at a time. Those who send theirs together with the call are not among them for long enough to
/// notice; of more, none is waited for.
const WAITING: usize = 1_024;

/// A service whose calls bring one message each, which has to arrive whole in time.
#[derive(Debug, Clone)]
pub struct Prompt<S> {
    service: S,
    within: Duration,
    room: Arc<Semaphore>,
}

impl<S> Prompt<S> {
    /// The same service, with so much time for each message.
    #[must_use]
    pub fn new(service: S, within: Duration) -> Self {
        let room = Arc::new(Semaphore::new(WAITING));
        Self { service, within, room }
    }
}

impl<S: NamedService> NamedService for Prompt<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Prompt<S>
where
    S: Service<Request<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let (within, room) = (self.within, Arc::clone(&self.room));
        self.service.call(request.map(|body| {
            Body::new(Arriving {
                body,
                within,
                room,
                waiting: None,
            })
        }))
    }
}

/// A body on its way.
struct Arriving {
    body: Body,
    within: Duration,
    room: Arc<Semaphore>,
    /// Since it was waited for, until when.
    waiting: Option<(Pin<Box<Sleep>>, OwnedSemaphorePermit)>,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if frame.is_none() || this.body.is_end_stream() {
                this.waiting = None;
            }
            return Poll::Ready(frame);
        }
        if this.waiting.is_none() {
            let Ok(place) = Arc::clone(&this.room).try_acquire_owned() else {
                let problem = "too many messages are waited for: send yours together with the call";
                return Poll::Ready(Some(Err(Status::resource_exhausted(problem))));
            };
            this.waiting = Some((Box::pin(sleep(this.within)), place));
        }
        if let Some((late, _)) = &mut this.waiting {
            ready!(late.as_mut().poll(cx));
        }
        let problem = "the message did not arrive in time: send it together with the call";
        Poll::Ready(Some(Err(Status::deadline_exceeded(problem))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::Instant;
    use tokio_stream::{self as stream, StreamExt as _};
    use tonic::Code;

    use super::*;

    /// Reads a message to its end, and tells what came of that.
    #[derive(Clone)]
    struct Reader;

    impl Service<Request<Body>> for Reader {
        type Response = Response<Result<(), Code>>;
        type Error = Infallible;
        type Future = futures::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            Box::pin(async {
                let read = request.into_body().collect().await;
                Ok(Response::new(read.map(drop).map_err(|status| status.code())))
            })
        }
    }

    const WITHIN: Duration = Duration::from_secs(10);

    fn piece() -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(Bytes::from_static(b"x")))
    }

    async fn read(service: &mut Prompt<Reader>, body: Body) -> Result<(), Code> {
        let answer = service.call(Request::new(body)).await;
        answer.unwrap_or_else(|never| match never {}).into_body()
    }

    fn endless() -> Body {
        // A piece now and then is no message.
        let pieces = stream::iter(0..1_000).throttle(Duration::from_secs(3)).map(|_| piece());
        Body::new(StreamBody::new(Box::pin(pieces)))
    }

    fn whole() -> Body {
        Body::new(StreamBody::new(stream::once(piece())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_has_so_much_time() {
        let mut service = Prompt::new(Reader, WITHIN);
        assert_eq!(read(&mut service, whole()).await, Ok(()));
        let begin = Instant::now();
        assert_eq!(read(&mut service, endless()).await, Err(Code::DeadlineExceeded));
        assert_eq!(begin.elapsed(), WITHIN);
        assert_eq!(service.room.available_permits(), WAITING);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_waited_for() {
        let mut service = Prompt::new(Reader, WITHIN);
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| tokio::spawn(service.call(Request::new(endless()))))
            .collect();
        while service.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let begin = Instant::now();
        assert_eq!(read(&mut service, endless()).await, Err(Code::ResourceExhausted));
        assert_eq!(read(&mut service, whole()).await, Ok(()), "what is there is taken");
        assert!(begin.elapsed().is_zero());
        waiting.into_iter().for_each(|call| call.abort());
    }
}
