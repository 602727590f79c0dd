//! `tidings publish`: what can be seen of it without a server. With one, it is tested where the server is.

use std::{fs, net::SocketAddr};

use crate::{run, text};

/// The address of nobody: bound, so that nobody else can have it, and not listening.
fn nobody() -> (tokio::net::TcpSocket, String) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let url = format!("http://{}", socket.local_addr().expect("bound"));
    (socket, url)
}

#[test]
fn records_that_make_no_event_are_told_and_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let records = "nonsense\n\n{\"id\":null}\n";
    fs::write(dir.path().join("records.ndjson"), records).expect("a file");
    let (_socket, url) = nobody();
    let output = run(
        dir.path(),
        &[
            "publish",
            "--ndjson",
            "records.ndjson",
            "--topic",
            "t/{id}",
            "--url",
            &url,
            "--retry-for",
            "0s",
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.starts_with("tidings: line 1 is refused: this is not JSON"),
        "{told}"
    );
    assert!(
        told.contains("tidings: line 3 is refused: --topic: the field `id` is null"),
        "{told}"
    );
    assert!(
        told.ends_with("0 acknowledged, 0 of them repeated; 2 refused\n"),
        "{told}"
    );
    assert!(
        !told.contains("reached"),
        "nobody is asked before there is something to send: {told}"
    );
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_server_that_is_not_there_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_socket, url) = nobody();
    let output = run(
        dir.path(),
        &["publish", "hello", "--data", "hi", "--url", &url, "--retry-for", "0s"],
    );
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("is `tidings serve` running"), "{told}");
}

#[test]
fn wrong_arguments_say_what_is_right() {
    let dir = tempfile::tempdir().expect("a directory");
    for (arguments, code, told) in [
        (&["publish"] as &[&str], 2, "<TOPIC>"),
        (&["publish", "t", "--ndjson", "-"], 2, "cannot be used with"),
        (&["publish", "--ndjson", "-"], 2, "--topic"),
        (
            &["publish", "t", "--topic", "u", "--data", "x"],
            2,
            "cannot be used with",
        ),
        (&["publish", "t", "--key", "k", "--ephemeral"], 2, "cannot be used with"),
        (
            &["publish", "--ndjson", "missing.ndjson", "--topic", "t"],
            1,
            "missing.ndjson cannot be read",
        ),
        (&["publish", "--ndjson", "-", "--topic", "t/{id"], 1, "is not closed"),
        (
            &["publish", "t", "--data", "x", "--url", "localhost"],
            1,
            "is not the address of a server",
        ),
    ] {
        let output = run(dir.path(), arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(
            text(&output.stderr).contains(told),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
}
