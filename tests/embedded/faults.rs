//! A disk that fails and a disk that is full: publishing is refused and says why, reading goes on, and nothing acknowledged is lost.

use std::path::{Path, PathBuf};

use http::Request;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    client::{Publisher, ask, event, get_json, post},
    node::{Node, Setup},
    sse::{Ask, Item},
};

/// The length of the events that fill a disk.
const LARGE: usize = 60_000;

fn large(number: usize) -> String {
    let mut data = format!("event {number} ");
    data.extend(std::iter::repeat_n('x', LARGE - data.len()));
    data
}

async fn earliest(node: &Node) -> crate::sse::Stream {
    let ask = Ask::topic("a").query("since", "earliest");
    ask.open(node.addresses().http).await.expect("a stream")
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_write_it_reads_on_and_says_why_it_does_not_write() {
    // Files may grow to 2 MiB, which the write-ahead log soon does.
    let limited = Setup::new().limit_files(4_096).set("http.heartbeat", "1s");
    let mut node = limited.start().await;
    let addresses = node.addresses();
    let mut follower = Ask::topic("a").open(addresses.http).await.expect("a stream");
    let mut publisher = Publisher::connect(addresses).await;
    let mut acknowledged = Vec::new();
    let failed = loop {
        let data = large(acknowledged.len());
        match publisher.try_publish(event("a", &*data)).await {
            Ok(_) => acknowledged.push(data),
            Err(status) => break status,
        }
        assert!(acknowledged.len() < 1_000, "the limit has no effect");
    };
    assert!(acknowledged.len() > 10, "some are written before: {failed:?}");
    // The one that was under way may or may not be on the disk.
    assert_eq!(failed.code(), Code::Unknown, "{failed:?}");

    let refused = publisher.try_publish(event("a", "more")).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(
        refused.message().contains("File too large"),
        "the cause is named: {refused:?}"
    );
    assert_eq!(refused.get_details_error_info().expect("details").reason, "READ_ONLY");
    let answer = post(addresses, &[], r#"{"topics":["a"]}"#).await;
    assert_eq!(answer.status(), 503);
    let body = String::from_utf8_lossy(answer.body());
    assert!(body.contains("File too large"), "{body}");
    let (status, body) = get_json(addresses.admin, "/readyz").await;
    assert_eq!((status, &body["parts"]["streams"]), (503, &"ready".into()));
    let reason = body["parts"]["publishing"].as_str().expect("text");
    assert!(
        reason.contains("a write failed") && reason.contains("File too large"),
        "{reason}"
    );
    assert_eq!(get_json(addresses.admin, "/readyz/streams").await.0, 200);
    assert_eq!(get_json(addresses.admin, "/readyz/publishing").await.0, 503);
    assert_eq!(get_json(addresses.admin, "/livez").await.0, 200);

    // Whoever was there has everything, and is still there.
    assert_eq!(follower.data(acknowledged.len()).await, acknowledged);
    while follower.next().await.expect("it goes on") != Item::Comment {}
    // So has whoever comes.
    assert_eq!(earliest(&node).await.data(acknowledged.len()).await, acknowledged);

    node.kill().await;
    node.restart_as(Setup::new()).await;
    let mut stream = earliest(&node).await;
    assert_eq!(stream.data(acknowledged.len()).await, acknowledged);
    let mut publisher = Publisher::connect(addresses).await;
    publisher.publish(event("a", "after")).await;
    // The one of which nobody knew is there or not.
    let next = stream.event().await.data;
    if next != "after" {
        assert_eq!(next, large(acknowledged.len()));
        assert_eq!(stream.event().await.data, "after");
    }
}

/// A directory on a disk that is more than 1 % full, as almost every one is.
pub(crate) fn on_a_used_disk() -> tempfile::TempDir {
    let candidates = [std::env::temp_dir(), PathBuf::from(env!("CARGO_TARGET_TMPDIR"))];
    let used = candidates.iter().find(|path| used_percent(path) > 1);
    tempfile::tempdir_in(used.expect("no disk here is more than 1 % full")).expect("a directory")
}

fn used_percent(path: &Path) -> u64 {
    let blocks = rustix::fs::statvfs(path).expect("a file system");
    let used = blocks.f_blocks - blocks.f_bfree;
    (used * 100).div_ceil((used + blocks.f_bavail).max(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_high_water_mark_it_reads_on_and_says_when_to_come_back() {
    let mut node = Setup::new().start_in(on_a_used_disk()).await;
    let addresses = node.addresses();
    Publisher::connect(addresses).await.publish(event("a", "1")).await;
    node.kill().await;
    let full = Setup::new()
        .set("journal.disk_high_water_percent", "1")
        .set("http.heartbeat", "1s");
    node.restart_as(full).await;
    let mut stream = earliest(&node).await;

    let mut publisher = Publisher::connect(addresses).await;
    let refused = publisher.try_publish(event("a", "2")).await.expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("high-water mark"), "{refused:?}");
    let wait = refused.get_details_retry_info().expect("details").retry_delay;
    assert!(wait.is_some_and(|wait| !wait.is_zero()), "{refused:?}");
    let request = Request::post("/v1/publish").header("content-type", "application/json");
    let answer = ask(addresses.grpc, request.body(r#"{"topics":["a"]}"#).expect("a request")).await;
    assert_eq!(answer.status(), 429);
    let wait: u64 = answer.headers()["retry-after"]
        .to_str()
        .expect("text")
        .parse()
        .expect("a number");
    assert!(wait > 0);
    let (status, body) = get_json(addresses.admin, "/readyz/publishing").await;
    let reason = body["parts"]["publishing"].as_str().expect("text");
    assert!(status == 503 && reason.contains("high-water mark of 1 %"), "{reason}");

    assert_eq!(stream.data(1).await, ["1"]);
    while stream.next().await.expect("it goes on") != Item::Comment {}
    assert_eq!(earliest(&node).await.data(1).await, ["1"]);
    node.kill().await;
    node.restart_as(Setup::new()).await;
    Publisher::connect(addresses).await.publish(event("a", "2")).await;
    assert_eq!(earliest(&node).await.data(2).await, ["1", "2"]);
}
