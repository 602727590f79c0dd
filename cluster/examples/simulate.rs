//! What the ring does for a hundred million users on 10 to 1,000 edges. Prints a table in Markdown.
//!
//! `cargo run -p tidings-cluster --example simulate`. It hashes the topic of every single user, on all cores: some seconds.

use std::thread;

use tidings_cluster::{Ring, slot_of};

const USERS: usize = 100_000_000;
const EDGES: [usize; 5] = [10, 30, 100, 300, 1_000];
const SLOTS: [u32; 2] = [1_024, 65_536];

/// Over how many joins and leaves the mean is taken.
const CHANGES: usize = 10;

fn main() {
    let users = users_by_slot(65_536);
    println!(
        "| slots | edges | streams per edge | most on one edge | moved by a join | moved by a leave | live traffic per edge | the same \
         without routing |\n|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for slots in SLOTS {
        let users = folded(&users, slots);
        for edges in EDGES {
            println!("{}", row(slots, edges, &users));
        }
    }
}

/// One line of the table.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn row(slots: u32, edges: usize, users: &[u64]) -> String {
    let names: Vec<_> = (0..edges + CHANGES).map(|n| format!("edge-{n}")).collect();
    let (present, others) = names.split_at(edges);
    let ring = ring(slots, present.iter());
    let streams = |name: &String| -> u64 { ring.slots_of(name).map(|slot| users[slot as usize]).sum() };
    let most = present.iter().map(streams).max().expect("there are edges") as f64;
    let mean = USERS as f64 / edges as f64;

    let join = |name| ring.moved(&self::ring(slots, present.iter().chain([name])));
    let joins: usize = others.iter().map(join).sum();
    let leave = |left: &String| ring.moved(&self::ring(slots, present.iter().filter(|&name| name != left)));
    let leaves: usize = present.iter().step_by(edges / CHANGES).take(CHANGES).map(leave).sum();
    let percent = |slots_moved: f64| format!("{:.3} %", 100.0 * slots_moved / f64::from(slots));
    let moved = |sum: usize, ideal: f64| {
        let mean = percent(sum as f64 / CHANGES as f64);
        format!("{mean} (ideal: {})", percent(f64::from(slots) / ideal))
    };

    // Each user is sent as much as any other. With routing an edge follows its own slots; without, each slot that any of its streams
    // needs, and the streams are anywhere.
    let missed = |&users: &u64| users as f64 * (1.0 - 1.0 / edges as f64).powf(users as f64);
    let unrouted = 1.0 - users.iter().map(missed).sum::<f64>() / USERS as f64;
    format!(
        "| {slots} | {edges} | {mean:.0} | {:.2} × the mean | {} | {} | {:.2} % | {:.1} % |",
        most / mean,
        moved(joins, edges as f64 + 1.0),
        moved(leaves, edges as f64),
        100.0 / edges as f64,
        100.0 * unrouted,
    )
}

fn ring<'a>(slots: u32, names: impl Iterator<Item = &'a String>) -> Ring {
    let nodes: Vec<_> = names.map(|name| (name.as_str(), 100)).collect();
    Ring::compute(slots, &nodes)
}

/// How many users' inboxes are in each of so many slots.
fn users_by_slot(slots: u32) -> Vec<u64> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let count = |thread: usize| {
        let mut users = vec![0; slots as usize];
        for user in (thread..USERS).step_by(threads) {
            users[slot_of(format!("user:{user}").as_bytes(), slots) as usize] += 1;
        }
        users
    };
    thread::scope(|scope| {
        let counting: Vec<_> = (0..threads).map(|thread| scope.spawn(move || count(thread))).collect();
        let counted = counting
            .into_iter()
            .map(|thread| thread.join().expect("counts to the end"));
        counted.fold(vec![0; slots as usize], |sums, users: Vec<u64>| {
            sums.iter().zip(users).map(|(sum, users)| sum + users).collect()
        })
    })
}

/// The same in fewer slots: a slot is a remainder, so many of the finer ones make up one.
fn folded(users: &[u64], slots: u32) -> Vec<u64> {
    let mut folded = vec![0; slots as usize];
    for (slot, users) in users.iter().enumerate() {
        folded[slot % slots as usize] += users;
    }
    folded
}
