//! The load tester against the real program: short forms of the scenarios, with the ledger that each of them keeps. They show that nothing is lost,
//! and that the tools work that tell so.
//!
//! `./dev loadtest help` has the long forms.

use std::{future::Future, path::Path, time::Duration};

use anyhow::Result;
use clap::{Args, Parser};
use tidings_loadtest::{
    Node, Report,
    fleet::Host,
    scenario::{edges, fanout, hold, inboxes, million, mixed, publish, resume, rolling, storm},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidings");
/// How long anything may take before a test is said to hang. Nothing is expected to come near it.
const PATIENCE: Duration = Duration::from_secs(300);
/// A process for each would be the load tester, which is not built for these tests.
const HOST: Host = Host::Threads(2);

/// The options of a scenario, as the command line has them.
fn options<O: Args>(arguments: &str) -> O {
    #[derive(Parser)]
    struct Line<O: Args> {
        #[command(flatten)]
        options: O,
    }
    let words = arguments.split_ascii_whitespace();
    Line::parse_from(std::iter::once("test").chain(words)).options
}

/// The scenario ends, and nothing is lost, doubled, out of order or anybody else's.
async fn exact(running: impl Future<Output = Result<Report>>) -> Report {
    let ended = tokio::time::timeout(PATIENCE, running).await;
    let report = ended.expect("it hangs").expect("it runs to its end");
    assert!(!report.failed(), "{:?}\n{report}", report.reasons());
    let json = report.to_json();
    let count = |name: &str| json["ledger"][name].as_u64().expect("an entry");
    assert!(count("delivered") > 0, "{report}");
    assert_eq!(count("published"), count("acknowledged"), "{report}");
    assert_eq!(count("gaps"), 0, "{report}");
    report
}

fn figure(report: &Report, name: &str) -> f64 {
    report
        .get(name)
        .unwrap_or_else(|| panic!("no figure {name:?}: {report}"))
}

fn node() -> Node {
    Node::start(Path::new(PROGRAM), None, &[]).expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_held_and_cycled() {
    let options: hold::Options = options("--streams 200 --first 50 --seconds 1 --cycles 500");
    let report = exact(hold::run(&node(), &HOST, &options)).await;
    assert!(figure(&report, "resident, 200 streams") > 0.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_to_all() {
    let options: fanout::Options = options("--streams 200 --rate 20 --seconds 1");
    let report = exact(fanout::run(&node(), &HOST, &options)).await;
    assert!(figure(&report, "delivered") > 0.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_goes_to_one() {
    let options: inboxes::Options = options("--streams 200 --rate 500 --warm-up 0 --seconds 2");
    let report = exact(inboxes::run(&node(), &HOST, &options)).await;
    assert!(figure(&report, "publish to receive, p50") > 0.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_have_everything_in_the_end() {
    let options: mixed::Options =
        options("--streams 200 --group 20 --rate 200 --slow-one-in 10 --slow-reads 20000 --warm-up 0 --seconds 2");
    exact(mixed::run(&node(), &HOST, &options)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_are_acknowledged() {
    let options: publish::Options = options("--in-flight 1,16 --seconds 1");
    let report = publish::run(&node(), &options).await.expect("it runs to its end");
    let json = report.to_json();
    assert_eq!(json["ledger"]["published"], json["ledger"]["acknowledged"], "{report}");
    for what in ["appends, 1 in flight", "appends, 16 in flight"] {
        assert!(figure(&report, what) > 0.0, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_cut_off_resume() {
    let options: resume::Options = options("--streams 300 --cuts 150 --rate 200 --seconds 3 --tokens");
    exact(resume::run(Path::new(PROGRAM), &HOST, &options)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_server_that_is_killed_resume() {
    let options: resume::Options = options("--streams 300 --cuts 150 --rate 200 --seconds 3 --kills 1 --tokens");
    let report = exact(resume::run(Path::new(PROGRAM), &HOST, &options)).await;
    assert!(
        figure(&report, "streams resumed") >= 300.0,
        "the server was killed: {report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_passes() {
    let options: storm::Options = options("--streams 300 --missed 10 --others 10 --rate 50 --tokens");
    let report = exact(storm::run(Path::new(PROGRAM), &HOST, &options)).await;
    assert!(figure(&report, "published to others meanwhile") > 0.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_restarted_one_after_another() {
    let options: rolling::Options =
        options("--streams 200 --edges 2 --ingest-nodes 1 --rate 50 --between 0 --with-nats --tokens");
    let report = exact(rolling::run(Path::new(PROGRAM), &HOST, &options)).await;
    assert_eq!(figure(&report, "nodes restarted"), 4.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_restarted_with_jetstream() {
    let options: rolling::Options =
        options("--streams 200 --edges 2 --ingest-nodes 2 --journal jetstream --rate 50 --between 0 --kill-every 3");
    let report = exact(rolling::run(Path::new(PROGRAM), &HOST, &options)).await;
    assert_eq!(figure(&report, "nodes restarted"), 4.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_is_as_many_as_one_likes() {
    let options: million::Options = options("600 --edges 4 --killed 1 --inboxes 100 --idle 0 --spare 0 --at-a-time 50");
    let report = exact(million::run(Path::new(PROGRAM), &HOST, &options)).await;
    assert!(figure(&report, "streams resumed") >= 150.0, "{report}");
    assert!(figure(&report, "memory, all") > 0.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_delivery_costs_is_compared() {
    let options: edges::Options = options("--streams 100 --edges 2 --rate 20 --seconds 1 --rounds 1");
    let report = exact(edges::run(Path::new(PROGRAM), &HOST, &options)).await;
    for what in ["one edge, 100 streams", "one edge, 200 streams", "2 edges, 200 streams"] {
        assert!(figure(&report, what) > 0.0, "{report}");
    }
}
