//! Which pages of other origins may read streams, with credentials: those on the list, and no other. An origin is echoed only after
//! it was found on the list; there is no `*`.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::model::Origin;

/// How long a browser may remember the answer to a preflight, in seconds. Chromium remembers it for two hours at most.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// What a page may send along: a cursor, a token, and what fetch-based clients add by themselves.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static("last-event-id, authorization, cache-control");

/// What a page may read of the answer's headers, beside what it always may: what a refusal says.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("www-authenticate, retry-after");

/// What can be asked of a stream's address.
pub(super) const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// The list.
#[derive(Debug, Clone, Default)]
pub(super) struct Cors {
    origins: Vec<Origin>,
}

impl Cors {
    pub(super) fn new(origins: Vec<Origin>) -> Self {
        Self { origins }
    }

    /// Adds to an answer what its reader's browser must see. Who is not on the list gets the answer all the same: it is the browser
    /// that keeps it from the page.
    pub(super) fn mark(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        // The answer depends on who asks: a cache must not give one origin's to another.
        answer.insert(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.listed(request) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
            if answer.contains_key(header::WWW_AUTHENTICATE) || answer.contains_key(header::RETRY_AFTER) {
                answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
            }
        }
    }

    /// The answer to an `OPTIONS` request, before [`Self::mark`].
    pub(super) fn preflight<B: Default>(&self, request: &HeaderMap) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ALLOW, ALLOWED_METHODS);
        if self.listed(request).is_some() && request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static("GET, HEAD"),
            );
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
        response
    }

    fn listed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = request.get(header::ORIGIN)?;
        self.origins
            .iter()
            .any(|listed| origin == listed.as_str())
            .then(|| origin.clone())
    }
}

/// Whether a stream's address knows a method at all.
pub(super) fn is_allowed(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors() -> Cors {
        Cors::new(vec![
            Origin::parse("https://app.example").expect("an origin"),
            Origin::parse("http://[::1]:3000").expect("an origin"),
        ])
    }

    fn marked(cors: &Cors, origin: Option<&'static str>) -> HeaderMap {
        let (mut request, mut answer) = (HeaderMap::new(), HeaderMap::new());
        if let Some(origin) = origin {
            request.insert("origin", HeaderValue::from_static(origin));
        }
        cors.mark(&request, &mut answer);
        answer
    }

    #[test]
    fn only_the_listed_are_named() {
        let headers = marked(&cors(), Some("https://app.example"));
        assert_eq!(headers["access-control-allow-origin"], "https://app.example");
        assert_eq!(headers["access-control-allow-credentials"], "true");
        assert_eq!(headers["vary"], "origin");
        for other in [
            "https://app.example.evil",
            "https://app.exampl",
            "http://app.example",
            "null",
            "HTTPS://APP.EXAMPLE",
        ] {
            let headers = marked(&cors(), Some(other));
            assert_eq!(headers.len(), 1, "{other}");
            assert_eq!(headers["vary"], "origin");
        }
        assert_eq!(marked(&cors(), None)["vary"], "origin");
        assert!(marked(&Cors::default(), Some("https://app.example")).is_empty());
    }

    #[test]
    fn a_preflight_is_answered_for_the_listed() {
        let mut request = HeaderMap::new();
        request.insert("access-control-request-method", HeaderValue::from_static("GET"));
        let unknown: Response<()> = cors().preflight(&request);
        assert_eq!(unknown.status(), 204);
        assert_eq!(unknown.headers().get("access-control-allow-headers"), None);
        request.insert("origin", HeaderValue::from_static("https://app.example"));
        let listed: Response<()> = cors().preflight(&request);
        assert_eq!(
            listed.headers()["access-control-allow-headers"],
            "last-event-id, authorization, cache-control"
        );
        assert_eq!(listed.headers()["access-control-allow-methods"], "GET, HEAD");
        assert_eq!(listed.headers()["access-control-max-age"], "7200");
    }
}
