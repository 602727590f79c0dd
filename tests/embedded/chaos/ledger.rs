//! What was promised to readers, and whether it was kept.

use std::collections::{BTreeMap, HashMap};

/// What became of every event.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By topic and sequence.
    acknowledged: BTreeMap<(String, u64), String>,
    /// Events without an answer that nobody asked for again, and where they would have gone.
    given_up: BTreeMap<String, Vec<String>>,
}

impl Ledger {
    /// An event has a place in a topic, which no other may have.
    pub(super) fn acknowledge(&mut self, topic: &str, sequence: u64, data: &str) {
        let before = self.acknowledged.insert((topic.to_owned(), sequence), data.to_owned());
        assert_eq!(before, None, "{topic} has another event at {sequence}: {data}");
    }

    /// What became of an event is not known, and will not be.
    pub(super) fn give_up(&mut self, data: String, topics: Vec<String>) {
        self.given_up.insert(data, topics);
    }

    /// How many were acknowledged, and how many given up.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.acknowledged.len(), self.given_up.len())
    }

    /// What a reader of these topics must have, in the order of its one shard.
    fn due(&self, topics: &[String]) -> Vec<&str> {
        let mine = self.acknowledged.iter();
        let mine = mine.filter(|((topic, _), _)| topics.contains(topic));
        let by_sequence: BTreeMap<u64, &str> = mine.map(|((_, sequence), data)| (*sequence, &**data)).collect();
        by_sequence.into_values().collect()
    }

    /// What is wrong with all that a reader of these topics received, if anything is.
    pub(super) fn wrong(&self, topics: &[String], received: &[String]) -> Option<String> {
        let mut unpromised = HashMap::<&str, usize>::new();
        let mut promised = Vec::new();
        for data in received {
            if self.given_up.contains_key(data) {
                *unpromised.entry(data).or_default() += 1;
            } else {
                promised.push(&**data);
            }
        }
        // A publish is all or nothing: in each topic that it named, once, or in none.
        for (data, count) in unpromised {
            let named = self.given_up[data]
                .iter()
                .filter(|topic| topics.contains(topic))
                .count();
            if count != named {
                return Some(format!("{data} came {count} times and went to {named} topics"));
            }
        }
        let due = self.due(topics);
        let at = (0..due.len().max(promised.len())).find(|&at| due.get(at) != promised.get(at))?;
        let around = |list: &[&str]| {
            list.iter()
                .skip(at.saturating_sub(3))
                .take(7)
                .copied()
                .collect::<Vec<_>>()
                .join(" ")
        };
        Some(format!(
            "at {at} of {}: {} came where {} was due",
            due.len(),
            around(&promised),
            around(&due)
        ))
    }
}

#[test]
fn the_ledger_finds_what_is_wrong() {
    let mut ledger = Ledger::default();
    for (topic, sequence, data) in [("a", 1, "x"), ("b", 2, "y"), ("a", 3, "z"), ("a", 4, "end")] {
        ledger.acknowledge(topic, sequence, data);
    }
    ledger.give_up("?".to_owned(), vec!["b".to_owned(), "c".to_owned()]);
    let wrong = |topics: &[&str], received: &[&str]| {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        ledger.wrong(&own(topics), &own(received)).is_some()
    };
    assert!(!wrong(&["a"], &["x", "z", "end"]));
    assert!(!wrong(&["a", "b"], &["x", "y", "?", "z", "end"]));
    assert!(!wrong(&["a", "b", "c"], &["x", "y", "?", "?", "z", "end"]));
    assert!(wrong(&["a"], &["x", "end"]), "lost");
    assert!(wrong(&["a"], &["x", "z"]), "lost at the end");
    assert!(wrong(&["a"], &["x", "z", "z", "end"]), "twice");
    assert!(wrong(&["a"], &["z", "x", "end"]), "out of order");
    assert!(wrong(&["a"], &["x", "y", "z", "end"]), "of another topic");
    assert!(
        wrong(&["a", "b"], &["?", "x", "y", "?", "z", "end"]),
        "given up, and there twice"
    );
    assert!(
        wrong(&["a", "b", "c"], &["?", "x", "y", "z", "end"]),
        "given up, and there in part"
    );
    assert!(wrong(&["a"], &["?", "x", "z", "end"]), "given up, of another topic");
}
