//! What a request is answered with, the same over HTTP/1.1 and HTTP/2: a stream, or something whole.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::{
    Settings,
    cors::{self, Cors},
    frame,
    limits::{Over, stay_away},
    request::{StreamRequest, last_event_id},
};
use crate::{auth::User, hub::Follow, model::UnixMillis, problem::Problem};

/// Where streams are.
pub(super) const PATH: &str = "/v1/events";

/// What to do with a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// Send this.
    Whole(Response<Bytes>),
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
    /// The headers of the answer.
    pub(super) headers: HeaderMap,
}

/// How requests are answered. Pure but for the jitter of those who are shed.
#[derive(Debug)]
pub(super) struct Rules {
    cors: Cors,
    topics_per_stream: usize,
}

impl Rules {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            cors: Cors::new(settings.cors_origins.clone()),
            topics_per_stream: settings.topics_per_stream,
        }
    }

    /// Decides.
    pub(super) fn answer<B>(&self, request: &Request<B>, now: UnixMillis) -> Answer {
        let mut answer = self.decide(request, now);
        let headers = match &mut answer {
            Answer::Whole(response) => response.headers_mut(),
            Answer::Stream(opening) => &mut opening.headers,
        };
        self.cors.mark(request.headers(), headers);
        answer
    }

    /// The answer to a stream that there is no room for: it comes back later.
    pub(super) fn shed(&self, opening: Opening) -> Response<Bytes> {
        let mut response = Response::new(frame::retry(stay_away()));
        *response.headers_mut() = opening.headers;
        response
    }

    fn decide<B>(&self, request: &Request<B>, now: UnixMillis) -> Answer {
        if request.uri().path() != PATH {
            let problem = Problem::new(
                StatusCode::NOT_FOUND,
                format!("there is nothing here; streams are at {PATH}"),
            );
            return Answer::Whole(problem.into_response());
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
        let last_event_id = last_event_id(request.headers());
        let query = request.uri().query().unwrap_or_default();
        let wanted = match StreamRequest::parse(query, last_event_id.as_deref(), self.topics_per_stream, now) {
            Ok(wanted) => wanted,
            Err(error) => {
                let problem = Problem::new(StatusCode::BAD_REQUEST, error.to_string()).with_field(error.parameter());
                return Answer::Whole(problem.into_response());
            }
        };
        let headers = stream_headers();
        if request.method() == Method::HEAD {
            let mut response = Response::new(Bytes::new());
            *response.headers_mut() = headers;
            return Answer::Whole(response);
        }
        Answer::Stream(Opening {
            follow: wanted.follow,
            user: wanted.user,
            headers,
        })
    }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;

    fn rules() -> Rules {
        Rules::new(&Settings {
            cors_origins: vec![Origin::parse("https://app.example").expect("an origin")],
            topics_per_stream: 2,
            ..Settings::default()
        })
    }

    fn answer(method: &str, uri: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("origin", "https://app.example")
            .body(())
            .expect("a request");
        rules().answer(&request, UnixMillis(0))
    }

    fn whole(method: &str, uri: &str) -> Response<Bytes> {
        match answer(method, uri) {
            Answer::Whole(response) => response,
            Answer::Stream(opening) => panic!("{method} {uri} opens {opening:?}"),
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

    #[test]
    fn a_preflight_is_no_stream() {
        assert_eq!(whole("OPTIONS", "/v1/events").status(), 204);
        assert_eq!(whole("OPTIONS", "/v1/other").status(), 404);
    }
}
