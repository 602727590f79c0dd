//! A journal in memory that does as it is told, and outlives the owners that serve it, as a replicated one would.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use tidings::{
    journal::{AppendError, Journal, Placed, Receipt, Ticket},
    model::{Publish, Seq},
};
use tokio::sync::watch;

use crate::local::DEADLINE;

/// See the module.
pub(crate) struct Memory {
    state: Mutex<State>,
    appended: watch::Sender<usize>,
    /// Whether what was appended is answered.
    answers: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    last: u64,
    data: Vec<String>,
    keys: HashMap<(String, String), Seq>,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            appended: watch::Sender::new(0),
            answers: watch::Sender::new(true),
        })
    }

    /// One that appends and does not answer before [`Self::release`].
    pub(crate) fn held() -> Arc<Self> {
        let journal = Self::new();
        journal.answers.send_replace(false);
        journal
    }

    pub(crate) fn release(&self) {
        self.answers.send_replace(true);
    }

    /// The payload of each publish that it appended, in order.
    pub(crate) fn data(&self) -> Vec<String> {
        self.state.lock().expect("whole").data.clone()
    }

    /// Waits until so many were appended.
    pub(crate) async fn until(&self, count: usize) {
        let mut appended = self.appended.subscribe();
        let waited = tokio::time::timeout(DEADLINE, appended.wait_for(|&appended| appended >= count)).await;
        waited.expect("in time").expect("whole");
    }

    /// Waits until nothing was appended for a while.
    pub(crate) async fn until_quiet(&self) -> usize {
        let mut appended = self.appended.subscribe();
        while tokio::time::timeout(Duration::from_millis(300), appended.changed())
            .await
            .is_ok()
        {}
        *self.appended.borrow()
    }

    fn place(&self, publish: &Publish) -> Receipt {
        let mut state = self.state.lock().expect("whole");
        let mut placed = Vec::new();
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
        if placed.iter().any(|placed| !placed.repeated) {
            state.data.push(publish.data.to_string());
        }
        self.appended.send_replace(state.data.len());
        Receipt { placed: placed.into() }
    }
}

impl Journal for Memory {
    fn append(&self, publish: Publish) -> BoxFuture<'_, Result<Ticket, AppendError>> {
        Box::pin(async move {
            let receipt = self.place(&publish);
            let mut answers = self.answers.subscribe();
            Ok(Ticket::new(async move {
                let _ = answers.wait_for(|&answers| answers).await;
                Ok(receipt)
            }))
        })
    }
}

/// A journal that refuses everything before it has a place.
pub(crate) struct Refusing(pub(crate) AppendError);

impl Journal for Refusing {
    fn append(&self, _: Publish) -> BoxFuture<'_, Result<Ticket, AppendError>> {
        Box::pin(std::future::ready(Err(self.0.clone())))
    }
}

/// A journal that gives everything a place and refuses it then.
pub(crate) struct RefusingLater(pub(crate) AppendError);

impl Journal for RefusingLater {
    fn append(&self, _: Publish) -> BoxFuture<'_, Result<Ticket, AppendError>> {
        let ticket = Ticket::new(std::future::ready(Err(self.0.clone())));
        Box::pin(std::future::ready(Ok(ticket)))
    }
}
