//! Publishing, against a server in this process that forgets, refuses and breaks off as it is told to.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use tidings_proto::v1::{
    PublishError as Refusal, PublishRequest, PublishResponse, PublishStreamResponse, TopicResult,
    publish_stream_response::Outcome,
    publisher_server::{Publisher, PublisherServer},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    ledger::Tally,
    pipeline::{DOMAIN, PublishError, Report, Settings, Watch, publish},
    source::{Item, Next},
};
use crate::{cli::bearer::Bearer, tls::ClientTls};

/// What to do with one request of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Append it and answer.
    Accept,
    /// Append it, and break the stream off before the answer.
    AcceptAndBreak,
    /// Answer with this error.
    Refuse(Code),
    /// Break the stream off with this status.
    Break(Code),
    /// End the stream with this status and reason, as the server does itself.
    End(Code, &'static str),
}

/// A publisher that does as its script says, in the order of the requests, and then accepts everything.
#[derive(Debug, Clone, Default)]
struct Scripted {
    script: Arc<Mutex<Vec<(usize, Act)>>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    requests: usize,
    appended: Vec<String>,
    keys: HashMap<String, u64>,
}

impl Scripted {
    fn act(&self) -> Act {
        let mut state = self.state.lock().expect("unpoisoned");
        state.requests += 1;
        let script = self.script.lock().expect("unpoisoned");
        script
            .iter()
            .find(|(at, _)| *at == state.requests)
            .map_or(Act::Accept, |(_, act)| *act)
    }

    fn append(&self, request: PublishRequest) -> PublishStreamResponse {
        let mut state = self.state.lock().expect("unpoisoned");
        let known = state.keys.get(&request.key).copied();
        let sequence = known.unwrap_or_else(|| {
            state.appended.push(request.data);
            let sequence = state.appended.len() as u64;
            if !request.key.is_empty() {
                state.keys.insert(request.key, sequence);
            }
            sequence
        });
        let results = request
            .topics
            .into_iter()
            .map(|topic| TopicResult {
                topic,
                sequence,
                repeated: known.is_some(),
                error: None,
            })
            .collect();
        PublishStreamResponse {
            outcome: Some(Outcome::Published(PublishResponse { results })),
        }
    }

    fn appended(&self) -> Vec<String> {
        self.state.lock().expect("unpoisoned").appended.clone()
    }
}

#[tonic::async_trait]
impl Publisher for Scripted {
    async fn publish(&self, _: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        Err(Status::unimplemented("only streams here"))
    }

    type PublishStreamStream = Pin<Box<dyn Stream<Item = Result<PublishStreamResponse, Status>> + Send>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let this = self.clone();
        let answers = futures::stream::unfold(Some(request.into_inner()), move |requests| {
            let this = this.clone();
            async move {
                let mut requests = requests?;
                let request = requests.next().await?.ok()?;
                Some(match this.act() {
                    Act::Accept => (Ok(this.append(request)), Some(requests)),
                    Act::AcceptAndBreak => {
                        this.append(request);
                        (Err(Status::unavailable("gone")), None)
                    }
                    Act::Break(code) => (Err(Status::new(code, "gone")), None),
                    Act::End(code, reason) => {
                        let details = ErrorDetails::with_error_info(reason, DOMAIN, []);
                        (Err(Status::with_error_details(code, "gone", details)), None)
                    }
                    Act::Refuse(code) => {
                        let outcome = Outcome::Error(Refusal {
                            code: code.into(),
                            message: "not this one".to_owned(),
                            field: "topics[0]".to_owned(),
                            retry_after_ms: 1,
                        });
                        (Ok(PublishStreamResponse { outcome: Some(outcome) }), Some(requests))
                    }
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// What is told while publishing.
#[derive(Debug, Default)]
struct Told {
    bytes: u64,
    lines: Vec<String>,
    /// Hears the first answer.
    answered: Option<tokio::sync::oneshot::Sender<()>>,
    /// Hears the first line.
    first: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Watch for Told {
    fn settled(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(answered) = self.answered.take() {
            let _ = answered.send(());
        }
    }

    fn tell(&mut self, text: &str) {
        self.lines.push(text.to_owned());
        if let Some(first) = self.first.take() {
            let _ = first.send(());
        }
    }
}

fn settings(address: SocketAddr) -> Settings {
    Settings {
        url: format!("http://{address}"),
        bearer: Bearer::default(),
        tls: ClientTls::default(),
        retry_for: Duration::from_secs(60),
        retry_unkeyed: false,
    }
}

/// As many events as asked for, each with its number as data, of 10 bytes each.
fn source(count: u64, keyed: bool) -> mpsc::Receiver<Next> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for line in 1..=count {
            let request = PublishRequest {
                topics: vec!["t".to_owned()],
                data: line.to_string(),
                key: if keyed { format!("k{line}") } else { String::new() },
                ..PublishRequest::default()
            };
            let item = Item {
                line: Some(line),
                request,
                bytes: 10,
            };
            if sender.send(Next::Item(item)).await.is_err() {
                return;
            }
        }
    });
    receiver
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// An address where nobody is; whoever holds it can begin to listen there.
fn held() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

fn serve(listener: TcpListener, publisher: Scripted) {
    tokio::spawn(
        Server::builder()
            .add_service(PublisherServer::new(publisher))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
}

async fn run(
    script: &[(usize, Act)],
    count: u64,
    keyed: bool,
    change: impl FnOnce(&mut Settings),
) -> (Report, Scripted, Told) {
    let publisher = Scripted {
        script: Arc::new(Mutex::new(script.to_vec())),
        ..Scripted::default()
    };
    let (listener, address) = listen().await;
    serve(listener, publisher.clone());
    let mut settings = settings(address);
    change(&mut settings);
    let mut told = Told::default();
    let report = publish(source(count, keyed), &settings, &mut told, &CancellationToken::new()).await;
    (report, publisher, told)
}

fn numbers(count: u64) -> Vec<String> {
    (1..=count).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn everything_is_published_in_order_and_a_second_time_nothing() {
    let publisher = Scripted::default();
    let (listener, address) = listen().await;
    serve(listener, publisher.clone());
    for repeated in [0, 1_000] {
        let mut told = Told::default();
        let report = publish(
            source(1_000, true),
            &settings(address),
            &mut told,
            &CancellationToken::new(),
        )
        .await;
        let expected = Tally {
            acknowledged: 1_000,
            repeated,
            ..Tally::default()
        };
        assert_eq!(report.tally, expected);
        assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
        assert_eq!(told.bytes, 10_000);
        assert_eq!(publisher.appended(), numbers(1_000));
    }
}

#[tokio::test]
async fn with_keys_a_break_loses_and_repeats_nothing() {
    let script = [
        (3, Act::AcceptAndBreak),
        (4, Act::AcceptAndBreak),
        (300, Act::Break(Code::Unknown)),
        (700, Act::AcceptAndBreak),
    ];
    let (report, publisher, told) = run(&script, 1_000, true, |_| {}).await;
    assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
    assert_eq!(
        (report.tally.acknowledged, report.tally.refused, report.tally.unknown),
        (1_000, 0, 0)
    );
    assert!(
        report.tally.repeated >= 2,
        "answers were lost, and asked for again: {:?}",
        report.tally
    );
    assert_eq!(publisher.appended(), numbers(1_000));
    assert!(
        (1..=4).contains(&told.lines.len()),
        "each trouble is told once: {:?}",
        told.lines
    );
}

#[tokio::test]
async fn without_keys_a_break_leaves_unknowns_and_sends_nothing_twice() {
    let (report, publisher, told) = run(&[(3, Act::AcceptAndBreak)], 10, false, |_| {}).await;
    assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
    assert!(report.tally.unknown >= 1);
    assert_eq!(report.tally.acknowledged + report.tally.unknown, 10);
    let appended = publisher.appended();
    let mut once = appended.clone();
    once.dedup();
    assert_eq!(appended, once);
    assert!(
        told.lines
            .iter()
            .any(|line| line.starts_with("line 3 may or may not be published")),
        "{:?}",
        told.lines
    );
}

#[tokio::test]
async fn without_keys_it_is_sent_twice_only_when_that_is_meant() {
    let (report, publisher, _) = run(&[(3, Act::AcceptAndBreak)], 10, false, |settings| {
        settings.retry_unkeyed = true;
    })
    .await;
    assert_eq!((report.tally.acknowledged, report.tally.unknown), (10, 0));
    let appended = publisher.appended();
    assert_eq!(appended.iter().filter(|data| *data == "3").count(), 2, "{appended:?}");
}

#[tokio::test]
async fn a_refused_event_is_told_by_line_and_the_rest_goes_on() {
    let (report, publisher, told) = run(&[(2, Act::Refuse(Code::InvalidArgument))], 3, true, |_| {}).await;
    assert_eq!((report.tally.acknowledged, report.tally.refused), (2, 1));
    assert_eq!(publisher.appended(), ["1", "3"]);
    assert_eq!(told.lines, ["line 2 is refused: topics[0]: not this one"]);
}

#[tokio::test]
async fn what_was_not_taken_is_sent_again_without_keys_too() {
    let script: Vec<_> = (2..=4).map(|at| (at, Act::Refuse(Code::Unavailable))).collect();
    let (report, publisher, _) = run(&script, 10, false, |_| {}).await;
    assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
    assert_eq!((report.tally.acknowledged, report.tally.unknown), (10, 0));
    let mut appended = publisher.appended();
    appended.sort_by_key(|data| data.parse::<u64>().expect("a number"));
    assert_eq!(appended, numbers(10));
}

#[tokio::test]
async fn a_server_that_comes_later_is_waited_for() {
    let (socket, address) = held();
    let publisher = Scripted::default();
    let (first, troubled) = tokio::sync::oneshot::channel();
    let mut told = Told {
        first: Some(first),
        ..Told::default()
    };
    let settings = settings(address);
    let interrupt = CancellationToken::new();
    let starting = async {
        troubled.await.expect("trouble is told");
        serve(socket.listen(16).expect("it is bound"), publisher.clone());
    };
    let (report, ()) = tokio::join!(publish(source(3, false), &settings, &mut told, &interrupt), starting);
    assert_eq!(
        (report.tally.acknowledged, report.tally.unknown),
        (3, 0),
        "nothing was sent before: {report:?}"
    );
    assert!(told.lines[0].contains("cannot be reached"), "{:?}", told.lines);
}

#[tokio::test]
async fn time_without_anything_to_publish_is_not_time_without_an_answer() {
    let publisher = Scripted {
        script: Arc::new(Mutex::new(vec![(2, Act::AcceptAndBreak)])),
        ..Scripted::default()
    };
    let (listener, address) = listen().await;
    serve(listener, publisher.clone());
    let (settled, first) = tokio::sync::oneshot::channel();
    let mut told = Told {
        answered: Some(settled),
        ..Told::default()
    };
    let (sender, receiver) = mpsc::channel(1);
    let mut items = source(2, true);
    let feeding = async {
        sender
            .send(items.recv().await.expect("an event"))
            .await
            .expect("a publisher");
        first.await.expect("an answer");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3_600)).await;
        tokio::time::resume();
        sender
            .send(items.recv().await.expect("an event"))
            .await
            .expect("a publisher");
        drop(sender);
    };
    let settings = settings(address);
    let interrupt = CancellationToken::new();
    let (report, ()) = tokio::join!(publish(receiver, &settings, &mut told, &interrupt), feeding);
    assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
    assert_eq!(report.tally.acknowledged, 2);
}

#[tokio::test]
async fn it_gives_up_in_the_end_and_says_from_where() {
    let (_socket, address) = held();
    let mut settings = settings(address);
    settings.retry_for = Duration::ZERO;
    let report = publish(
        source(3, true),
        &settings,
        &mut Told::default(),
        &CancellationToken::new(),
    )
    .await;
    let told = report.ended_early.expect("nobody is there").to_string();
    assert!(
        told.contains("cannot be reached") && told.contains("is `tidings serve` running"),
        "{told}"
    );
    assert_eq!(report.tally, Tally::default());
}

#[tokio::test]
async fn what_will_never_be_is_not_tried_again() {
    let script = [
        (2, Act::Break(Code::PermissionDenied)),
        (3, Act::Break(Code::PermissionDenied)),
    ];
    let (report, publisher, _) = run(&script, 10, true, |_| {}).await;
    assert!(
        matches!(report.ended_early, Some(PublishError::Final { .. })),
        "{report:?}"
    );
    assert_eq!((report.tally.acknowledged, report.first_line), (1, Some(2)));
    assert_eq!(publisher.appended(), ["1"]);
}

#[tokio::test]
async fn a_server_that_ends_the_stream_itself_has_taken_nothing_more() {
    let script = [
        (1, Act::End(Code::Unavailable, "NOT_READY")),
        (2, Act::End(Code::Unavailable, "NOT_READY")),
        (300, Act::End(Code::Unavailable, "DRAINING")),
    ];
    let (report, publisher, told) = run(&script, 1_000, false, |_| {}).await;
    assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
    assert_eq!(
        (report.tally.acknowledged, report.tally.unknown),
        (1_000, 0),
        "{:?}",
        told.lines
    );
    assert_eq!(publisher.appended(), numbers(1_000));
    let deadline = [(3, Act::End(Code::DeadlineExceeded, "DEADLINE"))];
    let (report, ..) = run(&deadline, 10, false, |_| {}).await;
    assert!(report.tally.unknown >= 1, "they may be under way: {:?}", report.tally);
}

/// The server answers what it took before it says that the token is over: the rest was not taken, and goes out under the new one.
#[tokio::test]
async fn a_token_that_ends_under_way_loses_nothing_without_keys_either() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "old").expect("written");
    let bearer = Bearer::in_file(&path);
    // It is renewed between two streams: the first has read the old one by its first answer.
    let (answered, first) = tokio::sync::oneshot::channel();
    let renewed = path.clone();
    tokio::spawn(async move {
        first.await.expect("an answer");
        std::fs::write(renewed, "new").expect("written");
    });
    let publisher = Scripted {
        script: Arc::new(Mutex::new(vec![(
            700,
            Act::End(Code::Unauthenticated, "EXPIRED_TOKEN"),
        )])),
        ..Scripted::default()
    };
    let (listener, address) = listen().await;
    serve(listener, publisher.clone());
    let mut told = Told {
        answered: Some(answered),
        ..Told::default()
    };
    let settings = Settings {
        bearer,
        ..settings(address)
    };
    let report = publish(source(1_000, false), &settings, &mut told, &CancellationToken::new()).await;
    assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
    let all = Tally {
        acknowledged: 1_000,
        ..Tally::default()
    };
    assert_eq!(report.tally, all, "{:?}", told.lines);
    assert_eq!(publisher.appended(), numbers(1_000));
}

#[tokio::test]
async fn an_interrupt_tells_how_far_it_came() {
    let publisher = Scripted::default();
    let (listener, address) = listen().await;
    serve(listener, publisher.clone());
    let (sender, source) = mpsc::channel(1);
    let interrupt = CancellationToken::new();
    interrupt.cancel();
    let report = publish(source, &settings(address), &mut Told::default(), &interrupt).await;
    assert!(
        matches!(report.ended_early, Some(PublishError::Interrupted)),
        "{report:?}"
    );
    drop(sender);
}

#[tokio::test]
async fn an_address_that_is_none_is_told() {
    for url in ["", "127.0.0.1:50051", "ftp://127.0.0.1:50051", "nonsense"] {
        let settings = Settings {
            url: url.to_owned(),
            bearer: Bearer::default(),
            tls: ClientTls::default(),
            retry_for: Duration::from_secs(60),
            retry_unkeyed: false,
        };
        let report = publish(
            source(1, true),
            &settings,
            &mut Told::default(),
            &CancellationToken::new(),
        )
        .await;
        assert!(
            matches!(report.ended_early, Some(PublishError::Url { .. })),
            "{url}: {report:?}"
        );
    }
}
