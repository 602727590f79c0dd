//! Which hosts a port answers for.
//!
//! A page of any site can have its own name lead to this machine (DNS rebinding). To the browser it then is of the same origin as what listens
//! here, and may read all of it. Nothing gives it away but the host that it asks for: its own.

use http::{HeaderMap, Request, StatusCode, Version, header, uri::Authority};

use crate::{model::Host, problem::Problem};

/// The hosts that a port answers for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// These, and the names of loopback; all if there is no list.
    listed: Option<Vec<Host>>,
}

impl Hosts {
    /// All there are: who may do what is decided by something else than where the request came in.
    #[must_use]
    pub const fn any() -> Self {
        Self { listed: None }
    }

    /// These, and the names of loopback.
    #[must_use]
    pub const fn only(listed: Vec<Host>) -> Self {
        Self { listed: Some(listed) }
    }

    /// Finds the host that a request is for; one of HTTP/1.0 may name none.
    ///
    /// # Errors
    /// If there is not exactly one, or this port does not answer for it.
    pub fn check<B>(&self, request: &Request<B>) -> Result<Option<Host>, HostRefused> {
        let host = authority(request)?;
        if let (Some(host), Some(listed)) = (&host, &self.listed)
            && !host.is_loopback()
            && !listed.contains(host)
        {
            return Err(HostRefused::Stranger { host: host.clone() });
        }
        Ok(host)
    }
}

/// The one host that a request names. No browser speaks HTTP/1.0.
fn authority<B>(request: &Request<B>) -> Result<Option<Host>, HostRefused> {
    let header = header_of(request.headers())?;
    let target = request.uri().authority().map(Authority::as_str);
    let text = match (target, header) {
        // Two servers in a row could each believe another one.
        (Some(target), Some(header)) if !target.eq_ignore_ascii_case(header) => return Err(HostRefused::Contradicted),
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) if request.version() < Version::HTTP_11 => return Ok(None),
        (None, None) => return Err(HostRefused::Missing),
    };
    Host::of_authority(text).map(Some).ok_or(HostRefused::Malformed)
}

fn header_of(headers: &HeaderMap) -> Result<Option<&str>, HostRefused> {
    let mut values = headers.get_all(header::HOST).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HostRefused::Repeated);
    }
    first.to_str().map(Some).map_err(|_| HostRefused::Malformed)
}

/// Why a request is for no host of this port's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostRefused {
    /// There is none.
    #[error("the request names no host: HTTP/1.1 demands the header `host`")]
    Missing,
    /// There are several.
    #[error("the request names its host more than once")]
    Repeated,
    /// It cannot be one.
    #[error("the request's host is not a host")]
    Malformed,
    /// There are two different ones.
    #[error("the request's target and its header `host` name different hosts")]
    Contradicted,
    /// This port does not answer for it.
    #[error(
        "this port does not answer for the host \"{host}\": name it in `http.hosts` if that is where it is to be reached"
    )]
    Stranger {
        /// Which one.
        host: Host,
    },
}

impl HostRefused {
    /// The answer.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let status = match self {
            Self::Missing | Self::Repeated | Self::Malformed | Self::Contradicted => StatusCode::BAD_REQUEST,
            Self::Stranger { .. } => StatusCode::MISDIRECTED_REQUEST,
        };
        Problem::new(status, self.to_string()).with_field("host")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &Hosts, version: Version, uri: &str, headers: &[&str]) -> &'static str {
        let mut request = Request::builder().version(version).uri(uri);
        for host in headers {
            request = request.header("host", *host);
        }
        match hosts.check(&request.body(()).expect("a request")) {
            Ok(_) => "fine",
            Err(HostRefused::Missing) => "missing",
            Err(HostRefused::Repeated) => "repeated",
            Err(HostRefused::Malformed) => "malformed",
            Err(HostRefused::Contradicted) => "contradicted",
            Err(HostRefused::Stranger { .. }) => "stranger",
        }
    }

    #[test]
    fn there_is_exactly_one_host() {
        let any = Hosts::any();
        for (version, uri, headers, want) in [
            (Version::HTTP_11, "/", &["a"][..], "fine"),
            (Version::HTTP_11, "/", &[], "missing"),
            (Version::HTTP_10, "/", &[], "fine"),
            (Version::HTTP_11, "/", &["a", "a"], "repeated"),
            (Version::HTTP_10, "/", &["a", "b"], "repeated"),
            (Version::HTTP_11, "/", &[""], "malformed"),
            (Version::HTTP_11, "/", &["a b"], "malformed"),
            (Version::HTTP_11, "http://a:80/", &["A:80"], "fine"),
            (Version::HTTP_11, "http://a/", &["b"], "contradicted"),
            (Version::HTTP_11, "http://u@a/", &["u@a"], "malformed"),
            (Version::HTTP_2, "http://a/", &[], "fine"),
            (Version::HTTP_2, "http://a/", &["b"], "contradicted"),
            (Version::HTTP_2, "/", &[], "missing"),
        ] {
            assert_eq!(
                check(&any, version, uri, headers),
                want,
                "{version:?} {uri} {headers:?}"
            );
        }
    }

    #[test]
    fn a_rebound_name_is_a_stranger() {
        let hosts = Hosts::only(vec![Host::parse("events.example.com").expect("a host")]);
        for (host, want) in [
            ("localhost:8080", "fine"),
            ("127.0.0.1:8080", "fine"),
            ("[::1]:8080", "fine"),
            ("events.example.com", "fine"),
            ("EVENTS.example.com.:443", "fine"),
            ("evil.example:8080", "stranger"),
            ("127.0.0.1.evil.example:8080", "stranger"),
            ("events.example.com.evil.example", "stranger"),
        ] {
            assert_eq!(check(&hosts, Version::HTTP_11, "/", &[host]), want, "{host}");
            assert_eq!(
                check(&hosts, Version::HTTP_2, &format!("http://{host}/"), &[]),
                want,
                "{host}"
            );
        }
    }
}
