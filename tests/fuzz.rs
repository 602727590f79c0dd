//! The fuzz targets in short: every file of the corpus, and some thousand changes of them at random. `./dev fuzz` runs them for longer, and with
//! an eye for which changes lead somewhere new.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{collections::BTreeSet, env, fs, panic, path::Path};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 7] = [
    ("claims", targets::claims),
    ("forwarded_for", targets::forwarded_for),
    ("jwks", targets::jwks),
    ("presented", targets::presented),
    ("proxy_header", targets::proxy_header),
    ("query", targets::query),
    ("token", targets::token),
];

/// How often each target's corpus is changed.
const CHANGES: usize = 2_000;

/// What has a meaning somewhere, and is seldom hit upon.
const WORDS: [&[u8]; 16] = [
    b"\r\n", b"\n", b"\0", b"\xff", b"%00", b"%2e", b"%2F", b",", b"=", b"&", b"\"", b"\\u0000", b"..", b"user:",
    b"{sub}", b" ",
];

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

fn names(dir: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz().join(dir)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn every_target_is_tried_here() {
    let here: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), here);
    assert_eq!(names("corpus"), here);
}

/// Runs a target, and says what it was run with should it fail.
fn run(name: &str, target: Target, input: &[u8]) {
    let outcome = panic::catch_unwind(|| target(input));
    assert!(outcome.is_ok(), "{name} fails with {}", input.escape_ascii());
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(fuzz().join("corpus").join(name)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    // The same changes for the same seed.
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Makes one change.
fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    let end = random.random_range(at..=input.len().min(at + 16));
    match random.random_range(0..6) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..end)),
        2 => drop(input.splice(at..end, WORDS.choose(random).unwrap().iter().copied())),
        3 => {
            let piece = input[at..end].to_vec();
            drop(input.splice(at..at, piece));
        }
        4 => {
            let other = corpus.choose(random).unwrap();
            let from = random.random_range(0..=other.len());
            drop(input.splice(at..end, other[from..].iter().copied()));
        }
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
    }
}

#[test]
fn the_corpus_and_some_thousand_changes_of_it() {
    let seed = env::var("TIDINGS_FUZZ_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("TIDINGS_FUZZ_SEED={seed}");
    for (name, target) in TARGETS {
        let mut random = StdRng::seed_from_u64(seed);
        let corpus = corpus(name);
        for input in &corpus {
            run(name, target, input);
        }
        for _ in 0..CHANGES {
            let mut input = corpus.choose(&mut random).unwrap().clone();
            for _ in 0..random.random_range(1..=4) {
                change(&mut input, &corpus, &mut random);
            }
            run(name, target, &input);
        }
    }
}
