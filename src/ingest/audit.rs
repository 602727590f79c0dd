//! The audit log: one line for each publish, of who published what where, and what came of it. Never the payload, never a token.
//!
//! Lines have the target `tidings::audit`. There are none where nobody is asked who they are, and `telemetry.log = "info,tidings::audit=off"`
//! has none either: then nothing of them is even put together. What publishers choose is told as text values, which the log's formats escape: it cannot
//! begin a line of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tracing::{Level, enabled, field, info};

use super::{Draft, IngestError, Published, caller::Caller};
use crate::{
    auth::{Denied, Revocation, Target},
    model::{Seq, UnixMillis},
};

/// The target of its lines.
const TARGET: &str = "tidings::audit";
/// How many topics and sequences a line has; of more there is the number.
const LISTED: usize = 8;
/// How much of a text it has, in bytes: what is longer than any topic, type or key may be is refused anyway.
const LENGTH: usize = 255;

/// The line of one publish, written as soon as it is known what came of it; also if nobody waits for that any more.
#[derive(Debug)]
pub(super) struct Line(Option<Box<Facts>>);

#[derive(Debug)]
struct Facts {
    publisher: Arc<str>,
    by: &'static str,
    peer: Option<SocketAddr>,
    topics: String,
    topic_count: usize,
    event_type: Option<String>,
    key: Option<String>,
    bytes: usize,
    ephemeral: bool,
}

impl Line {
    /// Begins the line of a draft, if there is to be one.
    pub(super) fn begin(caller: &Caller, draft: &Draft) -> Self {
        let Some(publisher) = caller.name() else {
            return Self(None);
        };
        if !enabled!(target: TARGET, Level::INFO) {
            return Self(None);
        }
        let some = |text: &str| (!text.is_empty()).then(|| cut(text).to_owned());
        let topics: Vec<_> = draft.topics.iter().take(LISTED).map(|topic| cut(topic)).collect();
        Self(Some(Box::new(Facts {
            publisher: Arc::clone(publisher),
            by: by(caller),
            peer: caller.peer(),
            topics: topics.join(" "),
            topic_count: draft.topics.len(),
            event_type: some(&draft.event_type),
            key: some(&draft.key),
            bytes: draft.data.len(),
            ephemeral: draft.ephemeral,
        })))
    }

    /// None.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Writes it.
    pub(super) fn end(&mut self, outcome: Result<&Published, &IngestError>) {
        let Some(facts) = self.0.take() else { return };
        match outcome {
            Ok(published) => {
                let landed = &published.landed;
                let repeated = landed.iter().filter(|landed| landed.repeated).count();
                facts.write("published", landed.iter().filter_map(|landed| landed.seq), repeated);
            }
            Err(IngestError::Partly(partly)) => {
                let placed = partly.topics.iter().filter_map(|(_, outcome)| outcome.as_ref().ok());
                let repeated = placed.clone().filter(|placed| placed.repeated).count();
                facts.write("partly", placed.map(|placed| placed.seq), repeated);
            }
            Err(error) => facts.write(error.verdict().label, std::iter::empty(), 0),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(facts) = self.0.take() {
            // Whoever published has left, or its deadline passed: the event may be published all the same.
            facts.write("unanswered", std::iter::empty(), 0);
        }
    }
}

impl Facts {
    fn write(&self, outcome: &str, sequences: impl Iterator<Item = Seq>, repeated: usize) {
        let sequences: Vec<_> = sequences.take(LISTED).map(|seq| seq.to_string()).collect();
        let sequences = (!sequences.is_empty()).then(|| sequences.join(" "));
        info!(
            target: TARGET,
            publisher = &*self.publisher,
            by = self.by,
            peer = self.peer.map(field::display),
            topics = &*self.topics,
            topic_count = self.topic_count,
            event_type = self.event_type.as_deref(),
            key = self.key.as_deref(),
            bytes = self.bytes,
            ephemeral = self.ephemeral,
            sequences = sequences.as_deref(),
            repeated,
            outcome,
            "publish"
        );
    }
}

/// Writes that somebody took something back, or was refused to.
pub(super) fn revocation(
    caller: &Caller,
    revocation: &Revocation,
    now: UnixMillis,
    reason: &str,
    outcome: Result<(), &IngestError>,
) {
    let Some(publisher) = caller.name() else { return };
    let (token_id, user, issued_before) = match &revocation.target {
        Target::Token(id) => (Some(&**id), None, None),
        Target::User { subject, issued_before } => (None, Some(&**subject), Some(issued_before.0)),
        Target::All { issued_before } => (None, None, Some(issued_before.0)),
    };
    let lasts = Duration::from_millis(revocation.until.0.saturating_sub(now.0));
    info!(
        target: TARGET,
        publisher = &**publisher,
        by = by(caller),
        peer = caller.peer().map(field::display),
        token_id = token_id.map(cut),
        user = user.map(cut),
        issued_before_ms = issued_before,
        seconds = lasts.as_secs(),
        reason = (!reason.is_empty()).then_some(cut(reason)),
        outcome = outcome.map_or_else(|error| error.verdict().label, |()| "revoked"),
        "revocation"
    );
}

/// Writes that somebody was not let do something that is not a publish.
pub(super) fn refused(caller: &Caller, action: &'static str, denied: &Denied) {
    if let Some(publisher) = caller.name() {
        info!(
            target: TARGET,
            publisher = &**publisher,
            by = by(caller),
            peer = caller.peer().map(field::display),
            outcome = denied.verdict().label,
            action
        );
    }
}

/// Who says what the publisher is called: nobody passes for another by having the same name there.
const fn by(caller: &Caller) -> &'static str {
    if caller.is_issued() { "issuer" } else { "config" }
}

/// So much of a text as a line has room for.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(LENGTH);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
