//! Whether each stream gets each event of its topics once and in order, by the numbers that events carry.
//!
//! Pure. Eight bytes for a stream of two topics: how far it has come in each. What it missed is remembered apart, until it comes after all.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::plan::{Follows, Published};
use crate::payload::{Key, Payload};

/// What became of the events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliveries {
    /// Different ones that were delivered to whoever follows them.
    pub delivered: u64,
    /// Delivered once more.
    pub duplicated: u64,
    /// Delivered after a later one of their topic.
    pub reordered: u64,
    /// Delivered to one who does not follow their topic.
    pub misdelivered: u64,
}

impl std::ops::AddAssign for Deliveries {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.misdelivered += other.misdelivered;
    }
}

/// Watches over the streams of one process.
#[derive(Debug)]
pub(super) struct Check {
    follows: Follows,
    /// The number of the first stream.
    first: u32,
    /// For each stream, for each of its topics, the highest number that came.
    last: Vec<u32>,
    /// What was passed over, by the place in `last`.
    holes: HashMap<usize, BTreeSet<u32>>,
    found: Deliveries,
    /// What was published before streams were opened, counted for each of them.
    before: u64,
    /// How many deliveries there are to be, once that is told.
    expected: Option<u64>,
}

impl Check {
    /// Over so many streams, from this one on.
    pub(super) fn new(follows: Follows, first: u32, streams: u32) -> Self {
        let places = follows.count() * streams as usize;
        Self {
            follows,
            first,
            last: vec![0; places],
            holes: HashMap::new(),
            found: Deliveries::default(),
            before: 0,
            expected: None,
        }
    }

    /// A stream that has got nothing yet is to get what comes after this.
    pub(super) fn begin(&mut self, stream: u32, after: &Published) {
        let first = (stream - self.first) as usize * self.follows.count();
        for (place, key) in self.follows.keys(stream).enumerate() {
            self.last[first + place] = after.of(key);
            self.before += u64::from(after.of(key));
        }
    }

    /// A stream got an event.
    pub(super) fn got(&mut self, stream: u32, payload: &Payload) {
        let Some(place) = self.follows.place(stream, payload.key) else {
            self.found.misdelivered += 1;
            return;
        };
        let at = (stream - self.first) as usize * self.follows.count() + place;
        let (last, number) = (self.last[at], payload.number);
        if number > last {
            if number > last + 1 {
                self.holes.entry(at).or_default().extend(last + 1..number);
            }
            self.last[at] = number;
            self.found.delivered += 1;
        } else if self.fill(at, number) {
            self.found.delivered += 1;
            self.found.reordered += 1;
        } else {
            self.found.duplicated += 1;
        }
    }

    fn fill(&mut self, at: usize, number: u32) -> bool {
        let Some(holes) = self.holes.get_mut(&at) else {
            return false;
        };
        let was_missing = holes.remove(&number);
        if holes.is_empty() {
            self.holes.remove(&at);
        }
        was_missing
    }

    /// What was found so far.
    pub(super) const fn found(&self) -> Deliveries {
        self.found
    }

    /// So much was published in all: each stream is to get what of it is in its topics.
    pub(super) fn expect(&mut self, published: &Published) {
        let streams = self.last.len() / self.follows.count().max(1);
        let streams = self.first..self.first + u32::try_from(streams).unwrap_or(u32::MAX);
        // Most topics are shared by many: those are looked up once.
        let mut shared: HashMap<Key, u64> = HashMap::new();
        let mut expected = 0;
        for stream in streams {
            for key in self.follows.keys(stream) {
                expected += match key {
                    Key::Inbox(_) => u64::from(published.of(key)),
                    Key::Shared(_) => *shared.entry(key).or_insert_with(|| u64::from(published.of(key))),
                };
            }
        }
        self.expected = Some(expected);
    }

    /// How many deliveries are still to come, if it was told how many there are to be.
    pub(super) fn missing(&self) -> Option<u64> {
        Some(self.expected?.saturating_sub(self.before + self.found.delivered))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FOLLOWS: Follows = Follows {
        inbox: true,
        shared: Vec::new(),
    };

    fn got(check: &mut Check, stream: u32, key: Key, number: u32) {
        check.got(stream, &Payload { key, number, due: 0 });
    }

    #[test]
    fn what_belongs_to_others_is_misdelivered() {
        let mut check = Check::new(FOLLOWS, 10, 2);
        got(&mut check, 10, Key::Inbox(10), 1);
        got(&mut check, 11, Key::Inbox(10), 1);
        got(&mut check, 11, Key::Shared(0), 1);
        let found = check.found();
        assert_eq!((found.delivered, found.misdelivered), (1, 2));
    }

    #[test]
    fn what_is_missing_is_told_once_it_is_known_what_there_is() {
        let follows = Follows {
            inbox: true,
            shared: vec![0],
        };
        let mut check = Check::new(follows, 0, 3);
        assert_eq!(check.missing(), None);
        let published = [(Key::Shared(0), 2), (Key::Inbox(1), 1), (Key::Inbox(7), 5)];
        check.expect(&published.into_iter().collect());
        assert_eq!(check.missing(), Some(7));
        got(&mut check, 1, Key::Inbox(1), 1);
        got(&mut check, 2, Key::Shared(0), 2);
        assert_eq!(check.missing(), Some(5));
    }

    #[test]
    fn one_that_comes_later_gets_what_comes_after() {
        let mut check = Check::new(FOLLOWS, 0, 2);
        let before: Published = [(Key::Inbox(0), 3)].into_iter().collect();
        check.begin(0, &before);
        check.begin(1, &before);
        got(&mut check, 0, Key::Inbox(0), 4);
        assert_eq!((check.found().delivered, check.found().duplicated), (1, 0));
        check.expect(&[(Key::Inbox(0), 5)].into_iter().collect());
        assert_eq!(check.missing(), Some(1));
    }

    proptest! {
        /// However events come: those that came are delivered, those that did not are missing, and what was wrong is counted.
        #[test]
        fn everything_is_counted_once(numbers in prop::collection::vec(1_u32..20, 0..60)) {
            let mut check = Check::new(FOLLOWS, 0, 1);
            check.expect(&[(Key::Inbox(0), 19)].into_iter().collect());
            let (mut seen, mut duplicated, mut reordered) = (BTreeSet::new(), 0, 0);
            for &number in &numbers {
                let late = seen.last().is_some_and(|&last| number < last);
                if !seen.insert(number) {
                    duplicated += 1;
                } else if late {
                    reordered += 1;
                }
                got(&mut check, 0, Key::Inbox(0), number);
            }
            let delivered = seen.len() as u64;
            prop_assert_eq!(check.found(), Deliveries { delivered, duplicated, reordered, misdelivered: 0 });
            prop_assert_eq!(check.missing(), Some(19 - delivered));
        }
    }
}
