//! Following, against a server that answers by script, byte for byte.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::{
    follow::{Flow, FollowError, Settings, Start, follow},
    parser::Received,
};
use crate::{
    cli::{bearer::Bearer, server::Server},
    tls::ClientTls,
};

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n:\nretry: 1\n";

fn settings(address: SocketAddr) -> Settings {
    Settings {
        server: Server::parse(&format!("http://{address}"), &ClientTls::default()).expect("an address"),
        topics: vec!["a/b".to_owned(), "c:d".to_owned()],
        user: None,
        bearer: Bearer::default(),
        start: Start::Now,
        cursor: None,
        silence: Duration::from_secs(45),
        retry: Duration::from_millis(1),
        retry_for: None,
    }
}

/// A request's head.
async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.expect("a request"));
    }
    String::from_utf8(head).expect("text")
}

/// Answers each connection in its turn, and closes it; returns the requests.
async fn answer(listener: TcpListener, answers: Vec<String>) -> Vec<String> {
    let mut requests = Vec::new();
    for answer in answers {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        requests.push(head(&mut socket).await);
        socket.write_all(answer.as_bytes()).await.expect("a reader");
    }
    requests
}

/// What comes of following a server that answers like this: events, notices, the outcome, and the requests it got.
struct Outcome {
    events: Vec<Received>,
    notices: Vec<String>,
    ended: Result<(), FollowError>,
    requests: Vec<String>,
}

async fn run(answers: &[String], change: impl FnOnce(&mut Settings)) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut settings = settings(listener.local_addr().expect("bound"));
    change(&mut settings);
    let server = tokio::spawn(answer(listener, answers.to_vec()));
    let mut events = Vec::new();
    let mut notices = Vec::new();
    let ended = follow(
        settings,
        |event| {
            events.push(event.clone());
            Ok(if event.data == "last" { Flow::Enough } else { Flow::More })
        },
        |notice| notices.push(notice.to_owned()),
    )
    .await;
    Outcome {
        events,
        notices,
        ended,
        requests: server.await.expect("all answers were asked for"),
    }
}

fn datas(outcome: &Outcome) -> Vec<&str> {
    outcome.events.iter().map(|event| event.data.as_str()).collect()
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request
        .lines()
        .find_map(|line| line.split_once(": ").filter(|(found, _)| *found == name))
        .map(|(_, value)| value)
}

fn problem(status: &str, detail: &str) -> String {
    let body = format!("{{\"title\":\"no\",\"detail\":\"{detail}\"}}");
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_torn_chunk_is_an_interruption_as_any_other() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                           b\r\n:\nretry: 1\n\r\n";
    let chunk = |frame: &str| format!("{:x}\r\n{frame}\r\n", frame.len());
    let [one, two, last] = ["one", "two", "last"].map(|data| chunk(&format!("id: {data}\ndata: {data}\n\n")));
    let outcome = run(
        &[
            // Torn: within a chunk, within a size, between two. Then ended.
            format!("{CHUNKED}{one}{}", &two[..two.len() - 4]),
            format!("{CHUNKED}{}", &one[..2]),
            format!("{CHUNKED}{two}"),
            format!("{CHUNKED}{}0\r\n\r\n", chunk("retry: 2\n")),
            format!("{CHUNKED}{last}"),
        ],
        |_| {},
    )
    .await;
    assert!(outcome.ended.is_ok(), "{:?}", outcome.ended);
    assert_eq!(datas(&outcome), ["one", "two", "last"]);
    let asked: Vec<_> = outcome
        .requests
        .iter()
        .map(|request| header(request, "last-event-id"))
        .collect();
    assert_eq!(asked, [None, Some("one"), Some("one"), Some("two"), Some("two")]);
}

#[tokio::test]
async fn goes_on_after_the_last_whole_event() {
    let outcome = run(
        &[
            format!("{HEAD}id: 1-1.1\ndata: one\n\nid: 1-1.2\ndata: cut of"),
            format!("{HEAD}id: 1-1.2\ndata: two\n\ndata: passing\n\n"),
            format!("{HEAD}id: 1-1.3\ndata: last\n\nid: 1-1.4\ndata: not asked for\n\n"),
        ],
        |_| {},
    )
    .await;
    assert!(outcome.ended.is_ok(), "{:?}", outcome.ended);
    assert_eq!(datas(&outcome), ["one", "two", "passing", "last"]);
    let ids: Vec<_> = outcome
        .requests
        .iter()
        .map(|request| header(request, "last-event-id"))
        .collect();
    assert_eq!(ids, [None, Some("1-1.1"), Some("1-1.2")]);
    assert!(outcome.requests.iter().all(|request| !request.contains("since=")));
    assert_eq!(outcome.notices, [""; 0], "a stream that ends is nothing to tell");
}

#[tokio::test]
async fn asks_for_what_it_was_told_to_follow() {
    let outcome = run(&[format!("{HEAD}data: last\n\n")], |settings| {
        settings.user = Some("a b&c".to_owned());
        settings.start = Start::Earliest;
    })
    .await;
    let first = outcome.requests[0].lines().next().expect("a line");
    assert_eq!(
        first,
        "GET /v1/events?topic=a/b&topic=c:d&user=a%20b%26c&since=earliest HTTP/1.1"
    );
    assert_eq!(header(&outcome.requests[0], "accept"), Some("text/event-stream"));
}

#[tokio::test]
async fn a_cursor_from_before_is_sent_first() {
    let outcome = run(&[format!("{HEAD}data: last\n\n")], |settings| {
        settings.cursor = Some("1-1.7".to_owned());
        settings.start = Start::Earliest;
    })
    .await;
    assert_eq!(header(&outcome.requests[0], "last-event-id"), Some("1-1.7"));
    assert!(!outcome.requests[0].contains("since="), "the cursor says it better");
}

#[tokio::test]
async fn without_a_cursor_it_goes_back_to_its_first_stream() {
    let outcome = run(&[HEAD.to_owned(), format!("{HEAD}data: last\n\n")], |_| {}).await;
    assert!(!outcome.requests[0].contains("since="));
    assert!(outcome.requests[1].contains("&since="), "{}", outcome.requests[1]);
}

#[tokio::test]
async fn a_silent_stream_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut settings = settings(listener.local_addr().expect("bound"));
    settings.silence = Duration::from_millis(50);
    let server = tokio::spawn(async move {
        let (mut silent, _) = listener.accept().await.expect("a connection");
        head(&mut silent).await;
        silent
            .write_all(format!("{HEAD}id: 1-1.1\ndata: one\n\n").as_bytes())
            .await
            .expect("a reader");
        // Still open, and silent, while the next one comes.
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let request = head(&mut socket).await;
        socket
            .write_all(format!("{HEAD}data: last\n\n").as_bytes())
            .await
            .expect("a reader");
        drop(silent);
        request
    });
    let mut count = 0;
    let ended = follow(
        settings,
        |event| {
            count += 1;
            Ok(if event.data == "last" { Flow::Enough } else { Flow::More })
        },
        |_| {},
    )
    .await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(count, 2);
    assert_eq!(header(&server.await.expect("served"), "last-event-id"), Some("1-1.1"));
}

#[tokio::test]
async fn what_is_refused_for_good_is_told_and_not_asked_again() {
    for status in ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found"] {
        let outcome = run(&[problem(status, "no such thing")], |_| {}).await;
        let error = outcome.ended.expect_err(status);
        assert!(matches!(error, FollowError::Final(_)));
        let told = error.to_string();
        assert!(told.contains(status) && told.ends_with("no such thing"), "{told}");
    }
}

#[tokio::test]
async fn what_is_not_ready_is_asked_again_and_told_once() {
    let outcome = run(
        &[
            problem("503 Service Unavailable", "starting"),
            problem("429 Too Many Requests", "slow down"),
            problem("500 Internal Server Error", "oh"),
            format!("{HEAD}data: last\n\n"),
        ],
        |_| {},
    )
    .await;
    assert!(outcome.ended.is_ok(), "{:?}", outcome.ended);
    assert_eq!(outcome.notices.len(), 2, "{:?}", outcome.notices);
    assert!(outcome.notices[0].contains("503") && outcome.notices[0].contains("starting"));
    assert_eq!(outcome.notices[1], "following again");
}

#[tokio::test]
async fn a_server_that_only_says_to_come_back_is_told_once() {
    let later = HEAD.to_owned();
    let outcome = run(
        &[later.clone(), later.clone(), later, format!("{HEAD}data: last\n\n")],
        |_| {},
    )
    .await;
    assert!(outcome.ended.is_ok(), "{:?}", outcome.ended);
    assert_eq!(outcome.notices.len(), 1, "{:?}", outcome.notices);
    assert!(outcome.notices[0].contains("before anything came"));
}

#[tokio::test]
async fn no_content_ends_it_for_good() {
    let outcome = run(&["HTTP/1.1 204 No Content\r\n\r\n".to_owned()], |_| {}).await;
    assert!(outcome.ended.is_ok(), "{:?}", outcome.ended);
}

#[tokio::test]
async fn another_kind_of_server_is_told() {
    let outcome = run(
        &["HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n".to_owned()],
        |_| {},
    )
    .await;
    let told = outcome.ended.expect_err("no stream").to_string();
    assert!(told.contains("does not speak Server-Sent Events"), "{told}");
}

#[tokio::test]
async fn an_address_where_nobody_is_says_what_to_do() {
    // Bound, so that it is nobody else's, but not listening.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let mut settings = settings(socket.local_addr().expect("bound"));
    settings.retry_for = Some(Duration::ZERO);
    let ended = follow(settings, |_| Ok(Flow::More), |_| {}).await;
    let told = ended.expect_err("nobody is there").to_string();
    assert!(
        told.contains("cannot be reached") && told.contains("is `tidings serve` running"),
        "{told}"
    );
}

#[tokio::test]
async fn an_event_that_cannot_be_written_is_asked_for_by_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let settings = settings(listener.local_addr().expect("bound"));
    let server = tokio::spawn(answer(listener, vec![format!("{HEAD}id: 1-1.1\ndata: one\n\n")]));
    let ended = follow(settings, |_| Err(std::io::ErrorKind::BrokenPipe.into()), |_| {}).await;
    assert!(matches!(ended, Err(FollowError::Write(_))), "{ended:?}");
    assert_eq!(server.await.expect("served").len(), 1);
}

#[tokio::test]
async fn the_token_is_read_anew_for_every_stream() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "first\n").expect("written");
    let bearer = Bearer::in_file(&path);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut settings = settings(listener.local_addr().expect("bound"));
    settings.bearer = bearer;
    let server = tokio::spawn(async move {
        let mut brought = Vec::new();
        for answer in [
            format!("{HEAD}event: tidings.token_expiring\ndata: {{}}\n\n"),
            // It was replaced just before it is refused, and just after it was sent.
            problem("401 Unauthorized", "the token has expired"),
            problem("401 Unauthorized", "the token has expired"),
        ] {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let request = head(&mut socket).await;
            brought.push(header(&request, "authorization").unwrap_or("none").to_owned());
            if brought.len() == 2 {
                std::fs::write(&path, "second").expect("written");
            }
            socket.write_all(answer.as_bytes()).await.expect("a reader");
        }
        brought
    });
    let ended = follow(settings, |_| Ok(Flow::More), |_| {}).await;
    let error = ended.expect_err("the second is refused too").to_string();
    assert!(
        error.contains("401") && error.ends_with("the token has expired"),
        "{error}"
    );
    assert_eq!(
        server.await.expect("served"),
        ["Bearer first", "Bearer first", "Bearer second"]
    );
}
