//! One question for the heads of a shard at a time, shared by all who ask.
//!
//! An answer counts only for who asked before the question was put: whoever asks while one is under way waits for the next. The feed relies
//! on that, for it asks after the bus has begun to carry a slot.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::BoxFuture;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    log::{Heads, ReadError},
    model::Shard,
};

type Answered = oneshot::Sender<Result<Heads, ReadError>>;

/// The questions that are under way, by shard.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Shard, Vec<Answered>>>);

impl Flights {
    /// Has a question put, now or after the one that is under way, and waits for its answer. `ask` puts it.
    pub(super) fn join<F>(
        self: &Arc<Self>,
        shard: Shard,
        runtime: &Handle,
        ask: impl Fn() -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<Heads, ReadError>>
    where
        F: Future<Output = Result<Heads, ReadError>> + Send,
    {
        let (answered, answer) = oneshot::channel();
        let first = {
            let mut flights = self.lock();
            let first = !flights.contains_key(&shard);
            flights.entry(shard).or_default().push(answered);
            first
        };
        if first {
            let flights = Arc::clone(self);
            runtime.spawn(async move {
                // Whatever happens, nobody is left waiting for one that will not end.
                let mut landing = Landing {
                    flights,
                    shard,
                    ended: false,
                };
                while let Some(waiting) = landing.next() {
                    let answer = ask().await;
                    for answered in waiting {
                        // Who has left does not mind.
                        let _ = answered.send(answer.clone());
                    }
                }
            });
        }
        Box::pin(async move { answer.await.unwrap_or_else(|error| Err(ReadError::failed(error))) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Shard, Vec<Answered>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Landing {
    flights: Arc<Flights>,
    shard: Shard,
    ended: bool,
}

impl Landing {
    /// Those who have asked by now and still wait; if there are none, nothing is under way any more.
    fn next(&mut self) -> Option<Vec<Answered>> {
        let mut flights = self.flights.lock();
        let mut waiting = std::mem::take(flights.get_mut(&self.shard)?);
        waiting.retain(|answered| !answered.is_closed());
        if waiting.is_empty() {
            flights.remove(&self.shard);
            // Another one may begin from here on.
            self.ended = true;
            return None;
        }
        Some(waiting)
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !self.ended {
            self.flights.lock().remove(&self.shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::model::{Epoch, Seq};

    #[tokio::test]
    async fn who_asks_while_a_question_is_under_way_shares_the_next() {
        let flights = Arc::<Flights>::default();
        let (put, go) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let join = || {
            let (put, go) = (Arc::clone(&put), Arc::clone(&go));
            let ask = move || {
                let number = put.fetch_add(1, Ordering::SeqCst) + 1;
                let go = Arc::clone(&go);
                async move {
                    go.acquire().await.map_err(ReadError::failed)?.forget();
                    Ok(Heads {
                        shard: Shard(0),
                        epoch: Epoch(1),
                        last: Seq(number),
                        floor: Seq(1),
                        slots: Arc::default(),
                    })
                }
            };
            flights.join(Shard(0), &Handle::current(), ask)
        };
        let number = |heads: Result<Heads, ReadError>| heads.unwrap().last.0;
        for round in 0..3 {
            let first = join();
            while put.load(Ordering::SeqCst) == 2 * round {
                tokio::task::yield_now().await;
            }
            let late: Vec<_> = (0..10).map(|_| join()).collect();
            let gone = join();
            drop(gone);
            go.add_permits(1);
            assert_eq!(number(first.await), 2 * round + 1);
            go.add_permits(1);
            for heads in join_all(late).await {
                assert_eq!(number(heads), 2 * round + 2);
            }
            while !flights.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_question_that_panics_keeps_nobody_waiting() {
        let flights = Arc::<Flights>::default();
        for _ in 0..2 {
            let ask = || async { panic!("no heads today") };
            let heads = flights.join(Shard(0), &Handle::current(), ask).await;
            assert!(matches!(heads, Err(ReadError::Failed { .. })), "{heads:?}");
            while !flights.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }
}
