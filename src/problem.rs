//! Errors over HTTP: problem details (RFC 9457).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::{Serialize, Serializer};

/// The content type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// A problem that is shown by a browser loads nothing, runs nothing and is in no frame.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Why a request was not served, as the answer's body says it:
/// `{"type":"about:blank","title":"Bad Request","status":400,"detail":"…","field":"topics[3]"}`.
///
/// The type is always `about:blank`: the status says what kind of problem it is, `detail` what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The answer's status.
    pub status: StatusCode,
    /// The status in words.
    pub title: &'static str,
    /// What is wrong with this request and what to do.
    pub detail: String,
    /// The field, parameter or header that is wrong, if it is one.
    pub field: Option<String>,
    /// How long to wait before trying again, if that may help: the `retry-after` header, in whole seconds, rounded up.
    pub retry_after: Option<Duration>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl Problem {
    /// A problem with the request as a whole.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            title: status.canonical_reason().unwrap_or("Error"),
            detail: detail.into(),
            field: None,
            retry_after: None,
        }
    }

    /// The same problem, with the field that is wrong.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The JSON text of the problem.
    #[must_use]
    pub fn body(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// The whole answer: status, headers and body. It is never to be kept by a cache.
    #[must_use]
    pub fn into_response(self) -> Response<Bytes> {
        let body = self.body();
        self.into_response_with(body)
    }

    /// The same with another body, for one that has more members than every problem has.
    #[must_use]
    pub fn into_response_with(self, body: Bytes) -> Response<Bytes> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = Body {
            r#type: "about:blank",
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
        };
        body.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_everything_once() {
        let problem = Problem {
            retry_after: Some(Duration::from_millis(4_001)),
            ..Problem::new(StatusCode::TOO_MANY_REQUESTS, "the \"disk\" is full").with_field("data")
        };
        let response = problem.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "5");
        assert_eq!(
            response.body().as_ref(),
            br#"{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"the \"disk\" is full","field":"data"}"#
        );
    }

    #[test]
    fn leaves_out_what_there_is_not() {
        let response = Problem::new(StatusCode::NOT_FOUND, "no such path").into_response();
        assert_eq!(response.headers().get("retry-after"), None);
        assert_eq!(
            response.body().as_ref(),
            br#"{"type":"about:blank","title":"Not Found","status":404,"detail":"no such path"}"#
        );
    }
}
