//! What keeps a node from starting: each ends it with an error that says what to do.

use std::{fs, net::TcpListener, process::Stdio};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Signal, kill_process},
};
use tokio::sync::oneshot;

use crate::{
    node::{Failed, Node, Setup, tidings},
    patiently,
};

/// Starts on any ports with this data directory.
async fn refused(data: &std::path::Path, more: &[&str]) -> Failed {
    let data = data.to_str().expect("text");
    let any = "127.0.0.1:0";
    let mut arguments = vec!["--http", any, "--grpc", any, "--admin", any, "--data", data];
    for pair in more.chunks(2) {
        match arguments.iter().position(|argument| *argument == pair[0]) {
            Some(at) => arguments[at + 1] = pair[1],
            None => arguments.extend(pair),
        }
    }
    Setup::new().refused(&arguments).await
}

#[track_caller]
fn assert_told(failed: &Failed, parts: &[&str]) {
    assert_eq!(failed.status.code(), Some(1), "{}", failed.told);
    let error = failed.told.lines().find(|line| line.starts_with("tidings: "));
    for part in parts {
        assert!(
            failed.told.contains(part) && error.is_some(),
            "{part:?} is missing in {}",
            failed.told
        );
    }
    assert!(!failed.told.contains("panicked"), "{}", failed.told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_in_use() {
    let node = Node::start().await;
    let failed = refused(node.data(), &[]).await;
    assert_told(
        &failed,
        &["is in use by another process: stop that one, or name another"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for flag in ["--http", "--grpc", "--admin"] {
        let failed = refused(&dir.path().join("data"), &[flag, &address]).await;
        let named = format!("cannot listen on {address} (Address already in use (os error 98)): stop what else");
        assert_told(&failed, &[&named, flag]);
    }
    // Nothing is left of the attempts that would keep the next one from starting.
    let node = Node::start().await;
    let http = node.addresses().http.to_string();
    let failed = refused(&dir.path().join("data"), &["--http", &http]).await;
    assert_told(&failed, &[&format!("cannot listen on {http} (")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_a_newer_version() {
    let mut node = Node::start().await;
    node.kill().await;
    let file = node.data().join("FORMAT");
    let text = fs::read_to_string(&file).expect("it is there");
    fs::write(&file, text.replace("format = 1", "format = 2")).expect("writable");
    let failed = refused(node.data(), &[]).await;
    assert_told(
        &failed,
        &[
            "has format 2",
            "up to format 1",
            "use the version that wrote it, or a newer one",
        ],
    );
    // It was not touched: with its own version it opens.
    fs::write(&file, text).expect("writable");
    node.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_something_else() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("holiday.jpg"), "not an event").expect("writable");
    let failed = refused(dir.path(), &[]).await;
    assert_told(&failed, &["holiday.jpg", "name an empty or a new directory"]);
    let left: Vec<_> = fs::read_dir(dir.path()).expect("it is there").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_beyond_loopback() {
    let dir = tempfile::tempdir().expect("a directory");
    for flag in ["--http", "--grpc", "--admin"] {
        let failed = refused(&dir.path().join("data"), &[flag, "0.0.0.0:0"]).await;
        assert_told(
            &failed,
            &[flag, "0.0.0.0:0 can be reached from other machines", "--insecure"],
        );
    }
    assert!(
        !dir.path().join("data").exists(),
        "nothing is touched before the configuration is valid"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_the_configuration_are_told_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tidings.toml");
    fs::write(
        &file,
        "[log]\nretention_age = \"soon\"\n[journal]\nkey_windows = \"1s\"\n",
    )
    .expect("writable");
    let failed = refused(&dir.path().join("data"), &["--config", file.to_str().expect("text")]).await;
    assert_told(
        &failed,
        &[
            "2 mistakes",
            "tidings.toml:2: `log.retention_age`",
            "tidings.toml:4",
            "did you mean `journal.key_window`?",
        ],
    );
    let missing = dir.path().join("missing.toml");
    let failed = refused(&dir.path().join("data"), &["--config", missing.to_str().expect("text")]).await;
    assert_told(&failed, &["missing.toml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_the_data_directory_is_opened_ends_it() {
    let dir = tempfile::tempdir().expect("a directory");
    // Who reads this waits for who writes it, which nobody ever does: an opening without an end.
    let file = dir.path().join("FORMAT");
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    for signal in [Signal::TERM, Signal::INT] {
        let any = "127.0.0.1:0";
        let mut child = tidings()
            .args(["serve", "--http", any, "--grpc", any, "--admin", any, "--data"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        // Opening the other end waits for the reader. Should there be none, the thread stays behind.
        let (reached, is_reached) = oneshot::channel();
        let pipe = file.clone();
        std::thread::spawn(move || reached.send(fs::OpenOptions::new().write(true).open(pipe)));
        let writer = patiently("the opening", is_reached).await.expect("an answer");
        let id = Pid::from_raw(i32::try_from(child.id().expect("it runs")).expect("an id")).expect("an id");
        kill_process(id, signal).expect("it runs");
        let status = patiently("its end", child.wait()).await.expect("a child");
        assert_eq!(status.code(), Some(0));
        drop(writer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_port_is_told_when_it_is_ready() {
    // The harness takes ports of its own; this one has the kernel choose.
    let addresses = Setup::new().ready_on_any_port().await;
    for address in [addresses.http, addresses.grpc, addresses.admin] {
        assert_ne!(address.port(), 0);
    }
}
