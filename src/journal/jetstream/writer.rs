//! The task that appends to a shard's stream: one group after the other, all that waits in each.
//!
//! A group goes out as one atomic batch, and the next only when it is known what became of it: so whatever fails and is sent again, the order is
//! that in which publishes came. The more is in flight, the more shares a batch.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{connection::State as Link, jetstream};
use tokio::sync::{mpsc, watch};

use super::{
    group::{Common, FirstUse, Group, Waiting},
    known::{Known, Use},
    message::AROUND,
    progress::{Progress, Status},
    send::{Outcome, Refusal, send},
    sightings::{Awaited, Sightings},
    stream::{Names, look},
};
use crate::{
    journal::{AppendError, Unavailable, clock::Clock},
    log::{Store, StoreError},
    model::{Epoch, Seq, Shard, UnixMillis},
};

/// A group takes no more publishes once it has this many messages. An atomic batch has 1,000 at most, which is also what one publish may have.
const MESSAGES: usize = 512;
/// A group takes no more publishes once it has this many bytes.
const BYTES: usize = 4 << 20;
/// The longest that one try waits for its answer, and for how many more bytes it waits a second longer: a try that came too early would have to
/// queue behind the one before it.
const TRY: Duration = Duration::from_secs(2);
const BYTES_A_SECOND: usize = 4 << 20;
/// How long it waits before it tries again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// What is said without a connection.
const NO_LINK: &str = "there is no connection";

/// The store of the epoch that is followed now.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) store: Arc<Store>,
    pub(super) epoch: Epoch,
}

pub(super) struct Writer {
    pub(super) shard: Shard,
    pub(super) names: Names,
    pub(super) context: jetstream::Context,
    pub(super) queue: mpsc::Receiver<Waiting>,
    pub(super) session: watch::Receiver<Option<Session>>,
    pub(super) progress: Arc<Progress>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) sightings: Arc<Sightings>,
    pub(super) clock: Clock,
    pub(super) key_window: Duration,
    /// How long a use of a key matters to the next one's id, whether or not the replica still has it: holders forget at different times.
    pub(super) known_for: Duration,
    /// The furthest behind that it may be to know which keys were used: beyond it the stream has forgotten them and the replica may not know them.
    pub(super) furthest_behind: Duration,
    pub(super) known: Known,
    /// The epoch that `known` and `last` are of.
    pub(super) epoch: Option<Epoch>,
    /// The time of the last group.
    pub(super) last_time: UnixMillis,
    /// The publish that had no room in the last group.
    pub(super) held: Option<Waiting>,
}

/// What became of a group.
enum Settled {
    /// Its messages are in the stream, the first at `first`; they may have been since before it was sent.
    Appended { first: Seq, were_there: bool },
    /// Nothing of it is appended, and it is not to be sent as it is: some of its keys have been used by others meanwhile, or some of those who
    /// waited do so no more.
    PlaceAgain { why: AppendError },
    /// It failed.
    Failed(AppendError),
}

impl Writer {
    /// Appends until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.next().await {
            let waiting = self.gather(first);
            self.append(waiting).await;
        }
    }

    async fn next(&mut self) -> Option<Waiting> {
        loop {
            let one = match self.held.take() {
                Some(held) => held,
                None => self.queue.recv().await?,
            };
            if one.claim.take() {
                return Some(one);
            }
        }
    }

    fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut messages = first.publish.topics.len();
        let mut bytes = Waiting::cost(&first.publish);
        let mut waiting = vec![first];
        while messages < MESSAGES && bytes < BYTES {
            let Ok(one) = self.queue.try_recv() else {
                break;
            };
            messages += one.publish.topics.len();
            bytes += Waiting::cost(&one.publish);
            if messages > MESSAGES {
                self.held = Some(one);
                break;
            }
            if one.claim.take() {
                waiting.push(one);
            }
        }
        waiting
    }

    async fn append(&mut self, waiting: Vec<Waiting>) {
        let Some(Session { store, epoch }) = self.session.borrow().clone() else {
            let error = not_now(self.shard, &self.progress.now());
            waiting.into_iter().for_each(|mut one| one.answer(Err(error.clone())));
            return;
        };
        if self.epoch != Some(epoch) {
            self.known.clear();
            self.epoch = Some(epoch);
        }
        let mut waiting = waiting;
        // Why it was not appended until now.
        let mut why: Option<AppendError> = None;
        loop {
            waiting = self.admit(waiting, why.as_ref());
            let mut group = match self.place(waiting, &store, epoch).await {
                Ok(group) => group,
                Err((waiting, error)) => {
                    let error = self.unreadable(&error);
                    waiting.into_iter().for_each(|mut one| one.answer(Err(error.clone())));
                    return;
                }
            };
            if group.messages.is_empty() {
                group.appended(Seq::ZERO, false).for_each(drop);
                return;
            }
            match self.settle(&mut group, &store).await {
                Settled::Appended { first, were_there } => {
                    let time = group.time;
                    for ((key, topic), seq) in group.appended(first, were_there) {
                        self.known.note(key, topic, seq, time);
                    }
                    return;
                }
                Settled::PlaceAgain { why: cause } => {
                    // In every round one more key of the group's has become known, or somebody has stopped waiting: it ends.
                    why = Some(cause);
                    waiting = group.waiting;
                }
                Settled::Failed(error) => {
                    group.failed(&error);
                    return;
                }
            }
        }
    }

    /// Answers those that cannot be appended, and gives the others back. `why`: why they were not until now, if they were sent.
    fn admit(&self, waiting: Vec<Waiting>, why: Option<&AppendError>) -> Vec<Waiting> {
        let now = Instant::now();
        let status = self.progress.now();
        let knows_keys = status.is_within(self.furthest_behind, now) && !self.known.is_full();
        let max_payload = self.context.client().max_payload();
        let mut admitted = Vec::with_capacity(waiting.len());
        for mut one in waiting {
            let largest = one.publish.data.len() + AROUND;
            let refused = if one.deadline <= now {
                why.cloned()
                    .unwrap_or_else(|| late(self.shard, one.since, &self.context))
            } else if one.publish.key.is_some() && !knows_keys {
                unavailable(
                    self.shard,
                    Unavailable::CatchingUp {
                        cause: behind(&status, now),
                    },
                )
            } else if largest > max_payload {
                AppendError::StreamRefused {
                    shard: self.shard,
                    cause: format!("its message would have {largest} bytes, and `max_payload` is {max_payload}"),
                }
            } else {
                admitted.push(one);
                continue;
            };
            one.answer(Err(refused));
        }
        admitted
    }

    /// Makes a group, by what is known of its keys.
    async fn place(
        &mut self,
        waiting: Vec<Waiting>,
        store: &Arc<Store>,
        epoch: Epoch,
    ) -> Result<Group, (Vec<Waiting>, StoreError)> {
        let head = store.head();
        self.known.applied(head.last);
        self.last_time = self.clock.after(self.last_time.max(head.time));
        let windows = self.windows(self.last_time);
        let uses = waiting.iter().flat_map(Waiting::uses).collect();
        let first_uses = match self.first_uses(store, uses, windows).await {
            Ok(first_uses) => first_uses,
            Err(error) => return Err((waiting, error)),
        };
        let common = Common {
            names: &self.names,
            layout: store.layout(),
            shard: self.shard,
            epoch,
            time: self.last_time,
        };
        Ok(Group::place(waiting, &first_uses, common))
    }

    /// Which uses of keys matter at a time.
    fn windows(&self, now: UnixMillis) -> Windows {
        Windows {
            counts_from: now.before(self.key_window),
            known_from: now.before(self.known_for),
        }
    }

    /// What is known of some uses of keys: here, or from the replica.
    async fn first_uses(
        &mut self,
        store: &Arc<Store>,
        uses: HashSet<Use>,
        windows: Windows,
    ) -> Result<HashMap<Use, FirstUse>, StoreError> {
        let mut found: HashMap<Use, (Seq, UnixMillis)> = HashMap::new();
        let mut asked = Vec::new();
        for (key, topic) in uses {
            match self.known.get(&key, &topic) {
                Some(first) => {
                    found.insert((key, topic), first);
                }
                None => asked.push((key, topic)),
            }
        }
        if !asked.is_empty() {
            found.extend(stored(store, asked).await?);
        }
        Ok(found
            .into_iter()
            .filter_map(|(used, (seq, time))| Some((used, windows.weigh(seq, time)?)))
            .collect())
    }

    /// Sends a group until it is known what became of it, or nobody waits any more.
    async fn settle(&mut self, group: &mut Group, store: &Arc<Store>) -> Settled {
        let sightings = Arc::clone(&self.sightings);
        // Before it is sent: whatever the applier sees of it is noted.
        let awaited = sightings.await_append(group.append);
        let applied = self.progress.now().applied;
        let bytes: usize = group.messages.iter().map(|message| message.payload.len()).sum();
        let patience = TRY + Duration::from_secs((bytes / BYTES_A_SECOND) as u64);
        let mut pause = PAUSES.0;
        // Why an earlier try may have been appended.
        let mut lost: Option<String> = None;
        let mut refusal = Refusal::NoLink;
        loop {
            if let Some(first) = awaited.seen() {
                return Settled::Appended {
                    first,
                    were_there: false,
                };
            }
            let now = Instant::now();
            if group.expires(now) {
                let error = self.given_up(lost.clone(), refusal.clone());
                if lost.is_none() {
                    return Settled::PlaceAgain { why: error };
                }
                // It goes on for the others as it is: to leave out what may be appended would append it twice.
                group.expire(now, &error);
            }
            let Some(deadline) = group.deadline() else {
                return Settled::Failed(self.given_up(lost, refusal));
            };
            let left = deadline.saturating_duration_since(now);
            match send(&self.context.client(), &group.messages, left.min(patience)).await {
                Outcome::Appended { first } if first <= applied => {
                    let cause = format!(
                        "it was appended at {first}, where the replica is past {applied}: the stream was made anew"
                    );
                    return Settled::Failed(AppendError::Unknown { cause });
                }
                Outcome::Appended { first } => {
                    return Settled::Appended {
                        first,
                        were_there: false,
                    };
                }
                Outcome::Duplicate { seq } => {
                    let were_there = match lost {
                        // Only a key can be used by others.
                        None => group.uses().next().is_some(),
                        // It may be the one that was sent before.
                        Some(_) => !self.comes_to_see(&awaited, seq, deadline).await,
                    };
                    return Settled::Appended { first: seq, were_there };
                }
                Outcome::Collided => match self.look_into(group, &awaited, store, deadline).await {
                    Some(settled) => return settled,
                    None => {
                        refusal = Refusal::NotNow {
                            cause: "the same is on its way already".to_owned(),
                        };
                    }
                },
                Outcome::Refused(refused @ (Refusal::Full { .. } | Refusal::Never { .. })) => {
                    return Settled::Failed(self.given_up(lost, refused));
                }
                Outcome::Refused(refused) => refusal = refused,
                Outcome::Lost { cause } => {
                    tracing::debug!(shard = %self.shard, cause, "no answer to an append, it is sent again");
                    lost = Some(cause);
                }
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Whether the applier has seen an append once it has come to a sequence.
    async fn comes_to_see(&mut self, awaited: &Awaited<'_>, seq: Seq, deadline: Instant) -> bool {
        self.wait_applied(seq, deadline).await;
        awaited.seen().is_some()
    }

    /// Some of a group are in the stream, or on their way into it. Looks where the stream has come to which of them.
    async fn look_into(
        &mut self,
        group: &Group,
        awaited: &Awaited<'_>,
        store: &Arc<Store>,
        deadline: Instant,
    ) -> Option<Settled> {
        let info = look(&self.context, &self.names).await.ok()?;
        self.wait_applied(Seq(info.state.last_sequence), deadline).await;
        if let Some(first) = awaited.seen() {
            return Some(Settled::Appended {
                first,
                were_there: false,
            });
        }
        let uses = group.uses().cloned().collect();
        let windows = self.windows(group.time);
        match self.first_uses(store, uses, windows).await {
            // The stream refuses what was sent before for as long as it remembers that key, so it never will be appended as it was.
            Ok(found) if found.values().any(|first| matches!(first, FirstUse::Counts(_))) => {
                let cause = "another node appended some of it at the same time".to_owned();
                Some(Settled::PlaceAgain {
                    why: unavailable(self.shard, Unavailable::NoQuorum { cause }),
                })
            }
            _ => None,
        }
    }

    async fn wait_applied(&mut self, seq: Seq, deadline: Instant) {
        let patience = deadline.saturating_duration_since(Instant::now()).min(TRY);
        let applied = self.status.wait_for(|status| status.applied >= seq);
        let _ = tokio::time::timeout(patience, applied).await;
    }

    /// What is said when a group is given up.
    fn given_up(&self, lost: Option<String>, refusal: Refusal) -> AppendError {
        let shard = self.shard;
        if let Some(cause) = lost {
            return AppendError::Unknown { cause };
        }
        match refusal {
            Refusal::NoLink => unavailable(
                shard,
                Unavailable::NoNats {
                    cause: NO_LINK.to_owned(),
                },
            ),
            Refusal::NotNow { cause } => unavailable(shard, Unavailable::NoQuorum { cause }),
            Refusal::Full { cause } => AppendError::StreamFull { shard, cause },
            Refusal::Never { cause } => AppendError::StreamRefused { shard, cause },
        }
    }

    fn unreadable(&self, error: &StoreError) -> AppendError {
        match error {
            StoreError::Closed => not_now(self.shard, &self.progress.now()),
            error => AppendError::ReadOnly {
                cause: error.to_string(),
            },
        }
    }
}

/// Since when uses of keys matter.
#[derive(Debug, Clone, Copy)]
struct Windows {
    /// From then on, they count.
    counts_from: UnixMillis,
    /// Before then, they are as if they had never been, although a replica may still have them.
    known_from: UnixMillis,
}

impl Windows {
    /// What a use is to the next one, if anything.
    fn weigh(self, seq: Seq, time: UnixMillis) -> Option<FirstUse> {
        if time >= self.counts_from {
            Some(FirstUse::Counts(seq))
        } else {
            (time >= self.known_from).then_some(FirstUse::Expired(seq))
        }
    }
}

/// What the replica knows of some uses of keys. Reading a disk blocks.
async fn stored(store: &Arc<Store>, uses: Vec<Use>) -> Result<Vec<(Use, (Seq, UnixMillis))>, StoreError> {
    let store = Arc::clone(store);
    let read = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        for (key, topic) in uses {
            if let Some(first) = store.first_use(&key, &topic)? {
                found.push(((key, topic), first));
            }
        }
        Ok(found)
    });
    read.await.unwrap_or(Err(StoreError::Closed))
}

pub(super) const fn unavailable(shard: Shard, cause: Unavailable) -> AppendError {
    AppendError::Unavailable { shard, cause }
}

/// Why a holder that is in this state takes nothing.
pub(super) fn not_now(shard: Shard, status: &Status) -> AppendError {
    use super::progress::State;
    match &status.state {
        State::Closed => AppendError::Closed,
        State::Failed { cause } => AppendError::ReadOnly { cause: cause.clone() },
        State::Diverged { cause } => unavailable(shard, Unavailable::Diverged { cause: cause.clone() }),
        State::Unusable { cause } => unavailable(shard, Unavailable::Unusable { cause: cause.clone() }),
        State::Starting | State::Following => unavailable(
            shard,
            Unavailable::NoNats {
                cause: status
                    .trouble
                    .clone()
                    .unwrap_or_else(|| "it has only just been started".to_owned()),
            },
        ),
    }
}

/// Why a publish had no turn until nobody waited for it any more.
pub(super) fn late(shard: Shard, since: Instant, context: &jetstream::Context) -> AppendError {
    if context.client().connection_state() == Link::Connected {
        let waited = since.elapsed();
        return AppendError::TooSlow { shard, waited };
    }
    unavailable(
        shard,
        Unavailable::NoNats {
            cause: NO_LINK.to_owned(),
        },
    )
}

/// How far behind a holder is, for people.
pub(super) fn behind(status: &Status, now: Instant) -> String {
    let messages = status.messages_behind();
    match status.time_behind(now) {
        None => format!("{messages} events to go"),
        Some(time) => format!("{} s behind, {messages} events to go", time.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_that_some_holder_may_have_forgotten_matters_to_none() {
        let windows = Windows {
            counts_from: UnixMillis(1_000),
            known_from: UnixMillis(800),
        };
        let weighed = |time| windows.weigh(Seq(7), UnixMillis(time));
        assert!(matches!(weighed(1_000), Some(FirstUse::Counts(Seq(7)))));
        assert!(matches!(weighed(999), Some(FirstUse::Expired(Seq(7)))));
        assert!(matches!(weighed(800), Some(FirstUse::Expired(Seq(7)))));
        assert!(weighed(799).is_none(), "as where it was forgotten");
    }
}
