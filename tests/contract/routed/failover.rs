//! What becomes of appends when the node that holds their shard goes away, moves or hangs.

use std::{sync::Arc, time::Duration};

use tidings::{
    journal::{
        AppendError, Journal, Receipt, Unavailable,
        routed::{Routed, Settings},
    },
    members::{Holder, Holders},
    model::{Layout, Publish, Shard},
};
use tokio::{net::TcpListener, sync::watch};

use super::{
    memory::{Memory, Refusing, RefusingLater},
    owner::{Owner, holders},
    proxy::Proxy,
};
use crate::{
    local::DEADLINE,
    world::{keyed, publish},
};

const SHARD: Shard = Shard(0);

/// So patient that nothing is given up while a test lasts.
fn patient() -> Settings {
    Settings {
        patience: DEADLINE,
        ..Settings::default()
    }
}

fn impatient() -> Settings {
    Settings {
        patience: Duration::from_millis(50),
        ..Settings::default()
    }
}

fn one_shard() -> Layout {
    Layout::new(8, 1).expect("valid")
}

fn routed(known: &watch::Sender<Arc<Holders>>, settings: Settings) -> Arc<Routed> {
    Routed::start("here", one_shard(), [].into(), &known.subscribe(), settings)
}

async fn owner(name: &'static str, journal: &Arc<Memory>) -> Owner {
    Owner::start(
        name,
        one_shard(),
        [(SHARD, Arc::clone(journal) as Arc<dyn Journal>)].into(),
    )
    .await
}

async fn append(routed: &Routed, publish: Publish) -> Result<Receipt, AppendError> {
    let appended = async { routed.append(publish).await?.await };
    tokio::time::timeout(DEADLINE, appended)
        .await
        .expect("answered in time")
}

fn cause(error: AppendError) -> Unavailable {
    match error {
        AppendError::Unavailable { shard, cause } => {
            assert_eq!(shard, SHARD);
            cause
        }
        other => panic!("{other:?}"),
    }
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn without_a_holder_an_append_waits_for_one_and_then_fails() {
    let known = holders([]);
    let error = append(&routed(&known, impatient()), publish(&["a"], "x")).await;
    assert_eq!(cause(error.expect_err("nobody")), Unavailable::NoHolder);

    let journal = Memory::new();
    let owner = owner("there", &journal).await;
    let waiting = routed(&known, patient());
    let ticket = waiting.append(publish(&["a"], "x")).await.expect("a place");
    known.send_replace(Arc::new(Holders::new([(SHARD, vec![owner.holder()])].into())));
    ticket.await.expect("durable");
    assert_eq!(journal.data(), ["x"]);
}

#[tokio::test]
async fn a_holder_that_takes_none_is_not_asked() {
    let journal = Memory::new();
    let owner = owner("there", &journal).await;
    let reading = Holder {
        writable: false,
        ..owner.holder()
    };
    let known = holders([(SHARD, vec![reading])]);
    let error = append(&routed(&known, impatient()), publish(&["a"], "x")).await;
    assert_eq!(cause(error.expect_err("nobody")), Unavailable::NoHolder);
    assert!(journal.data().is_empty());
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_named() {
    let journal = Memory::new();
    let owner = owner("there", &journal).await;
    let known = holders([(SHARD, vec![owner.holder()])]);
    owner.kill().await;
    let routed = routed(&known, impatient());
    let error = append(&routed, publish(&["a"], "x")).await.expect_err("refused");
    let Unavailable::Unreachable { node, .. } = cause(error) else {
        panic!("not that")
    };
    assert_eq!(node, "there");
}

#[tokio::test]
async fn one_that_never_says_a_word_counts_as_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let silent = Holder {
        node: "silent".to_owned(),
        grpc: format!("http://{}", listener.local_addr().expect("an address")),
        writable: true,
    };
    let known = holders([(SHARD, vec![silent.clone()])]);
    let settings = Settings {
        connect_within: Duration::from_millis(100),
        ..impatient()
    };
    let error = append(&routed(&known, settings), publish(&["a"], "x")).await;
    let Unavailable::Unreachable { node, .. } = cause(error.expect_err("refused")) else {
        panic!("not that")
    };
    assert_eq!(node, "silent");

    // Another one that holds the shard takes it, with no more than a delay.
    let journal = Memory::new();
    let owner = owner("there", &journal).await;
    let known = holders([(SHARD, vec![silent, owner.holder()])]);
    append(&routed(&known, settings), publish(&["a"], "x"))
        .await
        .expect("durable");
}

#[tokio::test]
async fn a_drain_fails_nothing_and_keeps_the_order() {
    const EACH: usize = 300;
    let journal = Memory::new();
    let (first, second) = (owner("first", &journal).await, owner("second", &journal).await);
    let known = holders([(SHARD, vec![first.holder(), second.holder()])]);
    let routed = routed(&known, patient());
    let mut tickets = Vec::new();
    let mut draining = None;
    let mut first = Some(first);
    for number in numbers(EACH) {
        // Without keys: each must be appended once, although none may be sent twice.
        tickets.push(routed.append(publish(&["a"], &number)).await.expect("a place"));
        if tickets.len() == EACH / 2 {
            journal.until(EACH / 4).await;
            draining = first.take().map(|first| tokio::spawn(first.drain()));
        }
    }
    for ticket in tickets {
        ticket.await.expect("durable");
    }
    assert_eq!(journal.data(), numbers(EACH));
    draining.expect("drained").await.expect("ended");
    drop(second);
}

#[tokio::test]
async fn what_was_sent_is_sent_again_in_order_if_it_has_a_key_and_unknown_if_not() {
    const EACH: usize = 40;
    let journal = Memory::held();
    let (first, second) = (owner("first", &journal).await, owner("second", &journal).await);
    let known = holders([(SHARD, vec![first.holder(), second.holder()])]);
    let routed = routed(&known, patient());
    let mut tickets = Vec::new();
    for (index, number) in numbers(EACH).into_iter().enumerate() {
        let publish = if index % 2 == 0 {
            keyed(&["a"], &number, &number)
        } else {
            publish(&["a"], &number)
        };
        tickets.push(routed.append(publish).await.expect("a place"));
    }
    journal.until(EACH).await;
    first.kill().await;
    // Behind them in the order.
    let last = routed.append(publish(&["a"], "last")).await.expect("a place");
    journal.until(EACH + 1).await;
    journal.release();
    for (index, ticket) in tickets.into_iter().enumerate() {
        match ticket.await {
            Ok(receipt) => assert!(index % 2 == 0 && receipt.placed[0].repeated, "{index}: {receipt:?}"),
            Err(AppendError::Unknown { cause }) => {
                assert_eq!(index % 2, 1, "{cause}");
                assert!(cause.contains("first"), "{cause}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    last.await.expect("durable");
    let expected: Vec<_> = numbers(EACH).into_iter().chain(["last".to_owned()]).collect();
    assert_eq!(journal.data(), expected, "each once, in order");
}

#[tokio::test]
async fn a_connection_that_freezes_is_noticed() {
    let journal = Memory::new();
    let (hung, other) = (owner("hung", &journal).await, owner("other", &journal).await);
    let proxy = Proxy::to(hung.address).await;
    let through = Holder {
        grpc: format!("http://{}", proxy.address),
        ..hung.holder()
    };
    let known = holders([(SHARD, vec![through, other.holder()])]);
    let settings = Settings {
        keep_alive_every: Duration::from_millis(200),
        // Long enough for a node that is only slow: the first append is to go to this one.
        keep_alive_within: Duration::from_secs(3),
        connect_within: DEADLINE,
        ..patient()
    };
    let routed = routed(&known, settings);
    append(&routed, publish(&["a"], "before")).await.expect("durable");
    proxy.freeze();
    let with_key = routed.append(keyed(&["a"], "with a key", "k")).await.expect("a place");
    let without = append(&routed, publish(&["a"], "without")).await;
    assert!(matches!(without, Err(AppendError::Unknown { .. })), "{without:?}");
    tokio::time::timeout(DEADLINE, with_key)
        .await
        .expect("in time")
        .expect("durable");
    append(&routed, publish(&["a"], "after")).await.expect("durable");
    assert_eq!(journal.data(), ["before", "with a key", "after"]);
}

#[tokio::test]
async fn a_node_that_is_there_and_never_answers_counts_as_gone() {
    let stuck = Memory::held();
    let there = owner("there", &stuck).await;
    let known = holders([(SHARD, vec![there.holder()])]);
    let settings = Settings {
        answer_within: Duration::from_millis(100),
        ..impatient()
    };
    let routed = routed(&known, settings);
    let with_key = routed.append(keyed(&["a"], "with a key", "k")).await.expect("a place");
    let without = routed.append(publish(&["a"], "without")).await.expect("a place");
    for ticket in [with_key, without] {
        let outcome = tokio::time::timeout(DEADLINE, ticket).await.expect("in time");
        assert!(matches!(outcome, Err(AppendError::Unknown { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_shard_that_has_moved_is_found_again() {
    let journal = Memory::new();
    let former = Owner::start("former", one_shard(), [].into()).await;
    let present = owner("present", &journal).await;
    let known = holders([(SHARD, vec![former.holder()])]);
    let error = append(&routed(&known, impatient()), publish(&["a"], "x")).await;
    let Unavailable::NotHeld { node } = cause(error.expect_err("refused")) else {
        panic!("not that")
    };
    assert_eq!(node, "former");

    let routed = routed(&known, patient());
    let mut tickets = Vec::new();
    for number in numbers(50) {
        tickets.push(routed.append(publish(&["a"], &number)).await.expect("a place"));
    }
    known.send_replace(Arc::new(Holders::new([(SHARD, vec![present.holder()])].into())));
    for ticket in tickets {
        ticket.await.expect("durable");
    }
    assert_eq!(journal.data(), numbers(50));
}

#[tokio::test]
async fn the_shard_comes_home_in_order_when_this_node_takes_events_again() {
    const EACH: usize = 200;
    let journal = Memory::new();
    let other = owner("other", &journal).await;
    let here = |writable| Holder {
        node: "here".to_owned(),
        grpc: "http://127.0.0.1:1".to_owned(),
        writable,
    };
    let known = holders([(SHARD, vec![here(false), other.holder()])]);
    let local: Arc<dyn Journal> = journal.clone();
    let routed = Routed::start(
        "here",
        one_shard(),
        [(SHARD, local)].into(),
        &known.subscribe(),
        patient(),
    );
    let mut tickets = Vec::new();
    let mut other = Some(other);
    for (index, number) in numbers(EACH).into_iter().enumerate() {
        tickets.push(routed.append(publish(&["a"], &number)).await.expect("a place"));
        if index == EACH / 2 {
            known.send_modify(|known| {
                *known = Arc::new(Holders::new(
                    [(SHARD, vec![here(true), other.as_ref().expect("there").holder()])].into(),
                ));
            });
        }
        if index == EACH * 3 / 4 {
            for ticket in tickets.drain(..) {
                ticket.await.expect("durable");
            }
            // It is not needed any more.
            other.take().expect("there").kill().await;
        }
    }
    for ticket in tickets {
        ticket.await.expect("durable");
    }
    assert_eq!(journal.data(), numbers(EACH));
}

#[tokio::test]
async fn what_this_node_may_not_take_goes_to_another() {
    let journal = Memory::new();
    let other = owner("other", &journal).await;
    let known = holders([(SHARD, vec![other.holder()])]);
    let behind = AppendError::Unavailable {
        shard: SHARD,
        cause: Unavailable::CatchingUp {
            cause: "7 events behind".to_owned(),
        },
    };
    let local: Arc<dyn Journal> = Arc::new(Refusing(behind.clone()));
    let routed = |known: &watch::Sender<_>, settings| {
        let held = [(SHARD, Arc::clone(&local))].into();
        Routed::start("here", one_shard(), held, &known.subscribe(), settings)
    };
    append(&routed(&known, patient()), publish(&["a"], "x"))
        .await
        .expect("durable");
    assert_eq!(journal.data(), ["x"]);
    // With nobody else its reason is given.
    let alone = append(&routed(&holders([]), impatient()), publish(&["a"], "x")).await;
    assert_eq!(alone, Err(behind));
}

#[tokio::test]
async fn what_a_node_may_not_take_is_answered_at_once_and_goes_to_another() {
    let not_held = AppendError::Unavailable {
        shard: SHARD,
        cause: Unavailable::NotHeld { node: "one".to_owned() },
    };
    let refusing: Arc<dyn Journal> = Arc::new(Refusing(not_held.clone()));
    let one = Owner::start("one", one_shard(), [(SHARD, refusing)].into()).await;
    // It would count as gone after so long.
    let settings = Settings {
        answer_within: DEADLINE * 10,
        ..impatient()
    };
    let alone = holders([(SHARD, vec![one.holder()])]);
    let error = append(&routed(&alone, settings), publish(&["a"], "x")).await;
    assert_eq!(error, Err(not_held));
    let journal = Memory::new();
    let other = owner("other", &journal).await;
    let both = holders([(SHARD, vec![one.holder(), other.holder()])]);
    append(&routed(&both, patient()), publish(&["a"], "x"))
        .await
        .expect("durable");
    assert_eq!(journal.data(), ["x"]);
}

#[tokio::test]
async fn what_this_node_refuses_too_late_is_answered_and_what_follows_goes_to_another() {
    let journal = Memory::new();
    let other = owner("other", &journal).await;
    let known = holders([(SHARD, vec![other.holder()])]);
    let no_nats = AppendError::Unavailable {
        shard: SHARD,
        cause: Unavailable::NoNats {
            cause: "no route".to_owned(),
        },
    };
    let local: Arc<dyn Journal> = Arc::new(RefusingLater(no_nats.clone()));
    let routed = Routed::start(
        "here",
        one_shard(),
        [(SHARD, local)].into(),
        &known.subscribe(),
        patient(),
    );
    assert_eq!(append(&routed, publish(&["a"], "first")).await, Err(no_nats));
    append(&routed, publish(&["a"], "second")).await.expect("durable");
    assert_eq!(journal.data(), ["second"]);
}

#[tokio::test]
async fn whoever_has_a_deadline_is_told_the_reason_before_it() {
    let routed = routed(&holders([]), patient());
    let impatient = Publish {
        deadline: Some(std::time::Instant::now() + Duration::from_millis(200)),
        ..publish(&["a"], "x")
    };
    let error = append(&routed, impatient).await.expect_err("nobody");
    assert_eq!(cause(error), Unavailable::NoHolder);
}

#[tokio::test]
async fn after_the_patience_is_over_nobody_waits_for_it_again() {
    let settings = Settings {
        patience: Duration::from_millis(500),
        ..Settings::default()
    };
    let routed = routed(&holders([]), settings);
    append(&routed, publish(&["a"], "first")).await.expect_err("nobody");
    // All of them together, not one after the other.
    let many = async {
        for _ in 0..200 {
            append(&routed, publish(&["a"], "x")).await.expect_err("nobody");
        }
    };
    tokio::time::timeout(DEADLINE, many).await.expect("in time");
}

#[tokio::test]
async fn a_closed_one_answers_what_it_took_and_takes_no_more() {
    let journal = Memory::held();
    let owner = owner("there", &journal).await;
    let known = holders([(SHARD, vec![owner.holder()])]);
    let routed = routed(&known, patient());
    let ticket = routed.append(publish(&["a"], "x")).await.expect("a place");
    journal.until(1).await;
    let close = tokio::spawn({
        let routed = Arc::clone(&routed);
        async move { routed.close(DEADLINE).await }
    });
    // What it still takes until then goes the same way.
    let refused = loop {
        match routed.append(publish(&["a"], "y")).await {
            Ok(ticket) => drop(ticket),
            Err(error) => break error,
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused, AppendError::Closed);
    journal.release();
    ticket.await.expect("durable");
    close.await.expect("no panic").expect("closed");
}

#[tokio::test]
async fn nodes_that_divide_the_topics_otherwise_do_not_take_each_others_events() {
    let journal = Memory::new();
    let other = Layout::new(8, 2).expect("valid");
    let held = [
        (Shard(0), journal.clone() as Arc<dyn Journal>),
        (Shard(1), journal.clone()),
    ]
    .into();
    let there = Owner::start("there", other, held).await;
    let known = holders([(SHARD, vec![there.holder()])]);
    let routed = routed(&known, impatient());
    let odd = (0..)
        .map(|number| format!("t{number}"))
        .find(|topic| other.shard(other.slot(topic)) == 1)
        .expect("one of many");
    let error = append(&routed, publish(&[&odd], "x")).await.expect_err("refused");
    assert!(error.to_string().contains("`cluster.shards`"), "{error}");
    assert!(journal.data().is_empty());
}
