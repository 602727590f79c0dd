//! From a draft to the journal, or to the bus.

use std::{sync::Arc, time::Instant};

use futures::future::BoxFuture;
use http::{Extensions, HeaderMap};
use tokio_util::sync::CancellationToken;

use super::{
    Caller, IngestError, Settings,
    admit::{Admitted, Draft, admit},
    audit::Line,
    quota::{Payer, Quotas},
};
use crate::{
    auth::{Auth, Denied},
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
    auth: Arc<Auth>,
    quotas: Option<Arc<Quotas>>,
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
    /// Publishes to this journal and this bus, for whom `auth` lets in. Once `drain` is cancelled, no call takes anything new.
    #[must_use]
    pub fn new(
        journal: Arc<dyn Journal>,
        bus: Arc<dyn Bus>,
        layout: Layout,
        settings: Settings,
        auth: Arc<Auth>,
        drain: CancellationToken,
    ) -> Self {
        Self {
            journal,
            bus,
            layout,
            settings,
            auth,
            quotas: Quotas::new(settings.rates, Instant::now()).map(Arc::new),
            drain,
        }
    }

    /// Who sends a request of these headers, if they may call at all. The extensions say where from, and with which certificate.
    ///
    /// # Errors
    /// If what they bring is not good, or they bring nothing.
    pub fn caller(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Arc<Caller>, Denied> {
        Caller::identify(&self.auth, headers, extensions).map(Arc::new)
    }

    /// Checks a draft and gives it its place in the order, waiting while the journal has too much in flight. What comes back resolves when the
    /// event is durable; dropping it undoes nothing. After the deadline the journal tries nothing again; ending the wait is the caller's.
    ///
    /// # Errors
    /// If the draft is refused, the caller may not publish it or not so much, or the journal takes nothing.
    pub async fn publish(
        &self,
        caller: &Caller,
        draft: Draft,
        deadline: Option<Instant>,
    ) -> Result<Pending, IngestError> {
        let mut line = Line::begin(caller, &draft);
        let pending = match self.place(caller, draft, deadline).await {
            Ok(pending) if line.is_none() => return Ok(pending),
            Ok(pending) => pending,
            Err(error) => {
                line.end(Err(&error));
                return Err(error);
            }
        };
        Ok(Box::pin(async move {
            let outcome = pending.await;
            line.end(outcome.as_ref());
            outcome
        }))
    }

    /// Checks that a caller may publish an event, and so much.
    fn check(&self, caller: &Caller, publish: &Publish) -> Result<(), IngestError> {
        caller
            .check_topics(&publish.topics)
            .map_err(|(index, denied)| IngestError::Forbidden { index, denied })?;
        if let Some(quotas) = &self.quotas {
            quotas.take(
                Payer::of(caller),
                publish.topics.len(),
                publish.data.len(),
                Instant::now(),
            )?;
        }
        Ok(())
    }

    async fn place(&self, caller: &Caller, draft: Draft, deadline: Option<Instant>) -> Result<Pending, IngestError> {
        let admitted = admit(draft, &self.settings)?;
        let (Admitted::Durable(publish) | Admitted::Ephemeral(publish)) = &admitted;
        self.check(caller, publish)?;
        match admitted {
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

    pub(super) fn journal(&self) -> &dyn Journal {
        &*self.journal
    }

    pub(super) const fn auth(&self) -> &Arc<Auth> {
        &self.auth
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
