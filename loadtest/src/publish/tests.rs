use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use futures::{Stream, StreamExt as _, stream::BoxStream};
use tidings_proto::v1::{
    PublishError, PublishRequest, PublishResponse, PublishStreamResponse, TopicResult,
    publish_stream_response::Outcome,
    publisher_server::{self, PublisherServer},
};
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status, Streaming, transport::server::TcpIncoming};

use super::*;
use crate::{raw, wire::stream::EventStream};

/// A server that keeps everything in memory, and has its moods.
#[derive(Clone, Default)]
struct Double {
    /// Every n-th event is refused for now; every n-th ends the call, after it was kept.
    busy: usize,
    breaks: usize,
    /// Whoever shows no such token is refused.
    token: Option<&'static str>,
    asked: Arc<AtomicUsize>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    keys: HashSet<String>,
    events: Vec<Payload>,
}

enum Mood {
    Kept { is_repeated: bool },
    Busy,
    Broken,
}

impl Double {
    async fn start(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let incoming = TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(PublisherServer::new(self));
        tokio::spawn(server.serve_with_incoming(incoming));
        address
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let shown = request.metadata().get("authorization");
        let shown = shown.and_then(|value| value.to_str().ok());
        match self.token {
            Some(token) if shown != Some(&format!("Bearer {token}")) => Err(Status::unauthenticated("who?")),
            _ => Ok(()),
        }
    }

    fn take(&self, request: &PublishRequest) -> Mood {
        let asked = self.asked.fetch_add(1, SeqCst) + 1;
        let is_time = |every: usize| every > 0 && asked.is_multiple_of(every);
        if is_time(self.busy) {
            return Mood::Busy;
        }
        let event = Payload::find(request.data.as_bytes()).expect("a payload");
        assert_eq!(request.topics, [Template::tidings().name(event.key)]);
        let mut kept = self.kept.lock().expect("whole");
        let is_repeated = !request.key.is_empty() && !kept.keys.insert(request.key.clone());
        if !is_repeated {
            kept.events.push(event);
        }
        if is_time(self.breaks) {
            Mood::Broken
        } else {
            Mood::Kept { is_repeated }
        }
    }

    /// Demands that each topic has its events once and in order.
    fn check(&self, tally: &Tally) {
        let mut counts = Counts::default();
        for event in &self.kept.lock().expect("whole").events {
            assert_eq!(event.number, counts.next(event.key), "{:?}", event.key);
        }
        assert_eq!(counts.0, tally.topics);
        assert_eq!(tally.published, tally.acknowledged);
    }
}

fn published(is_repeated: bool) -> PublishResponse {
    PublishResponse {
        results: vec![TopicResult {
            repeated: is_repeated,
            ..TopicResult::default()
        }],
    }
}

#[tonic::async_trait]
impl publisher_server::Publisher for Double {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        self.admit(&request)?;
        match self.take(request.get_ref()) {
            Mood::Kept { is_repeated } => Ok(Response::new(published(is_repeated))),
            Mood::Busy => Err(Status::unavailable("later")),
            Mood::Broken => Err(Status::unknown("who knows")),
        }
    }

    type PublishStreamStream = BoxStream<'static, Result<PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        self.admit(&request)?;
        Ok(Response::new(self.clone().answers(request.into_inner()).boxed()))
    }
}

impl Double {
    fn answers(
        self,
        requests: Streaming<PublishRequest>,
    ) -> impl Stream<Item = Result<PublishStreamResponse, Status>> + Send {
        requests.map(move |request| {
            let outcome = match self.take(&request?) {
                Mood::Kept { is_repeated } => Outcome::Published(published(is_repeated)),
                Mood::Busy => Outcome::Error(PublishError {
                    code: Code::Unavailable.into(),
                    retry_after_ms: 1,
                    ..PublishError::default()
                }),
                Mood::Broken => return Err(Status::unavailable("going away")),
            };
            Ok(PublishStreamResponse { outcome: Some(outcome) })
        })
    }
}

/// Inboxes in turn, and now and then a topic that is shared.
fn topic(number: u64) -> Key {
    match u32::try_from(number).expect("not so many") {
        number if number.is_multiple_of(3) => Key::Shared(0),
        number => Key::Inbox(number % 10),
    }
}

#[tokio::test]
async fn events_of_a_topic_are_in_order_over_any_number_of_connections() {
    for (call, connections) in [(Call::Stream, 1), (Call::Stream, 3), (Call::Unary, 2)] {
        let double = Double::default();
        let to = To {
            call,
            connections,
            ..To::tidings(vec![double.clone().start().await])
        };
        let mut publisher = Publisher::start(to, What::new(100, topic)).await.expect("connected");
        publisher.publish(500, 64).await.expect("published");
        publisher.publish(1, 1).await.expect("published");
        assert_eq!(publisher.interval().len(), 501);
        publisher.pace(Pace::rate(5_000.0));
        while publisher.so_far().1 < 1_000 {
            tokio::task::yield_now().await;
        }
        let tally = publisher.stop().await.expect("stopped");
        assert!(tally.published >= 1_000);
        double.check(&tally);
    }
}

#[tokio::test]
async fn who_persists_has_each_event_kept_once_whatever_happens() {
    let kept = Arc::default();
    let double = |busy, breaks| Double {
        busy,
        breaks,
        kept: Arc::clone(&kept),
        ..Double::default()
    };
    let doubles = [double(3, 11), double(0, 5)];
    let mut addresses = Vec::new();
    for double in &doubles {
        addresses.push(double.clone().start().await);
    }
    // Where nobody is.
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    addresses.push(nobody.local_addr().expect("bound"));
    drop(nobody);
    let to = To {
        connections: 2,
        ..To::tidings(addresses)
    };
    let mut publisher = Publisher::start(to, What::new(0, topic).persisting())
        .await
        .expect("connected");
    publisher.publish(200, 20).await.expect("published");
    let tally = publisher.stop().await.expect("stopped");
    doubles[0].check(&tally);
    assert!(tally.repeated > 0 && tally.retried > tally.repeated, "{tally:?}");
}

#[tokio::test]
async fn who_does_not_persist_ends_with_the_first_refusal() {
    let address = Double {
        busy: 50,
        ..Double::default()
    }
    .start()
    .await;
    for call in [Call::Stream, Call::Unary] {
        let to = To {
            call,
            ..To::tidings(vec![address])
        };
        let mut publisher = Publisher::start(to, What::new(0, topic)).await.expect("connected");
        let error = publisher.publish(100, 10).await.expect_err("refused").to_string();
        assert!(error.contains("Unavailable"), "{error}");
    }
}

#[tokio::test]
async fn a_token_is_shown() {
    let address = Double {
        token: Some("abc"),
        ..Double::default()
    }
    .start()
    .await;
    for (token, is_known) in [(Some("abc"), true), (Some("b"), false), (None, false)] {
        let to = To {
            token: token.map(str::to_owned),
            ..To::tidings(vec![address])
        };
        let what = What::of(Key::Shared(0), 10).persisting();
        let mut publisher = Publisher::start(to, what).await.expect("connected");
        assert_eq!(publisher.publish(1, 1).await.is_ok(), is_known);
    }
}

#[tokio::test]
async fn the_raw_server_sends_every_event_to_every_stream() {
    let server = raw::Server::bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = server.address().expect("bound");
    // Ends with the process.
    thread::spawn(|| server.run());
    let mut streams = Vec::new();
    for number in 0..20 {
        streams.push(EventStream::open(address, number, "").await.expect("a stream"));
    }
    let to = To::by(Template::raw(), vec![address]);
    let mut publisher = Publisher::start(to, What::of(Key::Shared(0), 300))
        .await
        .expect("connected");
    publisher.publish(1_000, 128).await.expect("published");
    let tally = publisher.stop().await.expect("stopped");
    assert_eq!(tally.topics, BTreeMap::from([(Key::Shared(0), 1_000)]));
    for stream in &mut streams {
        for number in 1..=1_000 {
            let event = stream.next().await.expect("by the rules").expect("not the end");
            let payload = Payload::find(event.data.as_bytes()).expect("a payload");
            assert_eq!((payload.key, payload.number), (Key::Shared(0), number));
        }
    }
}

#[tokio::test]
async fn a_server_may_close_the_connection_after_each_answer() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let template = r#"
        name = "double"
        server = { streams = "127.0.0.1:1", publish = "127.0.0.1:1" }
        stream.path = "/{topics}"
        publish.http = { path = "/{topic}/{payload:url}", body = "" }
    "#;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                socket.read_buf(&mut read).await.expect("read");
            }
            let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            socket.write_all(answer.as_bytes()).await.expect("written");
        }
    });
    let to = To::by(Template::parse(template).expect("a template"), vec![address]);
    let mut publisher = Publisher::start(to, What::of(Key::Shared(0), 0))
        .await
        .expect("connected");
    for _ in 0..20 {
        publisher.publish(1, 1).await.expect("published");
    }
    assert_eq!(publisher.stop().await.expect("stopped").acknowledged, 20);
}

#[tokio::test]
async fn over_http_batches_are_answered_and_lost_ones_are_sent_again() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let template = r#"
        name = "double"
        server = { streams = "127.0.0.1:1", publish = "127.0.0.1:1" }
        stream.path = "/{topics}"

        [publish.http]
        path = "/one"
        body = '["{key}", "{topic}", "{payload:json}"]'
        connections = 2

        [publish.http.batch]
        path = "/many"
        body = '[{items}]'
        each = '["{key}", "{topic}", "{payload:json}"]'
        join = ","
        most = 7
    "#;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let double = Double::default();
    let kept = double.clone();
    tokio::spawn(async move {
        // Each connection is closed after its fifth request: unanswered, for all that was kept.
        loop {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                for request in 1..=5 {
                    let (head, length) = loop {
                        let text = String::from_utf8_lossy(&read);
                        if let Some((head, body)) = text.split_once("\r\n\r\n") {
                            let length = head.split("content-length: ").nth(1).expect("a length");
                            let length: usize = length.parse().expect("a length");
                            if body.len() >= length {
                                break (head.len() + 4, length);
                            }
                        }
                        if socket.read_buf(&mut read).await.expect("read") == 0 {
                            return;
                        }
                    };
                    let body: serde_json::Value = serde_json::from_slice(&read[head..head + length]).expect("JSON");
                    let events = body.as_array().expect("a list");
                    let events = if events[0].is_array() {
                        &events[..]
                    } else {
                        std::slice::from_ref(&body)
                    };
                    for event in events {
                        let text = |place: usize| event[place].as_str().expect("a text").to_owned();
                        let payload: Payload = Payload::find(text(2).as_bytes()).expect("a payload");
                        assert_eq!(text(1), payload.key.to_string());
                        let mut kept = kept.kept.lock().expect("whole");
                        if kept.keys.insert(text(0)) {
                            kept.events.push(payload);
                        }
                    }
                    read.drain(..head + length);
                    let answer: &[u8] = match request {
                        1 => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
                        5 => b"",
                        _ => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                    };
                    socket.write_all(answer).await.expect("written");
                }
            });
        }
    });
    let to = To::by(Template::parse(template).expect("a template"), vec![address]);
    let mut publisher = Publisher::start(to, What::new(60, topic).persisting())
        .await
        .expect("connected");
    publisher.publish(150, 50).await.expect("published");
    let tally = publisher.stop().await.expect("stopped");
    double.check(&tally);
    assert!(tally.retried > 0, "{tally:?}");
}
