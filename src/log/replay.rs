//! Replay: the events of some topics merged in sequence order, a page at a time.
//!
//! What is stored never changes and sequences only grow, so a page needs no snapshot: it is bounded by how far the shard had come when the
//! read began. Only the floor moves meanwhile, and is looked at again at the end.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use rocksdb::{DBRawIterator, ReadOptions};

use super::{
    Page, Replay, ReplayRequest, keys,
    options::Column,
    store::{Columns, Store, StoreError},
    value::{StoredBody, StoredEvent, decode},
};
use crate::model::{Epoch, Event, EventType, Seq, Topic, UnixMillis};

impl Store {
    /// One page of the events of some topics.
    pub(crate) fn replay(&self, request: &ReplayRequest) -> Result<Replay, StoreError> {
        self.replay_while(request, || {})
    }

    /// The same; `meanwhile` happens between finding the events and reading them.
    pub(super) fn replay_while(&self, request: &ReplayRequest, meanwhile: impl FnOnce()) -> Result<Replay, StoreError> {
        let last = self.head().last;
        let positions = || request.topics.iter().map(|&(_, after)| after);
        // It may well come to them yet, unless they are known to be lost; until then there is nothing after them.
        let ahead = |after: &Seq| self.may_lag() && request.epoch == self.epoch() && *after > last;
        let is_unknown = positions().any(|after| !ahead(&after) && !self.has_been_at(request.epoch, after, last));
        let furthest = positions().filter(ahead).max();
        if is_unknown || furthest.is_some_and(|after| self.is_lost(after)) {
            return Ok(Replay::Forked {
                epoch: self.epoch(),
                last,
            });
        }
        let gone = || {
            let floor = self.floor();
            positions()
                .any(|after| after <= last && after.next() < floor)
                .then_some(Replay::Gone {
                    epoch: self.epoch(),
                    floor,
                })
        };
        if let Some(gone) = gone() {
            return Ok(gone);
        }
        let page = self.with(|db| {
            let merge = Merge::new(db, request, last)?;
            meanwhile();
            merge.page(request, self.epoch())
        });
        // Compaction may have dropped events, or the payloads they refer to, while they were being read: it raises the floor first.
        match gone() {
            Some(gone) => Ok(gone),
            None => Ok(Replay::Page(page?)),
        }
    }
}

/// A merge of topics. What a page may need of each is read as it is found, by one walk that goes from topic to topic: a reader that comes back
/// missed a few events of each. What a topic has beyond that is read by a walk of its own, opened only when its turn comes.
struct Merge<'a> {
    db: Columns<'a>,
    last: Seq,
    /// Those that have something: of thousands, few do.
    sources: Vec<Source<'a>>,
    /// The next sequence of each source that has one, the lowest first.
    next: BinaryHeap<Reverse<(Seq, usize)>>,
    /// The payload that several events shared last: they tend to follow one another.
    body: Option<(Seq, Arc<str>)>,
}

/// A topic, as far as it was read.
struct Source<'a> {
    topic: &'a Topic,
    /// What was read ahead.
    ahead: VecDeque<(Seq, StoredEvent)>,
    /// What comes after that and is still to be read.
    then: Option<Seq>,
    /// Where it is read from.
    walk: Option<DBRawIterator<'a>>,
}

impl<'a> Source<'a> {
    /// The sequence of its next event, if it has one.
    fn next(&self) -> Option<Seq> {
        self.ahead.front().map_or(self.then, |&(seq, _)| Some(seq))
    }

    /// Reads the next event, which was not read ahead.
    fn read(&mut self, db: Columns<'a>, seq: Seq, last: Seq) -> Result<StoredEvent, StoreError> {
        let mut walk = self.walk.take().unwrap_or_else(|| {
            let mut options = ReadOptions::default();
            options.set_iterate_lower_bound(keys::event(self.topic, seq));
            options.set_iterate_upper_bound(keys::event(self.topic, last.next()));
            let mut walk = db.walk(Column::Events, options);
            walk.seek_to_first();
            walk
        });
        let stored = match event_at(&walk, self.topic, last)? {
            Some((found, value)) if found == seq => decode(value)?,
            _ => {
                let topic = self.topic;
                return Err(StoreError::Damaged(format!("event {seq} of {topic} is missing")));
            }
        };
        walk.next();
        self.then = event_at(&walk, self.topic, last)?.map(|(next, _)| next);
        self.walk = self.then.map(|_| walk);
        Ok(stored)
    }
}

/// The event of a topic up to `last` at which a walk stands, if it stands on one.
fn event_at<'w>(walk: &'w DBRawIterator<'_>, topic: &Topic, last: Seq) -> Result<Option<(Seq, &'w [u8])>, StoreError> {
    let Some((key, value)) = walk.item() else {
        walk.status()?;
        return Ok(None);
    };
    let seq = keys::seq_in_topic(key, topic).filter(|&seq| seq <= last);
    Ok(seq.map(|seq| (seq, value)))
}

impl<'a> Merge<'a> {
    /// At most this many events of a topic are read ahead: what others leave no room for in the page was read in vain.
    const AHEAD: usize = 64;

    fn new(db: Columns<'a>, request: &'a ReplayRequest, last: Seq) -> Result<Self, StoreError> {
        let mut sources: Vec<Source<'a>> = Vec::new();
        let (mut events, mut bytes) = (request.max_events, request.max_bytes);
        let mut walk = db.walk(Column::Events, ReadOptions::default());
        for (topic, after) in request.topics.iter().filter(|&&(_, after)| after < last) {
            walk.seek(keys::event(topic, after.next()));
            let (mut ahead, mut then) = (VecDeque::new(), None);
            while let Some((seq, value)) = event_at(&walk, topic, last)? {
                if ahead.len() == Self::AHEAD || events == 0 || bytes == 0 {
                    then = Some(seq);
                    break;
                }
                let event: StoredEvent = decode(value)?;
                (events, bytes) = (events - 1, bytes.saturating_sub(event.data.len()));
                ahead.push_back((seq, event));
                walk.next();
            }
            if !ahead.is_empty() || then.is_some() {
                sources.push(Source {
                    topic,
                    ahead,
                    then,
                    walk: None,
                });
            }
        }
        let next = sources.iter().enumerate();
        Ok(Self {
            db,
            last,
            next: next
                .filter_map(|(index, source)| Some(Reverse((source.next()?, index))))
                .collect(),
            sources,
            body: None,
        })
    }

    fn page(mut self, request: &ReplayRequest, epoch: Epoch) -> Result<Page, StoreError> {
        let mut events: Vec<Arc<Event>> = Vec::new();
        let mut bytes = 0;
        while let Some(Reverse((seq, index))) = self.next.pop() {
            let full = events.len() >= request.max_events || bytes >= request.max_bytes;
            if let (true, Some(up_to)) = (full, events.last().and_then(|event| event.seq)) {
                return Ok(Page { epoch, events, up_to });
            }
            let event = self.take(seq, index)?;
            bytes += event.data.len();
            events.push(Arc::new(event));
        }
        Ok(Page {
            epoch,
            events,
            up_to: self.last,
        })
    }

    /// Takes the next event of a source and finds the one after it.
    fn take(&mut self, seq: Seq, index: usize) -> Result<Event, StoreError> {
        let source = &mut self.sources[index];
        let topic = source.topic;
        let stored = match source.ahead.pop_front() {
            Some((_, stored)) => stored,
            None => source.read(self.db, seq, self.last)?,
        };
        self.next.extend(source.next().map(|next| Reverse((next, index))));
        let event_type = match stored.event_type.as_deref().map(EventType::parse) {
            None => None,
            Some(Ok(name)) => Some(name),
            Some(Err(error)) => return Err(StoreError::Damaged(format!("event {seq} of {topic}: {error}"))),
        };
        let data = match stored.body {
            None => stored.data.into(),
            Some(body) => self.body(Seq(body))?,
        };
        Ok(Event::new(
            topic.clone(),
            event_type,
            data,
            UnixMillis(stored.time_ms),
            Some(seq),
        ))
    }

    fn body(&mut self, seq: Seq) -> Result<Arc<str>, StoreError> {
        if let Some((held, data)) = &self.body
            && *held == seq
        {
            return Ok(Arc::clone(data));
        }
        let stored: StoredBody = self
            .db
            .record(Column::Bodies, &keys::of_seq(seq))?
            .ok_or_else(|| StoreError::Damaged(format!("the payload {seq} is missing")))?;
        let data: Arc<str> = stored.data.into();
        self.body = Some((seq, Arc::clone(&data)));
        Ok(data)
    }
}
