//! Publishing as JSON, over HTTP/1.1.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc::unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{super::json::parse, Node, double::TestJournal, partly};
use crate::journal::{AppendError, DiskFull};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const FORM: &str = "application/x-www-form-urlencoded";

async fn post(node: &Node, content_type: &str, body: impl Into<Bytes>) -> Response<Bytes> {
    let request = Request::post("/v1/publish").header("content-type", content_type);
    node.http1(request.body(Full::new(body.into())).unwrap()).await
}

fn value(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}

#[tokio::test]
async fn one_object_in_one_object_out() {
    let node = Node::start(TestJournal::prompt()).await;
    let body = r#"{"topics":["user:42","orders"],"type":"order","data":"…","key":"k"}"#;
    let first = post(&node, "Application/JSON; charset=utf-8", body).await;
    assert_eq!(first.status(), 200);
    assert_eq!(first.headers()["content-type"], JSON);
    assert_eq!(
        first.body(),
        r#"{"results":[{"topic":"user:42","sequence":1,"repeated":false},{"topic":"orders","sequence":2,"repeated":false}]}"#
    );
    let bare = Request::post("/v1/publish").body(Full::from(body)).unwrap();
    let again = node.http1(bare).await;
    assert_eq!(
        value(again.body())["results"][1],
        json!({"topic": "orders", "sequence": 2, "repeated": true})
    );
    assert_eq!(node.journal.data()[0], "…");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let node = Node::start(TestJournal::prompt()).await;
    let long = format!(r#"{{"topics":["a"],"data":"{}"}}"#, "x".repeat(64 * 1024 + 1));
    let cases: [(&str, u16, Value, &str); 14] = [
        ("{}", 400, json!("topics"), "`topics` is missing"),
        (r#"{"topic":"a"}"#, 400, json!("topic"), "no member \"topic\""),
        (
            r#"{"topics":["a"],"topics":["b"]}"#,
            400,
            json!("topics"),
            "there twice",
        ),
        (
            r#"{"topics":"a"}"#,
            400,
            json!("topics"),
            "must be a list of strings; this is \"a\"",
        ),
        (
            r#"{"topics":["a",7]}"#,
            400,
            json!("topics[1]"),
            "must be a string; this is 7",
        ),
        (
            r#"{"topics":["a","ö"]}"#,
            400,
            json!("topics[1]"),
            "this one has 'ö' at byte 0",
        ),
        (r#"{"topics":["a"],"type":5}"#, 400, json!("type"), "must be a string"),
        (r#"{"topics":["a"],"key":null}"#, 400, json!("key"), "must be a string"),
        (
            r#"{"topics":["a"],"ephemeral":"yes"}"#,
            400,
            json!("ephemeral"),
            "must be true or false",
        ),
        (r#"{"topics":["a"],"data":"\u0000"}"#, 400, json!("data"), "no NUL"),
        (
            r#"{"topics":["a"],"data":"\ud800"}"#,
            400,
            json!("data"),
            "whole characters",
        ),
        (
            r#"{"topics":["a"]} {"topics":["b"]}"#,
            400,
            Value::Null,
            "application/x-ndjson",
        ),
        ("", 400, Value::Null, "not one JSON object"),
        (&long, 413, json!("data"), "at most 65536 bytes"),
    ];
    for (body, status, field, detail) in cases {
        let answer = post(&node, JSON, body.to_owned()).await;
        let start: String = body.chars().take(60).collect();
        assert_eq!(answer.status(), status, "{start}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem = value(answer.body());
        assert_eq!(
            (&problem["status"], &problem["field"]),
            (&json!(status), &field),
            "{start}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(detail),
            "{start}: {problem}"
        );
    }
    let far_too_long = post(&node, JSON, vec![b' '; 8 * 1024 * 1024]).await;
    assert_eq!(far_too_long.status(), 413);
    let answer = post(&node, JSON, &b"{\"topics\":[\"\xff\"]}"[..]).await;
    assert_eq!(
        (answer.status().as_u16(), &value(answer.body())["detail"]),
        (400, &json!("JSON is UTF-8; this is not, from byte 12 on"))
    );
    assert_eq!(node.journal.appended(), 0);
}

#[tokio::test]
async fn the_largest_legal_event_is_taken_in_either_shape() {
    let node = Node::start(TestJournal::prompt()).await;
    let topics: Vec<_> = (0..1_000).map(|n| format!("{n:0>255}")).collect();
    let data = "\u{1}".repeat(64 * 1024);
    let text = json!({"topics": topics, "data": data, "key": "k".repeat(255)}).to_string();
    for content_type in [JSON, LINES] {
        let answer = post(&node, content_type, text.clone()).await;
        assert_eq!(value(answer.body())["results"].as_array().unwrap().len(), 1_000);
    }
    assert_eq!(node.journal.data()[0], data);
}

#[tokio::test]
async fn other_methods_and_content_types_are_refused() {
    let node = Node::start(TestJournal::prompt()).await;
    let get = node
        .http1(Request::get("/v1/publish").body(Full::default()).unwrap())
        .await;
    assert_eq!(
        (get.status().as_u16(), get.headers()["allow"].as_bytes()),
        (405, &b"POST"[..])
    );
    let text = post(&node, "text/plain", r#"{"topics":["a"]}"#).await;
    assert_eq!(text.status(), 415);
    assert_eq!(value(text.body())["field"], "content-type");
    for (page, origin, status) in [
        ("origin", "http://test", 415),
        ("sec-fetch-site", "same-origin", 415),
        ("origin", "https://example.com", 403),
        ("sec-fetch-site", "cross-site", 403),
    ] {
        for content_type in [None, Some(FORM)] {
            let mut request = Request::post("/v1/publish").header(page, origin);
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let answer = node
                .http1(request.body(Full::from(r#"{"topics":["a"]}"#)).unwrap())
                .await;
            assert_eq!(answer.status(), status, "{page} {content_type:?}");
        }
    }
    assert_eq!(node.journal.appended(), 0);
}

#[tokio::test]
async fn where_the_content_type_leaves_it_open_the_body_decides() {
    let node = Node::start(TestJournal::prompt()).await;
    let mut sequence = 0;
    for content_type in [Some(JSON), Some(FORM), None] {
        let post = async |body: &'static str| {
            let mut request = Request::post("/v1/publish");
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            node.http1(request.body(Full::from(body)).unwrap()).await
        };
        let one = post("{\n  \"topics\": [\"a\"]\n}\n").await;
        sequence += 1;
        assert_eq!(one.headers()["content-type"], JSON, "{content_type:?}");
        assert_eq!(value(one.body())["results"][0]["sequence"], sequence);
        let lines = post("\n{\"topics\":[\"a\"]}\n\n{\"topics\":5}\n{\"topics\":[\"b\"]}").await;
        assert_eq!(lines.headers()["content-type"], LINES, "{content_type:?}");
        let answers: Vec<_> = lines
            .body()
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(value)
            .collect();
        assert_eq!(answers.len(), 3);
        assert_eq!(answers[0]["results"][0]["sequence"], sequence + 1);
        assert_eq!(answers[1]["line"], 4);
        assert_eq!(answers[2]["results"][0]["sequence"], sequence + 2);
        sequence += 2;
    }
}

#[tokio::test]
async fn what_the_journal_says_is_passed_on() {
    let node = Node::start(TestJournal::prompt()).await;
    let full = AppendError::DiskFull(DiskFull {
        used_percent: 96,
        high_water_percent: 95,
        available: 1 << 30,
        reserve: 1 << 28,
    });
    for (error, status, wait) in [
        (full, 429, Some("30")),
        (AppendError::ReadOnly { cause: "x".into() }, 503, Some("30")),
        (AppendError::Closed, 503, Some("1")),
        (AppendError::Unknown { cause: "x".into() }, 500, None),
    ] {
        node.journal.refuse(error.clone());
        let answer = post(&node, JSON, r#"{"topics":["a"]}"#).await;
        assert_eq!(answer.status(), status);
        assert_eq!(
            answer.headers().get("retry-after").map(|value| value.to_str().unwrap()),
            wait
        );
        assert_eq!(value(answer.body())["detail"], error.to_string());
    }
}

#[tokio::test]
async fn what_only_some_topics_have_is_a_problem_that_says_which() {
    let node = Node::start(TestJournal::prompt()).await;
    node.journal.refuse(partly());
    let line = r#"{"topics":["a","b","c"]}"#;
    let answer = post(&node, JSON, line).await;
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(answer.headers()["retry-after"], "1");
    let alone = value(answer.body());
    let streamed = post(&node, LINES, line).await;
    assert_eq!(streamed.status(), 200);
    assert_eq!(value(streamed.body()), json!({"line": 1, "error": alone}));
    assert_eq!((&alone["type"], &alone["status"]), (&json!("about:blank"), &json!(500)));
    assert!(alone["detail"].as_str().unwrap().contains("1 of 3 topics"), "{alone}");
    let results = alone["results"].as_array().unwrap();
    assert_eq!(results[0], json!({"topic": "a", "sequence": 7, "repeated": true}));
    for (result, topic, status) in [(&results[1], "b", 503), (&results[2], "c", 500)] {
        assert_eq!(
            (&result["topic"], &result["error"]["status"]),
            (&json!(topic), &json!(status))
        );
        assert_eq!(result.get("sequence"), None, "{result}");
    }
}

#[tokio::test]
async fn ten_thousand_lines_are_answered_in_order_each_for_itself() {
    let node = Node::start(TestJournal::prompt()).await;
    let mut body = String::new();
    for line in 1..=10_000 {
        let topic = if line % 7 == 0 { "no good" } else { "good" };
        body.push_str(&format!("{{\"topics\":[\"{topic}\"],\"data\":{{\"line\": {line}}}}}\n"));
    }
    let answer = post(&node, LINES, body).await;
    assert_eq!(answer.headers()["content-type"], LINES);
    let mut sequence = 0;
    let mut count = 0;
    for (number, text) in (1..).zip(
        answer
            .body()
            .split(|&byte| byte == b'\n')
            .filter(|text| !text.is_empty()),
    ) {
        let answer = value(text);
        if number % 7 == 0 {
            assert_eq!(
                (&answer["line"], &answer["error"]["field"]),
                (&json!(number), &json!("topics[0]"))
            );
            assert_eq!(answer["error"]["status"], 400);
        } else {
            sequence += 1;
            assert_eq!(
                answer,
                json!({"results": [{"topic": "good", "sequence": sequence, "repeated": false}]})
            );
        }
        count = number;
    }
    assert_eq!(count, 10_000);
    let published: Vec<_> = (1..=10_000)
        .filter(|line| line % 7 != 0)
        .map(|line| format!("{{\"line\":{line}}}"))
        .collect();
    assert_eq!(node.journal.data(), published);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_the_next_one_is_read() {
    let node = Node::start(TestJournal::prompt()).await;
    let body = format!("\n{}\n{{\"topics\":[\"a\"]}}", "x".repeat(4 * 1024 * 1024));
    let answer = post(&node, LINES, body).await;
    let lines: Vec<_> = answer
        .body()
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(value)
        .collect();
    assert_eq!(
        (&lines[0]["line"], &lines[0]["error"]["status"]),
        (&json!(2), &json!(413))
    );
    assert_eq!(lines[1]["results"][0]["sequence"], 1);
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn lines_are_answered_while_more_are_sent_and_a_drain_says_where_it_stopped() {
    let node = Node::start(TestJournal::prompt()).await;
    let stream = TcpStream::connect(node.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let (lines, receiver) = unbounded_channel::<Result<_, std::convert::Infallible>>();
    let send = |text: &'static str| {
        lines
            .send(Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes()))))
            .unwrap();
    };
    let request = Request::post("/v1/publish")
        .header("host", "test")
        .header("content-type", LINES);
    let request = request
        .body(StreamBody::new(UnboundedReceiverStream::new(receiver)))
        .unwrap();
    send("{\"topics\":[\"a\"]}\n{\"top");
    let mut answers = sender.send_request(request).await.unwrap().into_body();
    let mut next = async || value(&answers.frame().await.unwrap().unwrap().into_data().unwrap());
    assert_eq!(next().await["results"][0]["sequence"], 1);
    send("ics\":[\"b\"]}\n");
    assert_eq!(next().await["results"][0]["topic"], "b");
    node.drain.cancel();
    let last = next().await;
    assert_eq!((&last["line"], &last["error"]["status"]), (&json!(3), &json!(503)));
    assert!(answers.frame().await.is_none());
    drop(lines);
    node.served.await.unwrap().unwrap();
    connection.abort();
}

#[test]
fn data_keeps_its_order_and_its_digits() {
    let text = r#" {"topics" : ["a"], "d\u0061ta" : { "z" : [ 1.10 , 1e400, 123456789012345678901234567890 ], "a b" : "\" \\" , "\u00e4":null } } "#;
    let draft = parse(text.as_bytes()).unwrap();
    assert_eq!(
        draft.data,
        r#"{"z":[1.10,1e400,123456789012345678901234567890],"a b":"\" \\","\u00e4":null}"#
    );
    assert_eq!(parse(br#"{"topics":[],"data":null}"#).unwrap().data, "null");
    assert_eq!(parse(br#"{"topics":[]}"#).unwrap().data, "");
    assert_eq!(parse(br#"{"topics":[],"data":" a\n"}"#).unwrap().data, " a\n");
}

/// Any JSON value, a few levels deep.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_an_event_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn almost_events_are_an_event_or_an_error(text in r#"\{("(topics|data|key|typ\\u0065|x)":(\["a"\]|"\\[un"0]{0,4}"|[0-9.e-]{1,4}|\{|null| )[,}]?){0,5}\}?"#) {
        let _ = parse(text.as_bytes());
    }

    #[test]
    fn data_comes_out_as_it_went_in(data in values(), pretty in any::<bool>()) {
        let object = json!({"topics": ["a"], "data": data});
        let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) }.unwrap();
        let draft = parse(text.as_bytes()).unwrap();
        match &data {
            Value::String(text) => prop_assert_eq!(&draft.data, text),
            other => prop_assert_eq!(draft.data, serde_json::to_string(other).unwrap()),
        }
    }
}
