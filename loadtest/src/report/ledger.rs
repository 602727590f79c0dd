//! What became of the events of a run: the one account that decides whether it passed.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What became of the events of a run. Each figure counts events, or, from `delivered` on, events on streams: one for each stream concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Sent to the server.
    pub published: u64,
    /// Of these, answered as durable (or, where nothing is durable, as taken).
    pub acknowledged: u64,
    /// Received by a stream that was to have it, once for each.
    pub delivered: u64,
    /// Acknowledged and due on a stream, and never received there.
    pub lost: u64,
    /// Received by a stream that had it already.
    pub duplicated: u64,
    /// Received by a stream after a later one of the same topic.
    pub reordered: u64,
    /// Received by a stream that does not follow its topic, or damaged.
    pub misdelivered: u64,
    /// Gaps that the server announced: what they cover counts as lost unless it came after all.
    pub gaps: u64,
}

impl Ledger {
    /// Whether each stream received exactly what was due to it, in order.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.misdelivered == 0
    }

    /// The account of both.
    pub const fn merge(&mut self, other: &Self) {
        self.published += other.published;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.misdelivered += other.misdelivered;
        self.gaps += other.gaps;
    }

    /// Every entry with its name, in the order in which it is told.
    #[must_use]
    pub const fn entries(&self) -> [(&'static str, u64); 8] {
        [
            ("published", self.published),
            ("acknowledged", self.acknowledged),
            ("delivered", self.delivered),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("misdelivered", self.misdelivered),
            ("gaps", self.gaps),
        ]
    }

    /// The entries that no run may have, where they are not 0.
    pub fn wrongs(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let wrongs = self.entries().into_iter().skip(3).take(4);
        wrongs.filter(|&(_, count)| count > 0)
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.merge(&other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_wrong_is_found_and_survives_a_merge() {
        let good = Ledger {
            published: 5,
            acknowledged: 5,
            delivered: 50,
            gaps: 1,
            ..Ledger::default()
        };
        assert!(good.is_exact());
        assert_eq!(good.wrongs().count(), 0);
        let wrongs = [
            Ledger {
                lost: 1,
                ..Ledger::default()
            },
            Ledger {
                duplicated: 1,
                ..Ledger::default()
            },
            Ledger {
                reordered: 1,
                ..Ledger::default()
            },
            Ledger {
                misdelivered: 1,
                ..Ledger::default()
            },
        ];
        for wrong in wrongs {
            let mut both = good;
            both += wrong;
            assert!(!both.is_exact());
            assert_eq!(both.wrongs().map(|(_, count)| count).collect::<Vec<_>>(), [1]);
            assert_eq!(both.delivered, 50);
        }
    }
}
