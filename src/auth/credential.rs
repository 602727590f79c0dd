//! Which token a request brings: `Authorization: Bearer …` before `?token=…` before the cookie.
//!
//! The first of these that is there decides, good or bad: whoever says who they are is not taken for somebody else whose cookie the browser
//! happened to send. The same one twice is refused, since there is no saying which is meant.

use std::borrow::Cow;

use http::{HeaderMap, header};

use super::Denied;

/// The query parameter that a token may be in.
const PARAMETER: &str = "token";

/// The token that a request brings, if it brings one.
///
/// `query` and `cookie` are for streams, whose clients in browsers cannot set headers. Where something is changed, both are to be `None`: a
/// browser sends cookies whoever asks it to.
///
/// # Errors
/// If there is more than one, or what should be one cannot be.
pub fn presented<'a>(
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    cookie: Option<&str>,
) -> Result<Option<Cow<'a, str>>, Denied> {
    if let Some(token) = bearer(headers)? {
        return Ok(Some(token.into()));
    }
    if let Some(token) = parameter(query.unwrap_or_default())? {
        return Ok(Some(token));
    }
    let Some(name) = cookie.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    Ok(from_cookie(headers, name)?.map(Cow::Borrowed))
}

/// RFC 6750, section 2.1. Another scheme is refused: whoever uses it means to say who they are.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Denied> {
    let Some(value) = once(headers.get_all(header::AUTHORIZATION).iter())? else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| Denied::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(Denied::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denied::Malformed);
    }
    checked(token.trim_matches(' ')).map(Some)
}

fn parameter(query: &str) -> Result<Option<Cow<'_, str>>, Denied> {
    let found = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == PARAMETER);
    let Some((_, token)) = once(found)? else {
        return Ok(None);
    };
    checked(&token)?;
    Ok(Some(token))
}

/// RFC 6265, section 5.4. A cookie that was emptied is none.
fn from_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Denied> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let found = cookies.filter_map(|cookie| {
        let at = cookie.iter().position(|byte| *byte == b'=')?;
        let (found, value) = (cookie[..at].trim_ascii(), cookie[at + 1..].trim_ascii());
        (found == name.as_bytes()).then_some(value)
    });
    let Some(value) = once(found)? else { return Ok(None) };
    let value = std::str::from_utf8(value).map_err(|_| Denied::Malformed)?;
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match quoted.unwrap_or(value) {
        "" => Ok(None),
        token => checked(token).map(Some),
    }
}

fn once<T>(mut found: impl Iterator<Item = T>) -> Result<Option<T>, Denied> {
    let first = found.next();
    if found.next().is_some() {
        return Err(Denied::Ambiguous);
    }
    Ok(first)
}

fn checked(token: &str) -> Result<&str, Denied> {
    if may_be_token(token) {
        Ok(token)
    } else {
        Err(Denied::Malformed)
    }
}

/// Whether a text can be brought as a token: it has the letters of a `b64token` (RFC 6750), and no others.
#[must_use]
pub fn may_be_token(text: &str) -> bool {
    let allows = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    !text.is_empty() && text.bytes().all(allows)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const COOKIE: &str = "tidings_token";

    fn headers(of: &[(&str, &[u8])]) -> HeaderMap {
        of.iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                    HeaderValue::from_bytes(value).expect("a value"),
                )
            })
            .collect()
    }

    fn found(of: &[(&str, &[u8])], query: &str) -> Result<Option<String>, Denied> {
        presented(&headers(of), Some(query), Some(COOKIE)).map(|token| token.map(Cow::into_owned))
    }

    fn token(text: &str) -> Result<Option<String>, Denied> {
        Ok(Some(text.to_owned()))
    }

    #[test]
    fn the_first_of_them_counts() {
        let bearer: (&str, &[u8]) = ("authorization", b"Bearer a.b.c");
        let cookie: (&str, &[u8]) = ("cookie", b"x=1; tidings_token=cookie; y=2");
        assert_eq!(found(&[bearer, cookie], "token=query"), token("a.b.c"));
        assert_eq!(found(&[cookie], "topic=a&token=query"), token("query"));
        assert_eq!(found(&[cookie], "topic=a"), token("cookie"));
        assert_eq!(found(&[], "topic=a"), Ok(None));
        assert_eq!(found(&[("authorization", b"bEARER   t  ")], ""), token("t"));
        // The others are not looked at then.
        assert_eq!(found(&[bearer, cookie, cookie], "token=a&token=b"), token("a.b.c"));
        // Nor are those that are not meant to be.
        let all = headers(&[cookie]);
        assert_eq!(presented(&all, None, None), Ok(None));
        assert_eq!(presented(&all, None, Some("")), Ok(None));
    }

    #[test]
    fn nobody_has_to_guess_which_is_meant() {
        for of in [
            &[("authorization", &b"Bearer a"[..]), ("authorization", b"Bearer a")][..],
            &[("cookie", b"tidings_token=a; tidings_token=a")],
            &[("cookie", b"tidings_token=a"), ("cookie", b"tidings_token=")],
        ] {
            assert_eq!(found(of, ""), Err(Denied::Ambiguous), "{of:?}");
        }
        for query in ["token=a&token=a", "token=&token=", "token=a&%74oken=b"] {
            assert_eq!(found(&[], query), Err(Denied::Ambiguous), "{query}");
        }
    }

    #[test]
    fn what_cannot_be_a_token_is_refused() {
        for value in [
            &b"Basic YTpi"[..],
            b"Bearer",
            b"Bearer ",
            b"Bearer a b",
            b"Bearer a,b",
            b"Bearer \xe4",
            b"Bearer a\tb",
            b"",
            b"a.b.c",
        ] {
            let shown = String::from_utf8_lossy(value);
            assert_eq!(
                found(&[("authorization", value)], "token=q"),
                Err(Denied::Malformed),
                "{shown}"
            );
        }
        for query in ["token", "token=", "token=a%20b", "token=a%00", "token=%ff"] {
            assert_eq!(found(&[], query), Err(Denied::Malformed), "{query}");
        }
        for cookie in [&b"tidings_token=a b"[..], b"tidings_token=\xff", b"tidings_token=\"a"] {
            assert_eq!(found(&[("cookie", cookie)], ""), Err(Denied::Malformed));
        }
    }

    #[test]
    fn cookies_are_read_as_browsers_write_them() {
        for (cookie, expected) in [
            (&b"tidings_token=a.b"[..], token("a.b")),
            (b"tidings_token=\"a.b\"", token("a.b")),
            (b" a=b;tidings_token = t ;", token("t")),
            (b"tidings_token=", Ok(None)),
            (b"tidings_token=\"\"", Ok(None)),
            (b"Tidings_token=a", Ok(None)),
            (b"xtidings_token=a; tidings_tokenx=b", Ok(None)),
            (b"tidings_token", Ok(None)),
            (b"", Ok(None)),
        ] {
            assert_eq!(
                found(&[("cookie", cookie)], ""),
                expected,
                "{}",
                String::from_utf8_lossy(cookie)
            );
        }
        let several: [(&str, &[u8]); 2] = [("cookie", b"a=b"), ("cookie", b"tidings_token=t")];
        assert_eq!(found(&several, ""), token("t"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_token_or_refused(
            header in prop::collection::vec(0x20_u8.., 0..40),
            cookie in prop::collection::vec(0x20_u8.., 0..40),
            query in any::<String>(),
        ) {
            for headers in [
                HeaderValue::from_bytes(&header).map(|value| (header::AUTHORIZATION, value)),
                HeaderValue::from_bytes(&cookie).map(|value| (header::COOKIE, value)),
            ] {
                let headers: HeaderMap = headers.into_iter().collect();
                if let Ok(Some(token)) = presented(&headers, Some(&query), Some(COOKIE)) {
                    prop_assert!(checked(&token).is_ok());
                }
            }
        }
    }
}
