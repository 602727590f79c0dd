//! What answers say to browsers beside what they hold, so that nothing is made of them that they are not.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::model::Host;

/// Nothing is guessed from the content; the address that was asked, which may hold a token, is told to nobody; and no page of another origin
/// embeds it, as it could a script or an image. EventSource and fetch ask as `cors`, and do not embed.
const ALWAYS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// For a year, browsers ask this host over TLS alone.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds to an answer over TLS that is for this host, if it says. Not on loopback: there are other ports on it, of other programs, without TLS.
pub fn harden_tls(headers: &mut HeaderMap, host: Option<&Host>) {
    if host.is_some_and(|host| !host.is_loopback()) {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, ONLY_TLS);
    }
}

/// Adds to an answer, whole or a stream, what it does not say itself.
pub fn harden(headers: &mut HeaderMap) {
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_says_itself_stays() {
        let mut headers = HeaderMap::new();
        headers.insert("referrer-policy", HeaderValue::from_static("same-origin"));
        harden(&mut headers);
        assert_eq!(headers["referrer-policy"], "same-origin");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn only_hosts_with_a_name_of_their_own_are_for_tls_alone() {
        for (host, there) in [("events.example.com", true), ("localhost", false), ("127.0.0.1", false)] {
            let mut headers = HeaderMap::new();
            harden_tls(&mut headers, Some(&Host::parse(host).expect("a host")));
            assert_eq!(headers.contains_key("strict-transport-security"), there, "{host}");
        }
    }
}
