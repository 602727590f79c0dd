//! `POST /v1/publish`: publishing as JSON, on the same port as gRPC.
//!
//! One object in, one object out:
//!
//! ```text
//! {"topics":["user:42"],"type":"order","data":"…","key":"…"}  →  {"results":[{"topic":"user:42","sequence":7,"repeated":false}]}
//! ```
//!
//! Where the topics belong to several shards and some have the event and others not, the answer is a problem whose `results` say which: those
//! that do not have it have an `error`, a problem of its own, instead of a sequence.
//!
//! Or one object per line, in and out, in the same order, streamed both ways. A line that is refused is answered with
//! `{"line":3,"error":{…}}`, lines counted from 1, and does not stop the others; blank lines have no answer. If the node drains, or the caller's
//! token ends or is revoked, the last answer is an error for the first line that was not taken; over HTTP/1.1, a client that goes on sending all
//! the same may lose the last answers with the connection, and asks again with the same keys. So it is with a client that sends no line for too
//! long, not even a blank one. A client must read answers while it sends: one that does not is not read either.
//!
//! `application/x-ndjson` is one object per line, also if there is only one. With `application/json`, without a content type, and with
//! `application/x-www-form-urlencoded`, which is what `curl -d` sends unless it is told otherwise, the body decides: it is one per line
//! if a line with an object is followed by another line. From a page, which is known by its `Origin` or `Sec-Fetch-Site`, the last two are
//! refused: browsers send them to any server, unasked.

mod answer;
mod lines;
mod object;
mod pace;
mod shape;

use std::sync::Arc;

use axum::{Router, body::Body, extract::State, routing::post};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;

pub use self::object::{Malformed, parse};
use self::{
    lines::Lines,
    pace::{Broken, Paced},
    shape::{FirstObject, Found, Shape},
};
use super::{
    Caller, Ingest, IngestError,
    pipeline::{Ended, Pipeline},
};
use crate::problem::Problem;

/// The routes, to be served beside the gRPC services.
pub fn router(ingest: Ingest) -> Router {
    Router::new()
        .route("/v1/publish", post(publish).fallback(method_not_allowed))
        .with_state(ingest)
}

async fn publish(State(ingest): State<Ingest>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let caller = match ingest.caller(&head.headers, &head.extensions) {
        Ok(caller) => caller,
        Err(denied) => return denied.into_response().map(Body::from),
    };
    let answer = match Shape::of(&head.headers) {
        Ok(Shape::Either) => publish_either(ingest, caller, body).await,
        Ok(Shape::Lines) => publish_lines(ingest, caller, body),
        Err(problem) => Err(problem),
    };
    answer.unwrap_or_else(|problem| problem.into_response().map(Body::from))
}

async fn method_not_allowed() -> Response<Body> {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "events are published with POST; streams are read from /v1/events on the other port",
    );
    let mut response = problem.into_response().map(Body::from);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// Publishes what the body turns out to be, of which no more is gathered than one object.
async fn publish_either(ingest: Ingest, caller: Arc<Caller>, mut body: Body) -> Result<Response<Body>, Problem> {
    ingest.check_open().map_err(|error| answer::problem(&error))?;
    let limit = ingest.settings().json_bytes();
    let within = ingest.settings().body_within;
    let gathered = tokio::time::timeout(within, gather(&mut body, limit)).await;
    let text = match gathered.map_err(|_| answer::problem(&IngestError::Late { within }))?? {
        (text, Some(Found::Lines)) => {
            let begin = stream::once(std::future::ready(Ok(text.freeze())));
            let whole = Body::from_stream(begin.chain(body.into_data_stream()));
            return publish_lines(ingest, caller, whole);
        }
        (text, _) => text,
    };
    let outcome = async { ingest.publish(&caller, parse(&text)?, None).await?.await };
    Ok(match outcome.await {
        Ok(published) => of_type("application/json", Body::from(answer::of_all(&published))),
        Err(error) => answer::of_failure(&error).map(Body::from),
    })
}

/// Reads a body until it is known to be one object per line, or else to its end.
async fn gather(body: &mut Body, limit: usize) -> Result<(BytesMut, Option<Found>), Problem> {
    let mut text = BytesMut::new();
    let mut first = FirstObject::default();
    let mut found = None;
    while found.is_none() && text.len() <= limit {
        let Some(data) = next(body).await? else { break };
        text.extend_from_slice(&data);
        found = first.find(&text);
    }
    if found != Some(Found::Lines) {
        text = read(body, text, limit).await?;
    }
    Ok((text, found))
}

/// Reads the rest of a body that is no longer than `limit`. Of a longer one, some more is read and forgotten before it is refused: a client that
/// is still sending when the connection is closed would not get to see why.
async fn read(body: &mut Body, mut text: BytesMut, limit: usize) -> Result<BytesMut, Problem> {
    const FORGOTTEN: usize = 16 * 1024 * 1024;
    let mut length = text.len();
    while length <= limit.saturating_add(FORGOTTEN) {
        let Some(data) = next(body).await? else { break };
        length = length.saturating_add(data.len());
        if length <= limit {
            text.extend_from_slice(&data);
        }
    }
    if length > limit {
        return Err(answer::problem(&Malformed::TooLong { limit }.into()));
    }
    Ok(text)
}

/// The next piece of a body.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let detail = format!("the body did not arrive whole: {error}");
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn publish_lines(ingest: Ingest, caller: Arc<Caller>, body: Body) -> Result<Response<Body>, Problem> {
    ingest.check_open().map_err(|error| answer::problem(&error))?;
    let within = ingest.settings().body_within;
    let drafts = Lines::new(Paced::new(body, within), ingest.settings().json_bytes()).map(|line| {
        line.map(|(number, text)| {
            let draft = text.and_then(|text| parse(&text));
            (number, draft.map_err(IngestError::from))
        })
    });
    let mut answered = 0;
    let answers = Pipeline::new(ingest, caller, drafts, None).filter_map(move |item| {
        std::future::ready(match item {
            Ok((line, outcome)) => {
                answered = line;
                Some(Ok(answer::line(line, outcome)))
            }
            Err(Ended::Stopped(error)) => Some(Ok(answer::line(answered + 1, Err(error)))),
            // Whoever sent half a body is gone, or has itself to blame: the end of the answers says so by their number.
            Err(Ended::Input(Broken::Body(error))) => Some(Err(error)),
            Err(Ended::Input(Broken::Late)) => Some(Ok(answer::line(answered + 1, Err(IngestError::Late { within })))),
        })
    });
    Ok(of_type("application/x-ndjson", Body::from_stream(answers)))
}

fn of_type(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
