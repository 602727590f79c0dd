//! Whose pages may ask where pages have no business: a browser sends some requests for any page to any server, unasked, and says so.

use http::{HeaderMap, Request, StatusCode, header, uri::Authority};

use crate::{model::Origin, problem::Problem};

/// The pages whose requests are taken: those of the host that is asked itself, and of these origins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pages {
    origins: Vec<Origin>,
}

impl Pages {
    /// Those of these origins too: behind a proxy that gives the request another host, a page's own host is not told from others.
    #[must_use]
    pub const fn of(origins: Vec<Origin>) -> Self {
        Self { origins }
    }

    /// Whether a request is nobody's page's, or that of a page that may ask.
    ///
    /// # Errors
    /// If it is another's.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), PageRefused> {
        let headers = request.headers();
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => {
                let site = headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes);
                // "none" is a person's own doing: an address that was typed.
                match site {
                    None | Some(b"same-origin" | b"none") => Ok(()),
                    Some(_) => Err(PageRefused),
                }
            }
            (Some(origin), None) => {
                let is_listed = self.origins.iter().any(|listed| origin == listed.as_str());
                let is_own = origin
                    .to_str()
                    .is_ok_and(|origin| is_of_host(origin, request.uri().authority(), headers));
                (is_listed || is_own).then_some(()).ok_or(PageRefused)
            }
            (Some(_), Some(_)) => Err(PageRefused),
        }
    }
}

/// Whether an origin is that of the host that is asked, whichever scheme it came by: TLS may end before this process.
fn is_of_host(origin: &str, target: Option<&Authority>, headers: &HeaderMap) -> bool {
    let header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = target.map(Authority::as_str).or(header);
    let of_page = origin.split_once("://").map(|(_, host)| host);
    matches!((of_page, host), (Some(page), Some(host)) if page.eq_ignore_ascii_case(host))
}

/// A request that a page of another origin had a browser send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "pages of other origins cannot ask this port: leave that to a backend, or name the origin in `http.cors_origins`"
)]
pub struct PageRefused;

impl PageRefused {
    /// The answer.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, self.to_string()).with_field("origin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(headers: &[(&str, &str)]) -> bool {
        let pages = Pages::of(vec![Origin::parse("https://app.example").expect("an origin")]);
        let mut request = Request::post("/v1/publish").header("host", "here.example:50051");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        pages.check(&request.body(()).expect("a request")).is_ok()
    }

    #[test]
    fn pages_of_others_are_told_by_what_browsers_say() {
        for (headers, taken) in [
            (&[][..], true),
            (&[("origin", "http://here.example:50051")], true),
            (&[("origin", "https://app.example")], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("origin", "http://here.example")], false),
            (&[("origin", "https://app.example.evil")], false),
            (&[("origin", "https://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (
                &[("origin", "https://app.example"), ("origin", "https://evil.example")],
                false,
            ),
        ] {
            assert_eq!(is_taken(headers), taken, "{headers:?}");
        }
    }
}
