//! `tidings check-config`, and `--print-config`.

use std::fs;

use crate::{run, text, tidings};

#[test]
fn what_is_effective_is_printed_and_reads_back() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("tidings.toml"), "[http]\nheartbeat = \"7s\"\n").expect("a file");
    let first = run(dir.path(), &["check-config", "--http", "127.0.0.1:9000"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let printed = text(&first.stdout);
    assert!(
        printed.contains("heartbeat = \"7s\"") && printed.contains("listen = \"127.0.0.1:9000\""),
        "{printed}"
    );
    fs::write(dir.path().join("printed.toml"), &printed).expect("a file");
    let second = run(dir.path(), &["serve", "--config", "printed.toml", "--print-config"]);
    assert!(second.status.success(), "{}", text(&second.stderr));
    assert_eq!(text(&second.stdout), printed);
}

#[test]
fn all_mistakes_are_told_and_nothing_is_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(
        dir.path().join("tidings.toml"),
        "[http]\nheartbeat = \"soon\"\n\n[limit]\ndata_bytes = \"1KiB\"\n",
    )
    .expect("a file");
    let output = tidings(dir.path(), &["check-config", "--admin", "0.0.0.0:8081"])
        .env("TIDINGS_LOG__RETENTION", "1d")
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let told = text(&output.stderr);
    for part in [
        "4 mistakes",
        "tidings.toml:2: `http.heartbeat`: \"soon\" is not a duration",
        "tidings.toml:5: `limit.data_bytes` is not a setting: did you mean `limits.data_bytes`?",
        "TIDINGS_LOG__RETENTION: ",
        "--admin: `admin.listen`: 0.0.0.0:8081 can be reached from other machines",
    ] {
        assert!(told.contains(part), "{part} is missing in:\n{told}");
    }
}

#[test]
fn insecure_is_the_word_for_beyond_loopback() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run(dir.path(), &["check-config", "--http", "0.0.0.0:8080", "--insecure"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn each_role_is_checked_for_what_it_needs() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = |role: &str, more: &[&str]| run(dir.path(), &[&["check-config", "--role", role], more].concat());
    let any = ["--http", "0.0.0.0:8080", "--grpc", "0.0.0.0:50051", "--insecure"];
    assert!(check("serve", &any).status.success());
    for (role, setting) in [("edge", "cluster.advertise_http"), ("ingest", "cluster.advertise_grpc")] {
        let output = check(role, &any);
        assert_eq!(output.status.code(), Some(1));
        let told = text(&output.stderr);
        assert!(told.contains(&format!("default: `{setting}`: is needed")), "{told}");
    }
    let nats = check("edge", &["--nats", "nats://10.0.0.1:4222,tls://10.0.0.2:4222"]);
    assert!(nats.status.success(), "{}", text(&nats.stderr));
    assert!(text(&nats.stdout).contains("urls = [\"nats://10.0.0.1:4222\", \"tls://10.0.0.2:4222\"]"));
}

#[test]
fn secrets_are_not_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = tidings(dir.path(), &["edge", "--print-config"])
        .env("TIDINGS_NATS__TOKEN", "open-sesame")
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(
        printed.contains("token = \"********\"") && !printed.contains("sesame"),
        "{printed}"
    );
}
