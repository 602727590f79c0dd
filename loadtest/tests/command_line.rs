//! The program as one runs it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tidings_loadtest::{
    Report,
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
