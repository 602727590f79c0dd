//! `tidings revoke`: what can be seen of it without a server. With one, it is tested where the server is.

use std::{fs, net::SocketAddr};

use crate::{run, text, tidings};

#[test]
fn wrong_arguments_say_what_is_right() {
    let dir = tempfile::tempdir().expect("a directory");
    for (arguments, code, told) in [
        (&["revoke"] as &[&str], 2, "--token-id <ID>|--user <USER>"),
        (&["revoke", "--block"], 2, "--user"),
        (&["revoke", "--user", "7", "--token-id", "x"], 2, "cannot be used with"),
        (&["revoke", "--list", "--user", "7"], 2, "cannot be used with"),
        (
            &["revoke", "--issued-before", "yesterday"],
            2,
            "such as 2026-11-20T12:00:00Z",
        ),
        (&["revoke", "--user", "7", "--for", "long"], 2, "--for"),
        (
            &["revoke", "--user", "7", "--url", "a b"],
            1,
            "is not the address of a server",
        ),
        (
            &["revoke", "--user", "7", "--token-file", "missing"],
            1,
            "missing cannot be read",
        ),
        (&["revoke", "--user", "7", "--token", "secret"], 2, "--token"),
    ] {
        let output = run(dir.path(), arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(told), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_server_that_is_not_there_says_what_to_do_and_nothing_of_the_token() {
    let dir = tempfile::tempdir().expect("a directory");
    // Bound, so that nobody else can have it, and not listening.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let url = format!("http://{}", socket.local_addr().expect("bound"));
    fs::write(dir.path().join("token"), "open-sesame\n").expect("a file");
    let arguments = ["revoke", "--list", "--url", &url];
    let from_file = tidings(dir.path(), &arguments).args(["--token-file", "token"]).output();
    let from_variable = tidings(dir.path(), &arguments)
        .env("TIDINGS_TOKEN", "open-sesame")
        .output();
    for output in [from_file, from_variable] {
        let output = output.expect("the program starts");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(told.contains("does --url name the gRPC port"), "{told}");
        assert!(!told.contains("sesame"), "{told}");
    }
}
