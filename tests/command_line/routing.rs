//! `tidings route`.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    thread::{self, JoinHandle},
};

use crate::{run, text};

/// Answers one request with this; gives its first line.
fn server(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/behind/", listener.local_addr().expect("bound"));
    let asked = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut lines = BufReader::new(socket.try_clone().expect("a socket")).lines();
        let first = lines.next().expect("a request").expect("text");
        lines.find(|line| line.as_ref().is_ok_and(String::is_empty));
        socket.write_all(answer.as_bytes()).expect("a reader");
        first
    });
    (url, asked)
}

const KNOWN: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
    {\"slot\":971,\"route\":\"971\",\"node\":\"edge-1\",\"url\":\"http://10.0.0.1:8080\"}";

#[test]
fn the_owner_is_printed() {
    let here = std::env::temp_dir();
    for (arguments, asked_for, printed) in [
        (
            &["42"][..],
            "user=42",
            "slot   971\nowner  edge-1\nurl    http://10.0.0.1:8080\n",
        ),
        (
            &["--topic", "a/b", "--json"],
            "topic=a/b",
            "{\"slot\":971,\"route\":\"971\",\"node\":\"edge-1\",\"url\":\"http://10.0.0.1:8080\"}\n",
        ),
    ] {
        let (url, asked) = server(KNOWN);
        let output = run(&here, &[&["route", "--url", &url], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), printed);
        let line = asked.join().expect("no panic");
        assert_eq!(line, format!("GET /behind/v1/route?{asked_for} HTTP/1.1"));
    }
}

#[test]
fn what_is_no_route_is_told() {
    let here = std::env::temp_dir();
    for (answer, told) in [
        (
            "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n{\"detail\":\"no edge is known\"}",
            "gives no route (503 Service Unavailable): no edge is known",
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nwelcome",
            "does not answer with a route",
        ),
    ] {
        let (url, _asked) = server(answer);
        let output = run(&here, &["route", "42", "--url", &url]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
    }
}
