//! The publishers' keys that are in the stream and not yet in the replica: an answer may come before the applier has come to it.

use std::collections::{HashMap, VecDeque};

use crate::model::{PublishKey, Seq, Topic, UnixMillis};

/// A use of a key on a topic.
pub(super) type Use = (PublishKey, Topic);

/// The uses that were acknowledged here and are not known to be applied.
#[derive(Debug, Default)]
pub(super) struct Known {
    uses: HashMap<Use, (Seq, UnixMillis)>,
    /// In the order of the sequences.
    order: VecDeque<(Seq, Use)>,
}

impl Known {
    /// So many are kept at most: a holder that is so far behind takes no keys.
    const CAPACITY: usize = 200_000;

    pub(super) fn is_full(&self) -> bool {
        self.uses.len() >= Self::CAPACITY
    }

    pub(super) fn get(&self, key: &PublishKey, topic: &Topic) -> Option<(Seq, UnixMillis)> {
        // A tuple of clones is cheap: both are shared texts.
        self.uses.get(&(key.clone(), topic.clone())).copied()
    }

    /// A use was acknowledged.
    pub(super) fn note(&mut self, key: PublishKey, topic: Topic, seq: Seq, time: UnixMillis) {
        self.uses.insert((key.clone(), topic.clone()), (seq, time));
        self.order.push_back((seq, (key, topic)));
    }

    /// What is up to here can be read from the replica.
    pub(super) fn applied(&mut self, seq: Seq) {
        while let Some((_, used)) = self.order.pop_front_if(|(at, _)| *at <= seq) {
            // A later use of the same key is kept.
            if self.uses.get(&used).is_some_and(|&(at, _)| at <= seq) {
                self.uses.remove(&used);
            }
        }
    }

    /// The stream is another one.
    pub(super) fn clear(&mut self) {
        self.uses.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_known_until_it_is_applied() {
        let mut known = Known::default();
        let key = PublishKey::parse("k").expect("a key");
        let [a, b] = ["a", "b"].map(|topic| Topic::parse(topic).expect("a topic"));
        known.note(key.clone(), a.clone(), Seq(4), UnixMillis(1));
        known.note(key.clone(), b.clone(), Seq(5), UnixMillis(1));
        known.note(key.clone(), a.clone(), Seq(9), UnixMillis(2));
        known.applied(Seq(4));
        assert_eq!(known.get(&key, &a), Some((Seq(9), UnixMillis(2))), "the later use");
        assert_eq!(known.get(&key, &b), Some((Seq(5), UnixMillis(1))));
        known.applied(Seq(9));
        assert_eq!((known.get(&key, &a), known.get(&key, &b)), (None, None));
        assert!(known.order.is_empty());
    }
}
