//! Publishes that are appended at once: which of their topics get a message, and what each is answered.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    known::Use,
    message::{Entry, MessageId, Outgoing},
    stream::Names,
};
use crate::{
    journal::{AppendError, Placed, Receipt},
    model::{Epoch, Layout, Publish, PublishKey, Seq, Shard, Slot, Topic, UnixMillis},
};

/// A publish that waits to be appended.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) publish: Publish,
    /// `None` once it is answered.
    pub(super) reply: Option<oneshot::Sender<Result<Receipt, AppendError>>>,
    /// Since when it waits.
    pub(super) since: Instant,
    /// When nobody waits for it any more.
    pub(super) deadline: Instant,
    /// Drawn for it alone: it makes the ids of its messages if it has no key.
    pub(super) drawn: u64,
    /// Whose it is, while it waits in the queue.
    pub(super) claim: Claim,
    /// Its share of the queue's bytes, given back when it is answered.
    pub(super) _room: OwnedSemaphorePermit,
}

/// Who answers a publish that waits in the queue: the writer, or whoever published it and has stopped waiting. Whichever is first.
#[derive(Debug, Clone, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Whether it is the caller's from now on.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }
}

impl Waiting {
    /// What one event takes besides its payload, in bytes: roughly, in memory and on the wire.
    const OVERHEAD: usize = 512;

    /// What a publish takes while it is under way, in bytes: its payload goes out once for each topic.
    pub(super) fn cost(publish: &Publish) -> usize {
        (publish.data.len() + Self::OVERHEAD) * publish.topics.len()
    }

    /// Answers it, if it is not answered. If nobody waits any more, what was appended is appended all the same.
    pub(super) fn answer(&mut self, outcome: Result<Receipt, AppendError>) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(outcome);
        }
    }

    /// Whether somebody still waits for it who stops doing so by now.
    fn expires(&self, now: Instant) -> bool {
        self.reply.is_some() && self.deadline <= now
    }

    /// Its keys, one use for each topic.
    pub(super) fn uses(&self) -> impl Iterator<Item = Use> + '_ {
        let key = self.publish.key.as_ref();
        self.publish
            .topics
            .iter()
            .filter_map(move |topic| Some((key?.clone(), topic.clone())))
    }
}

/// What is known of a use of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstUse {
    /// There is one within the window.
    Counts(Seq),
    /// There is one that does not count any more.
    Expired(Seq),
}

/// What all publishes of a group have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common<'a> {
    pub(super) names: &'a Names,
    pub(super) layout: Layout,
    pub(super) shard: Shard,
    pub(super) epoch: Epoch,
    pub(super) time: UnixMillis,
}

/// What becomes of one topic of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The key was used before.
    Known(Seq),
    /// It is the message at this place.
    Message(usize),
    /// The message at this place has the same key and topic.
    Joins(usize),
}

/// Publishes that are appended at once.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) waiting: Vec<Waiting>,
    fates: Vec<Vec<Fate>>,
    pub(super) messages: Vec<Outgoing>,
    /// The uses of keys that come with the messages, each with the message's place.
    uses: Vec<(Use, usize)>,
    pub(super) time: UnixMillis,
    /// The same for all its messages, and for no others.
    pub(super) append: u64,
}

impl Group {
    /// Decides what each topic gets, by what is known of its key.
    pub(super) fn place(waiting: Vec<Waiting>, first_uses: &HashMap<Use, FirstUse>, common: Common<'_>) -> Self {
        let mut group = Self {
            waiting: Vec::new(),
            fates: Vec::with_capacity(waiting.len()),
            messages: Vec::new(),
            uses: Vec::new(),
            time: common.time,
            append: rand::random(),
        };
        let mut here: HashMap<(&PublishKey, &Topic), usize> = HashMap::new();
        for one in &waiting {
            let mut fates = Vec::with_capacity(one.publish.topics.len());
            for (at, topic) in one.publish.topics.iter().enumerate() {
                let place = group.messages.len();
                let mut expired = None;
                if let Some(key) = &one.publish.key {
                    if let Some(&place) = here.get(&(key, topic)) {
                        fates.push(Fate::Joins(place));
                        continue;
                    }
                    let used = (key.clone(), topic.clone());
                    match first_uses.get(&used) {
                        Some(&FirstUse::Counts(seq)) => {
                            fates.push(Fate::Known(seq));
                            continue;
                        }
                        Some(&FirstUse::Expired(seq)) => expired = Some(seq),
                        None => {}
                    }
                    here.insert((key, topic), place);
                    group.uses.push((used, place));
                }
                let id = match &one.publish.key {
                    Some(key) => MessageId::keyed(key, topic, expired),
                    None => MessageId::unkeyed(one.drawn, at),
                };
                fates.push(Fate::Message(place));
                group
                    .messages
                    .push(common.message(&one.publish, topic, id, group.append));
            }
            group.fates.push(fates);
        }
        drop(here);
        group.waiting = waiting;
        group
    }

    /// The uses of keys that come with the messages.
    pub(super) fn uses(&self) -> impl Iterator<Item = &Use> {
        self.uses.iter().map(|(used, _)| used)
    }

    /// When the last of those who wait stops doing so; `None` if nobody waits any more.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().filter(|one| one.reply.is_some());
        waiting.map(|one| one.deadline).max()
    }

    /// Whether somebody stops waiting by now.
    pub(super) fn expires(&self, now: Instant) -> bool {
        self.waiting.iter().any(|one| one.expires(now))
    }

    /// Answers those who stop waiting by now.
    pub(super) fn expire(&mut self, now: Instant, error: &AppendError) {
        for one in self.waiting.iter_mut().filter(|one| one.expires(now)) {
            one.answer(Err(error.clone()));
        }
    }

    /// Answers everybody: the messages are in the stream, the first at `first`. `were_there`: since an earlier time.
    /// Gives the uses of keys that came with them.
    pub(super) fn appended(self, first: Seq, were_there: bool) -> impl Iterator<Item = (Use, Seq)> {
        let seq = move |place: usize| Seq(first.0 + place as u64);
        for (mut one, fates) in self.waiting.into_iter().zip(self.fates) {
            let placed = fates.into_iter().map(|fate| match fate {
                Fate::Known(seq) => Placed { seq, repeated: true },
                Fate::Message(place) => Placed {
                    seq: seq(place),
                    repeated: were_there,
                },
                Fate::Joins(place) => Placed {
                    seq: seq(place),
                    repeated: true,
                },
            });
            let placed = placed.collect();
            one.answer(Ok(Receipt { placed }));
        }
        self.uses.into_iter().map(move |(used, place)| (used, seq(place)))
    }

    /// Answers everybody that it failed.
    pub(super) fn failed(self, error: &AppendError) {
        for mut one in self.waiting {
            one.answer(Err(error.clone()));
        }
    }
}

impl Common<'_> {
    fn message(&self, publish: &Publish, topic: &Topic, id: MessageId, append: u64) -> Outgoing {
        let slot = Slot(self.layout.slot(topic.as_str()));
        let entry = Entry {
            topic: topic.clone(),
            event_type: publish.event_type.clone(),
            data: publish.data.clone(),
            time: self.time,
            key: publish.key.clone(),
            append,
        };
        Outgoing {
            id,
            subject: self.names.subject(slot),
            payload: entry.encode(self.shard, self.epoch),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::nats::Subjects;

    fn waiting(topics: &[&str], key: Option<&str>) -> (Waiting, oneshot::Receiver<Result<Receipt, AppendError>>) {
        let (reply, answer) = oneshot::channel();
        let now = Instant::now();
        let waiting = Waiting {
            publish: Publish {
                topics: topics.iter().map(|text| Topic::parse(text).expect("a topic")).collect(),
                event_type: None,
                data: "x".into(),
                key: key.map(|key| PublishKey::parse(key).expect("a key")),
                deadline: None,
            },
            reply: Some(reply),
            since: now,
            deadline: now,
            drawn: 1,
            claim: Claim::default(),
            _room: Arc::new(Semaphore::new(1)).try_acquire_owned().expect("room"),
        };
        (waiting, answer)
    }

    #[test]
    fn each_topic_gets_what_its_key_allows() {
        let used = |topic: &str| {
            (
                PublishKey::parse("k").expect("a key"),
                Topic::parse(topic).expect("a topic"),
            )
        };
        let first_uses = HashMap::from([
            (used("known"), FirstUse::Counts(Seq(3))),
            (used("old"), FirstUse::Expired(Seq(2))),
        ]);
        let names = Names::new(Subjects::new("c").expect("a name"), Shard(0));
        let common = Common {
            names: &names,
            layout: Layout::EMBEDDED,
            shard: Shard(0),
            epoch: Epoch(1),
            time: UnixMillis(5),
        };
        let (first, answer) = waiting(&["a", "known", "old"], Some("k"));
        let (second, again) = waiting(&["a", "b"], Some("k"));
        let (third, plain) = waiting(&["a"], None);
        let group = Group::place(vec![first, second, third], &first_uses, common);
        assert_eq!(group.messages.len(), 4);
        let uses: Vec<_> = group.appended(Seq(10), false).collect();
        assert_eq!(
            uses,
            [(used("a"), Seq(10)), (used("old"), Seq(11)), (used("b"), Seq(12))]
        );
        let placed = |mut answer: oneshot::Receiver<Result<Receipt, AppendError>>| {
            let receipt = answer.try_recv().expect("answered").expect("appended");
            receipt
                .placed
                .iter()
                .map(|placed| (placed.seq.0, placed.repeated))
                .collect::<Vec<_>>()
        };
        assert_eq!(placed(answer), [(10, false), (3, true), (11, false)]);
        assert_eq!(placed(again), [(10, true), (12, false)]);
        assert_eq!(placed(plain), [(13, false)]);
    }
}
