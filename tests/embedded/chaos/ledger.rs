//! What was promised to readers, and whether it was kept.

use std::collections::{BTreeMap, HashMap};

/// What is promised beyond that each acknowledged event comes once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// One shard: a reader has the events of all its topics in one order, and an event reaches all its topics or none.
    OneShard,
    /// Several: each topic has an order of its own, and an event may reach some of its topics.
    Shards,
}

/// What became of every event.
#[derive(Debug)]
pub(super) struct Ledger {
    rule: Rule,
    /// By topic and sequence.
    acknowledged: BTreeMap<(String, u64), String>,
    /// Events without an answer that nobody asked for again, and where they would have gone.
    given_up: BTreeMap<String, Vec<String>>,
    counts: Counts,
}

/// How many answers of each kind there were, one per event and topic.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: usize,
    pub(super) given_up: usize,
    pub(super) refused: usize,
}

impl Ledger {
    /// An empty one.
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule,
            acknowledged: BTreeMap::new(),
            given_up: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// An event has a place in a topic, which no other may have.
    pub(super) fn acknowledge(&mut self, topic: &str, sequence: u64, data: &str) {
        let before = self.acknowledged.insert((topic.to_owned(), sequence), data.to_owned());
        assert_eq!(before, None, "{topic} has another event at {sequence}: {data}");
        self.counts.acknowledged += 1;
    }

    /// What became of an event in these topics is not known, and will not be.
    pub(super) fn give_up(&mut self, data: String, topics: Vec<String>) {
        self.counts.given_up += topics.len();
        self.given_up.entry(data).or_default().extend(topics);
    }

    /// An event was refused for good in so many topics: nobody may have it from there.
    pub(super) fn refuse(&mut self, topics: usize) {
        self.counts.refused += topics;
    }

    /// Forgets what was acknowledged, after every reader has shown that it has it: from then on it must not come again.
    pub(super) fn settle(&mut self) {
        self.acknowledged.clear();
    }

    /// What was counted since the beginning.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// What a reader must have of a topic, by sequence.
    fn due<'a>(&'a self, topic: &str) -> impl Iterator<Item = (u64, &'a str)> {
        let all = (topic.to_owned(), 0)..=(topic.to_owned(), u64::MAX);
        self.acknowledged
            .range(all)
            .map(|((_, sequence), data)| (*sequence, &**data))
    }

    /// What is wrong with all that a reader of these topics received, if anything is.
    pub(super) fn wrong(&self, topics: &[String], received: &[String]) -> Option<String> {
        let mut came = HashMap::<&str, usize>::new();
        for data in received {
            *came.entry(data).or_default() += 1;
        }
        let mut due = HashMap::<&str, usize>::new();
        for (_, data) in topics.iter().flat_map(|topic| self.due(topic)) {
            *due.entry(data).or_default() += 1;
        }
        for (&data, &due) in &due {
            let came = came.get(data).copied().unwrap_or_default();
            if came < due {
                return Some(format!(
                    "{data} came {came} times where {due} were due, of {} events",
                    received.len()
                ));
            }
        }
        for (&data, &came) in &came {
            let due = due.get(data).copied().unwrap_or_default();
            let named = self.given_up.get(data);
            let may = named.map_or(0, |named| named.iter().filter(|topic| topics.contains(topic)).count());
            let more = came - due;
            if more > may || self.rule == Rule::OneShard && more != 0 && more != may {
                return Some(format!(
                    "{data} came {came} times where {due} were due and {may} not known of"
                ));
            }
        }
        match self.rule {
            Rule::OneShard => out_of_order(topics.iter().flat_map(|topic| self.due(topic)), received),
            Rule::Shards => topics.iter().find_map(|topic| out_of_order(self.due(topic), received)),
        }
    }
}

/// Where events came in another order than that of their sequences, if they did. Between them others may have come.
fn out_of_order<'a>(due: impl Iterator<Item = (u64, &'a str)>, received: &[String]) -> Option<String> {
    let due: BTreeMap<u64, &str> = due.collect();
    let mut left = due.iter().peekable();
    for data in received {
        left.next_if(|(_, due)| *due == data);
    }
    let (&sequence, &data) = left.next()?;
    let around = |at: usize| {
        received[at.saturating_sub(3)..]
            .iter()
            .take(7)
            .map(|data| &**data)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let before = due
        .range(..sequence)
        .next_back()
        .map_or("the beginning", |(_, data)| data);
    let at = received.iter().position(|came| came == data);
    Some(format!(
        "{data} came before {before}, which has the lower sequence: {}",
        at.map_or_else(String::new, around)
    ))
}

#[test]
fn the_ledger_finds_what_is_wrong() {
    let ledger = |rule| {
        let mut ledger = Ledger::new(rule);
        for (topic, sequence, data) in [
            ("a", 1, "x"),
            ("b", 2, "y"),
            ("a", 3, "z"),
            ("a", 4, "end"),
            ("b", 5, "z"),
        ] {
            ledger.acknowledge(topic, sequence, data);
        }
        ledger.give_up("?".to_owned(), vec!["b".to_owned(), "c".to_owned()]);
        ledger.refuse(1);
        ledger
    };
    let (one, many) = (ledger(Rule::OneShard), ledger(Rule::Shards));
    let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let wrong = |topics: &[&str], received: &[&str]| {
        let [one, many] = [&one, &many].map(|ledger| ledger.wrong(&own(topics), &own(received)).is_some());
        (one, many)
    };
    assert_eq!(wrong(&["a"], &["x", "z", "end"]), (false, false));
    assert_eq!(wrong(&["a", "b"], &["x", "y", "?", "z", "end", "z"]), (false, false));
    assert_eq!(
        wrong(&["a", "b", "c"], &["x", "y", "?", "?", "z", "end", "z"]),
        (false, false)
    );
    assert_eq!(wrong(&["a"], &["x", "end"]), (true, true), "lost");
    assert_eq!(wrong(&["a"], &["x", "z"]), (true, true), "lost at the end");
    assert_eq!(wrong(&["a"], &["x", "z", "z", "end"]), (true, true), "twice");
    assert_eq!(wrong(&["a"], &["z", "x", "end"]), (true, true), "out of order");
    assert_eq!(wrong(&["a"], &["x", "y", "z", "end"]), (true, true), "of another topic");
    assert_eq!(
        wrong(&["a"], &["x", "z", "end", "!"]),
        (true, true),
        "refused, or never published"
    );
    assert_eq!(
        wrong(&["a", "b"], &["x", "z", "end", "y"]),
        (true, true),
        "lost in one topic"
    );
    assert_eq!(
        wrong(&["a", "b"], &["y", "z", "x", "z", "end"]),
        (true, false),
        "in another order"
    );
    assert_eq!(
        wrong(&["a", "b"], &["?", "x", "y", "?", "z", "end", "z"]),
        (true, true),
        "given up, and there twice"
    );
    assert_eq!(
        wrong(&["a", "b", "c"], &["?", "x", "y", "z", "end", "z"]),
        (true, false),
        "given up, and there in part"
    );
    assert_eq!(
        wrong(&["a"], &["?", "x", "z", "end"]),
        (true, true),
        "given up, of another topic"
    );

    let mut settled = many;
    settled.settle();
    assert_eq!(settled.wrong(&own(&["a", "b"]), &own(&["?"])), None);
    assert!(settled.wrong(&own(&["a"]), &own(&["x"])).is_some(), "again");
    let counts = settled.counts();
    assert_eq!((counts.acknowledged, counts.given_up, counts.refused), (5, 2, 1));
}
