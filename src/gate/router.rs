//! The gate in front of a router: the publishing port and the admin port.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use tonic::{Code, Status};

use super::{Hosts, Pages, harden};
use crate::problem::Problem;

/// What is asked of each request of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// Which hosts it answers for.
    pub hosts: Hosts,
    /// Whose pages may ask.
    pub pages: Pages,
}

/// The router, behind the gate.
pub fn behind(gate: Gate, router: Router) -> Router {
    router.layer(from_fn_with_state(Arc::new(gate), pass))
}

async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let hosts = gate.hosts.check(&request).map_err(|refused| refused.problem());
    let refused = hosts.and_then(|_| gate.pages.check(&request).map_err(|refused| refused.problem()));
    let is_grpc = is_grpc(request.headers());
    let mut response = match refused {
        Ok(()) => next.run(request).await,
        Err(problem) if is_grpc => Status::new(Code::PermissionDenied, problem.detail).into_http(),
        Err(problem) => refuse(problem),
    };
    if !is_grpc {
        harden(response.headers_mut());
    }
    response
}

/// What of the request's body follows is not read: the connection ends.
fn refuse(problem: Problem) -> Response {
    let mut response = problem.into_response().map(Body::from);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Whether a request of these headers is to be answered as gRPC does.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    // `application/grpc-web` is another protocol.
    matches!(rest, Some([] | [b'+' | b';', ..]))
}
