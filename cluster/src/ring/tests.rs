use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

fn even(names: &[String]) -> Vec<(&str, u32)> {
    names.iter().map(|name| (name.as_str(), 100)).collect()
}

fn weighted<'a>(names: &'a [String], weights: &[u32]) -> Vec<(&'a str, u32)> {
    names.iter().map(String::as_str).zip(weights.iter().copied()).collect()
}

fn loads(ring: &Ring) -> BTreeMap<&str, usize> {
    ring.nodes().map(|node| (node, ring.slots_of(node).count())).collect()
}

/// A cluster of up to 40 nodes with names of all sorts, and their weights.
fn clusters() -> impl Strategy<Value = (Vec<String>, Vec<u32>)> {
    let weights = prop_oneof![Just(100_u32), 1..10_u32, 1..=u32::MAX];
    ("[a-z]{0,3}", 1..40_usize).prop_flat_map(move |(prefix, count)| {
        (
            Just(names(&prefix, count)),
            proptest::collection::vec(weights.clone(), count),
        )
    })
}

#[test]
fn published_vectors() {
    let of_12 = |nodes: &[(&str, u32)]| -> String {
        let ring = Ring::compute(12, nodes);
        let places = (0..12).map(|slot| ring.nodes().position(|node| Some(node) == ring.owner(slot)).unwrap());
        places.map(|place| place.to_string()).collect()
    };
    let nodes = [("edge-0", 100), ("edge-1", 100), ("edge-2", 100)];
    assert_eq!(of_12(&nodes), "221222011001");
    assert_eq!(of_12(&nodes[..2]), "101111011001");
    assert_eq!(
        of_12(&[("edge-0", 100), ("edge-1", 300), ("edge-2", 50)]),
        "121111111101"
    );
    assert_eq!(of_12(&[("a", 1), ("b", 2), ("c", 3), ("d", u32::MAX)]), "333333333333");
    let large = Ring::compute(1024, &even(&names("edge", 20)));
    let sum = (0..1024_u64).zip(&large.owners).fold(0, |sum: u64, (slot, &owner)| {
        sum.wrapping_mul(31).wrapping_add(slot ^ u64::from(owner))
    });
    assert_eq!(sum, 15_229_788_021_902_298_387);
}

#[test]
fn nobody_owns_nothing() {
    for nodes in [&[][..], &[("a", 0)][..]] {
        let ring = Ring::compute(8, nodes);
        assert_eq!((ring.owner(0), ring.nodes().len()), (None, 0));
        assert_eq!(ring.slots_of("a").count(), 0);
        assert_eq!(ring.moved(&Ring::compute(8, &[("b", 1)])), 8);
    }
    let ring = Ring::compute(8, &[("a", 0), ("b", 1), ("b", 7)]);
    assert_eq!(loads(&ring), BTreeMap::from([("b", 8)]));
    assert_eq!(ring.owner(8), None);
    assert_eq!(ring.slots_of("a").count(), 0);
}

#[test]
fn joining_and_leaving_move_little_more_than_they_have_to() {
    for slots in [1024, 16_384] {
        for count in [1, 2, 3, 5, 10, 30, 100] {
            let (mut moved, mut ideal, rounds) = (0, 0, 10);
            for round in 0..rounds {
                let all = names(&format!("edge-{round}"), count + 1);
                let with = Ring::compute(slots, &even(&all));
                let without = Ring::compute(slots, &even(&all[..count]));
                moved += with.moved(&without);
                ideal += slots as usize / (count + 1);
            }
            assert!(
                moved * 10 < ideal * 13,
                "{slots} slots, {count} nodes: {moved} moved rather than {ideal}"
            );
        }
    }
}

#[test]
fn large_rings_are_even_where_slots_are_many() {
    for count in [10, 100, 1000] {
        let names = names("edge", count);
        let ring = Ring::compute(65_536, &even(&names));
        let loads = loads(&ring);
        let share = 65_536 / count;
        assert!(
            loads
                .values()
                .all(|&load| load * 4 <= share * 5 + 8 && load * 2 > share),
            "{loads:?}"
        );
    }
}

proptest! {
    #[test]
    fn the_order_of_the_nodes_does_not_matter(
        ((names, weights), seed) in (clusters(), any::<u64>()),
    ) {
        let mut nodes = weighted(&names, &weights);
        let ring = Ring::compute(256, &nodes);
        nodes.sort_by_key(|(name, _)| crate::hash::score(seed, name.len() as u32) ^ crate::hash::seed(name.as_bytes()));
        prop_assert_eq!(&Ring::compute(256, &nodes), &ring);
        // Nor that one is named twice.
        nodes.push((nodes[0].0, 1));
        prop_assert_eq!(&Ring::compute(256, &nodes), &ring);
    }

    #[test]
    fn each_slot_has_an_owner_and_nobody_more_than_it_has_room_for((names, weights) in clusters(), slots in 1..600_u32) {
        let ring = Ring::compute(slots, &weighted(&names, &weights));
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut owned = 0;
        for (name, &weight) in names.iter().zip(&weights) {
            let load = ring.slots_of(name).count();
            prop_assert!(ring.slots_of(name).all(|slot| ring.owner(slot) == Some(name)));
            let share = f64::from(slots) * f64::from(weight) / total as f64;
            prop_assert!(load as f64 <= (1.25 * share).ceil() + 1e-6, "{} owns {} of a share of {}", name, load, share);
            owned += load;
        }
        prop_assert_eq!(owned, slots as usize);
    }

    /// With equal weights, a slot and a node that both would rather have each other do have each other.
    #[test]
    fn nobody_would_rather_have_another(count in 1..20_usize, slots in 1..200_u32) {
        let names = names("n", count);
        let ring = Ring::compute(slots, &even(&names));
        let fit = |name: &str, slot| score(seed(name.as_bytes()), slot);
        let room = (slots as usize * 5).div_ceil(count * 4);
        for name in &names {
            let kept: Vec<_> = ring.slots_of(name).map(|slot| fit(name, slot)).collect();
            let least = kept.iter().min().copied().filter(|_| kept.len() == room).unwrap_or(0);
            for slot in 0..slots {
                let owner = ring.owner(slot).expect("owned");
                let would_rather = owner != name && fit(name, slot) > fit(owner, slot);
                prop_assert!(!would_rather || fit(name, slot) < least);
            }
        }
    }

    #[test]
    fn weights_are_shares(heavy in 2..8_u32) {
        let names = names("n", 10);
        let mut weights = vec![100; 10];
        weights[3] = 100 * heavy;
        let ring = Ring::compute(16_384, &weighted(&names, &weights));
        let share = 16_384 * heavy / (9 + heavy);
        let load = ring.slots_of("n-3").count() as f64;
        prop_assert!((load / f64::from(share) - 1.0).abs() < 0.1, "{} of {}", load, share);
    }

    /// Whoever leaves makes only room: with so few that nobody is full, nothing else moves.
    #[test]
    fn a_leave_gives_its_slots_to_the_others(count in 2..8_usize, leaver in 0..8_usize) {
        let names = names("n", count);
        let leaver = &names[leaver % count];
        let all = Ring::compute(4096, &even(&names));
        let rest: Vec<_> = even(&names).into_iter().filter(|(name, _)| name != leaver).collect();
        let left = Ring::compute(4096, &rest);
        let owned = all.slots_of(leaver).count();
        let moved = all.moved(&left);
        prop_assert!(moved >= owned && moved <= owned + owned / 4, "{} moved, {} had to", moved, owned);
    }
}
