//! `tidings.v1.Log`: lets other nodes read this one's log.

use std::sync::Arc;

use tidings_proto::v1::{
    HeadsRequest, HeadsResponse, LocateRequest, LocateResponse, ReplayRequest as WireRequest, ReplayResponse,
    TopicPosition,
    log_server::{Log as Service, LogServer},
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status, service::interceptor::InterceptedService};

use super::{Log, ReadError, ReplayRequest, wire};
use crate::{
    members::{AskedFor, ClusterSecret},
    model::{Epoch, Seq, Shard, Topic, UnixMillis},
};

/// The most events of one page.
const MAX_EVENTS: u32 = 10_000;
/// Where a page ends at the latest, in bytes of payload. It may go over by one event.
const MAX_BYTES: u64 = 2 * 1024 * 1024;
/// The most reads that are under way or wait for their turn at once. More are refused: another node may be less busy.
const MAX_READS: usize = 512;

/// The service, ready to be served to those who have the cluster's secret.
#[must_use]
pub fn service(log: Arc<dyn Log>, secret: &ClusterSecret) -> InterceptedService<LogServer<impl Service>, AskedFor> {
    LogServer::with_interceptor(LogService::new(log), secret.asked())
}

struct LogService {
    log: Arc<dyn Log>,
    places: Semaphore,
}

impl LogService {
    fn new(log: Arc<dyn Log>) -> Self {
        Self {
            log,
            places: Semaphore::new(MAX_READS),
        }
    }

    /// A place among the reads that are under way or wait for their turn. Heads need none.
    fn place(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.places.try_acquire().map_err(|_| unreadable(ReadError::Busy))
    }
}

#[tonic::async_trait]
impl Service for LogService {
    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsResponse>, Status> {
        let shard = shard(request.get_ref().shard)?;
        let heads = self.log.heads(shard).await.map_err(unreadable)?;
        Ok(Response::new(wire::from_heads(&heads)))
    }

    async fn replay(&self, request: Request<WireRequest>) -> Result<Response<ReplayResponse>, Status> {
        let _place = self.place()?;
        let request = request.into_inner();
        let live = request.live;
        let request = replay_request(request)?;
        let replay = if live {
            self.log.fill(request).await
        } else {
            self.log.replay(request).await
        };
        let replay = replay.map_err(unreadable)?;
        Ok(Response::new(wire::from_replay(&replay)))
    }

    async fn locate(&self, request: Request<LocateRequest>) -> Result<Response<LocateResponse>, Status> {
        let _place = self.place()?;
        let request = request.into_inner();
        let shard = shard(request.shard)?;
        let time = UnixMillis(request.time_ms);
        let located = self.log.locate(shard, time).await.map_err(unreadable)?;
        Ok(Response::new(LocateResponse {
            epoch: located.epoch.0,
            after: located.after.0,
        }))
    }
}

fn shard(number: u32) -> Result<Shard, Status> {
    u16::try_from(number)
        .map(Shard)
        .map_err(|_| Status::invalid_argument(format!("a shard is at most {}; this is {number}", u16::MAX)))
}

fn replay_request(request: WireRequest) -> Result<ReplayRequest, Status> {
    if request.topics.is_empty() {
        return Err(Status::invalid_argument("`topics` is empty: there is nothing to read"));
    }
    let mut topics: Vec<(Topic, Seq)> = Vec::with_capacity(request.topics.len());
    for (index, TopicPosition { topic, after }) in request.topics.into_iter().enumerate() {
        let topic =
            Topic::parse(&topic).map_err(|error| Status::invalid_argument(format!("topics[{index}]: {error}")))?;
        topics.push((topic, Seq(after)));
    }
    let mut names: Vec<&Topic> = topics.iter().map(|(topic, _)| topic).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("the topic \"{}\" is there twice", pair[0]);
        return Err(Status::invalid_argument(message));
    }
    let max_events = request.max_events.clamp(1, MAX_EVENTS);
    let max_bytes = request.max_bytes.min(MAX_BYTES);
    Ok(ReplayRequest {
        shard: shard(request.shard)?,
        epoch: Epoch(request.epoch),
        topics,
        max_events: usize::try_from(max_events).unwrap_or(usize::MAX),
        max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
    })
}

/// What the client is to make of it: ask another, ask later, or either.
fn unreadable(error: ReadError) -> Status {
    let message = error.to_string();
    match error {
        ReadError::NotHeld(_) => Status::failed_precondition(message),
        ReadError::Busy => Status::resource_exhausted(message),
        ReadError::Failed { .. } => Status::unavailable(message),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Mutex};

    use futures::future::BoxFuture;
    use tidings_proto::v1::{
        Event as WireEvent,
        replay_response::{Fork, Gone, Page as WirePage, Result as WireResult},
    };
    use tonic::Code;

    use super::*;
    use crate::{
        log::{Heads, Located, Page, Replay},
        model::{Event, EventType, Slot},
    };

    /// Answers each replay with the same, and remembers what was asked.
    struct Fixed {
        replay: Result<Replay, ReadError>,
        asked: Mutex<Vec<ReplayRequest>>,
    }

    impl Log for Fixed {
        fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
            Box::pin(std::future::ready(Ok(Heads {
                shard,
                epoch: Epoch(7),
                last: Seq(9),
                floor: Seq(3),
                slots: Arc::new(HashMap::from([(Slot(5), Seq(8))])),
            })))
        }

        fn replay(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
            self.asked.lock().unwrap().push(request);
            Box::pin(std::future::ready(self.replay.clone()))
        }

        fn locate(&self, _: Shard, time: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
            let located = Located {
                epoch: Epoch(7),
                after: Seq(time.0 / 1_000),
            };
            Box::pin(std::future::ready(Ok(located)))
        }
    }

    fn fixed(replay: Result<Replay, ReadError>) -> (Arc<Fixed>, LogService) {
        let log = Arc::new(Fixed {
            replay,
            asked: Mutex::default(),
        });
        (log.clone(), LogService::new(log))
    }

    fn forked() -> Result<Replay, ReadError> {
        Ok(Replay::Forked {
            epoch: Epoch(2),
            last: Seq(11),
        })
    }

    fn asking(topics: &[&str]) -> WireRequest {
        WireRequest {
            shard: 1,
            epoch: 7,
            topics: topics
                .iter()
                .map(|&topic| TopicPosition {
                    topic: topic.to_owned(),
                    after: 4,
                })
                .collect(),
            max_events: u32::MAX,
            max_bytes: 0,
            live: false,
        }
    }

    #[tokio::test]
    async fn heads_and_places_are_passed_on() {
        let (_, service) = fixed(forked());
        let heads = service
            .heads(Request::new(HeadsRequest { shard: 1 }))
            .await
            .unwrap()
            .into_inner();
        let expected = HeadsResponse {
            epoch: 7,
            last: 9,
            floor: 3,
            slots: HashMap::from([(5, 8)]),
        };
        assert_eq!(heads, expected);
        let place = LocateRequest {
            shard: 1,
            time_ms: 5_000,
        };
        let located = service.locate(Request::new(place)).await.unwrap().into_inner();
        assert_eq!(located, LocateResponse { epoch: 7, after: 5 });
    }

    #[tokio::test]
    async fn each_outcome_of_a_replay_is_passed_on() {
        let event = Event::new(
            Topic::parse("a").unwrap(),
            Some(EventType::parse("t").unwrap()),
            "x".into(),
            UnixMillis(6),
            Some(Seq(5)),
        );
        let page = Page {
            events: vec![Arc::new(event)],
            epoch: Epoch(7),
            up_to: Seq(9),
        };
        let wire_event = WireEvent {
            topic: "a".into(),
            r#type: "t".into(),
            data: "x".into(),
            time_ms: 6,
            sequence: 5,
        };
        let wire = WirePage {
            events: vec![wire_event],
            up_to: 9,
            epoch: 7,
        };
        for (replay, expected) in [
            (Ok(Replay::Page(page)), WireResult::Page(wire)),
            (
                Ok(Replay::Gone {
                    epoch: Epoch(7),
                    floor: Seq(3),
                }),
                WireResult::Gone(Gone { epoch: 7, floor: 3 }),
            ),
            (forked(), WireResult::Forked(Fork { epoch: 2, last: 11 })),
        ] {
            let (log, service) = fixed(replay);
            let answer = service
                .replay(Request::new(asking(&["a", "b"])))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(answer.result, Some(expected));
            let expected = ReplayRequest {
                shard: Shard(1),
                epoch: Epoch(7),
                topics: ["a", "b"].map(|topic| (Topic::parse(topic).unwrap(), Seq(4))).into(),
                max_events: 10_000,
                max_bytes: 0,
            };
            assert_eq!(*log.asked.lock().unwrap(), [expected]);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_refused_and_what_cannot_be_read_is_said() {
        let (log, service) = fixed(forked());
        let far = WireRequest {
            shard: 65_536,
            ..asking(&["a"])
        };
        for request in [asking(&[]), asking(&["a", "no good"]), asking(&["a", "b", "a"]), far] {
            let status = service.replay(Request::new(request)).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        }
        assert!(log.asked.lock().unwrap().is_empty());
        for (error, code) in [
            (ReadError::failed("x"), Code::Unavailable),
            (ReadError::NotHeld(Shard(1)), Code::FailedPrecondition),
            (ReadError::Busy, Code::ResourceExhausted),
        ] {
            let (_, service) = fixed(Err(error.clone()));
            let status = service.replay(Request::new(asking(&["a"]))).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (code, &*error.to_string()));
        }
    }

    /// Never answers a replay.
    struct Stuck;

    impl Log for Stuck {
        fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
            Box::pin(std::future::ready(Err(ReadError::NotHeld(shard))))
        }

        fn replay(&self, _: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
            Box::pin(std::future::pending())
        }

        fn locate(&self, shard: Shard, _: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
            Box::pin(std::future::ready(Err(ReadError::NotHeld(shard))))
        }
    }

    #[tokio::test]
    async fn what_would_wait_too_long_is_refused_and_heads_are_not() {
        let service = LogService::new(Arc::new(Stuck));
        let read = || service.replay(Request::new(asking(&["a"])));
        let mut waiting: Vec<_> = (0..MAX_READS).map(|_| read()).collect();
        for read in &mut waiting {
            assert!(futures::poll!(read).is_pending());
        }
        assert_eq!(read().await.unwrap_err().code(), Code::ResourceExhausted);
        let place = LocateRequest { shard: 1, time_ms: 1 };
        let refused = service.locate(Request::new(place)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let heads = service.heads(Request::new(HeadsRequest { shard: 1 })).await;
        assert_eq!(heads.unwrap_err().code(), Code::FailedPrecondition);
        // Whoever leaves makes room.
        waiting.pop();
        assert!(futures::poll!(read()).is_pending());
    }
}
