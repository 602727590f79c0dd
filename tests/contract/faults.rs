//! What is left when a disk or a process fails. Each fault is a real one, and befalls a process of its own: this program again, told by its
//! environment which part to play.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidings::{
    bus::LocalBus,
    journal::{AppendError, Journal as _, LocalJournal, Status, Surroundings},
    log::{LocalLog, Log as _},
    model::Seq,
};
use tokio::runtime::Handle;

use crate::{
    local::{DEADLINE, SETTINGS, append, open, start},
    world::{Node, SHARD, publish, topic},
};

const PART: &str = "TIDINGS_TEST_PART";
const DIR: &str = "TIDINGS_TEST_DIR";

/// The data directory, if this process is to play a part.
fn playing(part: &str) -> Option<PathBuf> {
    let asked = env::var(PART).is_ok_and(|asked| asked == part);
    asked.then(|| env::var_os(DIR).map(PathBuf::from)).flatten()
}

/// Has a process of its own play a part.
fn play(part: &str, dir: &Path) -> Output {
    Command::new("sh")
        // The signal that a file has grown too large would end it.
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", &format!("faults::{part}"), "--nocapture"])
        .env(PART, part)
        .env(DIR, dir)
        .output()
        .expect("run")
}

/// How many events the process said were acknowledged.
fn acknowledged(output: &Output) -> u64 {
    let told = String::from_utf8_lossy(&output.stdout);
    let last = told
        .lines()
        .filter_map(|line| line.split("acknowledged ").nth(1))
        .next_back();
    let Some(last) = last else {
        panic!("nothing told: {told}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    last.trim().parse().expect("a number")
}

fn tell(acknowledged: u64) {
    // Past the capture of the test's output, and whole before whatever comes next.
    let mut out = std::io::stdout().lock();
    writeln!(out, "acknowledged {acknowledged}").expect("told");
    out.flush().expect("told");
}

fn node(journal: &Arc<LocalJournal>, log: LocalLog) -> Node {
    Node {
        journal: Arc::clone(journal) as _,
        log: Arc::new(log),
        bus: Arc::new(LocalBus::default()),
    }
}

/// Opens what a fault has left: all that was acknowledged and at most so many more, with nothing missing between, and writable again.
async fn check_left(dir: &Path, acknowledged: u64, at_most_more: u64) {
    let store = open(dir).expect("opened again");
    let journal = start(&store, SETTINGS, Surroundings::real(dir));
    let node = node(&journal, LocalLog::new(store, Handle::current(), 4));
    let events = node.read(&[topic("a")], 1_000).await;
    let left = events.len() as u64;
    assert!(
        (acknowledged..=acknowledged + at_most_more).contains(&left),
        "{left} left of {acknowledged} acknowledged"
    );
    let seqs: Vec<_> = events.iter().filter_map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=left).map(Seq).collect::<Vec<_>>());
    let again = node.append(publish(&["a"], "writable again")).await;
    assert_eq!(again.placed[0].seq, Seq(left + 1));
    journal.close(DEADLINE).await.expect("closed");
}

#[tokio::test]
async fn after_a_failed_write_nothing_more_is_written_and_reading_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = play("a_file_may_not_grow", dir.path());
    let acknowledged = acknowledged(&output);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // The one under way may be there or not; those that were refused are not.
    check_left(dir.path(), acknowledged, 1).await;
}

/// Plays its part only when it is asked to: the write-ahead log may not grow any more, so a write fails in the middle.
#[tokio::test]
async fn a_file_may_not_grow() {
    let Some(dir) = playing("a_file_may_not_grow") else {
        return;
    };
    let store = open(&dir).expect("opened");
    let log = LocalLog::new(Arc::clone(&store), Handle::current(), 4);
    let journal = start(&store, SETTINGS, Surroundings::real(&dir));
    let payload = "x".repeat(10_000);
    append(&journal, &payload).await.expect("durable");
    let limits = Rlimit {
        current: Some(1_000_000),
        ..getrlimit(Resource::Fsize)
    };
    setrlimit(Resource::Fsize, limits).expect("limited");

    let mut acknowledged = 1;
    let failed = loop {
        match append(&journal, &payload).await {
            Ok(seq) => acknowledged = seq.0,
            Err(error) => break error,
        }
        assert!(acknowledged < 1_000, "the limit does not hold");
    };
    assert!(matches!(failed, AppendError::Unknown { .. }), "{failed}");
    for _ in 0..3 {
        let refused = append(&journal, "small").await.expect_err("refused");
        assert!(matches!(refused, AppendError::ReadOnly { .. }), "{refused}");
    }
    let status = journal.status();
    assert!(matches!(status, Status::ReadOnly { .. }), "{status:?}");
    assert_eq!(log.heads(SHARD).await.expect("heads").last, Seq(acknowledged));
    let events = node(&journal, log).read(&[topic("a")], 1_000).await;
    assert_eq!(
        events.len() as u64,
        acknowledged,
        "what was acknowledged and nothing else"
    );
    journal.close(DEADLINE).await.expect("closed");
    tell(acknowledged);
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_sudden_end_of_the_process() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Thrice on the same data: what is left of a log that ended suddenly is itself cut off suddenly.
    let mut left = 0;
    for _ in 0..3 {
        let output = play("a_sudden_end", dir.path());
        let acknowledged = acknowledged(&output);
        assert!(!output.status.success(), "it did not come to its end by itself");
        assert!(acknowledged > left);
        check_left(dir.path(), acknowledged, 100).await;
        left = open(dir.path()).expect("opened").heads().last.0;
    }
}

/// Plays its part only when it is asked to: it ends in the middle of its work, without a word to anyone.
#[tokio::test]
async fn a_sudden_end() {
    let Some(dir) = playing("a_sudden_end") else {
        return;
    };
    let store = open(&dir).expect("opened");
    let journal = start(&store, SETTINGS, Surroundings::real(&dir));
    let mut tickets = Vec::new();
    for _ in 0..100 {
        tickets.push(journal.append(publish(&["a"], "x")).await.expect("a place"));
    }
    let mut acknowledged = 0;
    for ticket in tickets.into_iter().take(50) {
        acknowledged = ticket.await.expect("durable").placed[0].seq.0;
    }
    tell(acknowledged);
    std::process::abort();
}
