//! Whoever does not read the answers is not read either. Without sockets and on a stopped clock: a timeout passes exactly when nothing can move.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Draft, Services, Settings,
        connection::{http, serve_connection},
        grpc::publisher,
        json::router,
        pipeline::{Ended, Pipeline},
    },
    double::{TestBus, TestJournal},
    framed, ingest, to,
};
use crate::{ingest::IngestError, journal::Journal};

type Input = Result<(u64, Result<Draft, IngestError>), Infallible>;

/// Endless drafts with so much payload each.
fn drafts(bytes: usize) -> impl Stream<Item = Input> + Unpin {
    stream::iter((0..).map(move |n| {
        let draft = Draft {
            topics: vec!["a".into()],
            data: "x".repeat(bytes),
            ..Draft::default()
        };
        Ok((n, Ok(draft)))
    }))
}

/// A pipeline of whoever it is.
fn pipeline<S>(
    journal: &Arc<TestJournal>,
    bus: &Arc<TestBus>,
    drain: &CancellationToken,
    drafts: S,
    deadline: Option<tokio::time::Instant>,
) -> Pipeline<S, u64, Infallible>
where
    S: Stream<Item = Input> + Unpin,
{
    let ingest = ingest(journal, bus, drain);
    let caller = ingest.caller(&http::HeaderMap::new(), &http::Extensions::new());
    Pipeline::new(ingest, caller.unwrap(), drafts, deadline)
}

fn parts(journal: TestJournal) -> (Arc<TestJournal>, Arc<TestBus>, CancellationToken) {
    (Arc::new(journal), Arc::default(), CancellationToken::new())
}

#[tokio::test]
async fn a_pipeline_takes_as_many_as_it_may_and_gives_the_answers_that_it_has_before_it_takes_more() {
    let (journal, bus, drain) = parts(TestJournal::held());
    let limit = Settings::default().in_flight;
    let mut pipeline = pipeline(&journal, &bus, &drain, drafts(1), None);
    assert!(pipeline.next().now_or_never().is_none(), "nothing is durable yet");
    assert_eq!(journal.appended(), limit);
    journal.release();
    for expected in 0..=limit as u64 {
        // No more of them, since a task that has much to do is made to stop and think now and then.
        if expected < 64 {
            assert_eq!(journal.appended(), limit, "taken although answers are there");
        }
        let Some(Ok((tag, Ok(_)))) = pipeline.next().await else {
            panic!("not answered")
        };
        assert_eq!(tag, expected);
    }
    assert!(journal.appended() > limit, "answers make room");
}

#[tokio::test]
async fn a_pipeline_takes_no_more_bytes_than_it_may() {
    let (journal, bus, drain) = parts(TestJournal::held());
    let mut pipeline = pipeline(&journal, &bus, &drain, drafts(64 * 1024), None);
    assert!(pipeline.next().now_or_never().is_none());
    let most = Settings::default().in_flight_bytes / (64 * 1024);
    assert!(
        (most - 1..=most).contains(&journal.appended()),
        "{} of {most}",
        journal.appended()
    );
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_ends_at_its_deadline_and_says_so() {
    let (journal, bus, drain) = parts(TestJournal::held());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let mut pipeline = pipeline(&journal, &bus, &drain, drafts(1).take(3), Some(deadline));
    assert!(matches!(
        pipeline.next().await,
        Some(Err(Ended::Stopped(IngestError::Deadline)))
    ));
    assert!(pipeline.next().await.is_none());
}

/// Sends `body` to `path` over a pipe and gives back the answer, of which nothing has been read.
async fn send<B>(journal: Arc<dyn Journal>, version: Version, body: B) -> Incoming
where
    B: Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync + Unpin + 'static,
{
    let drain = CancellationToken::new();
    let ingest = super::Ingest::new(
        journal,
        Arc::new(TestBus::default()),
        crate::model::Layout::EMBEDDED,
        Settings::default(),
        Arc::new(crate::auth::Auth::open()),
        drain.clone(),
    );
    let services = Services::new().grpc(publisher(ingest.clone())).http(router(ingest));
    let (routes, _) = services.into_router(false).await.unwrap();
    let (server, client) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move { serve_connection(server, &http(16), routes, drain).await });
    let body = StreamBody::new(body);
    match version {
        Version::Lines => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
                .await
                .unwrap();
            tokio::spawn(connection);
            let request = Request::post("/v1/publish")
                .header("host", "test")
                .header("content-type", "application/x-ndjson");
            sender
                .send_request(request.body(body).unwrap())
                .await
                .unwrap()
                .into_body()
        }
        Version::Grpc => {
            let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(64 * 1024)
                .initial_connection_window_size(4 * 1024 * 1024)
                .handshake(TokioIo::new(client))
                .await
                .unwrap();
            tokio::spawn(connection);
            let request = Request::post("http://pipe/tidings.v1.Publisher/PublishStream")
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            // The connection lives as long as its sender or an answer.
            sender
                .send_request(request.body(body).unwrap())
                .await
                .unwrap()
                .into_body()
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Version {
    Lines,
    Grpc,
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_no_answers_is_not_read() {
    let line = Bytes::from_static(b"{\"topics\":[\"a\"],\"data\":\"x\"}\n");
    for (version, request) in [
        (Version::Lines, line),
        (Version::Grpc, framed(&to("a").encode_to_vec())),
    ] {
        let journal = Arc::new(TestJournal::prompt());
        let requests = stream::repeat_with(move || Ok(Frame::data(request.clone())));
        let mut answers = send(journal.clone(), version, requests).await;
        let stand_still = || tokio::time::sleep(Duration::from_secs(1));
        stand_still().await;
        let stalled = journal.appended();
        stand_still().await;
        assert_eq!(
            journal.appended(),
            stalled,
            "{version:?}: it went on without its answers being read"
        );
        assert!((1..200_000).contains(&stalled), "{version:?}: {stalled}");
        let mut read = 0;
        while read < 1024 * 1024 {
            read += answers.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        assert!(
            journal.appended() > stalled,
            "{version:?}: it did not go on when they were"
        );
    }
}
