//! Who may publish what, from the first call to the end of a long stream.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tidings_proto::v1::{PublishRequest, PublishStreamResponse, publish_stream_response::Outcome};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use super::{
    Node, Rates,
    double::TestJournal,
    to,
    who::{BOSS, ORDERS, jwt, reason, some, with},
};
use crate::{
    auth::{Revocation, Target},
    model::UnixMillis,
};

const AN_HOUR: Duration = Duration::from_secs(3_600);

async fn start(journal: TestJournal) -> Node {
    Node::start_for(journal, some(), Rates::default()).await
}

async fn open(node: &Node, token: &str) -> (UnboundedSender<PublishRequest>, Streaming<PublishStreamResponse>) {
    let (sender, receiver) = unbounded_channel();
    let requests = with(token, UnboundedReceiverStream::new(receiver));
    let answers = node.client().await.publish_stream(requests).await.unwrap();
    (sender, answers.into_inner())
}

async fn post(node: &Node, path: &str, headers: &[(&str, &str)], body: &'static str) -> Response<Bytes> {
    let mut request = Request::post(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    node.http1(request.body(Full::from(body)).unwrap()).await
}

fn both(first: &str, second: &str) -> PublishRequest {
    PublishRequest {
        topics: vec![first.to_owned(), second.to_owned()],
        ..to("")
    }
}

#[tokio::test]
async fn whoever_says_nothing_is_asked_who_they_are() {
    let node = start(TestJournal::prompt()).await;
    let mut client = node.client().await;
    let unary = client.publish(to("orders/1")).await.unwrap_err();
    let stream = client.publish_stream(tokio_stream::empty()).await.unwrap_err();
    for status in [unary, stream] {
        assert_eq!((status.code(), &*reason(&status)), (Code::Unauthenticated, "NO_TOKEN"));
    }
    let wrong = client.publish(with("another", to("orders/1"))).await.unwrap_err();
    assert_eq!(
        (wrong.code(), &*reason(&wrong)),
        (Code::Unauthenticated, "MALFORMED_TOKEN")
    );
    let body = r#"{"topics":["orders/1"]}"#;
    let token = jwt(AN_HOUR);
    let (in_query, in_cookie) = (
        format!("/v1/publish?token={token}"),
        format!("tidings_token={token}; token={token}"),
    );
    // What a page can make a browser send is not how publishers say who they are.
    for (path, headers) in [
        ("/v1/publish", &[][..]),
        (&in_query, &[]),
        ("/v1/publish", &[("cookie", in_cookie.as_str())]),
    ] {
        let answer = post(&node, path, headers, body).await;
        assert_eq!(answer.status(), 401, "{path} {headers:?}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"tidings\"");
    }
    let bearer = format!("Bearer {token}");
    let twice = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    assert_eq!(post(&node, "/v1/publish", &twice, body).await.status(), 400);
    assert_eq!(node.journal.appended(), 0);
    assert_eq!(post(&node, "/v1/publish", &twice[..1], body).await.status(), 200);
    assert_eq!(node.journal.appended(), 1);
}

#[tokio::test]
async fn one_forbidden_topic_refuses_the_whole_publish_and_no_other() {
    let node = start(TestJournal::prompt()).await;
    let mut client = node.client().await;
    let mixed = both("orders/1", "salaries");
    let status = client.publish(with(ORDERS, mixed.clone())).await.unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::PermissionDenied, "FORBIDDEN_TOPIC")
    );
    let details = status.get_error_details();
    let field = &details.bad_request().unwrap().field_violations[0].field;
    assert_eq!(field, "topics[1]");
    assert_eq!(node.journal.appended(), 0, "nothing of it is published");

    for token in [ORDERS, &jwt(AN_HOUR)] {
        let (sender, mut answers) = open(&node, token).await;
        for request in [to("orders/1"), mixed.clone(), to("user:7"), to("orders/2")] {
            sender.send(request).unwrap();
        }
        drop(sender);
        let mut outcomes = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            outcomes.push(match answer.outcome.unwrap() {
                Outcome::Published(_) => String::new(),
                Outcome::Error(error) => {
                    assert_eq!(error.code, i32::from(Code::PermissionDenied));
                    error.field
                }
            });
        }
        assert_eq!(outcomes, ["", "topics[1]", "topics[0]", ""]);
    }
    assert_eq!(node.journal.topics(), ["orders/1", "orders/2", "orders/1", "orders/2"]);

    let bearer = format!("Bearer {ORDERS}");
    let headers = [("authorization", bearer.as_str())];
    let answer = post(&node, "/v1/publish", &headers, r#"{"topics":["orders/1","salaries"]}"#).await;
    let problem: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(
        (answer.status().as_u16(), &problem["field"]),
        (403, &json!("topics[1]"))
    );
    let lines = "{\"topics\":[\"orders/1\",\"salaries\"]}\n{\"topics\":[\"orders/3\"]}\n";
    let answer = post(&node, "/v1/publish", &headers, lines).await;
    let lines: Vec<Value> = answer
        .body()
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines[0]["error"]["status"], 403);
    assert_eq!(lines[1]["results"][0]["topic"], "orders/3");
    assert_eq!(node.journal.appended(), 5);
}

#[tokio::test]
async fn topics_of_the_service_itself_are_nobodys() {
    let asking = start(TestJournal::prompt()).await;
    let open = Node::start(TestJournal::prompt()).await;
    for (node, token) in [(&asking, BOSS), (&open, "whatever")] {
        for topic in ["tidings.revocations", "tidings."] {
            let status = node
                .client()
                .await
                .publish(with(token, both("a", topic)))
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{topic}");
            let details = status.get_error_details();
            assert_eq!(details.bad_request().unwrap().field_violations[0].field, "topics[1]");
        }
        assert_eq!(node.journal.appended(), 0);
    }
    // It is only a name.
    open.client().await.publish(to("tidings")).await.unwrap();
}

/// Sends two, and takes neither answer before `over` has ended the stream; they come all the same, and then the end.
async fn ends(token: &str, over: impl AsyncFnOnce(&Node)) -> (Code, String) {
    let node = start(TestJournal::held()).await;
    let (sender, mut answers) = open(&node, token).await;
    sender.send(to("orders/1")).unwrap();
    sender.send(to("orders/2")).unwrap();
    node.journal.until_appended(2).await;
    over(&node).await;
    node.journal.release();
    for _ in 0..2 {
        let answer = answers.message().await.unwrap().unwrap();
        assert!(matches!(answer.outcome, Some(Outcome::Published(_))));
    }
    let status = answers.message().await.unwrap_err();
    assert_eq!(node.journal.appended(), 2);
    // The caller is told only now: it could have gone on sending.
    drop(sender);
    (status.code(), reason(&status))
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let ended = ends(&jwt(Duration::from_secs(2)), async |_| {}).await;
    assert_eq!(ended, (Code::Unauthenticated, "EXPIRED_TOKEN".to_owned()));
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked_with_everything_answered() {
    let until = UnixMillis(u64::MAX);
    let token = Target::token("c1").unwrap();
    let user = Target::user("carol", until).unwrap();
    for target in [token, user, Target::All { issued_before: until }] {
        let revoke = async |node: &Node| {
            // What is of others is of no consequence.
            let other = Target::token("c2").unwrap();
            for target in [other, target] {
                node.auth
                    .revocations()
                    .add(Revocation { target, until }, UnixMillis::now());
            }
        };
        let ended = ends(&jwt(AN_HOUR), revoke).await;
        assert_eq!(ended, (Code::Unauthenticated, "REVOKED_TOKEN".to_owned()));
    }
}

#[tokio::test]
async fn a_body_of_lines_with_a_revoked_token_is_refused() {
    let node = start(TestJournal::prompt()).await;
    let token = jwt(AN_HOUR);
    let until = UnixMillis(u64::MAX);
    let target = Target::token("c1").unwrap();
    node.auth
        .revocations()
        .add(Revocation { target, until }, UnixMillis::now());
    let bearer = format!("Bearer {token}");
    let answer = post(
        &node,
        "/v1/publish",
        &[("authorization", &bearer)],
        "{\"topics\":[\"orders/1\"]}\n",
    )
    .await;
    assert_eq!(answer.status(), 401);
    assert_eq!(
        answer.headers()["www-authenticate"],
        "Bearer realm=\"tidings\", error=\"invalid_token\""
    );
    assert_eq!(node.journal.appended(), 0);
}

/// Sends lines without reading an answer until the node has had enough of them, then takes the token back, and only then reads.
#[tokio::test]
async fn every_line_that_was_taken_is_answered_however_late_the_answers_are_read() {
    let node = start(TestJournal::prompt()).await;
    let (mut answers, mut sender) = TcpStream::connect(node.address).await.unwrap().into_split();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n",
        jwt(AN_HOUR)
    );
    let lines = "{\"topics\":[\"orders/1\"]}\n".repeat(100);
    let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
    sender.write_all(head.as_bytes()).await.unwrap();
    let (stopped, is_stopped) = tokio::sync::oneshot::channel::<()>();
    let sending = tokio::spawn(async move {
        let mut stopped = Some(stopped);
        // Until nothing more fits: what is written then is read after the end only.
        loop {
            match tokio::time::timeout(Duration::from_millis(500), sender.write_all(chunk.as_bytes())).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return sender,
                Err(_) => drop(stopped.take()),
            }
        }
    });
    let _ = is_stopped.await;
    let until = UnixMillis(u64::MAX);
    let target = Target::token("c1").unwrap();
    node.auth
        .revocations()
        .add(Revocation { target, until }, UnixMillis::now());
    let mut text = Vec::new();
    let mut buffer = [0; 4_096];
    // The end may be a reset, since it goes on sending; what was answered comes before it.
    while let Ok(bytes @ 1..) = answers.read(&mut buffer).await {
        text.extend_from_slice(&buffer[..bytes]);
    }
    sending.abort();
    let text = String::from_utf8(text).unwrap();
    let answered = text.matches("{\"results\":").count();
    assert_eq!(answered, node.journal.appended());
    assert!(
        text.contains("has been revoked") && text.ends_with("\r\n0\r\n\r\n"),
        "{answered}"
    );
}

#[tokio::test]
async fn tokens_wait_until_what_is_revoked_is_known_and_others_do_not() {
    let node = start(TestJournal::prompt()).await;
    node.auth.revocations().set_behind();
    let mut client = node.client().await;
    let status = client.publish(with(&jwt(AN_HOUR), to("orders/1"))).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "NOT_READY"));
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
    client.publish(with(ORDERS, to("orders/1"))).await.unwrap();
    node.auth.revocations().set_level();
    client.publish(with(&jwt(AN_HOUR), to("orders/1"))).await.unwrap();
}

/// A call whose message never comes.
async fn call_without_end(node: &Node, path: &str) -> Code {
    let socket = TcpStream::connect(node.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
        .await
        .unwrap();
    let served = tokio::spawn(connection);
    // It says that it has a megabyte, and leaves it at that.
    let begin = Bytes::from_static(&[0, 0, 16, 0, 0, b'x']);
    let body = tokio_stream::once(begin).chain(tokio_stream::pending());
    let body = StreamBody::new(body.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
    let request = Request::post(format!("http://{}{path}", node.address)).header("content-type", "application/grpc");
    let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
    served.abort();
    Code::from_bytes(answer.headers()["grpc-status"].as_bytes())
}

#[tokio::test]
async fn the_messages_of_strangers_are_not_waited_for() {
    let node = start(TestJournal::prompt()).await;
    for path in [
        "/tidings.v1.Publisher/Publish",
        "/tidings.v1.Publisher/PublishStream",
        "/tidings.v1.Control/Revoke",
        "/tidings.v1.Control/ListRevocations",
    ] {
        let answer = tokio::time::timeout(AN_HOUR / 60, call_without_end(&node, path));
        assert_eq!(answer.await, Ok(Code::Unauthenticated), "{path}");
    }
}
