//! Publishing over gRPC, with tonic's client and by hand.

use prost::Message as _;
use tidings_proto::v1::{PublishRequest, PublishStreamResponse, TopicResult, publish_stream_response::Outcome};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming, codec::CompressionEncoding};
use tonic_types::StatusExt as _;

use super::{super::Settings, Node, double::TestJournal, partly, to};
use crate::{
    journal::{AppendError, DiskFull},
    model::{Layout, Slot},
};

fn result(topic: &str, sequence: u64, repeated: bool) -> TopicResult {
    TopicResult {
        topic: topic.to_owned(),
        sequence,
        repeated,
        error: None,
    }
}

/// Opens a stream on which requests can be sent at will. Its head comes before any request is sent.
async fn open_stream(node: &Node) -> (UnboundedSender<PublishRequest>, Streaming<PublishStreamResponse>) {
    let (sender, receiver) = unbounded_channel();
    let answers = node
        .client()
        .await
        .publish_stream(UnboundedReceiverStream::new(receiver))
        .await
        .unwrap();
    (sender, answers.into_inner())
}

fn sequence(answer: PublishStreamResponse) -> u64 {
    match answer.outcome {
        Some(Outcome::Published(published)) => published.results[0].sequence,
        other => panic!("not published: {other:?}"),
    }
}

async fn refused(node: &Node, request: PublishRequest) -> Status {
    node.client().await.publish(request).await.expect_err("must be refused")
}

#[tokio::test]
async fn one_result_per_topic_in_order_and_a_repeat_is_told() {
    let node = Node::start(TestJournal::prompt()).await;
    let mut client = node.client().await;
    let request = PublishRequest {
        topics: vec!["b".into(), "a".into()],
        key: "k".into(),
        ..to("")
    };
    let first = client.publish(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.results, [result("b", 1, false), result("a", 2, false)]);
    let wider = PublishRequest {
        topics: vec!["a".into(), "c".into()],
        ..request
    };
    let again = client.publish(wider).await.unwrap().into_inner();
    assert_eq!(again.results, [result("a", 2, true), result("c", 3, false)]);
}

#[tokio::test]
async fn what_is_invalid_is_refused_whole_with_its_field() {
    let node = Node::start(TestJournal::prompt()).await;
    let cases = [
        (PublishRequest::default(), "topics"),
        (
            PublishRequest {
                topics: vec!["a".into(); 2],
                ..to("")
            },
            "topics[1]",
        ),
        (
            PublishRequest {
                topics: vec![String::from("a"); 1_001],
                ..to("")
            },
            "topics",
        ),
        (
            PublishRequest {
                r#type: "error".into(),
                ..to("a")
            },
            "type",
        ),
        (
            PublishRequest {
                data: "x".repeat(64 * 1024 + 1),
                ..to("a")
            },
            "data",
        ),
        (
            PublishRequest {
                data: "x".repeat(1024 * 1024),
                ..to("a")
            },
            "data",
        ),
        (
            PublishRequest {
                data: "\0".into(),
                ..to("a")
            },
            "data",
        ),
        (
            PublishRequest {
                key: "\n".into(),
                ..to("a")
            },
            "key",
        ),
        (
            PublishRequest {
                key: "k".into(),
                ephemeral: true,
                ..to("a")
            },
            "key",
        ),
    ];
    for (request, field) in cases {
        let status = refused(&node, request).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        let details = status.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(
            (violation.field.as_str(), violation.description.as_str()),
            (field, status.message())
        );
        assert_eq!(details.error_info().unwrap().domain, "tidings");
    }
    assert_eq!(node.journal.appended(), 0);
}

#[tokio::test]
async fn the_largest_legal_publish_is_taken_and_what_never_could_be_is_not_read() {
    let node = Node::start(TestJournal::prompt()).await;
    let topics: Vec<_> = (0..1_000).map(|n| format!("{n:0>255}")).collect();
    let largest = PublishRequest {
        topics,
        data: "x".repeat(64 * 1024),
        key: "k".repeat(255),
        ..PublishRequest::default()
    };
    let answer = node.client().await.publish(largest).await.unwrap().into_inner();
    assert_eq!(answer.results.len(), 1_000);
    let status = refused(
        &node,
        PublishRequest {
            data: "x".repeat(Settings::MESSAGE_BYTES),
            ..to("a")
        },
    )
    .await;
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(
        status.message().contains(&Settings::MESSAGE_BYTES.to_string()),
        "{status}"
    );
}

#[tokio::test]
async fn compressed_requests_are_read_and_one_that_would_burst_is_not() {
    let node = Node::start(TestJournal::prompt()).await;
    let mut client = node.client().await.send_compressed(CompressionEncoding::Gzip);
    client.publish(to("a")).await.unwrap();
    assert_eq!(node.journal.data(), ["x"]);
    let bomb = PublishRequest {
        data: "x".repeat(8 * 1024 * 1024),
        ..to("a")
    };
    assert_eq!(client.publish(bomb).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn what_the_journal_says_is_passed_on() {
    let node = Node::start(TestJournal::prompt()).await;
    let cause = || "no space".to_owned();
    let full = AppendError::DiskFull(DiskFull {
        used_percent: 96,
        high_water_percent: 95,
        available: 1 << 30,
        reserve: 1 << 28,
    });
    let cases = [
        (full, Code::ResourceExhausted, "DISK_FULL", true),
        (
            AppendError::ReadOnly { cause: cause() },
            Code::Unavailable,
            "READ_ONLY",
            true,
        ),
        (AppendError::Closed, Code::Unavailable, "CLOSED", true),
        (
            AppendError::Unknown { cause: cause() },
            Code::Unknown,
            "UNKNOWN_OUTCOME",
            false,
        ),
    ];
    for (error, code, reason, waits) in cases {
        node.journal.refuse(error.clone());
        let status = refused(&node, to("a")).await;
        assert_eq!((status.code(), status.message()), (code, error.to_string().as_str()));
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, reason);
        assert_eq!(details.retry_info().is_some(), waits, "{reason}");
    }
}

#[tokio::test]
async fn what_only_some_topics_have_is_told_topic_by_topic() {
    let node = Node::start(TestJournal::prompt()).await;
    node.journal.refuse(partly());
    let request = PublishRequest {
        topics: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
        ..to("a")
    };
    let mut client = node.client().await;
    let alone = client.publish(request.clone()).await.unwrap().into_inner();
    let mut answers = client
        .publish_stream(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let Some(Outcome::Published(streamed)) = answers.message().await.unwrap().unwrap().outcome else {
        panic!("no results")
    };
    assert_eq!(alone, streamed);
    let told: Vec<_> = alone
        .results
        .iter()
        .map(|result| {
            let code = result.error.as_ref().map(|error| Code::from(error.code));
            (result.topic.as_str(), result.sequence, result.repeated, code)
        })
        .collect();
    let expected = [
        ("a", 7, true, None),
        ("b", 0, false, Some(Code::Unavailable)),
        ("c", 0, false, Some(Code::Unknown)),
    ];
    assert_eq!(told, expected);
    let error = alone.results[1].error.as_ref().unwrap();
    assert_eq!(error.retry_after_ms, 1_000);
    assert!(error.message.contains("shard 3"), "{}", error.message);
}

#[tokio::test]
async fn text_that_is_not_utf8_is_the_callers_mistake() {
    let node = Node::start(TestJournal::prompt()).await;
    let mut message = to("a").encode_to_vec();
    let at = message.iter().position(|&byte| byte == b'x').unwrap();
    message[at] = 0xff;
    let (code, text) = node.raw_grpc(&message, None).await;
    assert_eq!(code, "3");
    assert!(text.contains("PublishRequest.data"), "{text}");
}

#[tokio::test]
async fn a_deadline_that_passes_leaves_the_outcome_open() {
    let node = Node::start(TestJournal::held()).await;
    let (code, text) = node.raw_grpc(&to("a").encode_to_vec(), Some("30m")).await;
    assert_eq!(code, "4");
    assert!(text.contains("outcome is unknown"), "{text}");
    assert_eq!(node.journal.appended(), 1, "the write was under way");
}

#[tokio::test]
async fn ephemeral_events_go_to_the_bus_and_nowhere_else() {
    let node = Node::start(TestJournal::prompt()).await;
    let request = PublishRequest {
        topics: vec!["user:42".into(), "orders".into()],
        r#type: "typing".into(),
        ephemeral: true,
        ..to("")
    };
    let answer = node.client().await.publish(request).await.unwrap().into_inner();
    assert_eq!(
        answer.results,
        [result("user:42", 0, false), result("orders", 0, false)]
    );
    let layout = Layout::new(1_024, 3).unwrap();
    let sent = node.bus.ephemeral_events();
    let sent: Vec<_> = sent
        .iter()
        .map(|(slot, event)| (*slot, event.topic.as_str(), event.seq))
        .collect();
    let slot = |topic| Slot(layout.slot(topic));
    assert_eq!(
        sent,
        [(slot("user:42"), "user:42", None), (slot("orders"), "orders", None)]
    );
    assert_eq!(node.journal.appended(), 0);
}

#[tokio::test]
async fn a_stream_takes_its_places_without_waiting_and_answers_in_order() {
    let node = Node::start(TestJournal::held()).await;
    let (requests, mut answers) = open_stream(&node).await;
    let topics: Vec<_> = (0..200).map(|n| format!("t{n}")).collect();
    for topic in &topics {
        requests.send(to(topic)).unwrap();
    }
    // All of them have their place before any is durable.
    node.journal.until_appended(200).await;
    assert_eq!(node.journal.topics(), topics);
    node.journal.release();
    for expected in 1..=200 {
        assert_eq!(sequence(answers.message().await.unwrap().unwrap()), expected);
    }
    drop(requests);
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_refused_request_is_answered_in_its_turn_and_the_stream_goes_on() {
    let node = Node::start(TestJournal::held()).await;
    let (requests, mut answers) = open_stream(&node).await;
    for n in 0..9 {
        requests
            .send(if n % 3 == 1 { to("no good") } else { to("good") })
            .unwrap();
    }
    node.journal.until_appended(6).await;
    node.journal.release();
    for n in 0..9 {
        match answers.message().await.unwrap().unwrap().outcome.unwrap() {
            Outcome::Published(_) => assert_ne!(n % 3, 1, "{n}"),
            Outcome::Error(error) => {
                assert_eq!(n % 3, 1, "{n}");
                assert_eq!(
                    (error.code, error.field.as_str()),
                    (Code::InvalidArgument.into(), "topics[0]")
                );
                assert_eq!(error.retry_after_ms, 0);
            }
        }
    }
}

#[tokio::test]
async fn a_malformed_message_ends_a_stream_after_the_answers_before_it() {
    let node = Node::start(TestJournal::held()).await;
    let (requests, mut answers) = open_stream(&node).await;
    requests.send(to("a")).unwrap();
    requests
        .send(PublishRequest {
            data: "x".repeat(Settings::MESSAGE_BYTES),
            ..to("b")
        })
        .unwrap();
    node.journal.until_appended(1).await;
    node.journal.release();
    assert_eq!(sequence(answers.message().await.unwrap().unwrap()), 1);
    assert_eq!(answers.message().await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_drain_answers_what_was_taken_and_then_ends_the_stream() {
    let node = Node::start(TestJournal::held()).await;
    let mut before = node.client().await;
    let (requests, mut answers) = open_stream(&node).await;
    for _ in 0..5 {
        requests.send(to("a")).unwrap();
    }
    node.journal.until_appended(5).await;
    node.drain.cancel();
    node.journal.release();
    for expected in 1..=5 {
        assert_eq!(sequence(answers.message().await.unwrap().unwrap()), expected);
    }
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("draining"), "{status}");
    assert!(status.get_error_details().retry_info().is_some());
    assert_eq!(before.publish(to("a")).await.unwrap_err().code(), Code::Unavailable);
    node.served.await.unwrap().unwrap();
    assert_eq!(node.journal.appended(), 5);
}
