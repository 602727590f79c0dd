//! From a draft to the journal, or to the bus.

use std::{sync::Arc, time::Instant};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{
    IngestError, Settings,
    admit::{Admitted, Draft, admit},
};
use crate::{
    bus::Bus,
    journal::Journal,
    model::{Event, Layout, Publish, Seq, Slot, Topic, UnixMillis},
};

/// Publishes drafts. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    journal: Arc<dyn Journal>,
    bus: Arc<dyn Bus>,
    layout: Layout,
    settings: Settings,
    drain: CancellationToken,
}

/// Resolves when the event is durable.
pub type Pending = BoxFuture<'static, Result<Published, IngestError>>;

/// An event that is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where, one per topic in the order of the draft.
    pub landed: Vec<Landed>,
}

/// Where an event is in one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// The topic.
    pub topic: Topic,
    /// Its sequence; `None` for an ephemeral event.
    pub seq: Option<Seq>,
    /// Whether the key was known: the sequence is the first one's, and nothing was published.
    pub repeated: bool,
}

impl Ingest {
    /// Publishes to this journal and this bus. Once `drain` is cancelled, no call takes anything new.
    #[must_use]
    pub fn new(
        journal: Arc<dyn Journal>,
        bus: Arc<dyn Bus>,
        layout: Layout,
        settings: Settings,
        drain: CancellationToken,
    ) -> Self {
        Self {
            journal,
            bus,
            layout,
            settings,
            drain,
        }
    }

    /// Checks a draft and gives it its place in the order, waiting while the journal has too much in flight. What comes back resolves when the
    /// event is durable; dropping it undoes nothing. After the deadline the journal tries nothing again; ending the wait is the caller's.
    ///
    /// # Errors
    /// If the draft is refused, or the journal takes nothing.
    pub async fn publish(&self, draft: Draft, deadline: Option<Instant>) -> Result<Pending, IngestError> {
        match admit(draft, &self.settings)? {
            Admitted::Ephemeral(publish) => {
                let published = self.send_ephemeral(publish);
                Ok(Box::pin(std::future::ready(Ok(published))))
            }
            Admitted::Durable(publish) => {
                let topics = publish.topics.clone();
                let publish = Publish { deadline, ..publish };
                let ticket = match self.journal.append(publish).await {
                    Ok(ticket) => ticket,
                    Err(error) => return Err(IngestError::of(error, topics)),
                };
                Ok(Box::pin(async move {
                    let receipt = match ticket.await {
                        Ok(receipt) => receipt,
                        Err(error) => return Err(IngestError::of(error, topics)),
                    };
                    let landed = topics.into_iter().zip(receipt.placed);
                    Ok(Published {
                        landed: landed
                            .map(|(topic, placed)| Landed {
                                topic,
                                seq: Some(placed.seq),
                                repeated: placed.repeated,
                            })
                            .collect(),
                    })
                }))
            }
        }
    }

    /// Asked at the start of each call.
    ///
    /// # Errors
    /// If the node drains.
    pub(super) fn check_open(&self) -> Result<(), IngestError> {
        if self.drain.is_cancelled() {
            Err(IngestError::Draining)
        } else {
            Ok(())
        }
    }

    pub(super) const fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    fn send_ephemeral(&self, publish: Publish) -> Published {
        let time = UnixMillis::now();
        let landed = publish
            .topics
            .into_iter()
            .map(|topic| {
                let slot = Slot(self.layout.slot(topic.as_str()));
                let event = Event::new(
                    topic.clone(),
                    publish.event_type.clone(),
                    publish.data.clone(),
                    time,
                    None,
                );
                self.bus.ephemeral(slot, Arc::new(event));
                Landed {
                    topic,
                    seq: None,
                    repeated: false,
                }
            })
            .collect();
        Published { landed }
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("layout", &self.layout)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
