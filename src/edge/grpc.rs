//! `tidings.v1.Subscriber`: streams for backends. tonic serves them on the main runtime; each is followed on a worker and comes over
//! through a channel.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use tidings_proto::v1::{
    self, subscribe_request, subscribe_response,
    subscriber_server::{Subscriber, SubscriberServer},
};
use tonic::{
    Code, Request, Response, Status,
    service::{Interceptor, interceptor::InterceptedService},
};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    EdgeHandle, caller,
    carrier::{Cause, End},
    channel::{Sender, channel},
    limits::{Over, Permits, stay_away},
    relay::{Relay, Wire},
    request::resume,
    streams::{Terms, begins_now},
    worker::Worker,
};
use crate::{
    auth::{self, Denied},
    gate::Prompt,
    hub::{Delivery, Follow, GapReason, Start},
    model::{Cursor, Topic, UnixMillis},
    proxies::Client,
};

/// The domain of every `google.rpc.ErrorInfo` of this service.
const DOMAIN: &str = "tidings";

/// The service, following on the workers of this edge. It is known who asks before anything of a message is read: what strangers send is not held in
/// memory.
#[must_use]
pub fn subscriber(
    edge: EdgeHandle,
) -> Prompt<InterceptedService<SubscriberServer<impl Subscriber>, impl Interceptor + Clone + Send + Sync>> {
    let within = edge.settings().header_timeout;
    // As many topics as there may be, and a cursor.
    let longest = edge.settings().topics_per_stream * (Topic::MAX_BYTES + 3) + Cursor::MAX_BYTES + 1_024;
    let asked = asked(edge.clone());
    let server = SubscriberServer::new(Service { edge }).max_decoding_message_size(longest);
    Prompt::new(InterceptedService::new(server, asked), within)
}

/// Asks who calls.
fn asked(edge: EdgeHandle) -> impl Interceptor + Clone + Send + Sync {
    move |mut request: Request<()>| {
        // Counted before the token is looked at, since that is what costs.
        if let Some(client) = request.extensions().get::<Client>() {
            edge.limits()
                .attempt(*client, std::time::Instant::now())
                .map_err(over)?;
        }
        let subscriber =
            caller::of_call(edge.auth(), request.metadata().as_ref(), UnixMillis::now()).map_err(denied)?;
        request.extensions_mut().insert(subscriber);
        Ok(request)
    }
}

struct Service {
    edge: EdgeHandle,
}

type Message = Result<v1::SubscribeResponse, Status>;

#[tonic::async_trait]
impl Subscriber for Service {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Message> + Send>>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let client = request.extensions().get::<Client>().copied();
        let subscriber = request.extensions().get::<auth::Subscriber>().cloned();
        let subscriber = subscriber.ok_or_else(|| Status::internal("nobody has asked who calls"))?;
        let (edge, now) = (&self.edge, UnixMillis::now());
        let follow = follow(request.into_inner(), edge.settings().topics_per_stream, now)?;
        caller::may_follow(&subscriber, &follow.topics).map_err(denied)?;
        let connection = edge.limits().room(client).map_err(over)?;
        let user = subscriber
            .user()
            .map(|user| edge.limits().user(user, !begins_now(&follow.start)));
        let permits = Permits::of_user(user.transpose().map_err(over)?).with_connection(connection);
        let terms = Terms {
            lease: subscriber.lease().cloned(),
            ..Terms::default()
        };
        let (sender, receiver) = channel(edge.settings().send_queue);
        let bridge = Bridge {
            follow,
            terms,
            sender,
            permits,
        };
        edge.bridge(bridge).await.map_err(|NoWorker| draining(stay_away()))?;
        // Should the worker go without a word, the stream ends like one that was drained.
        let end = stream::once(async { Err(draining(stay_away())) });
        Ok(Response::new(receiver.chain(end).boxed()))
    }
}

/// There is no worker to follow on: this edge is stopping.
#[derive(Debug)]
pub(super) struct NoWorker;

/// A stream on its way to a worker.
pub(super) struct Bridge {
    follow: Follow,
    terms: Terms,
    sender: Sender<Message>,
    permits: Permits,
}

impl Bridge {
    /// Opens the stream on the worker where it arrived.
    pub(super) fn open(self, worker: &std::rc::Rc<Worker>) {
        if worker.is_draining() {
            self.sender.end(Messages::end(End::later()));
        } else {
            // Becoming level is a message of its own: there is nothing to begin with.
            Relay::<Messages, _>::open(worker, self.sender, None, (self.follow, self.terms), (self.permits, ()));
        }
    }
}

fn follow(request: v1::SubscribeRequest, max_topics: usize, now: UnixMillis) -> Result<Follow, Status> {
    let mut topics: Vec<Topic> = Vec::new();
    for (index, text) in request.topics.iter().enumerate() {
        let topic = Topic::parse(text).map_err(|cause| invalid(format!("topics[{index}]"), cause.to_string()))?;
        if topic.is_reserved() {
            let detail = "topics that begin with `tidings.` are this service's own and cannot be followed";
            return Err(invalid(format!("topics[{index}]"), detail));
        }
        if !topics.contains(&topic) {
            topics.push(topic);
        }
        if topics.len() > max_topics {
            let detail = format!("one stream follows at most {max_topics} topics: open a second one");
            return Err(invalid("topics", detail));
        }
    }
    if topics.is_empty() {
        return Err(invalid("topics", "name at least one topic"));
    }
    let begin = || match request.start {
        None | Some(subscribe_request::Start::Earliest(false)) => Start::Now,
        Some(subscribe_request::Start::Earliest(true)) => Start::Earliest,
        Some(subscribe_request::Start::SinceMs(ago)) => Start::Since(now.before(Duration::from_millis(ago))),
    };
    let start = resume(Some(request.cursor.as_bytes())).unwrap_or_else(begin);
    Ok(Follow { topics, start })
}

fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Status {
    let (field, detail) = (field.into(), detail.into());
    let message = format!("{field}: {detail}");
    let details = ErrorDetails::with_bad_request_violation(field, detail);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn over(over: Over) -> Status {
    let details = ErrorDetails::with_retry_info(Some(stay_away()));
    Status::with_error_details(Code::ResourceExhausted, over.to_string(), details)
}

/// The status of a denial: with its label, and when to try again if that may help.
fn denied(denied: Denied) -> Status {
    let verdict = denied.verdict();
    let mut details = ErrorDetails::with_error_info(verdict.label.to_uppercase(), DOMAIN, []);
    if let Some(after) = denied.retry_after() {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(verdict.code, denied.to_string(), details)
}

fn draining(come_back_after: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(come_back_after));
    Status::with_error_details(
        Code::Unavailable,
        "this node is draining: call again with the last cursor",
        details,
    )
}

/// Deliveries as messages.
struct Messages;

impl Wire for Messages {
    type Item = Message;

    fn delivery(delivery: &Delivery<'_>) -> Option<(Message, usize)> {
        // What a message takes beside its texts, roughly.
        const OVERHEAD: usize = 64;
        let (cursor, message, bytes) = match *delivery {
            Delivery::Event { event, cursor, .. } => {
                let message = v1::Event {
                    topic: event.topic.to_string(),
                    r#type: event.event_type.as_ref().map(ToString::to_string).unwrap_or_default(),
                    data: event.data.to_string(),
                    time_ms: event.time.0,
                    sequence: event.seq.map_or(0, |seq| seq.0),
                };
                let bytes = message.topic.len() + message.r#type.len() + message.data.len();
                (
                    cursor.unwrap_or_default(),
                    subscribe_response::Message::Event(message),
                    bytes,
                )
            }
            Delivery::Gap { reason, cursor } => {
                let reason = match reason {
                    GapReason::Expired => v1::gap::Reason::Expired,
                    GapReason::Forked => v1::gap::Reason::Forked,
                    GapReason::Unknown => v1::gap::Reason::Unknown,
                };
                let gap = v1::Gap { reason: reason.into() };
                (cursor, subscribe_response::Message::Gap(gap), 0)
            }
            Delivery::Level { cursor } => (cursor, subscribe_response::Message::Level(v1::Level {}), 0),
        };
        let response = v1::SubscribeResponse {
            cursor: cursor.to_owned(),
            message: Some(message),
        };
        Some((Ok(response), bytes + cursor.len() + OVERHEAD))
    }

    /// gRPC's connections are kept alive below it.
    fn heartbeat() -> Option<Message> {
        None
    }

    fn expiring(left: Duration) -> Message {
        let expires_in_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Ok(v1::SubscribeResponse {
            cursor: String::new(),
            message: Some(subscribe_response::Message::Expiring(v1::Expiring { expires_in_ms })),
        })
    }

    fn end(end: End) -> Message {
        Err(match end.cause {
            Cause::Leave => draining(end.come_back_after),
            Cause::Expired => denied(Denied::Expired),
            Cause::Revoked => denied(Denied::Revoked),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(topics: &[&str], cursor: &str, start: Option<subscribe_request::Start>) -> v1::SubscribeRequest {
        v1::SubscribeRequest {
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            cursor: cursor.to_owned(),
            start,
        }
    }

    fn start(cursor: &str, start: Option<subscribe_request::Start>) -> Start {
        let now = UnixMillis(10_000);
        follow(request(&["t"], cursor, start), 3, now).expect("valid").start
    }

    #[test]
    fn a_request_is_read() {
        use subscribe_request::Start::{Earliest, SinceMs};
        assert_eq!(start("", None), Start::Now);
        assert_eq!(start("", Some(Earliest(false))), Start::Now);
        assert_eq!(start("", Some(Earliest(true))), Start::Earliest);
        assert_eq!(start("", Some(SinceMs(4_000))), Start::Since(UnixMillis(6_000)));
        assert_eq!(start("garbage", Some(Earliest(true))), Start::Unknown);
        let cursor = Cursor::parse("1-1.1").expect("a cursor");
        assert_eq!(start("1-1.1", Some(Earliest(true))), Start::After(cursor));
        let merged = follow(request(&["a", "b", "a", "b", "a"], "", None), 2, UnixMillis(0)).expect("valid");
        assert_eq!(merged.topics.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (topics, field) in [
            (&[][..], "topics"),
            (&["a", "b c"], "topics[1]"),
            (&["a", "tidings.revocations"], "topics[1]"),
            (&["a", "b", "c", "d"], "topics"),
        ] {
            let status = follow(request(topics, "", None), 3, UnixMillis(0)).expect_err("wrong");
            assert_eq!(status.code(), Code::InvalidArgument);
            let details = status.get_error_details();
            let violations = &details.bad_request().expect("details").field_violations;
            assert_eq!(violations[0].field, field);
        }
    }
}
