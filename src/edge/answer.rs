//! What a request is answered with, the same over HTTP/1.1 and HTTP/2: a stream, or something whole.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::{
    Settings, caller,
    cors::{self, Cors},
    frame,
    limits::{Over, come_back_after, stay_away},
    request::{RequestError, StreamRequest, claimed_user, first_topic, last_event_id},
    route::Routes,
    streams::{Terms, begins_now},
};
use crate::{
    auth::{Auth, Denied, Lease, User},
    gate::{self, Hosts},
    hub::Follow,
    model::{Slot, Topic, UnixMillis},
    problem::Problem,
};

/// Where streams are.
const EVENTS: &str = "/v1/events";
/// Where it is told which edge they belong on.
const ROUTE: &str = "/v1/route";
/// How long to wait before asking again while nobody is known to own a slot.
const NO_OWNER_RETRY: Duration = Duration::from_secs(2);

/// What to do with a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// Send this.
    Whole(Response<Bytes>),
    /// Send this, which asks the client to come back later, since there is no room for its stream now.
    Shed(Response<Bytes>, Shed),
    /// Open a stream, if there is room for it.
    Stream(Opening),
}

/// A stream to be opened.
#[derive(Debug)]
pub(super) struct Opening {
    /// What it follows.
    pub(super) follow: Follow,
    /// Who asks.
    pub(super) user: Option<User>,
    /// For how long they may stay.
    pub(super) lease: Option<Arc<Lease>>,
    /// The slot that it belongs with, if its client can be sent to another edge.
    pub(super) movable: Option<Slot>,
    /// The headers of the answer.
    pub(super) headers: HeaderMap,
}

impl Opening {
    /// What may end the stream.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            movable: self.movable,
            ages: true,
            lease: self.lease.clone(),
        }
    }

    /// Whether it begins with what was published before.
    pub(super) const fn replays(&self) -> bool {
        !begins_now(&self.follow.start)
    }
}

/// How requests are answered. Pure but for the jitter of those who are shed.
#[derive(Debug)]
pub(super) struct Rules {
    auth: Arc<Auth>,
    cors: Cors,
    hosts: Hosts,
    is_encrypted: bool,
    topics_per_stream: usize,
}

impl Rules {
    /// `is_encrypted`: whether all connections are.
    pub(super) fn new(settings: &Settings, auth: Arc<Auth>, is_encrypted: bool) -> Self {
        Self {
            auth,
            cors: Cors::new(settings.cors_origins.clone()),
            hosts: settings.hosts.clone(),
            is_encrypted,
            topics_per_stream: settings.topics_per_stream,
        }
    }

    /// Decides. `over` counts the request as an attempt and tells which limit it is over; it is asked before a token is looked at, since
    /// that is what costs: so whoever floods a node with bad tokens is shed for less than they pay.
    pub(super) fn answer<B>(
        &self,
        request: &Request<B>,
        routes: &Routes,
        over: impl FnOnce() -> Option<Over>,
        now: UnixMillis,
    ) -> Answer {
        let (mut answer, host) = match self.hosts.check(request) {
            Ok(host) => (self.decide(request, routes, over, now), host),
            Err(refused) => (Answer::Whole(refused.problem().into_response()), None),
        };
        let headers = match &mut answer {
            Answer::Whole(response) | Answer::Shed(response, _) => response.headers_mut(),
            Answer::Stream(opening) => &mut opening.headers,
        };
        gate::harden(headers);
        if self.is_encrypted {
            gate::harden_tls(headers, host.as_ref());
        }
        self.cors.mark(request.headers(), headers);
        answer
    }

    /// The answer to a stream that there is no room for: it comes back later.
    pub(super) fn shed(&self, opening: Opening) -> Response<Bytes> {
        come_back(opening.headers, stay_away())
    }

    fn decide<B>(
        &self,
        request: &Request<B>,
        routes: &Routes,
        over: impl FnOnce() -> Option<Over>,
        now: UnixMillis,
    ) -> Answer {
        let path = request.uri().path();
        if path != EVENTS && path != ROUTE {
            let detail = format!("there is nothing here; streams are at {EVENTS}");
            return Answer::Whole(Problem::new(StatusCode::NOT_FOUND, detail).into_response());
        }
        if !cors::is_allowed(request.method()) {
            let detail = format!("{} is not for streams; publishing is on another port", request.method());
            let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).into_response();
            response.headers_mut().insert(header::ALLOW, cors::ALLOWED_METHODS);
            return Answer::Whole(response);
        }
        if request.method() == Method::OPTIONS {
            return Answer::Whole(self.cors.preflight(request.headers()));
        }
        let answer = match (path == ROUTE, over()) {
            // It is no trouble to one that is over another limit, and may tell it where there is room.
            (true, Some(over @ Over::Attempts)) => return Answer::Whole(too_many(over)),
            (true, _) => self.route(request, routes, now).map(Answer::Whole),
            (false, Some(over)) => {
                return Answer::Shed(come_back(stream_headers(), stay_away()), over.into());
            }
            (false, None) => self.stream(request, routes, now),
        };
        match answer {
            Ok(answer) => answer,
            // A browser would take any other status as final.
            Err(Refused::Denied(Denied::KeyPending { retry_after } | Denied::NotReady { retry_after }))
                if path == EVENTS && is_get(request) =>
            {
                let response = come_back(stream_headers(), come_back_after(retry_after));
                Answer::Shed(response, Shed::Unknown)
            }
            Err(refused) => Answer::Whole(refused.into_response()),
        }
    }

    /// What is done about a request for a stream. Who asks is known before anything else is looked at: strangers learn nothing.
    fn stream<B>(&self, request: &Request<B>, routes: &Routes, now: UnixMillis) -> Result<Answer, Refused> {
        let query = request.uri().query().unwrap_or_default();
        let subscriber = caller::of_stream(&self.auth, request.headers(), query, now)?;
        let last_event_id = last_event_id(request.headers());
        let mut wanted = StreamRequest::parse(query, last_event_id.as_deref(), self.topics_per_stream, now)?;
        let user = caller::user(&self.auth, &subscriber, wanted.user.take())?;
        let wanted = wanted.of(user)?;
        caller::may_follow(&subscriber, &wanted.follow.topics)?;
        let slot = wanted.routing_topic().map(|topic| routes.slot(topic));
        let movable = slot.filter(|_| wanted.is_movable());
        if let Some(slot) = movable
            && let Some(location) = routes.redirect(slot, request.uri(), wanted.redirected, now)
        {
            return Ok(Answer::Whole(redirect(location)));
        }
        let headers = stream_headers();
        if !is_get(request) {
            let mut response = Response::new(Bytes::new());
            *response.headers_mut() = headers;
            return Ok(Answer::Whole(response));
        }
        Ok(Answer::Stream(Opening {
            follow: wanted.follow,
            user: wanted.user,
            lease: subscriber.lease().cloned(),
            movable,
            headers,
        }))
    }

    /// Which edge streams belong on: told to those who could have the stream.
    fn route<B>(&self, request: &Request<B>, routes: &Routes, now: UnixMillis) -> Result<Response<Bytes>, Refused> {
        let query = request.uri().query().unwrap_or_default();
        let subscriber = caller::of_stream(&self.auth, request.headers(), query, now)?;
        let topic = match caller::user(&self.auth, &subscriber, claimed_user(query)?)? {
            Some(user) => user.inbox().clone(),
            None => first_topic(query)?,
        };
        caller::may_follow(&subscriber, std::slice::from_ref(&topic))?;
        Ok(place(routes, &topic))
    }
}

fn is_get<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
}

/// Why a request is not served.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// Because of who asks.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Because of what they ask.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Refused {
    fn into_response(self) -> Response<Bytes> {
        match self {
            Self::Denied(denied) => denied.into_response(),
            Self::Request(error) => Problem::new(StatusCode::BAD_REQUEST, error.to_string())
                .with_field(error.parameter())
                .into_response(),
        }
    }
}

/// Asks a client to come back later, in the only way that browsers understand.
fn come_back(headers: HeaderMap, after: Duration) -> Response<Bytes> {
    let mut response = Response::new(frame::retry(after));
    *response.headers_mut() = headers;
    response
}

/// The answer to who asks too often for what is no stream.
fn too_many(over: Over) -> Response<Bytes> {
    let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, over.to_string());
    problem.retry_after = Some(Duration::from_secs(1));
    problem.into_response()
}

/// Which edge streams of this topic belong on.
fn place(routes: &Routes, topic: &Topic) -> Response<Bytes> {
    let Some(answer) = routes.answer(routes.slot(topic)) else {
        let detail = "no edge is known to have this slot: ask again, or connect to any";
        let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        problem.retry_after = Some(NO_OWNER_RETRY);
        return problem.into_response();
    };
    let mut response = Response::new(Bytes::from(answer));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Sends a client to another edge, for this once.
fn redirect(location: HeaderValue) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn stream_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(frame::CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(frame::CACHE_CONTROL));
    // Some proxies gather an answer before they pass it on, unless they are told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers
}

/// Why a stream was not opened though its request was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Shed {
    /// It is over a limit.
    #[error(transparent)]
    Over(#[from] Over),
    /// The node is going away.
    #[error("this node is draining")]
    Draining,
    /// Whether the caller's token is good is not known yet.
    #[error("the key of the caller's token, or what is revoked, is not known yet")]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        edge::route::{Sight, tests::two},
        model::{Layout, Origin},
    };

    fn rules() -> Rules {
        let settings = Settings {
            cors_origins: vec![Origin::parse("https://app.example").expect("an origin")],
            topics_per_stream: 2,
            ..Settings::default()
        };
        Rules::new(&settings, Arc::new(Auth::open()), false)
    }

    fn answer(method: &str, uri: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "test")
            .header("origin", "https://app.example")
            .body(())
            .expect("a request");
        rules().answer(&request, &two(Sight::Clear), || None, UnixMillis(0))
    }

    fn whole(method: &str, uri: &str) -> Response<Bytes> {
        match answer(method, uri) {
            Answer::Whole(response) => response,
            other => panic!("{method} {uri}: {other:?}"),
        }
    }

    #[test]
    fn what_is_not_a_stream_is_a_problem() {
        for (method, uri, status) in [
            ("GET", "/", 404),
            ("POST", "/v1/event", 404),
            ("GET", "/v1/events/?topic=a", 404),
            ("POST", "/v1/events?topic=a", 405),
            ("BREW", "/v1/events?topic=a", 405),
            ("GET", "/v1/events", 400),
            ("HEAD", "/v1/events", 400),
            ("GET", "/v1/events?topic=a&topic=b&topic=c", 400),
        ] {
            let response = whole(method, uri);
            assert_eq!(response.status(), status, "{method} {uri}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example");
            assert_eq!(response.headers().contains_key("allow"), status == 405);
        }
        let body = whole("GET", "/v1/events?topic=a%20b").into_body();
        assert!(body.ends_with(b"\"field\":\"topic\"}"), "{body:?}");
    }

    #[test]
    fn a_stream_has_its_headers() {
        let Answer::Stream(opening) = answer("GET", "/v1/events?topic=a&user=7") else {
            panic!("not a stream");
        };
        assert_eq!(opening.headers["content-type"], "text/event-stream");
        assert_eq!(opening.headers["cache-control"], "no-cache, no-transform");
        assert_eq!(opening.headers["x-accel-buffering"], "no");
        assert_eq!(opening.headers["vary"], "origin");
        assert_eq!(opening.user, Some(User::unverified("7").expect("valid")));
        let head = whole("HEAD", "/v1/events?topic=a&user=7");
        assert_eq!((head.status(), head.headers()), (StatusCode::OK, &opening.headers));
        let shed = rules().shed(opening);
        assert_eq!((shed.status(), shed.headers()), (StatusCode::OK, head.headers()));
        assert!(shed.body().starts_with(b"retry: "));
    }

    /// A user whose inbox is in a slot of the other edge, and one of this one's.
    fn there_and_here() -> [String; 2] {
        [true, false].map(|there| {
            let mut users = (0..).map(|id: u32| id.to_string());
            let belongs = |id: &String| {
                let inbox = Topic::inbox(id).expect("valid");
                let routes = two(Sight::Clear);
                routes.is_misplaced(routes.slot(&inbox)) == there
            };
            users.find(belongs).expect("there is one")
        })
    }

    #[test]
    fn a_route_is_json_and_a_redirect_only_for_who_asks() {
        let [there, here] = there_and_here();
        let route = whole("GET", &format!("/v1/route?user={there}"));
        assert_eq!(route.status(), 200);
        assert_eq!(route.headers()["content-type"], "application/json");
        assert_eq!(route.headers()["cache-control"], "no-store");
        assert_eq!(route.headers()["access-control-allow-origin"], "https://app.example");
        let body: serde_json::Value = serde_json::from_slice(route.body()).expect("JSON");
        assert_eq!(body["url"], "http://edge-1.example:8080/");
        for (uri, status) in [("/v1/route", 400), ("/v1/route?topic=a%20b", 400)] {
            assert_eq!(whole("GET", uri).status(), status, "{uri}");
        }
        let sent = whole("GET", &format!("/v1/events?topic=a&user={there}&redirect=1"));
        assert_eq!(sent.status(), 307);
        assert_eq!(
            sent.headers()["location"],
            format!("http://edge-1.example:8080/v1/events?topic=a&user={there}&redirect=1&redirected=0")
        );
        for uri in [
            format!("/v1/events?user={there}"),
            format!("/v1/events?user={there}&redirect=1&redirected=1"),
            format!("/v1/events?user={here}&redirect=1"),
        ] {
            let Answer::Stream(opening) = answer("GET", &uri) else {
                panic!("{uri} is not a stream");
            };
            assert_eq!(opening.movable.is_some(), uri.contains("redirect=1"), "{uri}");
        }
    }

    #[test]
    fn without_an_owner_there_is_no_route() {
        let routes = Routes::new(Layout::EMBEDDED, "edge-0", Vec::new(), |_| None, Sight::Clear);
        let request = Request::get("/v1/route?user=1")
            .header("host", "test")
            .body(())
            .expect("a request");
        let Answer::Whole(response) = rules().answer(&request, &routes, || None, UnixMillis(0)) else {
            panic!("a stream");
        };
        assert_eq!(
            (response.status(), &response.headers()["retry-after"]),
            (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from(2))
        );
    }

    #[test]
    fn a_preflight_is_no_stream() {
        assert_eq!(whole("OPTIONS", "/v1/events").status(), 204);
        assert_eq!(whole("OPTIONS", "/v1/other").status(), 404);
    }
}
