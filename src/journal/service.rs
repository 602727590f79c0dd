//! `tidings.v1.Journal`: takes events for the shards that this node holds from nodes that do not.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use futures::stream::{self, BoxStream, StreamExt as _};
use tidings_proto::v1::{
    AppendFailure, AppendRequest, AppendResponse,
    append_response::Outcome,
    journal_server::{Journal as Service, JournalServer},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::interceptor::InterceptedService};

use super::{
    AppendError, Journal, Unavailable,
    lane::{Answer, Lane},
    wire,
};
use crate::{
    members::{AskedFor, ClusterSecret},
    model::{Layout, Shard},
};

/// How many appends of one stream may be under way.
const IN_FLIGHT: usize = 4_096;
/// How many bytes of payload they may have, before no further one is taken.
const IN_FLIGHT_BYTES: usize = 8 << 20;

/// The journals of the shards that this node holds.
pub type Held = BTreeMap<Shard, Arc<dyn Journal>>;

/// The service, ready to be served to those who have the cluster's secret. What it takes goes to these journals and nowhere else; once `drain` is cancelled it takes nothing more.
#[must_use]
pub fn service(
    node: &str,
    layout: Layout,
    held: Held,
    secret: &ClusterSecret,
    drain: CancellationToken,
) -> InterceptedService<JournalServer<impl Service>, AskedFor> {
    let server = JournalServer::new(JournalService {
        node: node.into(),
        layout,
        held: Arc::new(held),
        drain,
    })
    .max_decoding_message_size(wire::MAX_REQUEST);
    InterceptedService::new(server, secret.asked())
}

struct JournalService {
    node: Arc<str>,
    layout: Layout,
    held: Arc<Held>,
    drain: CancellationToken,
}

#[tonic::async_trait]
impl Service for JournalService {
    type AppendStream = BoxStream<'static, Result<AppendResponse, Status>>;

    async fn append(
        &self,
        requests: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let call = Call {
            node: Arc::clone(&self.node),
            layout: self.layout,
            held: Arc::clone(&self.held),
            drain: self.drain.clone(),
            requests: Some(requests.into_inner()),
            lane: None,
            under_way: VecDeque::new(),
            bytes: 0,
            ends: None,
        };
        let answers = stream::unfold(call, |mut call| async move {
            let answer = call.next().await?;
            Some((Ok(answer), call))
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// One stream. It has no task of its own: whoever does not read the answers is not read either.
struct Call {
    node: Arc<str>,
    layout: Layout,
    held: Arc<Held>,
    drain: CancellationToken,
    /// `None` once nothing more is taken.
    requests: Option<Streaming<AppendRequest>>,
    /// The shard of the stream, known by its first request.
    lane: Option<(Shard, Lane)>,
    /// The payload of each append that has no answer.
    under_way: VecDeque<usize>,
    bytes: usize,
    /// What the stream ends with, once everything that was taken is answered.
    ends: Option<AppendError>,
}

impl Call {
    async fn next(&mut self) -> Option<AppendResponse> {
        loop {
            let under_way = self.lane.as_ref().map_or(0, |(_, lane)| lane.under_way());
            if under_way == 0 && self.requests.is_none() {
                let error = self.ends.take()?;
                return Some(self.ended(&error));
            }
            let may_take = self.lane.as_ref().is_none_or(|(_, lane)| lane.is_free())
                && under_way < IN_FLIGHT
                && self.bytes < IN_FLIGHT_BYTES;
            tokio::select! {
                biased;
                answer = next_answer(self.lane.as_mut()), if self.lane.as_ref().is_some_and(|(_, lane)| lane.has_more()) => match answer {
                    Some(Answer::Outcome(outcome)) => {
                        self.bytes -= self.under_way.pop_front().unwrap_or_default();
                        return Some(self.answer(outcome));
                    }
                    Some(Answer::Ended(error)) => {
                        self.requests = None;
                        return Some(self.ended(&error));
                    }
                    None => {}
                },
                () = self.drain.cancelled(), if self.requests.is_some() => self.end_with(AppendError::Closed),
                request = next_request(self.requests.as_mut()), if may_take && self.requests.is_some() => match request {
                    Ok(Some(request)) => self.take(request),
                    // It wants no more than the answers.
                    Ok(None) => self.requests = None,
                    // Nobody is there to be answered. What has its place is appended all the same.
                    Err(_) => return None,
                },
            }
        }
    }

    fn take(&mut self, request: AppendRequest) {
        let shard = match self.fits(&request) {
            Ok(shard) => shard,
            Err(error) => return self.end_with(error),
        };
        let publish = match wire::publish(request, self.layout, Instant::now()) {
            Ok(publish) => publish,
            Err(misfit) => return self.end_with(self.misfit(shard, misfit.to_string())),
        };
        let Some((_, lane)) = &mut self.lane else { return };
        self.under_way.push_back(publish.data.len());
        self.bytes += publish.data.len();
        lane.begin(publish);
    }

    /// The shard of a request, if it is held here and is the stream's.
    fn fits(&mut self, request: &AppendRequest) -> Result<Shard, AppendError> {
        let not_held = |shard| AppendError::Unavailable {
            shard,
            cause: Unavailable::NotHeld {
                node: self.node.to_string(),
            },
        };
        let shard = u16::try_from(request.shard)
            .map(Shard)
            .map_err(|_| not_held(Shard(u16::MAX)))?;
        match &self.lane {
            Some((of_stream, _)) if *of_stream == shard => {}
            Some(_) => return Err(self.misfit(shard, "a stream is of one shard".to_owned())),
            None => {
                let journal = self.held.get(&shard).ok_or_else(|| not_held(shard))?;
                self.lane = Some((shard, Lane::new(Arc::clone(journal))));
            }
        }
        Ok(shard)
    }

    fn misfit(&self, shard: Shard, cause: String) -> AppendError {
        let node = self.node.to_string();
        AppendError::Unavailable {
            shard,
            cause: Unavailable::Unreachable { node, cause },
        }
    }

    fn end_with(&mut self, error: AppendError) {
        self.requests = None;
        self.ends = Some(error);
    }

    fn answer(&self, outcome: Result<super::Receipt, AppendError>) -> AppendResponse {
        AppendResponse {
            outcome: Some(match outcome {
                Ok(receipt) => Outcome::Appended(wire::appended(&receipt)),
                Err(error) => Outcome::Failure(self.failure(&error)),
            }),
        }
    }

    fn ended(&self, error: &AppendError) -> AppendResponse {
        AppendResponse {
            outcome: Some(Outcome::Ended(self.failure(error))),
        }
    }

    fn failure(&self, error: &AppendError) -> AppendFailure {
        wire::failure(error, &self.node)
    }
}

/// The next answer of a lane; `None` once another append may begin.
async fn next_answer(lane: Option<&mut (Shard, Lane)>) -> Option<Answer> {
    match lane {
        Some((_, lane)) => lane.next().await,
        None => std::future::pending().await,
    }
}

async fn next_request(requests: Option<&mut Streaming<AppendRequest>>) -> Result<Option<AppendRequest>, Status> {
    match requests {
        Some(requests) => requests.message().await,
        None => Ok(None),
    }
}
