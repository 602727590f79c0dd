//! The audit log, as it is written.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tidings_proto::v1::{PublishRequest, RevokeRequest, control_client::ControlClient, revoke_request::Target};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{
    Node, Rates,
    double::TestJournal,
    to,
    who::{BOSS, ORDERS, jwt_of, some, with},
};
use crate::auth::Auth;

/// What was written.
#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    /// Writes the lines of this thread: that of the test, on which everything of it runs.
    fn begin(json: bool, filter: &str) -> (Self, DefaultGuard) {
        let written = Self::default();
        let lines = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_writer(written.clone())
            .with_ansi(false);
        let guard = if json {
            tracing::subscriber::set_default(lines.json().flatten_event(true).finish())
        } else {
            tracing::subscriber::set_default(lines.finish())
        };
        (written, guard)
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The payload that no line may have.
const PAYLOAD: &str = "nobody's business";

fn full(topics: &[&str]) -> PublishRequest {
    PublishRequest {
        topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        r#type: "order".to_owned(),
        data: PAYLOAD.to_owned(),
        key: "k 1".to_owned(),
        ephemeral: false,
    }
}

async fn start() -> Node {
    Node::start_for(TestJournal::prompt(), some(), Rates::default()).await
}

#[tokio::test]
async fn nobody_passes_for_another_by_having_the_same_name() {
    let (written, _guard) = Written::begin(true, "warn,tidings::audit=info");
    let node = start().await;
    let mut client = node.client().await;
    for token in [ORDERS, &jwt_of("orders", Duration::from_secs(3_600))] {
        client.publish(with(token, to("orders/1"))).await.unwrap();
    }
    let lines: Vec<Value> = written
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let who: Vec<_> = lines.iter().map(|line| (&line["publisher"], &line["by"])).collect();
    let name = json!("orders");
    assert_eq!(who, [(&name, &json!("config")), (&name, &json!("issuer"))]);
}

#[tokio::test]
async fn a_line_says_who_published_what_where_and_what_came_of_it() {
    let (written, _guard) = Written::begin(true, "warn,tidings::audit=info");
    let node = start().await;
    let mut client = node.client().await;
    for _ in 0..2 {
        client
            .publish(with(ORDERS, full(&["orders/1", "orders/2"])))
            .await
            .unwrap();
    }
    client
        .publish(with(ORDERS, full(&["orders/1", "user:7"])))
        .await
        .unwrap_err();
    let topics: Vec<_> = (0..20).map(|n| format!("orders/{n}")).collect();
    let wide = PublishRequest {
        topics,
        ephemeral: true,
        ..to("")
    };
    client.publish(with(ORDERS, wide)).await.unwrap();
    client.publish(with(ORDERS, to("not a topic"))).await.unwrap_err();

    let lines: Vec<Value> = written
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let fields = |line: &Value, names: &[&str]| names.iter().map(|name| line[name].to_string()).collect::<Vec<_>>();
    let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(
        outcomes,
        ["published", "published", "forbidden_topic", "published", "refused"]
    );
    let who = [
        "target",
        "level",
        "publisher",
        "topics",
        "topic_count",
        "event_type",
        "key",
        "bytes",
        "ephemeral",
    ];
    let expected = [
        r#""tidings::audit""#,
        r#""INFO""#,
        r#""orders""#,
        r#""orders/1 orders/2""#,
        "2",
        r#""order""#,
        r#""k 1""#,
        "17",
        "false",
    ];
    assert_eq!(fields(&lines[0], &who), expected);
    assert!(lines[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(fields(&lines[0], &["sequences", "repeated"]), [r#""1 2""#, "0"]);
    assert_eq!(fields(&lines[1], &["sequences", "repeated"]), [r#""1 2""#, "2"]);
    assert_eq!(
        fields(&lines[2], &["sequences", "topics"]),
        ["null", r#""orders/1 user:7""#]
    );
    let first = r#""orders/0 orders/1 orders/2 orders/3 orders/4 orders/5 orders/6 orders/7""#;
    assert_eq!(
        fields(&lines[3], &["topics", "topic_count", "ephemeral"]),
        [first, "20", "true"]
    );
    assert_eq!(fields(&lines[3], &["event_type", "key"]), ["null", "null"]);
    let all = written.lines().concat();
    assert!(!all.contains(PAYLOAD) && !all.contains(ORDERS), "{all}");
}

#[tokio::test]
async fn nothing_that_is_published_begins_a_line_of_its_own() {
    let (written, _guard) = Written::begin(false, "warn,tidings::audit=info");
    let node = start().await;
    let mut client = node.client().await;
    let forged = "x\n2026-01-01T00:00:00Z  INFO tidings::audit: publish publisher=\"boss\" \u{1b}[2J\r\u{9b}";
    let request = PublishRequest {
        topics: vec![forged.to_owned(), forged.repeat(1_000)],
        r#type: forged.to_owned(),
        key: forged.to_owned(),
        ..to("")
    };
    client.publish(with(ORDERS, request)).await.unwrap_err();
    let mut control = ControlClient::connect(format!("http://{}", node.address))
        .await
        .unwrap();
    let request = RevokeRequest {
        target: Some(Target::TokenId("t \"1\"".to_owned())),
        reason: forged.to_owned(),
        ..RevokeRequest::default()
    };
    control.revoke(with(BOSS, request)).await.unwrap();
    let lines = written.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    for line in &lines {
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        assert!(line.len() < 4_096, "{}", line.len());
    }
    assert!(
        lines[1].contains("token_id=\"t \\\"1\\\"\"") && lines[1].contains("outcome=\"revoked\""),
        "{}",
        lines[1]
    );
}

#[tokio::test]
async fn whoever_leaves_before_the_answer_is_written_down_too() {
    let (written, _guard) = Written::begin(true, "warn,tidings::audit=info");
    let node = Node::start_for(TestJournal::held(), some(), Rates::default()).await;
    let mut client = node.client().await;
    let mut request = with(ORDERS, to("orders/1"));
    request.set_timeout(std::time::Duration::from_millis(50));
    client.publish(request).await.unwrap_err();
    // Which of the two gave up first is open; now the server has too.
    node.drain.cancel();
    node.served.await.unwrap().unwrap();
    let line: Value = serde_json::from_str(&written.lines()[0]).unwrap();
    assert_eq!(
        (&line["outcome"], &line["topics"]),
        (&"unanswered".into(), &"orders/1".into())
    );
}

#[tokio::test]
async fn it_can_be_left_out_and_is_where_nobody_is_asked() {
    let (written, guard) = Written::begin(true, "info,tidings::audit=off");
    let node = start().await;
    node.client().await.publish(with(ORDERS, to("orders/1"))).await.unwrap();
    drop(guard);
    assert_eq!(written.lines(), [""; 0]);
    let (written, _guard) = Written::begin(true, "info");
    let node = Node::start_for(TestJournal::prompt(), Auth::open(), Rates::default()).await;
    node.client().await.publish(with(ORDERS, to("orders/1"))).await.unwrap();
    assert!(!written.lines().concat().contains("tidings::audit"));
}
