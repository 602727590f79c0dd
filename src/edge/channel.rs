//! A channel bounded in bytes between a hub and whoever writes its deliveries out: an HTTP/2 body on the same thread, or a gRPC stream
//! on another.
//!
//! The sending side never waits: what does not fit is refused, and [`Sender::turn`] tells when there is room again.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::Stream;

use crate::hub::Offer;

/// A channel that holds at most `bound` bytes, or one item however large, and items that count as nothing.
pub(super) fn channel<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        bound,
        state: Mutex::new(State {
            queue: VecDeque::new(),
            queued: 0,
            refused: false,
            ended: false,
            cut: false,
            abandoned: false,
            receiver: None,
            sender: None,
        }),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

struct Shared<T> {
    bound: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    queue: VecDeque<(T, usize)>,
    queued: usize,
    /// Something was refused since the queue was last empty.
    refused: bool,
    /// Nothing more will be sent.
    ended: bool,
    /// What was waiting was dropped: the sender waits for nothing any more.
    cut: bool,
    /// Nobody receives any more.
    abandoned: bool,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

impl<T> Shared<T> {
    /// Nothing panics while the state is locked: it is whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the sender is to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// All was taken out, after something had been refused.
    Drained,
    /// The receiver is gone, or has had everything up to the end.
    Closed,
}

/// The side that sends.
pub(super) struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends an item that counts as so many bytes.
    pub(super) fn offer(&self, item: T, bytes: usize) -> Offer {
        let mut state = self.0.lock();
        if state.ended || state.abandoned {
            return Offer::Gone;
        }
        if state.queued > 0 && state.queued + bytes > self.0.bound {
            state.refused = true;
            return Offer::Full;
        }
        state.push(item, bytes);
        Offer::Taken
    }

    /// Sends an item only if nothing else is waiting; tells whether it was sent.
    pub(super) fn offer_idle(&self, item: T) -> bool {
        let mut state = self.0.lock();
        let idle = state.queue.is_empty() && !state.ended && !state.abandoned;
        if idle {
            state.push(item, 0);
        }
        idle
    }

    /// Sends an item that counts as nothing, however much is waiting; nothing after the end.
    pub(super) fn note(&self, item: T) {
        let mut state = self.0.lock();
        if !state.ended && !state.abandoned {
            state.push(item, 0);
        }
    }

    /// Ends the stream with this item in place of all that is waiting. Whether anybody takes it is of no interest to the sender.
    pub(super) fn cut(&self, last: T) {
        let mut state = self.0.lock();
        if !state.abandoned {
            state.queue = VecDeque::new();
            state.queued = 0;
            state.push(last, 0);
        }
        (state.ended, state.cut) = (true, true);
        if let Some(waker) = state.sender.take() {
            waker.wake();
        }
    }

    /// Ends the stream, after what is waiting and a last item.
    pub(super) fn end(&self, last: T) {
        let mut state = self.0.lock();
        if !state.ended {
            state.push(last, 0);
            state.ended = true;
        }
    }

    /// Waits until there is something to know. To be called again after [`Turn::Drained`].
    pub(super) fn turn(&self) -> impl Future<Output = Turn> + '_ {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.abandoned || state.cut || (state.ended && state.queue.is_empty()) {
                return Poll::Ready(Turn::Closed);
            }
            if state.refused && state.queue.is_empty() {
                state.refused = false;
                return Poll::Ready(Turn::Drained);
            }
            state.sender = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

impl<T> State<T> {
    fn push(&mut self, item: T, bytes: usize) {
        self.queue.push_back((item, bytes));
        self.queued += bytes;
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        if let Some(waker) = state.receiver.take() {
            waker.wake();
        }
    }
}

/// The side that receives: the stream of what was sent.
pub(super) struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// Waits until there is something to receive, or the end.
    pub(super) fn filled(&mut self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.ended || !state.queue.is_empty() {
                return Poll::Ready(());
            }
            state.receiver = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        let Some((item, bytes)) = state.queue.pop_front() else {
            if state.ended {
                return Poll::Ready(None);
            }
            state.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.queued -= bytes;
        if state.queue.is_empty() {
            state.queue.shrink_to(4);
            if (state.refused || state.ended)
                && let Some(waker) = state.sender.take()
            {
                waker.wake();
            }
        }
        Poll::Ready(Some(item))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        state.queue = VecDeque::new();
        if let Some(waker) = state.sender.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_channel_takes_anything() {
        let (sender, mut receiver) = channel(10);
        assert_eq!(sender.offer('a', 1_000), Offer::Taken);
        assert_eq!(sender.offer('b', 1), Offer::Full);
        assert_eq!(sender.turn().now_or_never(), None);
        assert_eq!(receiver.next().now_or_never(), Some(Some('a')));
        assert_eq!(sender.turn().now_or_never(), Some(Turn::Drained));
        assert_eq!(sender.turn().now_or_never(), None);
        assert_eq!(sender.offer('c', 10), Offer::Taken);
        assert_eq!(sender.offer('d', 0), Offer::Taken);
    }

    #[test]
    fn the_end_comes_after_what_is_waiting() {
        let (sender, receiver) = channel(10);
        assert_eq!(sender.offer('a', 1), Offer::Taken);
        sender.end('z');
        assert_eq!(sender.offer('b', 1), Offer::Gone);
        assert_eq!(sender.turn().now_or_never(), None);
        let all = receiver.collect::<String>().now_or_never();
        assert_eq!(all.as_deref(), Some("az"));
        assert_eq!(sender.turn().now_or_never(), Some(Turn::Closed));
    }

    #[test]
    fn heartbeats_only_while_idle() {
        let (sender, mut receiver) = channel(10);
        assert!(sender.offer_idle('h'));
        assert!(!sender.offer_idle('h'));
        assert_eq!(receiver.next().now_or_never(), Some(Some('h')));
        assert!(sender.offer_idle('h'));
    }

    #[test]
    fn what_counts_as_nothing_takes_no_room() {
        let (sender, mut receiver) = channel(10);
        assert_eq!(receiver.filled().now_or_never(), None);
        assert_eq!(sender.offer('a', 0), Offer::Taken);
        assert_eq!(receiver.filled().now_or_never(), Some(()));
        assert_eq!(sender.offer('b', 1_000), Offer::Taken);
        drop(sender);
        assert_eq!(receiver.collect::<String>().now_or_never().as_deref(), Some("ab"));
    }

    #[test]
    fn a_cut_drops_what_is_waiting_and_lets_the_sender_go() {
        let (sender, receiver) = channel(10);
        assert_eq!(sender.offer('a', 10), Offer::Taken);
        assert_eq!(sender.offer('b', 10), Offer::Full);
        sender.note('n');
        sender.end('y');
        assert_eq!(sender.turn().now_or_never(), None);
        sender.cut('z');
        assert_eq!(sender.turn().now_or_never(), Some(Turn::Closed));
        sender.note('o');
        assert_eq!(receiver.collect::<String>().now_or_never().as_deref(), Some("z"));
    }

    #[tokio::test]
    async fn a_lost_receiver_is_noticed() {
        let (sender, receiver) = channel::<char>(10);
        let waiting = tokio::spawn(async move { sender.turn().await });
        drop(receiver);
        assert_eq!(waiting.await.expect("no panic"), Turn::Closed);
    }

    #[tokio::test]
    async fn the_sender_wakes_when_drained() {
        let (sender, mut receiver) = channel(1);
        assert_eq!(sender.offer('a', 1), Offer::Taken);
        assert_eq!(sender.offer('b', 1), Offer::Full);
        let (turn, item) = tokio::join!(sender.turn(), receiver.next());
        assert_eq!((turn, item), (Turn::Drained, Some('a')));
    }

    proptest! {
        #[test]
        fn what_is_taken_arrives_in_order_within_the_bound(steps in prop::collection::vec(prop::option::of(0_usize..40), 0..200)) {
            let (sender, mut receiver) = channel(64);
            let (mut taken, mut got, mut held) = (Vec::new(), Vec::new(), 0);
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Some(bytes) => match sender.offer((number, bytes), bytes) {
                        Offer::Taken => {
                            taken.push(number);
                            held += bytes;
                            prop_assert!(held <= 64);
                        }
                        refused => prop_assert_eq!((refused, held + bytes > 64), (Offer::Full, true)),
                    },
                    None => if let Some(Some((number, bytes))) = receiver.next().now_or_never() {
                        got.push(number);
                        held -= bytes;
                    },
                }
            }
            drop(sender);
            got.extend(receiver.map(|(number, _)| number).collect::<Vec<_>>().now_or_never().expect("ended"));
            prop_assert_eq!(got, taken);
        }
    }
}
