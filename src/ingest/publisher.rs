//! From a draft to the journal, or to the bus.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures::FutureExt as _;
use http::{Extensions, HeaderMap};
use smallvec::SmallVec;
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
    journal::{AppendError, Attempt, Journal, Receipt, Ticket},
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
#[must_use = "it tells whether the event is durable"]
pub struct Pending {
    outcome: Outcome,
    line: Line,
}

enum Outcome {
    Known(Option<Result<Published, IngestError>>),
    Awaited {
        topics: SmallVec<[Topic; 1]>,
        ticket: Ticket,
    },
}

impl Pending {
    fn known(outcome: Result<Published, IngestError>, line: Line) -> Self {
        Self {
            outcome: Outcome::Known(Some(outcome)),
            line,
        }
    }

    /// Of what was refused already, and is answered in its turn.
    pub(super) fn refused(error: IngestError) -> Self {
        Self::known(Err(error), Line::none())
    }
}

impl Future for Pending {
    type Output = Result<Published, IngestError>;

    /// Not to be asked again once it has resolved.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let outcome = match &mut this.outcome {
            Outcome::Known(outcome) => outcome.take().unwrap_or(Err(IngestError::Draining)),
            Outcome::Awaited { topics, ticket } => {
                let receipt = ready!(ticket.poll_unpin(cx));
                landed(std::mem::take(topics), receipt)
            }
        };
        this.line.end(outcome.as_ref());
        Poll::Ready(outcome)
    }
}

fn landed(topics: SmallVec<[Topic; 1]>, receipt: Result<Receipt, AppendError>) -> Result<Published, IngestError> {
    let receipt = match receipt {
        Ok(receipt) => receipt,
        Err(error) => return Err(IngestError::of(error, topics.into_vec())),
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
}

/// How far a draft came without waiting.
pub(super) enum Begun {
    /// It has its place, or is refused.
    Placed(Result<Pending, IngestError>),
    /// It is let in, and waits for its place.
    Waits(Admission),
}

/// A draft that is let in and has no place yet.
pub(super) struct Admission {
    publish: Publish,
    line: Line,
}

impl Admission {
    /// Waits for its place.
    ///
    /// # Errors
    /// If the journal takes nothing.
    pub(super) async fn place(self, journal: &dyn Journal) -> Result<Pending, IngestError> {
        let Self { publish, line } = self;
        let topics = publish.topics.iter().cloned().collect();
        placed(topics, line, journal.append(publish).await)
    }
}

fn placed(
    topics: SmallVec<[Topic; 1]>,
    mut line: Line,
    placed: Result<Ticket, AppendError>,
) -> Result<Pending, IngestError> {
    match placed {
        Ok(ticket) => Ok(Pending {
            outcome: Outcome::Awaited { topics, ticket },
            line,
        }),
        Err(error) => {
            let error = IngestError::of(error, topics.into_vec());
            line.end(Err(&error));
            Err(error)
        }
    }
}

/// An event that is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where, one per topic in the order of the draft.
    pub landed: SmallVec<[Landed; 1]>,
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
        match self.begin(caller, draft, deadline) {
            Begun::Placed(placed) => placed,
            Begun::Waits(admission) => admission.place(&*self.journal).await,
        }
    }

    /// The same, without waiting for a place that is not there.
    pub(super) fn begin(&self, caller: &Caller, draft: Draft, deadline: Option<Instant>) -> Begun {
        let mut line = Line::begin(caller, &draft);
        let admitted = admit(draft, &self.settings).map_err(IngestError::from);
        let admitted = admitted.and_then(|admitted| {
            let (Admitted::Durable(publish) | Admitted::Ephemeral(publish)) = &admitted;
            self.check(caller, publish)?;
            Ok(admitted)
        });
        match admitted {
            Ok(Admitted::Durable(publish)) => {
                let topics = publish.topics.iter().cloned().collect();
                match self.journal.try_append(Publish { deadline, ..publish }) {
                    Attempt::Done(outcome) => Begun::Placed(placed(topics, line, outcome)),
                    Attempt::Waits(publish) => Begun::Waits(Admission { publish, line }),
                }
            }
            Ok(Admitted::Ephemeral(publish)) => {
                let published = self.send_ephemeral(publish);
                Begun::Placed(Ok(Pending::known(Ok(published), line)))
            }
            Err(error) => {
                line.end(Err(&error));
                Begun::Placed(Err(error))
            }
        }
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
