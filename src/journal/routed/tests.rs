//! Order and split, without connections: whatever becomes of targets, nobody is told a lie.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use smallvec::smallvec;
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use super::{
    order::{Order, Outcome, Part},
    split::{join, split},
};
use crate::{
    journal::{AppendError, Placed, Receipt, Unavailable},
    model::{Layout, Publish, PublishKey, Seq, Shard, Topic},
};

fn publish(topics: &[&str], data: &str, key: Option<&str>) -> Publish {
    Publish {
        topics: topics.iter().map(|topic| Topic::parse(topic).unwrap()).collect(),
        event_type: None,
        data: data.into(),
        key: key.map(|key| PublishKey::parse(key).unwrap()),
        deadline: None,
    }
}

fn part(publish: Publish, expires: Option<Instant>) -> (Part, oneshot::Receiver<Outcome>) {
    let room = || {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned();
        permit.unwrap()
    };
    Part::new(publish, expires, [room(), room()])
}

fn nobody() -> AppendError {
    AppendError::Unavailable {
        shard: Shard(0),
        cause: Unavailable::NoHolder,
    }
}

/// What happens next; the numbers are how much of what is under way it concerns.
#[derive(Debug, Clone)]
enum Step {
    Push {
        keyed: bool,
    },
    Send,
    /// The target appends one that was sent to it, and answers.
    Answer,
    /// It has appended so many, says that it takes no more, and is left.
    End,
    /// It is gone: so many were sent, and so many of them appended.
    Break {
        sent: usize,
        appended: usize,
    },
    GiveUp,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => any::<bool>().prop_map(|keyed| Step::Push { keyed }),
        6 => Just(Step::Send),
        4 => Just(Step::Answer),
        1 => Just(Step::End),
        2 => (0..6_usize, 0..6_usize).prop_map(|(sent, appended)| Step::Break { sent, appended: appended.min(sent) }),
        1 => Just(Step::GiveUp),
    ];
    prop::collection::vec(step, 1..60)
}

/// A log that knows keys, behind targets that come and go.
#[derive(Default)]
struct Log {
    events: Vec<usize>,
    keys: HashSet<usize>,
}

impl Log {
    fn append(&mut self, number: usize, keyed: bool) {
        if !keyed || self.keys.insert(number) {
            self.events.push(number);
        }
    }
}

proptest! {
    #[test]
    fn nobody_is_told_a_lie_and_the_order_is_kept(steps in steps()) {
        let (mut order, mut log) = (Order::default(), Log::default());
        let (mut keyed, mut outcomes) = (Vec::new(), Vec::new());
        let mut under_way: VecDeque<usize> = VecDeque::new();
        for step in steps {
            match step {
                Step::Push { keyed: is_keyed } => {
                    let number = keyed.len().to_string();
                    let (part, outcome) = part(publish(&["a"], &number, is_keyed.then_some(&number)), None);
                    order.push(part);
                    keyed.push(is_keyed);
                    outcomes.push(outcome);
                }
                Step::Send => {
                    if let Some(publish) = order.next(Instant::now()) {
                        under_way.push_back(publish.data.parse().unwrap());
                    }
                }
                Step::Answer => {
                    if let Some(number) = under_way.pop_front() {
                        log.append(number, keyed[number]);
                        let placed = Placed { seq: Seq(1), repeated: false };
                        let answered = order.answer(Ok(Receipt { placed: [placed].into() }));
                        prop_assert!(answered);
                    }
                }
                Step::End => {
                    under_way.clear();
                    order.not_taken();
                }
                Step::Break { sent, appended } => {
                    let sent = sent.min(under_way.len());
                    for number in under_way.drain(..).take(appended.min(sent)) {
                        log.append(number, keyed[number]);
                    }
                    order.broken(sent, "cut");
                }
                Step::GiveUp => order.refuse_waiting(&nobody()),
            }
            prop_assert_eq!(order.under_way(), under_way.len());
        }
        prop_assert!(log.events.is_sorted_by(|a, b| a < b), "each once, in order: {:?}", log.events);
        for (number, mut outcome) in outcomes.into_iter().enumerate() {
            let is_there = log.events.contains(&number);
            match outcome.try_recv() {
                Ok(Ok(_)) => prop_assert!(is_there, "{number} was acknowledged"),
                Ok(Err(error)) => prop_assert!(!is_there || error.may_be_appended(), "{number}: {error}"),
                // It still waits.
                Err(_) => prop_assert!(!order.is_empty()),
            }
        }
    }

    #[test]
    fn what_is_split_is_joined_in_the_publishs_order(numbers in prop::collection::hash_set(0..200_u32, 1..30), shards in 1..9_u16) {
        let layout = Layout::new(64, shards).unwrap();
        let names: Vec<_> = numbers.iter().map(|number| format!("t{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let parts = split(layout, publish(&names, "x", None));
        let of_shards: HashSet<_> = parts.iter().map(|part| part.shard).collect();
        prop_assert_eq!(of_shards.len(), parts.len(), "one part per shard");
        let placed = |position: usize| Placed { seq: Seq(position as u64), repeated: false };
        let mut receipts = Vec::new();
        for part in parts {
            prop_assert!(part.positions.is_sorted());
            for (topic, &position) in part.publish.topics.iter().zip(&part.positions) {
                prop_assert_eq!(topic.as_str(), names[position]);
                prop_assert_eq!(Shard(layout.shard(layout.slot(topic.as_str()))), part.shard);
            }
            let receipt = Receipt { placed: part.positions.iter().map(|&position| placed(position)).collect() };
            receipts.push((part.positions, Ok(receipt)));
        }
        let expected: Vec<_> = (0..names.len()).map(placed).collect();
        prop_assert_eq!(join(receipts).map(|receipt| receipt.placed.into_vec()), Ok(expected));
    }
}

#[test]
fn one_error_stands_for_all_and_an_unknown_outcome_is_not_missed() {
    let unknown = || AppendError::Unknown {
        cause: "cut".to_owned(),
    };
    let failed = |errors: Vec<AppendError>| {
        let parts = (0..).zip(errors).map(|(position, error)| (vec![position], Err(error)));
        join(parts.collect())
    };
    assert_eq!(failed(vec![nobody(), AppendError::Closed]), Err(nobody()));
    assert_eq!(failed(vec![nobody(), unknown(), AppendError::Closed]), Err(unknown()));

    let placed = Placed {
        seq: Seq(7),
        repeated: false,
    };
    let receipt = Receipt {
        placed: smallvec![placed, placed],
    };
    let partly = join(vec![(vec![0, 2], Ok(receipt.clone())), (vec![1], Err(nobody()))]);
    let outcomes = vec![Ok(placed), Err(nobody()), Ok(placed)];
    assert_eq!(partly, Err(AppendError::Partly { outcomes }));

    let short = join(vec![(vec![0, 1, 2], Ok(receipt))]);
    assert!(matches!(short, Err(AppendError::Unknown { .. })), "{short:?}");
}

#[tokio::test(start_paused = true)]
async fn what_expires_is_given_up_and_the_rest_stays_in_order() {
    let mut order = Order::default();
    let begin = Instant::now();
    let at = |seconds| Some(begin + Duration::from_secs(seconds));
    let mut outcomes = Vec::new();
    for (number, expires) in [("0", at(3)), ("1", None), ("2", at(1)), ("3", at(2))] {
        let (part, outcome) = part(publish(&["a"], number, None), expires);
        order.push(part);
        outcomes.push(outcome);
    }
    assert_eq!(order.expires(), at(1));
    let too_slow = |waited| AppendError::TooSlow {
        shard: Shard(0),
        waited,
    };
    order.expire(begin + Duration::from_secs(2), too_slow);
    for outcome in outcomes.drain(2..) {
        assert_eq!(outcome.await, Ok(Err(too_slow(Duration::from_secs(2)))));
    }
    assert_eq!(order.expires(), at(3));
    let left: Vec<_> = std::iter::from_fn(|| order.next(begin).map(|publish| publish.data.to_string())).collect();
    assert_eq!(left, ["0", "1"]);
}
