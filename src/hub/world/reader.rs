//! Readers: what waits between an edge and each, what it has seen, and whether that is what it was owed.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use super::Faults;
use crate::{
    feed::GapReason,
    hub::{Delivery, Flow, FollowerId, Offer, Outlet},
    model::Seq,
};

/// Everything published, by topic, in order.
pub(super) type Published = Rc<RefCell<Vec<Vec<Event>>>>;

/// What was published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Event {
    pub(super) epoch: u32,
    pub(super) seq: Seq,
    /// The journal was put back to before it: nobody is owed it any more.
    pub(super) undone: bool,
}

/// What a reader has seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Event {
        topic: usize,
        epoch: u32,
        seq: Seq,
    },
    Gap(GapReason),
    /// It is level; by then so many events had been published to each topic.
    Level(Vec<usize>),
}

/// What waits between an edge and a reader.
pub(super) struct Pipe {
    pub(super) items: VecDeque<(Seen, String)>,
    /// What more was to follow.
    pub(super) held: Vec<(Seen, String)>,
    pub(super) room: usize,
    pub(super) refused: bool,
    pub(super) gone: bool,
    published: Published,
}

impl Pipe {
    pub(super) fn new(room: usize, published: Published) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            items: VecDeque::new(),
            held: Vec::new(),
            room,
            refused: false,
            gone: false,
            published,
        }))
    }
}

impl Pipe {
    fn flush(&mut self) {
        self.items.extend(self.held.drain(..));
    }
}

pub(super) struct PipeOutlet(pub(super) Rc<RefCell<Pipe>>);

impl Outlet for PipeOutlet {
    fn offer(&self, delivery: &Delivery<'_>, flow: Flow) -> Offer {
        let mut pipe = self.0.borrow_mut();
        assert!(
            !pipe.refused,
            "nothing is offered between a refusal and the word that there is room"
        );
        if pipe.gone {
            return Offer::Gone;
        }
        if pipe.items.len() + pipe.held.len() >= pipe.room {
            pipe.refused = true;
            return Offer::Full;
        }
        let (seen, cursor) = match *delivery {
            Delivery::Level { cursor } => {
                let published = pipe.published.borrow().iter().map(Vec::len).collect();
                (Seen::Level(published), cursor)
            }
            Delivery::Gap { reason, cursor } => (Seen::Gap(reason), cursor),
            Delivery::Event { event, cursor, .. } => {
                let (topic, epoch) = event.data.split_once(' ').expect("as published");
                let seen = Seen::Event {
                    topic: topic.parse().expect("as published"),
                    epoch: epoch.parse().expect("as published"),
                    seq: event.seq.expect("durable"),
                };
                (seen, cursor.expect("durable"))
            }
        };
        pipe.held.push((seen, cursor.to_owned()));
        if flow == Flow::Single {
            pipe.flush();
        }
        Offer::Taken
    }

    fn flush(&self) {
        self.0.borrow_mut().flush();
    }
}

pub(super) struct Reader {
    pub(super) topics: Vec<usize>,
    /// It begins with the oldest event kept, rather than with what comes from then on.
    pub(super) from_earliest: bool,
    pub(super) cursor: Option<String>,
    pub(super) seen: Vec<Seen>,
    pub(super) on: Option<(usize, FollowerId, Rc<RefCell<Pipe>>)>,
}

impl Reader {
    /// Each event of the topic once, in order; what is missing lies next to a gap that these faults can cause.
    pub(super) fn judge(&self, topic: usize, all: &[Event], faults: Faults) -> Result<(), String> {
        let mut next = 0;
        let mut gap = false;
        // Up to where a reader may have begun: what it had not seen before its first event was published before it was level.
        // One that begins with the oldest event kept is owed what is kept, no more.
        let mut may_begin_at = if self.from_earliest && !faults.retention && !faults.forks {
            Some(0)
        } else {
            None
        };
        for seen in &self.seen {
            match *seen {
                Seen::Level(ref published) if next == 0 && !self.from_earliest => {
                    may_begin_at.get_or_insert(published[topic]);
                }
                Seen::Gap(reason) if faults.explain(reason) => gap = true,
                Seen::Gap(reason) => return Err(format!("told of a gap for no reason: {reason:?}")),
                Seen::Event { topic: of, epoch, seq } if of == topic => {
                    let at = all.iter().position(|event| (event.epoch, event.seq) == (epoch, seq));
                    let at = at.ok_or("got what was never published")?;
                    if at < next {
                        return Err(format!("got {epoch}/{seq} again, or out of order"));
                    }
                    let due = if next == 0 { may_begin_at.unwrap_or(at) } else { next };
                    if at > due && !gap && owed(&all[due..at]) {
                        return Err(format!("lost {:?} without a word", &all[due..at]));
                    }
                    next = at + 1;
                    gap = false;
                }
                Seen::Level(_) | Seen::Event { .. } => {}
            }
        }
        if owed(&all[next..]) {
            return Err(format!("still lacks {:?} in the end", &all[next..]));
        }
        Ok(())
    }
}

fn owed(missing: &[Event]) -> bool {
    missing.iter().any(|event| !event.undone)
}
