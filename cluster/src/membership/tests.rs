use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use super::*;

fn layout() -> Layout {
    Layout::new(64, 4).expect("valid")
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn beat(node: &str, incarnation: u64, number: u64) -> Beat {
    Beat {
        node: node.to_owned(),
        incarnation,
        number,
        role: Role::Edge,
        http: format!("http://{node}"),
        grpc: String::new(),
        connections: number,
        weight: 100,
        draining: false,
        leaving: false,
        shards: Vec::new(),
        version: "1.0.0".to_owned(),
        layout_slots: 64,
        layout_shards: 4,
    }
}

fn holder(node: &str, number: u64, shards: &[HeldShard]) -> Beat {
    Beat {
        role: Role::Ingest,
        shards: shards.to_vec(),
        ..beat(node, 1, number)
    }
}

const HELD: HeldShard = HeldShard {
    shard: 2,
    epoch: 7,
    last: 100,
    writable: true,
    rank: 0,
};

/// One whose link is up since the beginning.
fn membership() -> Membership {
    let mut membership = Membership::new(MembershipSettings::new(layout()));
    assert!(!membership.link(at(0), true), "there is nobody");
    membership
}

/// Lets these seconds pass. Answers whether the view changed.
fn ticks(membership: &mut Membership, seconds: std::ops::RangeInclusive<u64>) -> bool {
    seconds.fold(false, |changed, second| membership.tick(at(second)) | changed)
}

fn names(membership: &Membership) -> Vec<&str> {
    membership.view().members().map(|member| &*member.node).collect()
}

fn holders(membership: &Membership) -> Vec<&str> {
    let holders = membership.view().holders(2);
    holders.iter().map(|holder| &*holder.member.node).collect()
}

#[test]
fn who_is_heard_is_there_and_who_is_silent_is_gone() {
    let mut membership = membership();
    assert!(membership.beat(at(1), beat("a", 1, 1)));
    assert!(membership.beat(at(2), beat("b", 1, 1)));
    assert_eq!(names(&membership), ["a", "b"]);
    assert!(!membership.tick(at(4)));
    assert!(!membership.beat(at(5), beat("b", 1, 2)));
    assert!(membership.tick(at(6)));
    assert_eq!(names(&membership), ["b"]);
    assert_eq!(membership.beats().count(), 1);
}

#[test]
fn what_does_not_matter_to_others_does_not_replace_the_view() {
    let mut membership = membership();
    membership.beat(at(1), beat("a", 1, 1));
    let view = membership.view().clone();
    assert!(!membership.beat(at(2), beat("a", 1, 2)));
    assert!(Arc::ptr_eq(&view, membership.view()));
    assert_eq!(membership.beats().map(|beat| beat.connections).collect::<Vec<_>>(), [2]);
    let moved = Beat {
        http: "http://elsewhere".to_owned(),
        ..beat("a", 1, 3)
    };
    assert!(membership.beat(at(3), moved));
    assert_eq!(membership.view().member("a").expect("there").http, "http://elsewhere");
}

#[test]
fn without_a_link_the_view_is_frozen_and_with_it_everyone_gets_a_full_silence() {
    let mut membership = membership();
    membership.beat(at(1), beat("a", 1, 1));
    membership.beat(at(1), beat("b", 1, 1));
    assert!(!membership.link(at(3), false));
    assert!(!membership.tick(at(1_000)));
    let gone = Beat {
        leaving: true,
        ..beat("a", 1, 2)
    };
    assert!(!membership.beat(at(1_000), gone), "nothing is heard without a link");
    assert!(!membership.link(at(2_000), true));
    assert!(!membership.beat(at(2_001), beat("a", 1, 3)));
    assert!(!ticks(&mut membership, 2_001..=2_004));
    assert_eq!(names(&membership), ["a", "b"]);
    membership.tick(at(2_005));
    assert_eq!(names(&membership), ["a"]);
}

#[test]
fn who_was_suspended_does_not_take_all_others_for_gone() {
    let mut membership = membership();
    membership.beat(at(1), beat("a", 1, 1));
    membership.beat(at(1), beat("b", 1, 1));
    assert!(!membership.tick(at(1_000)));
    assert!(!membership.beat(at(1_000), beat("a", 1, 2)));
    assert!(!ticks(&mut membership, 1_000..=1_004));
    assert!(ticks(&mut membership, 1_005..=1_005));
    assert_eq!(names(&membership), [""; 0]);
}

#[test]
fn late_and_repeated_beats_change_nothing() {
    let mut membership = membership();
    let draining = |number| Beat {
        draining: true,
        ..beat("a", 1, number)
    };
    assert!(membership.beat(at(1), draining(3)));
    for number in 1..=3 {
        assert!(!membership.beat(at(2), beat("a", 1, number)));
    }
    assert!(membership.view().member("a").expect("there").draining);
    assert!(
        membership.beat(at(3), beat("a", 2, 1)),
        "a later start counts from 1 again"
    );
    assert!(!membership.beat(at(3), draining(4)));
    assert!(
        membership.view().conflicts().is_empty(),
        "one that died may be heard for a moment"
    );
    ticks(&mut membership, 4..=6);
    // What is late does not count as a sign of life.
    assert!(!membership.beat(at(7), draining(5)));
    membership.tick(at(8));
    assert_eq!(names(&membership), [""; 0]);
}

#[test]
fn who_leaves_is_gone_at_once_and_stays_gone() {
    let mut membership = membership();
    membership.beat(at(1), beat("a", 1, 1));
    let last = Beat {
        leaving: true,
        draining: true,
        ..beat("a", 1, 3)
    };
    assert!(membership.beat(at(2), last.clone()));
    assert_eq!(names(&membership), [""; 0]);
    assert!(!membership.beat(at(3), beat("a", 1, 2)), "sent before it left");
    assert_eq!(names(&membership), [""; 0]);
    assert!(membership.beat(at(4), beat("a", 2, 1)), "it came back");
    assert_eq!(names(&membership), ["a"]);
    assert!(!membership.beat(at(5), last));
}

#[test]
fn who_drains_is_there_but_not_on_the_ring() {
    let mut membership = membership();
    membership.beat(at(1), beat("a", 1, 1));
    membership.beat(at(1), beat("b", 1, 1));
    let ring = membership.view().ring().clone();
    assert_eq!(ring.nodes().collect::<Vec<_>>(), ["a", "b"]);
    let before = membership.view().clone();
    let draining = Beat {
        draining: true,
        ..beat("a", 1, 2)
    };
    assert!(membership.beat(at(2), draining));
    assert_eq!(membership.view().edges().count(), 2);
    assert_eq!(membership.view().ring().nodes().collect::<Vec<_>>(), ["b"]);
    assert_eq!(&*membership.view().owner(3).expect("owned").node, "b");
    assert_eq!(before.ring(), &ring, "who has an older view keeps it");
    // What has nothing to do with the ring does not compute it anew.
    let before = membership.view().clone();
    assert!(membership.beat(at(2), holder("i", 1, &[HELD])));
    assert!(std::ptr::eq(before.ring(), membership.view().ring()));
    assert_eq!(membership.view().ingest().count(), 1);
}

#[test]
fn another_layout_is_a_stranger() {
    let mut membership = membership();
    let strange = |number, slots| Beat {
        layout_slots: slots,
        ..beat("a", 1, number)
    };
    assert!(membership.beat(at(1), strange(1, 1024)));
    let stranger = Stranger {
        node: "a".to_owned(),
        slots: 1024,
        shards: 4,
    };
    assert_eq!(membership.view().strangers(), [stranger]);
    assert_eq!(names(&membership), [""; 0]);
    assert!(!membership.beat(at(2), strange(2, 1024)));
    assert!(membership.beat(at(2), strange(3, 32)));
    assert_eq!(membership.view().strangers()[0].slots, 32);
    assert!(membership.beat(at(3), strange(4, 64)));
    assert_eq!(
        (names(&membership), membership.view().strangers().len()),
        (vec!["a"], 0)
    );
    assert!(membership.beat(at(4), strange(5, 65)));
    assert!(ticks(&mut membership, 5..=9));
    assert_eq!(membership.view().strangers(), []);
}

#[test]
fn two_of_one_name_are_a_conflict() {
    let mut membership = membership();
    let mut noticed = Vec::new();
    for second in 1..20 {
        membership.beat(at(second), beat("a", 2, second));
        if second < 10 && membership.beat(at(second), beat("a", 1, 100 + second)) {
            noticed.push(second);
        }
        if membership.tick(at(second)) && second > 5 {
            noticed.push(second);
        }
        let is_contested = !membership.view().conflicts().is_empty();
        assert_eq!(is_contested, (6..14).contains(&second), "{second}");
    }
    assert_eq!(noticed, [6, 14], "it began and it ended");
    assert_eq!(membership.view().member("a").expect("there").incarnation, 2);
}

#[test]
fn it_is_settled_when_everyone_had_time_to_be_heard() {
    let mut membership = Membership::new(MembershipSettings::new(layout()));
    assert!(!membership.tick(at(100)));
    membership.link(at(100), true);
    membership.beat(at(101), beat("a", 1, 1));
    membership.link(at(103), false);
    membership.link(at(104), true);
    ticks(&mut membership, 105..=108);
    assert!(!membership.view().is_settled());
    membership.beat(at(108), beat("a", 1, 2));
    assert!(membership.tick(at(109)));
    membership.link(at(110), false);
    assert!(membership.view().is_settled(), "it stays so");
    assert_eq!(names(&membership), ["a"]);
}

#[test]
fn the_best_holder_is_asked_first() {
    let mut membership = membership();
    let held = |rank, writable, epoch| HeldShard {
        rank,
        writable,
        epoch,
        ..HELD
    };
    membership.beat(at(1), holder("d", 1, &[held(1, true, 7)]));
    membership.beat(at(1), holder("c", 1, &[held(0, true, 7)]));
    membership.beat(at(1), holder("b", 1, &[held(0, false, 7)]));
    membership.beat(at(1), holder("a", 1, &[held(0, false, 6)]));
    let draining = Beat {
        draining: true,
        ..holder("e", 1, &[held(0, true, 7)])
    };
    membership.beat(at(1), draining);
    membership.beat(at(1), beat("edge", 1, 1));
    assert_eq!(holders(&membership), ["c", "d", "b", "e", "a"]);
    assert_eq!(membership.view().holders(1), []);
    assert_eq!(membership.view().holders(4), [], "there is no such shard");
}

#[test]
fn a_second_one_that_claims_a_place_does_not_take_it_from_the_one_that_has_more() {
    let mut membership = membership();
    let original = |number, last, writable| {
        let held = HeldShard { last, writable, ..HELD };
        claimant("z", 1, number, held)
    };
    // It sorts before the other one, and has as good a rank.
    let stray = |number, last, writable| {
        let held = HeldShard {
            epoch: 8,
            last,
            writable,
            ..HELD
        };
        claimant("a", 2, number, held)
    };
    let mut number = 0;
    let mut heard = |original_, stray_| {
        number += 1;
        let (last, writable): (u64, bool) = original_;
        membership.beat(at(1), original(number, last, writable));
        if let Some((last, writable)) = stray_ {
            membership.beat(at(1), stray(number, last, writable));
        }
        membership.tick(at(1));
        membership.view().holders(2)[0].held.epoch
    };
    assert_eq!(heard((100, true), None), 7);
    assert_eq!(heard((100, true), Some((0, true))), 7);
    // The first one has given way before the second has heard of it.
    assert_eq!(heard((100, false), Some((0, true))), 7);
    assert_eq!(heard((100, false), Some((3, false))), 7);
    // With nothing to lose, the earlier one is believed.
    assert_eq!(heard((3, false), Some((3, true))), 7);
    // That it was overtaken is seen though nothing else has changed.
    assert_eq!(heard((3, false), Some((4, true))), 8);
    assert_eq!(heard((5, false), Some((4, true))), 7);
    let gone = Beat {
        leaving: true,
        ..original(100, 100, false)
    };
    membership.beat(at(2), gone);
    assert_eq!(holders(&membership), ["a"]);
    assert!(membership.view().outdone.is_empty());
}

fn claimant(node: &str, incarnation: u64, number: u64, held: HeldShard) -> Beat {
    Beat {
        incarnation,
        ..holder(node, number, &[held])
    }
}

#[test]
fn a_holder_that_lacks_what_another_had_is_behind() {
    let mut membership = membership();
    let held = |rank, last| HeldShard { rank, last, ..HELD };
    for second in 1..40 {
        // One follows closely, one is stuck for a while.
        let stuck = if second < 20 { 150 } else { 100 * second - 50 };
        membership.beat(at(second), holder("a", second, &[held(0, stuck)]));
        membership.beat(at(second), holder("b", second, &[held(1, 100 * second)]));
        membership.beat(at(second), holder("c", second, &[held(2, 100 * second - 70)]));
        membership.tick(at(second));
        match second {
            12..=19 => assert_eq!(holders(&membership), ["b", "c", "a"], "{second}"),
            ..=4 | 22.. => assert_eq!(holders(&membership), ["a", "b", "c"], "{second}"),
            _ => {}
        }
    }
}

#[test]
fn what_nobody_has_any_more_nobody_is_behind_of() {
    let mut membership = membership();
    for second in 1..30 {
        let last = if second < 10 { 1_000 } else { 10 };
        membership.beat(at(second), holder("a", second, &[HeldShard { last, ..HELD }]));
        membership.tick(at(second));
    }
    assert!(!membership.view().holders(2)[0].held.behind);
}

/// Nodes that come, go, die, drain and move about, and what each of them says, second by second.
struct Cluster {
    rng: StdRng,
    nodes: Vec<Option<Beat>>,
    incarnations: u64,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            nodes: (0..6).map(|_| None).collect(),
            incarnations: 0,
        }
    }

    /// What is said in a second.
    fn second(&mut self, calm: bool) -> Vec<Beat> {
        let mut said = Vec::new();
        for place in 0..self.nodes.len() {
            let change = if calm { 10 } else { self.rng.random_range(0..20) };
            match (&mut self.nodes[place], change) {
                (node @ None, 0..3) => {
                    self.incarnations += 1;
                    // Two of them claim one place.
                    let held = HeldShard {
                        rank: place.min(4) as u32,
                        epoch: self.rng.random_range(7..9),
                        last: self.rng.random_range(0..20),
                        ..HELD
                    };
                    *node = Some(if place < 3 {
                        beat(&format!("edge-{place}"), self.incarnations, 0)
                    } else {
                        Beat {
                            incarnation: self.incarnations,
                            ..holder(&format!("ingest-{place}"), 0, &[held])
                        }
                    });
                }
                (node @ Some(_), 0) => *node = None,
                (Some(node), 1) => {
                    node.number += 1;
                    node.leaving = true;
                    said.extend(self.nodes[place].take());
                }
                (Some(node), 2) => node.draining = true,
                (Some(node), 3) => node.weight = self.rng.random_range(1..4),
                (Some(node), 4) => node.layout_slots = self.rng.random_range(63..66),
                (Some(node), 5) => {
                    node.shards
                        .iter_mut()
                        .for_each(|held| held.last += self.rng.random_range(0..9));
                }
                _ => {}
            }
            if let Some(node) = &mut self.nodes[place] {
                node.number += 1;
                said.push(node.clone());
            }
        }
        said
    }
}

proptest! {
    /// Whatever the observers missed, heard twice, or late, and however long their links were down: when all have heard for a while what
    /// the same nodes say, they see the same, and that is what is there.
    #[test]
    fn all_come_to_the_same_view(seed in any::<u64>()) {
        let mut cluster = Cluster::new(seed);
        let mut rng = StdRng::seed_from_u64(!seed);
        let mut observers: Vec<_> = (0..3).map(|_| membership()).collect();
        let mut late: Vec<(usize, u64, Beat)> = Vec::new();
        for second in 1..60 {
            let calm = second >= 35;
            for beat in cluster.second(calm) {
                for (place, observer) in observers.iter_mut().enumerate() {
                    match rng.random_range(0..10) {
                        0 | 1 if !calm => {}
                        2 if !calm => late.push((place, second + rng.random_range(1..4), beat.clone())),
                        3 => {
                            observer.beat(at(second), beat.clone());
                            observer.beat(at(second), beat.clone());
                        }
                        _ => {
                            observer.beat(at(second), beat.clone());
                        }
                    }
                }
            }
            late.shuffle(&mut rng);
            for (place, _, beat) in late.extract_if(.., |(_, due, _)| *due <= second) {
                observers[place].beat(at(second), beat);
            }
            for observer in &mut observers {
                if rng.random_bool(0.1) {
                    let up = calm || rng.random_bool(0.5);
                    observer.link(at(second), up);
                }
                if calm {
                    observer.link(at(second), true);
                }
                observer.tick(at(second));
            }
        }
        let there: Vec<_> = cluster.nodes.iter().flatten().filter(|beat| beat.has(layout())).collect();
        let first = observers[0].view();
        let mut expected: Vec<_> = there.iter().map(|beat| (&*beat.node, beat.incarnation)).collect();
        expected.sort_unstable();
        let seen: Vec<_> = first.members().map(|member| (&*member.node, member.incarnation)).collect();
        prop_assert_eq!(seen, expected);
        prop_assert!(first.is_settled() && first.conflicts().is_empty());
        for observer in &observers[1..] {
            prop_assert_eq!(observer.view(), first);
            prop_assert_eq!(observer.view().ring(), first.ring());
            prop_assert_eq!(observer.view().holders(2), first.holders(2));
        }
    }

    /// Without a link nothing changes the view, whatever is heard and however long it takes.
    #[test]
    fn a_frozen_view_stays(seed in any::<u64>()) {
        let mut cluster = Cluster::new(seed);
        let mut membership = membership();
        for second in 1..30 {
            for beat in cluster.second(false) {
                membership.beat(at(second), beat);
            }
            membership.tick(at(second));
        }
        membership.link(at(30), false);
        let view = membership.view().clone();
        for second in 30..60 {
            for beat in cluster.second(false) {
                prop_assert!(!membership.beat(at(second), beat));
            }
            prop_assert!(!membership.tick(at(second)));
        }
        prop_assert!(Arc::ptr_eq(&view, membership.view()));
    }
}
