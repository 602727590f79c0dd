//! Who publishes too much waits, and is told for how long.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use tidings_proto::v1::{PublishRequest, publish_stream_response::Outcome};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    Node, Rates,
    double::TestJournal,
    to,
    who::{BOSS, ORDERS, jwt_of, reason, some, with},
};

/// One event a second: who published many owes so many seconds.
const RATES: Rates = Rates { events: 1, bytes: 0 };

/// A publish to so many topics.
fn fan_out(topics: usize) -> PublishRequest {
    PublishRequest {
        topics: (0..topics).map(|n| format!("orders/{n}")).collect(),
        ..to("")
    }
}

fn wait(status: &Status) -> Duration {
    assert_eq!(
        (status.code(), &*reason(status)),
        (Code::ResourceExhausted, "OVER_QUOTA")
    );
    status.get_error_details().retry_info().unwrap().retry_delay.unwrap()
}

#[tokio::test]
async fn a_fan_out_counts_once_for_each_topic_and_each_publisher_has_its_own() {
    let node = Node::start_for(TestJournal::prompt(), some(), RATES).await;
    let mut client = node.client().await;
    client.publish(with(ORDERS, fan_out(1_000))).await.unwrap();
    let status = client.publish(with(ORDERS, fan_out(1))).await.unwrap_err();
    // 999 are owed, and one is to be there; some time has passed.
    let owed = wait(&status);
    assert!(
        owed > Duration::from_secs(900) && owed <= Duration::from_secs(1_000),
        "{owed:?}"
    );
    client.publish(with(BOSS, fan_out(1))).await.unwrap();
    // Who is called so by an issuer is somebody else.
    let namesake = jwt_of("orders", Duration::from_secs(3_600));
    client.publish(with(&namesake, fan_out(1))).await.unwrap();
    // What may not be published costs nothing.
    let forbidden = with(BOSS, to("user:7"));
    assert_eq!(
        client.publish(forbidden).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(node.journal.appended(), 3);
}

#[tokio::test]
async fn bytes_count_once_for_each_topic_too() {
    let rates = Rates { events: 0, bytes: 1 };
    let node = Node::start_for(TestJournal::prompt(), some(), rates).await;
    let mut client = node.client().await;
    let large = PublishRequest {
        data: "x".repeat(500),
        ..fan_out(2)
    };
    client.publish(with(ORDERS, large)).await.unwrap();
    let owed = wait(&client.publish(with(ORDERS, fan_out(1))).await.unwrap_err());
    assert!(
        owed > Duration::from_secs(900) && owed <= Duration::from_secs(1_000),
        "{owed:?}"
    );
}

#[tokio::test]
async fn in_a_stream_each_is_answered_in_its_turn() {
    let node = Node::start_for(TestJournal::held(), some(), RATES).await;
    let requests = [fan_out(100), fan_out(1), to("user:7"), fan_out(2)];
    let requests = with(ORDERS, tokio_stream::iter(requests));
    let mut answers = node.client().await.publish_stream(requests).await.unwrap().into_inner();
    node.journal.until_appended(1).await;
    node.journal.release();
    let mut codes = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        codes.push(match answer.outcome.unwrap() {
            Outcome::Published(_) => Code::Ok,
            Outcome::Error(error) => {
                let code = Code::from(error.code);
                assert_eq!(
                    code == Code::ResourceExhausted,
                    error.retry_after_ms > 90_000,
                    "{error:?}"
                );
                code
            }
        });
    }
    let over = Code::ResourceExhausted;
    assert_eq!(codes, [Code::Ok, over, Code::PermissionDenied, over]);
}

#[tokio::test]
async fn over_http_it_is_429_and_where_nobody_is_asked_the_address_pays() {
    let node = Node::start_for(TestJournal::prompt(), crate::auth::Auth::open(), RATES).await;
    node.client().await.publish(fan_out(100)).await.unwrap();
    let request = Request::post("/v1/publish").header("content-type", "application/json");
    let request = request.body(Full::from(r#"{"topics":["a"]}"#)).unwrap();
    let answer = node.http1(request).await;
    assert_eq!(answer.status(), 429);
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((90..=100).contains(&wait), "{wait}");
}
