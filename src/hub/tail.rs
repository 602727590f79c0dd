//! The tail: the last events of a slot in memory, so that a follower that is seconds behind is brought level without the log.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::model::{Event, Seq, Slot};

/// How much the tails hold, in bytes as [`Event::weight`] counts them.
#[derive(Debug, Clone, Copy)]
pub(super) struct TailBounds {
    /// Events of each slot.
    pub(super) events: usize,
    /// Bytes of each slot.
    pub(super) bytes: usize,
    /// Bytes of all slots together.
    pub(super) total: usize,
}

/// The tails of all slots.
///
/// When together they hold too much, those that hold most are cut, all to the same size: a slot with much traffic takes nothing from one that
/// has less than its share.
#[derive(Debug)]
pub(super) struct Tails {
    bounds: TailBounds,
    slots: HashMap<Slot, Tail>,
    bytes: usize,
}

impl Tails {
    pub(super) fn new(bounds: TailBounds) -> Self {
        Self {
            bounds,
            slots: HashMap::new(),
            bytes: 0,
        }
    }

    /// The tail of a slot, if it has one.
    pub(super) fn get(&self, slot: Slot) -> Option<&Tail> {
        self.slots.get(&slot)
    }

    /// Begins the tail of a slot that has been passed on up to `from`, if it has none.
    pub(super) fn begin(&mut self, slot: Slot, from: Seq) {
        self.slots.entry(slot).or_insert_with(|| Tail::new(from));
    }

    /// Adds the next event of a slot, if it has a tail.
    pub(super) fn push(&mut self, slot: Slot, seq: Seq, event: Arc<Event>) {
        let Some(tail) = self.slots.get_mut(&slot) else {
            return;
        };
        let before = tail.bytes;
        tail.push(seq, event);
        tail.trim(self.bounds.events, self.bounds.bytes);
        self.bytes = self.bytes + tail.bytes - before;
        if self.bytes > self.bounds.total {
            self.cut();
        }
    }

    /// Drops the tail of a slot.
    pub(super) fn remove(&mut self, slot: Slot) {
        if let Some(tail) = self.slots.remove(&slot) {
            self.bytes -= tail.bytes;
        }
    }

    /// Drops the tails of the slots of which this is not true.
    pub(super) fn retain(&mut self, keep: impl Fn(Slot) -> bool) {
        self.slots.retain(|&slot, _| keep(slot));
        self.bytes = self.slots.values().map(|tail| tail.bytes).sum();
    }

    /// Cuts the largest, somewhat below the bound so that this is seldom done.
    fn cut(&mut self) {
        let mut sizes: Vec<usize> = self.slots.values().map(|tail| tail.bytes).collect();
        let share = share(&mut sizes, self.bounds.total - self.bounds.total / 16);
        for tail in self.slots.values_mut() {
            tail.trim(usize::MAX, share);
        }
        self.bytes = self.slots.values().map(|tail| tail.bytes).sum();
    }
}

/// The size to which those that are larger have to be cut so that together they are no larger than `total`.
fn share(sizes: &mut [usize], total: usize) -> usize {
    sizes.sort_unstable();
    let mut left = total;
    for (at, &size) in sizes.iter().enumerate() {
        let share = left / (sizes.len() - at);
        if size > share {
            return share;
        }
        left -= size;
    }
    usize::MAX
}

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

    /// Adds the slot's next event.
    fn push(&mut self, seq: Seq, event: Arc<Event>) {
        self.bytes += event.weight();
        self.events.push_back((seq, event));
    }

    /// Drops the oldest events beyond these bounds.
    fn trim(&mut self, max_events: usize, max_bytes: usize) {
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
    use proptest::prelude::*;

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

    fn seqs(tail: &Tail, after: u64) -> Vec<u64> {
        tail.after(Seq(after)).map(|(seq, _)| seq.0).collect()
    }

    #[test]
    fn is_bounded_by_events_and_by_bytes_and_knows_what_it_lost() {
        let mut tails = Tails::new(TailBounds {
            events: 3,
            bytes: 2_000,
            total: usize::MAX,
        });
        let slot = Slot(0);
        tails.push(slot, Seq(9), event(9, 4));
        assert!(tails.get(slot).is_none(), "it has yet to begin");
        tails.begin(slot, Seq(10));
        let mut push = |seq, bytes| {
            tails.push(slot, Seq(seq), event(seq, bytes));
            let tail = tails.get(slot).expect("begun");
            (seqs(tail, 0), tail.from.0)
        };
        push(12, 4);
        push(13, 4);
        assert_eq!(push(17, 4), (vec![12, 13, 17], 10));
        assert_eq!(push(18, 4), (vec![13, 17, 18], 12));
        assert_eq!(push(20, 700), (vec![18, 20], 17));
        assert_eq!(push(21, 900), (vec![], 21));
        assert_eq!(push(22, 4), (vec![22], 21));
        let tail = tails.get(slot).expect("begun");
        assert!(tail.covers(Seq(21)) && !tail.covers(Seq(20)));
        assert_eq!(seqs(tail, 21), [22]);
    }

    #[test]
    fn one_with_much_traffic_takes_nothing_from_the_others() {
        let mut tails = Tails::new(TailBounds {
            events: usize::MAX,
            bytes: usize::MAX,
            total: 100_000,
        });
        for slot in 0..10 {
            tails.begin(Slot(slot), Seq(0));
            tails.push(Slot(slot), Seq(1), event(1, 3_000));
        }
        for seq in 2..10_000 {
            tails.push(Slot(0), Seq(seq), event(seq, 1_000));
        }
        for slot in 1..10 {
            assert_eq!(seqs(tails.get(Slot(slot)).expect("begun"), 0), [1]);
        }
        assert!(
            tails.get(Slot(0)).expect("begun").bytes > 30_000,
            "it has what they leave"
        );
    }

    proptest! {
        #[test]
        fn what_is_cut_is_what_those_with_most_have_most_of(
            mut sizes in prop::collection::vec(0..1_000_usize, 0..30),
            total in 0..10_000_usize,
        ) {
            let whole: usize = sizes.iter().sum();
            let share = share(&mut sizes, total);
            let cut: usize = sizes.iter().map(|&size| size.min(share)).sum();
            prop_assert!(cut <= total);
            prop_assert_eq!(share == usize::MAX, whole <= total);
            // No more is cut than has to be.
            prop_assert!(cut + sizes.len() >= total.min(whole));
        }

        /// Whatever happens to them: each tail is an unbroken end of what was passed on, which it knows the beginning of, and together they
        /// are within their bound.
        #[test]
        fn tails_are_unbroken_and_within_their_bounds(
            steps in prop::collection::vec((0..6_u32, 0..20_u8, 0..3_000_usize), 1..300),
            events in 1..20_usize,
            bytes in 0..10_000_usize,
            total in 0..20_000_usize,
        ) {
            let mut tails = Tails::new(TailBounds { events, bytes, total });
            // Of each slot that has a tail: what was passed on since it began, and from where on.
            let mut model: HashMap<Slot, (u64, Vec<u64>)> = HashMap::new();
            for (number, (slot, step, size)) in steps.into_iter().enumerate() {
                let (slot, seq) = (Slot(slot), number as u64 + 1);
                match step {
                    0 => {
                        tails.remove(slot);
                        model.remove(&slot);
                    }
                    1 => {
                        tails.retain(|other| other.0 % 2 == slot.0 % 2);
                        model.retain(|other, _| other.0 % 2 == slot.0 % 2);
                    }
                    2..5 => {
                        tails.begin(slot, Seq(seq));
                        model.entry(slot).or_insert((seq, Vec::new()));
                    }
                    _ => {
                        tails.push(slot, Seq(seq), event(seq, size));
                        if let Some((_, passed)) = model.get_mut(&slot) {
                            passed.push(seq);
                        }
                    }
                }
                let mut held = 0;
                for (slot, (began, passed)) in &model {
                    let tail = tails.get(*slot).expect("begun");
                    let kept = seqs(tail, 0);
                    prop_assert!(passed.ends_with(&kept) && kept.len() <= events);
                    let lost = passed.len() - kept.len();
                    let from = if lost == 0 { *began } else { passed[lost - 1] };
                    prop_assert_eq!(tail.from, Seq(from));
                    let weight: usize = tail.events.iter().map(|(_, event)| event.weight()).sum();
                    prop_assert!(weight <= bytes);
                    held += weight;
                }
                prop_assert_eq!(tails.slots.len(), model.len());
                prop_assert_eq!(tails.bytes, held);
                prop_assert!(held <= total);
            }
        }
    }
}
