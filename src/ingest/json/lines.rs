//! A body cut into lines, never holding more than one of them and what arrived with its end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::Stream;
use http_body::Body;

use super::Malformed;

/// The lines of a body that are not blank, each with its number from 1. One that is longer than the limit comes as an error as soon as that is
/// known, and the rest of it is skipped.
pub(super) struct Lines<B> {
    body: Option<B>,
    limit: usize,
    buffer: BytesMut,
    /// How much of the buffer holds no line break.
    scanned: usize,
    /// The number of the line that the buffer begins with.
    number: u64,
    /// Whether that line was refused already.
    skipping: bool,
}

impl<B> Lines<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        Self {
            body: Some(body),
            limit,
            buffer: BytesMut::new(),
            scanned: 0,
            number: 1,
            skipping: false,
        }
    }

    /// The next line of what is buffered; `None` if more must be read.
    fn next_buffered(&mut self) -> Option<(u64, Result<Bytes, Malformed>)> {
        loop {
            let unscanned = &self.buffer[self.scanned..];
            let Some(at) = unscanned.iter().position(|&byte| byte == b'\n') else {
                self.scanned = self.buffer.len();
                return self.refuse_if_too_long();
            };
            let line = self.buffer.split_to(self.scanned + at).freeze();
            self.buffer.advance(1);
            self.scanned = 0;
            let number = self.number;
            self.number += 1;
            if let Some(line) = self.finish(line) {
                return Some((number, line));
            }
        }
    }

    fn refuse_if_too_long(&mut self) -> Option<(u64, Result<Bytes, Malformed>)> {
        let refuse = !self.skipping && self.buffer.len() > self.limit;
        if refuse || self.skipping {
            self.skipping = true;
            self.buffer.clear();
            self.scanned = 0;
        }
        refuse.then(|| (self.number, Err(Malformed::TooLong { limit: self.limit })))
    }

    /// What a line that has ended comes to: nothing if it is blank or was refused before.
    fn finish(&mut self, line: Bytes) -> Option<Result<Bytes, Malformed>> {
        if std::mem::take(&mut self.skipping) || line.iter().all(u8::is_ascii_whitespace) {
            None
        } else if line.len() > self.limit {
            Some(Err(Malformed::TooLong { limit: self.limit }))
        } else {
            Some(Ok(line))
        }
    }
}

impl<B> Stream for Lines<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Item = Result<(u64, Result<Bytes, Malformed>), B::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(line) = this.next_buffered() {
                return Poll::Ready(Some(Ok(line)));
            }
            let Some(body) = &mut this.body else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    this.body = None;
                    this.buffer.clear();
                    this.scanned = 0;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.body = None;
                    this.scanned = 0;
                    let rest = this.buffer.split().freeze();
                    let number = this.number;
                    return Poll::Ready(this.finish(rest).map(|line| Ok((number, line))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{FutureExt as _, StreamExt as _};
    use http_body_util::StreamBody;
    use proptest::prelude::*;

    use super::*;

    type Line = (u64, Result<Bytes, Malformed>);

    fn cut(chunks: Vec<Vec<u8>>, limit: usize) -> Vec<Line> {
        let frames = chunks
            .into_iter()
            .map(|chunk| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(chunk))));
        Lines::new(StreamBody::new(futures::stream::iter(frames)), limit)
            .map(|line| line.unwrap_or_else(|never| match never {}))
            .collect::<Vec<_>>()
            .now_or_never()
            .expect("nothing waits")
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_body_is_cut(
            lines in prop::collection::vec("[a-c ]{0,9}", 0..12),
            last_break in any::<bool>(),
            cuts in prop::collection::vec(1..7_usize, 1..40),
        ) {
            let limit = 5;
            let mut text = lines.join("\n");
            if last_break {
                text.push('\n');
            }
            let mut chunks = Vec::new();
            let mut rest = text.as_bytes();
            for size in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at(rest.len().min(*size));
                chunks.push(chunk.to_vec());
                rest = after;
            }
            let long = |line: &str| line.len() > limit;
            let expected: Vec<Line> = (1..)
                .zip(text.split('\n'))
                .filter(|(_, line)| long(line) || !line.trim().is_empty())
                .map(|(number, line)| {
                    let line = if long(line) {
                        Err(Malformed::TooLong { limit })
                    } else {
                        Ok(Bytes::copy_from_slice(line.as_bytes()))
                    };
                    (number, line)
                })
                .collect();
            // A blank line over the limit is refused or skipped, depending on how it arrives: either is fine.
            let not_blank = |found: &Line| !text.split('\n').nth(usize::try_from(found.0 - 1).unwrap()).unwrap().trim().is_empty();
            let found: Vec<_> = cut(chunks, limit).into_iter().filter(not_blank).collect();
            let expected: Vec<_> = expected.into_iter().filter(not_blank).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_long_line_is_refused_before_it_ends_and_is_not_kept() {
        let endless =
            futures::stream::repeat_with(|| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(b"xxxx"))));
        let mut lines = Lines::new(StreamBody::new(endless), 10);
        let first = lines.next().now_or_never().flatten();
        assert_eq!(first, Some(Ok((1, Err(Malformed::TooLong { limit: 10 })))));
        assert!(lines.buffer.is_empty());
    }
}
