//! The tail: the last events of a slot in memory, so that a follower that is seconds behind is brought level without the log.

use std::{collections::VecDeque, sync::Arc};

use crate::model::{Event, Seq};

/// The last events that the feed passed on in one slot, without a gap.
#[derive(Debug)]
pub(super) struct Tail {
    /// Everything of the slot after this, up to what the feed has passed on, is here.
    from: Seq,
    events: VecDeque<(Seq, Arc<Event>)>,
    bytes: usize,
}

impl Tail {
    /// An empty tail of a slot that has been passed on up to `from`.
    pub(super) const fn new(from: Seq) -> Self {
        Self {
            from,
            events: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Adds the slot's next event, and drops the oldest beyond these bounds.
    pub(super) fn push(&mut self, seq: Seq, event: Arc<Event>, max_events: usize, max_bytes: usize) {
        self.bytes += event.weight();
        self.events.push_back((seq, event));
        while self.events.len() > max_events || self.bytes > max_bytes {
            let Some((oldest, event)) = self.events.pop_front() else {
                break;
            };
            self.bytes -= event.weight();
            self.from = oldest;
        }
    }

    /// Whether everything after `seq` is here.
    pub(super) fn covers(&self, seq: Seq) -> bool {
        seq >= self.from
    }

    /// The events after `seq`, in order.
    pub(super) fn after(&self, seq: Seq) -> impl Iterator<Item = &(Seq, Arc<Event>)> {
        let first = self.events.partition_point(|(at, _)| *at <= seq);
        self.events.range(first..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Topic, UnixMillis};

    fn event(seq: u64, bytes: usize) -> Arc<Event> {
        let topic = Topic::parse("t").expect("valid");
        Arc::new(Event::new(
            topic,
            None,
            "x".repeat(bytes).into(),
            UnixMillis(0),
            Some(Seq(seq)),
        ))
    }

    #[test]
    fn is_bounded_by_events_and_by_bytes_and_knows_what_it_lost() {
        let mut tail = Tail::new(Seq(10));
        for seq in [12, 13, 17] {
            tail.push(Seq(seq), event(seq, 4), 3, 2_000);
        }
        assert!(tail.covers(Seq(10)) && !tail.covers(Seq(9)));
        assert_eq!(tail.after(Seq(12)).map(|(seq, _)| seq.0).collect::<Vec<_>>(), [13, 17]);
        tail.push(Seq(18), event(18, 4), 3, 2_000);
        assert!(tail.covers(Seq(12)) && !tail.covers(Seq(11)));
        tail.push(Seq(20), event(20, 700), 3, 2_000);
        assert_eq!(tail.after(Seq(0)).map(|(seq, _)| seq.0).collect::<Vec<_>>(), [18, 20]);
        tail.push(Seq(21), event(21, 900), 3, 2_000);
        assert!(tail.covers(Seq(21)) && !tail.covers(Seq(20)));
    }
}
