//! A small disk that is filled up by what is published: the node stops in time, so that it can be stopped and started at will.
//!
//! The disk is a file system in memory that only a process of the test's own sees: this program again, in a mount namespace, told by its
//! environment which part to play.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use tokio::process::Command;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    client::{Publisher, event, get_json},
    node::{Node, Setup, code},
    patiently,
    sse::Ask,
};

const MOUNTED: &str = "TIDINGS_TEST_SMALL_DISK";
/// Larger than the reserve, and so small that it is reached long before the high-water mark.
const SIZE: &str = "size=400m";
/// The length of the events that fill it.
const LARGE: usize = 60_000;
/// How many of them are published at first: too few to be flushed, so they are only in the write-ahead log.
const FIRST: usize = 100;

/// Runs a program where a small disk is mounted at a directory. It goes with the last process that sees it.
fn with_small_disk(namespace: &str, dir: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([namespace, "sh", "-c"])
        .arg(r#"mount -t tmpfs -o "$0" tidings-test "$1" && shift && exec "$@""#)
        .arg(SIZE)
        .arg(dir)
        .arg(program)
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_small_disk_that_is_filled_up_is_written_no_more_and_stays_readable() {
    let dir = tempfile::tempdir().expect("a directory");
    // As root, or as a user who may be root in a namespace.
    let mut permitted = None;
    for namespace in ["-m", "-rm"] {
        let tried = with_small_disk(namespace, dir.path(), Path::new("true")).output().await;
        if tried.is_ok_and(|output| output.status.success()) {
            permitted = Some(namespace);
            break;
        }
    }
    let Some(namespace) = permitted else {
        eprintln!("skipped: mounting a file system in a namespace is not permitted here");
        return;
    };
    let mut played = with_small_disk(namespace, dir.path(), &env::current_exe().expect("this program"));
    played
        .args(["--exact", "small_disk::plays_on_a_small_disk", "--nocapture"])
        .env(MOUNTED, dir.path());
    let output = patiently("the disk to be filled", played.output()).await.expect("run");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Text that does not compress, which tells its number.
fn incompressible(number: usize) -> String {
    let mut data = format!("{number} ");
    let mut state = number as u64;
    while data.len() < LARGE {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        data.push_str(&format!("{:08x}", state >> 32));
    }
    data
}

/// Refused for want of room, and not by a write that failed.
async fn check_refused(node: &Node) {
    let mut publisher = Publisher::connect(node.addresses()).await;
    let refused = publisher.try_publish(event("a", "more")).await.expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(refused.get_details_error_info().expect("details").reason, "DISK_FULL");
    assert!(refused.message().contains("reserve of 256 MiB"), "{refused:?}");
    let (status, body) = get_json(node.addresses().admin, "/readyz/publishing").await;
    assert_eq!(status, 503);
    let reason = body["parts"]["publishing"].as_str().expect("text");
    assert!(reason.contains("reserve of 256 MiB"), "{reason}");
}

async fn check_readable(node: &Node, acknowledged: usize) {
    let ask = Ask::topic("a").query("since", "earliest");
    let mut stream = ask.open(node.addresses().http).await.expect("a stream");
    for number in 0..acknowledged {
        let data = stream.event().await.data;
        assert!(data == incompressible(number), "event {number} is {data:.20}");
    }
}

/// Fills what is left of the disk while the node is down: the node then says what to do, and when that was done all is as it was.
async fn check_start_without_space(node: &mut Node, acknowledged: usize) {
    node.kill().await;
    let other = node.dir().join("other");
    let mut filling = fs::File::create(&other).expect("created");
    while filling.write_all(&[1; 4_096]).is_ok() {}
    drop(filling);
    let data = node.data().to_str().expect("text");
    let any = "127.0.0.1:0";
    let arguments = ["--data", data, "--http", any, "--grpc", any, "--admin", any];
    let failed = Setup::new().refused(&arguments).await;
    for text in [
        "No space left on device",
        "have 256 MiB free on that disk, then start again",
    ] {
        assert!(failed.told.contains(text), "{failed:?}");
    }
    fs::remove_file(&other).expect("removed");
    node.restart().await;
    check_readable(node, acknowledged).await;
}

/// Plays its part only when it is asked to: fills the disk, and then has the node end and start in every way.
#[tokio::test(flavor = "multi_thread")]
async fn plays_on_a_small_disk() {
    let Some(disk) = env::var_os(MOUNTED).map(PathBuf::from) else {
        return;
    };
    let mut node = Setup::new()
        .start_in(tempfile::tempdir_in(disk).expect("a directory"))
        .await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    let mut acknowledged = 0;
    while acknowledged < FIRST {
        publisher.publish(event("a", &*incompressible(acknowledged))).await;
        acknowledged += 1;
    }
    check_start_without_space(&mut node, acknowledged).await;
    let mut publisher = Publisher::connect(node.addresses()).await;
    while publisher
        .try_publish(event("a", &*incompressible(acknowledged)))
        .await
        .is_ok()
    {
        acknowledged += 1;
        assert!(acknowledged < 10_000, "more than the disk holds");
    }
    assert!(acknowledged > FIRST, "there was room for more");
    check_refused(&node).await;
    check_readable(&node, acknowledged).await;

    node.crash().await;
    check_readable(&node, acknowledged).await;
    // Flushed, it takes less: there may be room again, and then it is used up again.
    let mut publisher = Publisher::connect(node.addresses()).await;
    while publisher
        .try_publish(event("a", &*incompressible(acknowledged)))
        .await
        .is_ok()
    {
        acknowledged += 1;
        assert!(acknowledged < 10_000, "more than the disk holds");
    }
    check_refused(&node).await;
    node.signal(Signal::TERM);
    assert_eq!(code(node.ended().await), 0);
    assert!(!node.log().contains("not flushed at close"), "{}", node.log());
    node.restart().await;
    check_readable(&node, acknowledged).await;
    node.crash().await;
    check_readable(&node, acknowledged).await;
}
