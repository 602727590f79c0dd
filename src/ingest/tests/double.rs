//! A journal and a bus that do as they are told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures::future::BoxFuture;
use smallvec::SmallVec;
use tokio::sync::watch;

use crate::{
    bus::{Announcement, Bus, Digest, Line},
    journal::{AppendError, Journal, Placed, Receipt, Ticket},
    model::{Event, Publish, Seq, Slot},
};

/// Appends in memory. What it appended is durable up to a sequence that the test sets.
pub(super) struct TestJournal {
    state: Mutex<State>,
    appended: watch::Sender<usize>,
    durable: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    last: u64,
    publishes: Vec<Publish>,
    keys: HashMap<(String, String), Seq>,
    refuses: Option<AppendError>,
}

impl TestJournal {
    /// Everything is durable at once.
    pub(super) fn prompt() -> Self {
        Self::durable_to(u64::MAX)
    }

    /// Nothing is durable before [`Self::release`].
    pub(super) fn held() -> Self {
        Self::durable_to(0)
    }

    fn durable_to(seq: u64) -> Self {
        Self {
            state: Mutex::default(),
            appended: watch::Sender::new(0),
            durable: watch::Sender::new(seq),
        }
    }

    pub(super) fn release(&self) {
        self.durable.send_replace(u64::MAX);
    }

    pub(super) fn refuse(&self, error: AppendError) {
        self.state.lock().unwrap().refuses = Some(error);
    }

    /// Waits until so many publishes were appended.
    pub(super) async fn until_appended(&self, count: usize) {
        self.appended
            .subscribe()
            .wait_for(|&appended| appended >= count)
            .await
            .unwrap();
    }

    pub(super) fn appended(&self) -> usize {
        *self.appended.borrow()
    }

    /// The first topic of each publish, in their order.
    pub(super) fn topics(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state
            .publishes
            .iter()
            .map(|publish| publish.topics[0].to_string())
            .collect()
    }

    pub(super) fn data(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.publishes.iter().map(|publish| publish.data.to_string()).collect()
    }

    fn place(&self, publish: Publish) -> Result<SmallVec<[Placed; 1]>, AppendError> {
        let mut state = self.state.lock().unwrap();
        if let Some(error) = &state.refuses {
            return Err(error.clone());
        }
        let mut placed = SmallVec::new();
        for topic in &publish.topics {
            let key = publish
                .key
                .as_ref()
                .map(|key| (key.as_str().to_owned(), topic.to_string()));
            if let Some(&seq) = key.as_ref().and_then(|key| state.keys.get(key)) {
                placed.push(Placed { seq, repeated: true });
                continue;
            }
            state.last += 1;
            let seq = Seq(state.last);
            if let Some(key) = key {
                state.keys.insert(key, seq);
            }
            placed.push(Placed { seq, repeated: false });
        }
        state.publishes.push(publish);
        self.appended.send_replace(state.publishes.len());
        Ok(placed)
    }
}

impl Journal for TestJournal {
    fn append(&self, publish: Publish) -> BoxFuture<'_, Result<Ticket, AppendError>> {
        Box::pin(async move {
            let placed = self.place(publish)?;
            let last = placed.iter().map(|placed| placed.seq.0).max().unwrap_or_default();
            let mut durable = self.durable.subscribe();
            Ok(Ticket::new(async move {
                match durable.wait_for(|&seq| seq >= last).await {
                    Ok(_) => Ok(Receipt { placed }),
                    Err(_) => Err(AppendError::Closed),
                }
            }))
        })
    }
}

/// Remembers what is not kept elsewhere.
#[derive(Default)]
pub(super) struct TestBus {
    ephemeral: Mutex<Vec<(Slot, Arc<Event>)>>,
}

impl TestBus {
    pub(super) fn ephemeral_events(&self) -> Vec<(Slot, Arc<Event>)> {
        self.ephemeral.lock().unwrap().clone()
    }
}

impl Bus for TestBus {
    fn announce(&self, _: &[Announcement]) {}

    fn digest(&self, _: &Digest) {}

    fn ephemeral(&self, slot: Slot, event: Arc<Event>) {
        self.ephemeral.lock().unwrap().push((slot, event));
    }

    fn open(&self) -> Box<dyn Line> {
        unreachable!("nobody follows in these tests")
    }
}
