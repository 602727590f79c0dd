//! A body that must go on: whoever begins a publish and leaves it there would keep its connection from others for nothing.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};

/// A body of which a line break must come at least every so often, counted only while it is waited for. A line that is blank will do.
pub(super) struct Paced<B> {
    body: B,
    within: Duration,
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    pub(super) const fn new(body: B, within: Duration) -> Self {
        Self {
            body,
            within,
            late: None,
        }
    }
}

/// Why a body did not go on.
#[derive(Debug)]
pub(super) enum Broken<E> {
    /// It was waited for too long.
    Late,
    /// It failed.
    Body(E),
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Broken<B::Error>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let has_line = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(|data| data.contains(&b'\n'));
                if matches!(&frame, Some(Ok(frame)) if has_line(frame)) {
                    this.late = None;
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Broken::Body)))
            }
            Poll::Pending => {
                let within = this.within;
                let late = this.late.get_or_insert_with(|| Box::pin(sleep(within)));
                late.as_mut().poll(cx).map(|()| Some(Err(Broken::Late)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::Instant;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    /// A body of these pieces, so many seconds before each.
    async fn read(pieces: &'static [(u64, &'static str)]) -> (usize, bool, Duration) {
        let begin = Instant::now();
        let frames = stream::unfold(pieces.iter(), |mut pieces| async {
            let (seconds, text) = pieces.next()?;
            sleep(Duration::from_secs(*seconds)).await;
            Some((
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(text.as_bytes()))),
                pieces,
            ))
        });
        let mut body = Paced::new(StreamBody::new(Box::pin(frames)), WITHIN);
        let mut got = 0;
        let late = loop {
            match body.frame().await {
                Some(Ok(_)) => got += 1,
                Some(Err(Broken::Late)) => break true,
                Some(Err(Broken::Body(never))) => match never {},
                None => break false,
            }
        };
        (got, late, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn lines_may_take_their_time_but_not_for_ever() {
        assert_eq!(
            read(&[(29, "a\n"), (29, "b\n"), (29, "\n"), (29, "c")]).await,
            (4, false, 4 * Duration::from_secs(29))
        );
        assert_eq!(
            read(&[(1, "a\n"), (31, "b\n")]).await,
            (1, true, Duration::from_secs(31))
        );
        // A byte now and then is not a line.
        assert_eq!(
            read(&[(10, "a"), (10, "b"), (11, "c"), (1, "\n")]).await,
            (2, true, WITHIN)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_waiting_counts() {
        let pieces = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"a\n")))]);
        let mut body = Paced::new(StreamBody::new(pieces), WITHIN);
        sleep(2 * WITHIN).await;
        assert!(matches!(body.frame().await, Some(Ok(_))));
        sleep(2 * WITHIN).await;
        assert!(body.frame().await.is_none());
    }
}
