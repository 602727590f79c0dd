//! Replay: the events of some topics merged in sequence order, a page at a time.
//!
//! What is stored never changes and sequences only grow, so a page needs no snapshot: it is bounded by how far the shard had come when the
//! read began. Only the floor moves meanwhile, and is looked at again at the end.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
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
            let merge = Merge::new(db, &request.topics, last)?;
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

/// A merge of topics, each of which is opened only when its turn comes: of thousands, few have anything new.
struct Merge<'a> {
    db: Columns<'a>,
    topics: &'a [(Topic, Seq)],
    last: Seq,
    /// The next sequence of each topic that has one, the lowest first.
    next: BinaryHeap<Reverse<(Seq, usize)>>,
    open: HashMap<usize, DBRawIterator<'a>>,
    /// The payload that several events shared last: they tend to follow one another.
    body: Option<(Seq, Arc<str>)>,
}

impl<'a> Merge<'a> {
    fn new(db: Columns<'a>, topics: &'a [(Topic, Seq)], last: Seq) -> Result<Self, StoreError> {
        let mut next = BinaryHeap::with_capacity(topics.len());
        let mut probe = db.walk(Column::Events, ReadOptions::default());
        for (index, (topic, after)) in topics.iter().enumerate() {
            if *after >= last {
                continue;
            }
            probe.seek(keys::event(topic, after.next()));
            match probe.key() {
                Some(key) => next.extend(
                    keys::seq_in_topic(key, topic)
                        .filter(|&seq| seq <= last)
                        .map(|seq| Reverse((seq, index))),
                ),
                None => probe.status()?,
            }
        }
        Ok(Self {
            db,
            topics,
            last,
            next,
            open: HashMap::new(),
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

    /// Reads the next event of a topic and moves on to the one after it.
    fn take(&mut self, seq: Seq, index: usize) -> Result<Event, StoreError> {
        let (topic, _) = &self.topics[index];
        let mut walk = match self.open.remove(&index) {
            Some(walk) => walk,
            None => {
                let mut options = ReadOptions::default();
                options.set_iterate_lower_bound(keys::event(topic, seq));
                options.set_iterate_upper_bound(keys::event(topic, self.last.next()));
                let mut walk = self.db.walk(Column::Events, options);
                walk.seek_to_first();
                walk
            }
        };
        let stored: StoredEvent = match walk.item() {
            Some((key, value)) if keys::seq_in_topic(key, topic) == Some(seq) => decode(value)?,
            _ => {
                walk.status()?;
                return Err(StoreError::Damaged(format!("event {seq} of {topic} is missing")));
            }
        };
        walk.next();
        match walk.key() {
            Some(key) => {
                let seq = keys::seq_in_topic(key, topic)
                    .ok_or_else(|| StoreError::Damaged(format!("a key among those of {topic} is not one of them")))?;
                self.next.push(Reverse((seq, index)));
                self.open.insert(index, walk);
            }
            None => walk.status()?,
        }
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
