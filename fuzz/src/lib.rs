//! What strangers send, read by the code that has to read it. Whatever comes, nothing panics or hangs, and some things never happen: each
//! function asserts which. tests/fuzz.rs runs them, too.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header};
use tidings::{
    auth::{
        Auth, Issuer, Pattern, Presented, Settings,
        keys::{Jwks, Key, Keys},
        presented as credential,
    },
    edge::request::StreamRequest,
    model::{Topic, UnixMillis},
    proxies::{
        forwarded,
        header::{self as proxy, MAX_BYTES},
    },
};

/// 2025: the tokens of the corpus end in 2100.
const NOW: UnixMillis = UnixMillis(1_750_000_000_000);
/// What tokens are signed with where that is not what is tried.
const SECRET: &[u8] = b"a secret that everybody may read, for fuzzing only";
/// The topics that one stream may name.
const TOPICS: usize = 8;

/// The tokens of the corpus that were issued.
const ISSUED: [&str; 4] = [
    include_str!("../corpus/token/hs256"),
    include_str!("../corpus/token/rs256"),
    include_str!("../corpus/token/es256"),
    include_str!("../corpus/token/eddsa"),
];

static AUTH: LazyLock<Auth> = LazyLock::new(|| {
    let public = Key::from_pem(include_bytes!("../keys/public.pem")).expect("keys");
    let secret = Key::secret(SECRET).expect("a secret");
    let issuer = Issuer {
        name: Some("fuzz".into()),
        audience: vec!["tidings".into()],
        claim: "tidings".into(),
        keys: Arc::new(Keys::given(public.into_iter().chain([secret]).collect())),
    };
    Auth::new(Settings {
        issuers: vec![issuer],
        public: vec![Pattern::parse("quakes/**").expect("a pattern")],
        leeway: Duration::from_secs(30),
        expiry_notice: Duration::from_secs(30),
        ..Settings::default()
    })
});

/// A token that is accepted is one that was issued.
pub fn token(data: &[u8]) {
    let Ok(token) = std::str::from_utf8(data) else {
        return;
    };
    let presented = Presented {
        token: Some(token),
        certificate: &[],
    };
    let follows = AUTH.subscriber(&presented, NOW).is_ok();
    let publishes = AUTH.publisher(&presented, NOW).is_ok();
    assert_eq!(follows || publishes, ISSUED.contains(&token), "{token}");
}

/// Whatever the claims of a token that is signed as it should be: they open nothing that is reserved, and no inbox but its user's own.
pub fn claims(data: &[u8]) {
    // Of {"alg":"HS256"}.
    let message = format!("eyJhbGciOiJIUzI1NiJ9.{}", base64(data));
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("signed");
    let token = format!("{message}.{signature}");
    let presented = Presented {
        token: Some(&token),
        certificate: &[],
    };
    let reserved = Topic::parse("tidings.revocations").expect("a topic");
    let other = Topic::parse("user:somebody-else-entirely").expect("a topic");
    if let Ok(subscriber) = AUTH.subscriber(&presented, NOW) {
        assert!(!subscriber.may_follow(&reserved));
        if let Some(user) = subscriber.user() {
            let claims: serde_json::Value = serde_json::from_slice(data).expect("it was read");
            assert_eq!(claims["sub"].as_str(), Some(user.id()));
            assert!(subscriber.may_follow(user.inbox()));
        }
        let text = String::from_utf8_lossy(data);
        assert!(
            !subscriber.may_follow(&other)
                || text.contains("user:")
                || text.contains('\\')
                || text.contains("somebody-else")
        );
    }
    if let Ok(publisher) = AUTH.publisher(&presented, NOW) {
        assert!(!publisher.may_publish(&reserved));
    }
}

/// A key set that is read has keys; with them nothing is verified that was not signed.
pub fn jwks(data: &[u8]) {
    for is_public in [true, false] {
        let Ok(set) = Jwks::parse(data, is_public) else {
            continue;
        };
        assert!(!set.keys.is_empty());
        let issuer = Issuer {
            name: None,
            audience: Vec::new(),
            claim: "tidings".into(),
            keys: Arc::new(Keys::given(set.keys)),
        };
        let auth = Auth::new(Settings {
            issuers: vec![issuer],
            ..Settings::default()
        });
        // Of {"alg":"HS256"} and the like, with an empty signature.
        for head in [
            "eyJhbGciOiJIUzI1NiJ9",
            "eyJhbGciOiJSUzI1NiJ9",
            "eyJhbGciOiJFUzI1NiJ9",
            "eyJhbGciOiJFZERTQSJ9",
        ] {
            let token = format!("{head}.eyJzdWIiOiI0MiIsImV4cCI6NDEwMjQ0NDgwMH0.");
            let presented = Presented {
                token: Some(&token),
                certificate: &[],
            };
            assert!(auth.subscriber(&presented, NOW).is_err());
        }
    }
}

/// A PROXY header is read to its end and not further, however it comes; and never without one.
pub fn proxy_header(data: &[u8]) {
    let mut read = 0;
    let source = loop {
        match proxy::missing(&data[..read]) {
            Err(wrong) => break Err(wrong),
            Ok(0) => break proxy::parse(&data[..read]),
            Ok(missing) if read + missing > data.len() => return,
            Ok(missing) => read += missing,
        }
    };
    assert!(read <= MAX_BYTES);
    if source.is_ok() {
        let header = &data[..read];
        assert!(
            header.starts_with(b"PROXY ") && header.ends_with(b"\r\n") || header.starts_with(b"\r\n\r\n\0\r\nQUIT\n")
        );
        // It is read the same a byte at a time.
        for at in 0..read {
            let missing = proxy::missing(&header[..at]).expect("its beginning");
            assert!((1..=read - at).contains(&missing));
        }
    }
}

/// Whatever is in `X-Forwarded-For`: what a proxy adds at the right is what counts. Lines are separate headers.
pub fn forwarded_for(data: &[u8]) {
    let is_proxy = |address: IpAddr| matches!(address, IpAddr::V4(address) if address.octets()[0] == 10);
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(forwarded::NAME, value);
        }
    }
    let _ = forwarded::client(&headers, is_proxy);
    let added = IpAddr::from([203, 0, 113, 77]);
    for own in [
        "203.0.113.77",
        "203.0.113.77, 10.0.0.1",
        "[::ffff:203.0.113.77]:80 ,10.0.0.1",
    ] {
        let mut headers = headers.clone();
        headers.append(forwarded::NAME, HeaderValue::from_static(own));
        assert_eq!(forwarded::client(&headers, is_proxy), Some(added));
    }
}

/// A request for a stream: the query, and after a line break a `Last-Event-ID`.
pub fn query(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let query = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let Ok(request) = StreamRequest::parse(&query, parts.next(), TOPICS, NOW) else {
        return;
    };
    assert!(request.follow.topics.len() <= TOPICS + 1);
    assert!(request.follow.topics.iter().all(|topic| !topic.is_reserved()));
}

/// What says who sends a request: three lines, an `Authorization`, a query and a cookie. What is taken stands somewhere in them, and a header
/// that is there is never passed over.
pub fn presented(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let [authorization, query, cookie] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    for (name, line) in [(header::AUTHORIZATION, authorization), (header::COOKIE, cookie)] {
        match HeaderValue::from_bytes(line) {
            Ok(value) if !line.is_empty() => headers.append(name, value),
            _ => continue,
        };
    }
    let query = String::from_utf8_lossy(query);
    let Ok(Some(token)) = credential(&headers, Some(&query), Some("tidings_token")) else {
        return;
    };
    assert!(!token.is_empty());
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        assert!(
            value.as_bytes().ends_with(token.as_bytes())
                || value.as_bytes().trim_ascii_end().ends_with(token.as_bytes())
        );
    }
}

/// As tokens have it: for URLs, without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}
