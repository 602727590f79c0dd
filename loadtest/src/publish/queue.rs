//! What a connection has still to publish, in an order that no failure can change.

use std::collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry};

use crate::payload::{Key, Payload};

/// Events of one connection that nobody has acknowledged yet and that are not under way.
///
/// Where outcomes are independent (calls of their own, or answers after which an event is sent again), a topic has one event under way at
/// most: a later one that overtook it would be out of order by no fault of the server.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: VecDeque<Payload>,
    /// By topic of which an event is under way, or ready: those behind it.
    behind: Option<HashMap<Key, VecDeque<Payload>>>,
}

impl Queue {
    /// With nothing in it.
    pub(super) fn new(is_one_per_topic: bool) -> Self {
        Self {
            ready: VecDeque::new(),
            behind: is_one_per_topic.then(HashMap::new),
        }
    }

    /// Adds the newest.
    pub(super) fn push(&mut self, event: Payload) {
        let Some(behind) = &mut self.behind else {
            return self.ready.push_back(event);
        };
        match behind.entry(event.key) {
            Entry::Occupied(mut topic) => topic.get_mut().push_back(event),
            Entry::Vacant(topic) => {
                topic.insert(VecDeque::new());
                self.ready.push_back(event);
            }
        }
    }

    /// What to send next.
    pub(super) fn pop(&mut self) -> Option<Payload> {
        self.ready.pop_front()
    }

    /// Whether nothing can be sent now.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// An event is acknowledged: the next of its topic may go.
    pub(super) fn acknowledged(&mut self, event: Payload) {
        if let Some(behind) = &mut self.behind
            && let Entry::Occupied(mut topic) = behind.entry(event.key)
        {
            match topic.get_mut().pop_front() {
                Some(next) => self.ready.push_back(next),
                None => {
                    topic.remove();
                }
            }
        }
    }

    /// An event has to be sent again.
    pub(super) fn again(&mut self, event: Payload) {
        self.ready.push_back(event);
    }

    /// These, in the order in which they were sent, have to be sent again before anything else.
    pub(super) fn all_again(&mut self, sent: impl DoubleEndedIterator<Item = Payload>) {
        for event in sent.rev() {
            self.ready.push_front(event);
        }
    }
}

/// How many events were published of each topic: the number of its last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts(pub(super) BTreeMap<Key, u32>);

impl Counts {
    /// The number of the next event of a topic.
    pub(super) fn next(&mut self, key: Key) -> u32 {
        let count = self.0.entry(key).or_default();
        *count += 1;
        *count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: u32, number: u32) -> Payload {
        Payload {
            key: Key::Shared(topic),
            number,
            due: 0,
        }
    }

    fn drain(queue: &mut Queue) -> Vec<Payload> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn what_was_lost_with_a_connection_is_first_and_in_order() {
        let mut queue = Queue::new(false);
        let events = [event(1, 1), event(1, 2), event(2, 1), event(1, 3)];
        for event in events {
            queue.push(event);
        }
        let sent = [queue.pop(), queue.pop()].map(|event| event.expect("one"));
        queue.all_again(sent.into_iter());
        assert_eq!(drain(&mut queue), events);
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_topic_has_one_event_under_way() {
        let mut queue = Queue::new(true);
        for event in [event(1, 1), event(1, 2), event(2, 1), event(1, 3)] {
            queue.push(event);
        }
        assert_eq!(drain(&mut queue), [event(1, 1), event(2, 1)]);
        queue.again(event(1, 1));
        assert_eq!(drain(&mut queue), [event(1, 1)], "and none behind it");
        queue.acknowledged(event(2, 1));
        assert_eq!(queue.pop(), None);
        queue.push(event(2, 2));
        queue.acknowledged(event(1, 1));
        queue.push(event(1, 4));
        assert_eq!(drain(&mut queue), [event(2, 2), event(1, 2)]);
        queue.acknowledged(event(1, 2));
        queue.acknowledged(event(1, 3));
        assert_eq!(drain(&mut queue), [event(1, 3), event(1, 4)]);
    }

    #[test]
    fn numbers_begin_with_one_in_each_topic() {
        let mut counts = Counts::default();
        let numbers = [1, 2, 1].map(|topic| counts.next(Key::Inbox(topic)));
        assert_eq!(numbers, [1, 1, 2]);
    }
}
