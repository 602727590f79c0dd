//! Many appends under way: through the end of an owner, over several shards, past what may wait.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use tidings::{
    bus::LocalBus,
    journal::{
        AppendError, Disk, DiskSpace, Journal, LocalJournal,
        routed::{Routed, Settings},
        service::Held,
    },
    log::Store,
    members::Holders,
    model::{Layout, Publish, Shard, Topic, UnixMillis},
};
use tokio::sync::watch;

use super::{
    memory::Memory,
    owner::{Owner, holders},
};
use crate::{
    local::{DEADLINE, LocalWorld, SETTINGS},
    world::{Node, SHARD, World, keyed, publish, topic},
};

/// Publishes by several callers, many appends under way each, while the owner is killed and comes back on its disk; gives back what became of
/// each append, by caller, and the node that is left.
async fn publish_while_killed(
    world: &LocalWorld,
    to: impl Fn(usize, usize) -> Publish + Send + Sync + Clone + 'static,
) -> (Vec<Vec<Result<(), AppendError>>>, Node) {
    const CALLERS: usize = 4;
    const EACH: usize = 1_500;
    const KILLS: usize = 4;
    let layout = world.layout();
    let held = |node: &Node| -> Held { [(SHARD, Arc::clone(&node.journal))].into() };
    let mut node = world.start().await;
    let mut owner = Owner::start("there", layout, held(&node)).await;
    let address = owner.address;
    let known = holders([(SHARD, vec![owner.holder()])]);
    let settings = Settings {
        patience: DEADLINE,
        ..Settings::default()
    };
    let routed = Routed::start("here", layout, [].into(), &known.subscribe(), settings);
    let (answered, mut seen) = watch::channel(());
    let count = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (routed, to, answered, count) = (Arc::clone(&routed), to.clone(), answered.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                let mut tickets = Vec::new();
                for number in 0..EACH {
                    let ticket = routed.append(to(caller, number)).await.expect("a place");
                    let (answered, count) = (answered.clone(), Arc::clone(&count));
                    tickets.push(tokio::spawn(async move {
                        let outcome = ticket.await;
                        count.fetch_add(1, Ordering::SeqCst);
                        answered.send_replace(());
                        outcome
                    }));
                }
                let mut outcomes = Vec::new();
                for ticket in tickets {
                    outcomes.push(ticket.await.expect("no panic").map(|_| ()));
                }
                outcomes
            })
        })
        .collect();
    for kill in 1..=KILLS {
        while count.load(Ordering::SeqCst) < kill * CALLERS * EACH / (KILLS + 1) {
            let waited = tokio::time::timeout(DEADLINE, seen.changed()).await;
            waited.expect("it goes on").expect("callers");
        }
        owner.kill().await;
        world.stop(node).await;
        node = world.start().await;
        owner = Owner::start_at(address, "there", layout, held(&node)).await;
    }
    let outcomes = futures::future::join_all(callers).await;
    let outcomes = outcomes.into_iter().map(|caller| caller.expect("no panic")).collect();
    routed.close(DEADLINE).await.expect("closed");
    owner.drain().await;
    (outcomes, node)
}

/// What the log holds of each caller, in the order of the log.
async fn read(node: &Node) -> BTreeMap<usize, Vec<usize>> {
    let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for event in node.read(&[topic("a")], 1_000).await {
        let (caller, number) = event.data.split_once(' ').expect("two numbers");
        let caller = caller.parse().expect("a number");
        found.entry(caller).or_default().push(number.parse().expect("a number"));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_keys_each_is_appended_once_in_order_however_often_the_owner_is_killed() {
    let world = LocalWorld::new();
    let to = |caller, number| {
        let data = format!("{caller} {number}");
        keyed(&["a"], &data, &data)
    };
    let (outcomes, node) = publish_while_killed(&world, to).await;
    for (caller, outcomes) in outcomes.iter().enumerate() {
        let failed = outcomes.iter().position(Result::is_err);
        assert_eq!(failed.map(|at| &outcomes[at]), None, "of caller {caller}");
    }
    for (caller, numbers) in read(&node).await {
        let expected: Vec<_> = (0..outcomes[caller].len()).collect();
        assert_eq!(numbers, expected, "of caller {caller}");
    }
    world.stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_what_was_acknowledged_is_there_and_what_was_refused_is_not() {
    let world = LocalWorld::new();
    let (outcomes, node) =
        publish_while_killed(&world, |caller, number| publish(&["a"], &format!("{caller} {number}"))).await;
    let found = read(&node).await;
    let (mut acknowledged, mut unknown) = (0, 0);
    for (caller, outcomes) in outcomes.iter().enumerate() {
        let found = &found[&caller];
        assert!(
            found.is_sorted_by(|a, b| a < b),
            "each once, in order, of caller {caller}"
        );
        for (number, outcome) in outcomes.iter().enumerate() {
            let is_there = found.binary_search(&number).is_ok();
            match outcome {
                Ok(()) => {
                    assert!(is_there, "{number} of caller {caller} was acknowledged");
                    acknowledged += 1;
                }
                Err(AppendError::Unknown { .. }) => unknown += 1,
                Err(error) => assert!(!is_there, "{number} of caller {caller} was refused: {error}"),
            }
        }
    }
    assert!(acknowledged > 0);
    println!("{acknowledged} acknowledged, {unknown} unknown");
    world.stop(node).await;
}

/// Two shards, each with its owner.
struct Two {
    layout: Layout,
    journals: [Arc<Memory>; 2],
    owners: [Owner; 2],
    known: watch::Sender<Arc<Holders>>,
    /// A topic of each shard.
    topics: [Topic; 2],
}

impl Two {
    async fn start() -> Self {
        let layout = Layout::new(8, 2).expect("valid");
        let journals = [Memory::new(), Memory::new()];
        let held = |shard: u16| -> Held {
            let journal: Arc<dyn Journal> = journals[usize::from(shard)].clone();
            [(Shard(shard), journal)].into()
        };
        let owners = [
            Owner::start("even", layout, held(0)).await,
            Owner::start("odd", layout, held(1)).await,
        ];
        let known = holders([
            (Shard(0), vec![owners[0].holder()]),
            (Shard(1), vec![owners[1].holder()]),
        ]);
        let of = |shard| {
            let mut names = (0..).map(|number| topic(&format!("t{number}")));
            names
                .find(|topic| layout.shard(layout.slot(topic.as_str())) == shard)
                .expect("one of many")
        };
        Self {
            layout,
            journals,
            owners,
            known,
            topics: [of(0), of(1)],
        }
    }
}

#[tokio::test]
async fn with_one_of_two_shards_down_a_publish_to_both_is_told_apart() {
    let Two {
        layout,
        journals,
        owners: [even, odd],
        known,
        topics: [of_even, of_odd],
    } = Two::start().await;
    let settings = Settings {
        patience: Duration::from_millis(50),
        ..Settings::default()
    };
    let routed = Routed::start("here", layout, [].into(), &known.subscribe(), settings);
    let names = [of_odd.as_str(), of_even.as_str()];
    let append = async |publish: Publish| routed.append(publish).await?.await;
    let address = odd.address;
    odd.kill().await;
    let Err(AppendError::Partly { outcomes }) = append(keyed(&names, "x", "k")).await else {
        panic!("not told apart")
    };
    assert!(
        matches!(&outcomes[0], Err(AppendError::Unavailable { shard: Shard(1), .. })),
        "{outcomes:?}"
    );
    assert!(matches!(&outcomes[1], Ok(placed) if !placed.repeated), "{outcomes:?}");

    let held = [(Shard(1), journals[1].clone() as Arc<dyn Journal>)].into();
    let odd = Owner::start_at(address, "odd", layout, held).await;
    let again = loop {
        // The pause between two tries may still last.
        match append(keyed(&names, "x", "k")).await {
            Ok(receipt) => break receipt,
            Err(AppendError::Partly { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!((again.placed[0].repeated, again.placed[1].repeated), (false, true));
    assert_eq!(journals.map(|journal| journal.data()), [["x"], ["x"]]);

    odd.kill().await;
    even.kill().await;
    let error = append(keyed(&names, "y", "k2")).await.expect_err("both are down");
    assert!(matches!(error, AppendError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn no_more_is_under_way_than_may_be() {
    const MOST: usize = 20;
    const AT_A_NODE: usize = 8;
    let journal = Memory::held();
    let layout = Layout::new(8, 1).expect("valid");
    let held = [(SHARD, Arc::clone(&journal) as Arc<dyn Journal>)].into();
    let owner = Owner::start("there", layout, held).await;
    let known = holders([(SHARD, vec![owner.holder()])]);
    let settings = Settings {
        in_flight: MOST,
        in_flight_at_a_node: AT_A_NODE,
        ..Settings::default()
    };
    let routed = Routed::start("here", layout, [].into(), &known.subscribe(), settings);
    let mut tickets = Vec::new();
    for number in 0..MOST {
        let publish = publish(&["a"], &number.to_string());
        tickets.push(routed.append(publish).await.expect("a place"));
    }
    let mut further = routed.append(publish(&["a"], "further"));
    assert!((&mut further).now_or_never().is_none(), "it has to wait");
    let late = Publish {
        deadline: Some(std::time::Instant::now() + Duration::from_millis(100)),
        ..publish(&["a"], "late")
    };
    let late = routed.append(late).await.map(|_| ());
    assert!(matches!(late, Err(AppendError::TooSlow { .. })), "{late:?}");
    journal.until(AT_A_NODE).await;
    assert_eq!(journal.until_quiet().await, AT_A_NODE);
    journal.release();
    for ticket in tickets {
        ticket.await.expect("durable");
    }
    further.await.expect("a place").await.expect("durable");
    let expected: Vec<_> = (0..MOST)
        .map(|number| number.to_string())
        .chain(["further".to_owned()])
        .collect();
    assert_eq!(journal.data(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_shards_of_one_process_are_written_and_closed_together() {
    const SHARDS: u16 = 3;
    const PUBLISHES: usize = 50;
    let layout = Layout::new(9, SHARDS).expect("valid");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let names: Vec<_> = (0..20).map(|number| format!("t{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for round in 0..3_u64 {
        let path = dir.path().to_path_buf();
        let disk = Disk::new(Box::new(move || DiskSpace::of(&path)), 100, usize::from(SHARDS));
        let mut journals = Vec::new();
        let mut held = Held::new();
        for shard in (0..SHARDS).map(Shard) {
            let store = Store::open(dir.path(), layout, shard, 1 << 20).expect("opened");
            let last = store.heads().last;
            let bus = Arc::new(LocalBus::default());
            let clock = Box::new(UnixMillis::now);
            let journal = LocalJournal::start_on(&disk, store, bus, SETTINGS, clock).expect("started");
            held.insert(shard, journal.clone());
            journals.push((journal, last));
        }
        let routed = Routed::start("here", layout, held, &holders([]).subscribe(), Settings::default());
        let mut tickets = Vec::new();
        for number in 0..PUBLISHES {
            let key = format!("{round} {number}");
            let ticket = routed.append(keyed(&names, "x", &key)).await.expect("a place");
            tickets.push(ticket);
        }
        for ticket in tickets {
            let receipt = ticket.await.expect("durable");
            assert_eq!(receipt.placed.len(), names.len());
            for (name, placed) in names.iter().zip(receipt.placed) {
                let (_, before) = &journals[usize::from(layout.shard(layout.slot(name)))];
                assert!(placed.seq > *before, "{name} goes on where its shard was");
            }
        }
        routed.close(DEADLINE).await.expect("closed");
        for (journal, _) in journals {
            journal.close(DEADLINE).await.expect("closed");
        }
    }
}
