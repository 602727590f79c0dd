//! The program as one runs it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tidings_loadtest::{
    Report,
    raw::Process,
    report::{Ledger, Plot},
};

fn report(lost: u64) -> Report {
    let mut report = Report::new("fanout").setting("streams", 1_000);
    report.measured("delivered", 12_345.0, "per second");
    report.plot(Plot::new("Deliveries", "per second").line("delivered", [(0.0, 1.0), (1.0, 2.0)]));
    report.ledger(Ledger {
        lost,
        ..Ledger::default()
    });
    report
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_tidings-loadtest");
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    output.expect("starts")
}

/// The smallest server that there can be, beside another of its kind.
#[tokio::test]
async fn growth_is_told_beside_the_raw_limit() {
    let directory = tempfile::tempdir().expect("can be made");
    let server = Process::start(Path::new(env!("CARGO_BIN_EXE_tidings-loadtest")))
        .await
        .expect("starts");
    let address = server.node().http[0].to_string();
    let pid = server.pid().expect("it runs").to_string();
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/raw.toml");
    let target = [
        "--template",
        template,
        "--http",
        &address,
        "--grpc",
        &address,
        "--pid",
        &pid,
    ];
    let scenario = [
        "growth",
        "--streams",
        "20,40,60",
        "--deliveries",
        "2000",
        "--seconds",
        "1",
    ];
    let output = run(
        directory.path(),
        &[&target[..], &["--json=growth.json"], &scenario[..]].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(directory.path().join("growth.json")).expect("readable");
    let report: serde_json::Value = serde_json::from_str(&text).expect("a report");
    assert_eq!(report["goals"].as_array().map(Vec::len), Some(2), "{text}");
    assert_eq!(report["tables"][0]["rows"].as_array().map(Vec::len), Some(3), "{text}");
}

#[test]
fn reports_are_read_and_told_again() {
    let directory = tempfile::tempdir().expect("can be made");
    for (file, lost) in [("good.json", 0), ("bad.json", 3)] {
        let text = serde_json::to_string(&report(lost)).expect("serialises");
        fs::write(directory.path().join(file), text).expect("written");
    }
    let read = |file: &str| fs::read_to_string(directory.path().join(file)).expect("readable");

    let output = run(
        directory.path(),
        &["compare", "good.json", "--html", "good.html", "--json=again.json"],
    );
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("12,345 per second"));
    assert!(read("good.html").contains("<svg"));
    let again: Report = serde_json::from_str(&read("again.json")).expect("is a report");
    assert_eq!(again.get("delivered"), Some(12_345.0));

    let output = run(
        directory.path(),
        &["compare", "before=good.json", "after=bad.json", "--json"],
    );
    assert!(output.status.success(), "{output:?}");
    let both: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(both["reasons"][0], "after: 3 lost");

    let output = run(directory.path(), &["compare", "missing.json"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read missing.json"));
}
