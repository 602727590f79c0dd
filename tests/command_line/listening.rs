//! `tidings listen`, through kills of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
};

use crate::{text, tidings};

const EVENTS: usize = 200;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n:\nretry: 1\n";

/// A log of `EVENTS` events with the ids 1, 2, … that goes on after the id that is asked for. Each connection is sent as many bytes as
/// `cuts` gives for it, wherever that is within an event, and then left open; once the cuts are used up, everything. Tells each time it has sent.
fn server(cuts: Vec<usize>) -> (SocketAddr, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (tell, sent) = mpsc::channel();
    thread::spawn(move || {
        let mut open = Vec::new();
        let mut cuts = cuts.into_iter();
        for socket in listener.incoming() {
            let mut socket = socket.expect("a connection");
            let after = last_event_id(&socket);
            let mut body = HEAD.to_owned();
            for number in after + 1..=EVENTS {
                body.push_str(&format!("id: {number}\nevent: tick\ndata: number {number}\n\n"));
            }
            let cut = cuts.next().unwrap_or(body.len()).min(body.len());
            // Whoever was killed in the meantime does not read it.
            let _ = socket.write_all(&body.as_bytes()[..cut]);
            open.push(socket);
            if tell.send(()).is_err() {
                return;
            }
        }
    });
    (address, sent)
}

fn last_event_id(socket: &TcpStream) -> usize {
    let mut id = 0;
    for line in BufReader::new(socket).lines() {
        let line = line.expect("a request");
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("last-event-id: ") {
            id = value.parse().expect("one of ours");
        }
    }
    id
}

fn listen(dir: &Path, address: SocketAddr, arguments: &[&str]) -> Child {
    let url = format!("http://{address}");
    let mut all = vec!["listen", "ticks", "--url", &url];
    all.extend(arguments);
    tidings(dir, &all)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// The numbers of the events in lines of JSON.
fn numbers(lines: &str) -> Vec<usize> {
    lines
        .lines()
        .map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(event["event"], "tick");
            let number: usize = event["id"].as_str().expect("text").parse().expect("a number");
            assert_eq!(event["data"], format!("number {number}"));
            number
        })
        .collect()
}

#[test]
fn a_file_has_every_event_once_however_often_its_writer_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let cuts: Vec<usize> = (0..12).map(|round| 150 + round * 97).collect();
    let rounds = cuts.len();
    let (address, sent) = server(cuts);
    for _ in 0..rounds {
        let mut child = listen(dir.path(), address, &["--output", "events.ndjson"]);
        sent.recv().expect("the server sends");
        // Now it reads, or writes, or waits: whatever it does is cut off.
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }
    let path = dir.path().join("events.ndjson");
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("it is there");
    file.write_all(b"{\"id\":\"9")
        .expect("as a kill within a write would leave it");
    let kept = fs::read_to_string(&path).expect("text").lines().count() - 1;
    let left = (EVENTS - kept).to_string();
    let output = listen(dir.path(), address, &["--output", "events.ndjson", "--count", &left])
        .wait_with_output()
        .expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        numbers(&fs::read_to_string(&path).expect("text")),
        (1..=EVENTS).collect::<Vec<_>>()
    );
}

#[test]
fn a_cursor_file_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().expect("a directory");
    let (address, _sent) = server(Vec::new());
    let mut all = Vec::new();
    for count in [1, 50, 149] {
        let count: usize = count;
        let output = listen(
            dir.path(),
            address,
            &["--json", "--cursor-file", "cursor", "--count", &count.to_string()],
        )
        .wait_with_output()
        .expect("it ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let numbers = numbers(&text(&output.stdout));
        assert_eq!(numbers.len(), count);
        all.extend(numbers);
    }
    assert_eq!(all, (1..=EVENTS).collect::<Vec<_>>());
}

#[test]
fn lines_to_read_are_the_usual_form() {
    let dir = tempfile::tempdir().expect("a directory");
    let (address, _sent) = server(Vec::new());
    let output = listen(dir.path(), address, &["--count", "2"])
        .wait_with_output()
        .expect("it ends");
    assert_eq!(text(&output.stdout), "tick: number 1\ntick: number 2\n");
    assert_eq!(text(&output.stderr), "");
}

/// What the service says of the token is told on stderr: it is no event, does not count as one, and has no place in a file of them.
#[test]
fn the_end_of_a_token_is_told_and_is_no_event() {
    for output in [&["--json"][..], &["--output", "events.ndjson"], &[]] {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a connection");
            last_event_id(&socket);
            let expiring = "event: tidings.token_expiring\ndata: {\"expires_in_ms\":29500}\n\n";
            let body = format!("{HEAD}{expiring}id: 1\nevent: tick\ndata: number 1\n\n");
            socket.write_all(body.as_bytes()).expect("a reader");
            // Open until the other side has enough.
            let _ = socket.read(&mut [0]);
        });
        let child = listen(dir.path(), address, &[output, &["--count", "1"]].concat());
        let ended = child.wait_with_output().expect("it ends");
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        assert!(
            text(&ended.stderr).contains("the token expires in 30s"),
            "{}",
            text(&ended.stderr)
        );
        let written = fs::read_to_string(dir.path().join("events.ndjson")).unwrap_or(text(&ended.stdout));
        assert!(written.contains("number 1") && !written.contains("expir"), "{written}");
        assert_eq!(written.lines().count(), 1, "{written}");
    }
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut child = listen(dir.path(), listener.local_addr().expect("bound"), &["--json"]);
    let (mut socket, _) = listener.accept().expect("a connection");
    last_event_id(&socket);
    socket
        .write_all(format!("{HEAD}id: 1\ndata: a\n\n").as_bytes())
        .expect("a reader");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut String::new()).expect("a line");
    drop(stdout);
    // A process that another test is just starting may hold the pipe open for a moment: events go on until this one has ended.
    while socket.write_all(b"id: 2\ndata: b\n\n").is_ok() {}
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn an_interrupt_ends_it_cleanly() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let dir = tempfile::tempdir().expect("a directory");
        let (address, _sent) = server(Vec::new());
        let mut child = listen(dir.path(), address, &["--json"]);
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        for _ in 0..EVENTS {
            stdout.read_line(&mut String::new()).expect("a line");
        }
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, signal).expect("it runs");
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), Some(130));
        let mut rest = String::new();
        child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut rest)
            .expect("text");
        assert_eq!(rest, "");
    }
}

#[test]
fn two_do_not_write_one_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let (address, sent) = server(Vec::new());
    let mut first = listen(dir.path(), address, &["--output", "events.ndjson"]);
    sent.recv().expect("the first has the file");
    let second = listen(dir.path(), address, &["--output", "events.ndjson"])
        .wait_with_output()
        .expect("it ends");
    first.kill().expect("it runs");
    first.wait().expect("it ends");
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("is being written to by another"),
        "{}",
        text(&second.stderr)
    );
}

#[test]
fn wrong_arguments_say_what_is_right() {
    let dir = tempfile::tempdir().expect("a directory");
    for (arguments, told) in [
        (&["listen"] as &[&str], "<TOPIC>"),
        (&["listen", "a b"], "this one has ' ' at byte 1"),
        (&["listen", "a", "--since", "yesterday"], "--since"),
        (
            &["listen", "a", "--output", "x", "--cursor-file", "y"],
            "cannot be used with",
        ),
        (&["listen", "a", "--count", "0"], "--count"),
    ] {
        let output = crate::run(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(told),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
    let output = crate::run(dir.path(), &["listen", "a", "--url", "127.0.0.1:8080"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("http://127.0.0.1:8080 is one"),
        "{}",
        text(&output.stderr)
    );
}
