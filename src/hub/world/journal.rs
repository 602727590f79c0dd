//! A shard as its journal has it, and the log that answers from it.

use std::{collections::HashMap, sync::Arc};

use crate::{
    bus::{Announcement, Digest},
    hub::{Answer, Question},
    log::{Heads, Located, Page, Replay},
    model::{Epoch, Event, Seq, Shard, Slot, Topic, UnixMillis},
};

pub(super) struct Journal {
    shard: Shard,
    /// Its epochs, each with the sequence after which it begins; the last is the present one.
    epochs: Vec<(u32, Seq)>,
    /// The last epoch that ever was.
    youngest: u32,
    /// Grows with each break in the history: what was under way before it does not count.
    pub(super) branch: u32,
    /// What is kept.
    events: Vec<(Seq, Arc<Event>)>,
    /// Where everything ever appended stands.
    order: Vec<(Seq, Slot)>,
    /// How far the log has come.
    pub(super) applied: Seq,
    floor: Seq,
    digested: Seq,
    /// It is a copy, which may have yet to come to what was appended.
    lags: bool,
}

impl Journal {
    pub(super) fn new(shard: Shard) -> Self {
        Self {
            shard,
            epochs: vec![(1, Seq(0))],
            youngest: 1,
            branch: 0,
            events: Vec::new(),
            order: Vec::new(),
            applied: Seq(0),
            floor: Seq(1),
            digested: Seq(0),
            lags: false,
        }
    }

    /// An empty copy of one.
    pub(super) fn copy(shard: Shard) -> Self {
        Self {
            lags: true,
            ..Self::new(shard)
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epochs.last().expect("there is always one").0
    }

    /// Starts anew, as it is.
    pub(super) fn restart(&mut self) {
        self.youngest += 1;
        self.epochs.push((self.youngest, self.last()));
    }

    /// Is put back to what it was when it had come to `last`, or to nothing, and starts anew.
    pub(super) fn restore(&mut self, last: Seq) {
        self.order.retain(|&(seq, _)| seq <= last);
        self.events.retain(|&(seq, _)| seq <= last);
        let last = self.last();
        self.epochs.retain(|&(_, after)| after < last);
        self.applied = last;
        self.digested = self.digested.min(last);
        self.floor = self.floor.min(last.next());
        self.branch += 1;
        self.restart();
    }

    /// Is made anew, empty; another history begins.
    pub(super) fn recreate(&mut self) {
        *self = Self {
            youngest: self.youngest + 1,
            branch: self.branch + 1,
            epochs: vec![(self.youngest + 1, Seq(0))],
            ..Self::new(self.shard)
        };
    }

    /// Copies what another has that it has not, up to a sequence: as a holder applies a stream. If it is of another history, it is emptied first.
    pub(super) fn apply(&mut self, stream: &Self, up_to: Seq, slots: impl IntoIterator<Item = Slot>) {
        if self.epochs != stream.epochs {
            *self = Self {
                epochs: stream.epochs.clone(),
                branch: stream.branch,
                ..Self::copy(self.shard)
            };
        }
        if self.last().next() < stream.floor {
            // What it never had is gone, and may have been in any slot.
            let gone = Seq(stream.floor.0 - 1);
            self.order.extend(slots.into_iter().map(|slot| (gone, slot)));
            self.floor = stream.floor;
        }
        let (last, floor) = (self.last(), self.floor);
        self.events.retain(|&(seq, _)| seq >= floor);
        let missing = |seq: Seq| seq > last && seq <= up_to;
        self.order.extend(stream.order.iter().filter(|&&(seq, _)| missing(seq)));
        let events = stream.events.iter().filter(|&&(seq, _)| missing(seq));
        self.events.extend(events.cloned());
        self.applied = self.last();
    }

    /// Whether a position is one of this history.
    fn has(&self, epoch: Epoch, position: Seq) -> bool {
        let Some(at) = self.epochs.iter().position(|&(known, _)| known == epoch.0) else {
            return false;
        };
        position <= self.epochs.get(at + 1).map_or(self.last(), |&(_, next)| next)
    }

    pub(super) fn last(&self) -> Seq {
        self.order.last().map_or(Seq::ZERO, |&(seq, _)| seq)
    }

    /// Appends an event, `step` after the last one.
    pub(super) fn append(&mut self, topic: Topic, slot: Slot, data: &str, time: u64, step: u64) -> Announcement {
        let seq = Seq(self.last().0 + step);
        let prev = self.order.iter().rev().find(|&&(_, of)| of == slot);
        let prev = prev.map_or(Seq::ZERO, |&(seq, _)| seq);
        let event = Arc::new(Event::new(topic, None, data.into(), UnixMillis(time), Some(seq)));
        self.order.push((seq, slot));
        self.events.push((seq, event.clone()));
        let (shard, epoch) = (self.shard, Epoch(self.epoch()));
        Announcement {
            shard,
            epoch,
            slot,
            prev,
            seq,
            event,
        }
    }

    /// Drops all but the last of what the log has.
    pub(super) fn expire(&mut self) {
        self.floor = self.floor.max(Seq(self.applied.0.saturating_sub(5)));
        let floor = self.floor;
        self.events.retain(|&(seq, _)| seq >= floor);
    }

    pub(super) fn heads(&self) -> Heads {
        let applied = self.order.iter().filter(|&&(seq, _)| seq <= self.applied);
        let slots: HashMap<_, _> = applied.map(|&(seq, slot)| (slot, seq)).collect();
        Heads {
            shard: self.shard,
            epoch: Epoch(self.epoch()),
            last: self.applied,
            floor: self.floor,
            slots: Arc::new(slots),
        }
    }

    /// The next digest.
    pub(super) fn digest(&mut self) -> Digest {
        let before = std::mem::replace(&mut self.digested, self.applied);
        let heads = self.heads();
        let slots = heads.slots.iter().map(|(&slot, &seq)| (slot, seq));
        let mut changed: Vec<_> = slots.filter(|&(_, seq)| seq > before).collect();
        changed.sort_unstable();
        Digest {
            shard: self.shard,
            epoch: Epoch(self.epoch()),
            before,
            now: self.applied,
            changed,
        }
    }

    pub(super) fn answer(&self, question: &Question) -> Answer {
        let epoch = Epoch(self.epoch());
        match question {
            Question::Heads(_) => Answer::Heads(self.heads()),
            Question::Locate(_, time) => {
                let before = self.events.iter().take_while(|(_, event)| event.time < *time);
                let located = before.last().map_or(Seq::ZERO, |&(seq, _)| seq);
                let after = located.max(Seq(self.floor.0 - 1));
                Answer::Located(Located { epoch, after })
            }
            Question::Replay(request) | Question::Fill(request) => {
                let positions = || request.topics.iter().map(|&(_, after)| after);
                // A copy may yet come to what lies ahead of it; until then there is nothing after it.
                let ahead = |position| self.lags && request.epoch == epoch && position > self.last();
                if positions().any(|position| !ahead(position) && !self.has(request.epoch, position)) {
                    let last = self.last();
                    return Answer::Replay(Replay::Forked { epoch, last });
                }
                if positions().any(|position| !ahead(position) && position.next() < self.floor) {
                    return Answer::Replay(Replay::Gone {
                        epoch,
                        floor: self.floor,
                    });
                }
                let asked = |seq: Seq, event: &Event| {
                    let of = |(topic, after): &(Topic, Seq)| *topic == event.topic && seq > *after;
                    seq <= self.applied && request.topics.iter().any(of)
                };
                let found = self.events.iter().filter(|(seq, event)| asked(*seq, event));
                let mut events: Vec<_> = found.map(|(_, event)| event.clone()).collect();
                let mut up_to = self.applied;
                if events.len() > request.max_events {
                    events.truncate(request.max_events);
                    up_to = events.last().and_then(|event| event.seq).unwrap_or_default();
                }
                Answer::Replay(Replay::Page(Page { epoch, events, up_to }))
            }
        }
    }
}
