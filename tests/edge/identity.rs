//! Who is let in, and to what: by a token in every place that it may be in, and by every spelling of what is somebody else's.

use serde_json::json;
use tidings::{
    auth::keys::Keys,
    edge::{EdgeHandle, Settings},
    model::Origin,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    bearer::{Asked, HOUR, asking, bearer, options, token, token_with},
    client::{Client, Head, Said, guard},
    grpc, http2,
    world::{Options, World, start, start_with},
};

/// The answer to one request, which is no stream.
async fn ask(edge: &EdgeHandle, method: &str, uri: &str, headers: &[(&str, &str)]) -> (Head, String) {
    let mut client = Client::connect(edge.address()).await;
    client.request(method, uri, headers).await;
    client.answer().await
}

/// The status of one request, over both protocols; of a stream that opens, 200.
async fn status(edge: &EdgeHandle, method: &str, uri: &str, headers: &[(&str, &str)]) -> u16 {
    let mut client = Client::connect(edge.address()).await;
    client.request(method, uri, headers).await;
    let status = client.head().await.status;
    let mut connection = http2::connect(edge.address()).await;
    let again = http2::ask(&mut connection, method, uri, headers).await.status();
    assert_eq!(status, again.as_u16(), "{method} {uri} over HTTP/2");
    status
}

/// The data of the first event of a stream.
async fn first(edge: &EdgeHandle, uri: &str, headers: &[(&str, &str)]) -> String {
    Client::stream(edge.address(), uri, headers).await.data().await
}

#[tokio::test]
async fn a_token_is_found_wherever_it_may_be() {
    let world = World::new();
    world.publish("user:8", None, "of another");
    world.publish("user:7", None, "mine");
    let edge = start(&world, options());
    let token = token("7", &[]);
    let header = bearer(&token);
    let cookie = format!("a=b; tidings_token={token}");
    let since = "/v1/events?since=earliest";
    for (uri, headers) in [
        (since.to_owned(), vec![("authorization", &*header)]),
        (format!("{since}&user=7"), vec![("authorization", &*header)]),
        (format!("{since}&token={token}"), vec![]),
        (since.to_owned(), vec![("cookie", &*cookie)]),
    ] {
        assert_eq!(first(&edge, &uri, &headers).await, "mine", "{uri} {headers:?}");
        let mut connection = http2::connect(edge.address()).await;
        let response = http2::ask(&mut connection, "GET", &uri, &headers).await;
        assert_eq!(http2::Stream::of(response).data().await, "mine", "{uri} {headers:?}");
    }
    let mut client = grpc::client(&edge).await;
    let request = grpc::request(
        &["user:7"],
        "",
        Some(tidings_proto::v1::subscribe_request::Start::Earliest(true)),
    );
    let mut stream = client
        .subscribe(grpc::with_token(request, &token))
        .await
        .unwrap()
        .into_inner();
    let message = grpc::next(&mut stream).await.1;
    assert!(matches!(message, tidings_proto::v1::subscribe_response::Message::Event(event) if event.data == "mine"));
}

#[tokio::test]
async fn who_brings_none_is_asked_for_one_in_words_that_a_page_can_read() {
    let mut options = options();
    options.settings.cors_origins = vec![Origin::parse("https://app.example").unwrap()];
    let edge = start(&World::new(), options);
    for uri in [
        "/v1/events?topic=a",
        "/v1/events",
        "/v1/events?user=7",
        "/v1/events?topic=a%20b",
        "/v1/route?user=7",
    ] {
        let (head, body) = ask(&edge, "GET", uri, &[("origin", "https://app.example")]).await;
        assert_eq!(head.status, 401, "{uri}");
        assert!(body.contains("who is asking?"), "{body}");
        for line in [
            "www-authenticate: Bearer realm=\"tidings\"",
            "content-type: application/problem+json",
            "cache-control: no-store",
            "access-control-allow-origin: https://app.example",
            "access-control-allow-credentials: true",
            "access-control-expose-headers: www-authenticate, retry-after",
            "vary: origin",
        ] {
            assert!(head.has(line), "{line} is not in {head:?}");
        }
        let (head, _) = ask(&edge, "GET", uri, &[("origin", "https://evil.example")]).await;
        assert_eq!(head.status, 401, "{uri}");
        assert!(
            head.has("vary: origin") && !head.lines.iter().any(|line| line.starts_with("access-control")),
            "{head:?}"
        );
    }
    let (head, _) = ask(&edge, "GET", "/v1/events?topic=a&token=x.y.z", &[]).await;
    assert!(
        head.has("www-authenticate: Bearer realm=\"tidings\", error=\"invalid_token\""),
        "{head:?}"
    );
    assert_eq!(status(&edge, "HEAD", "/v1/events?topic=a", &[]).await, 401);
    // A preflight brings no token: browsers see to that.
    assert_eq!(status(&edge, "OPTIONS", "/v1/events?topic=a", &[]).await, 204);
    let header = bearer(&token("7", &["a"]));
    let headers = [("authorization", &*header)];
    assert_eq!(status(&edge, "HEAD", "/v1/events?topic=a", &headers).await, 200);
    let error = grpc::client(&edge)
        .await
        .subscribe(grpc::request(&["a"], "", None))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert_eq!(error.get_error_details().error_info().unwrap().reason, "NO_TOKEN");
}

/// Every way to ask for the inbox of 8 with the token of 7, and what comes of it; 200: a stream of 7's inbox alone.
const SPELLINGS: &[(&str, u16)] = &[
    ("topic=user:8", 403),
    ("topic=user%3A8", 403),
    ("topic=user%3a8", 403),
    ("topic=%75%73%65%72%3A%38", 403),
    ("topic=user:7&topic=user:8", 403),
    ("topic=user:8&topic=user:7", 403),
    ("user=7&topic=user:8", 403),
    ("topic=user:7&topic=user:7&topic=user%3A8", 403),
    ("topic=USER:8", 403),
    ("topic=User:8", 403),
    ("topic=user:8/", 403),
    ("topic=user:8.", 403),
    ("topic=/user:8", 403),
    ("topic=user:7/../user:8", 403),
    ("topic=user:7%2F..%2Fuser:8", 403),
    ("topic=../user:8", 403),
    ("topic=user::8", 403),
    ("topic=user:", 403),
    ("topic=user:07", 403),
    ("topic=user:77", 403),
    // Decoded once, what is left of a second encoding is no topic.
    ("topic=user%253A8", 400),
    ("topic=user:%2538", 400),
    ("topic=user:8%00", 400),
    ("topic=user:7%00&topic=user:7", 400),
    ("topic=user:%0038", 400),
    ("topic=user:8%20", 400),
    ("topic=user:+8", 400),
    ("topic=+user:8", 400),
    ("topic=user:8%0d%0a", 400),
    ("topic=user:8%09", 400),
    ("topic=user:7%26topic=user:8", 400),
    ("topic=user:7;topic=user:8", 400),
    ("topic=user:7,user:8", 400),
    ("topic=user:8%23", 400),
    ("topic=user:8%3F", 400),
    ("topic=user%5C:8", 400),
    ("topic=user:*", 400),
    ("topic=user:%7Bsub%7D", 400),
    // A full-width colon, a full-width u, a Cyrillic e, a combining mark, overlong and broken UTF-8.
    ("topic=user%EF%BC%9A8", 400),
    ("topic=%EF%BD%95ser:8", 400),
    ("topic=us%D0%B5r:8", 400),
    ("topic=user:8%CC%81", 400),
    ("topic=user%C0%BA8", 400),
    ("topic=user:8%ff", 400),
    ("topic=%EF%BB%BFuser:8", 400),
    ("user=8", 403),
    ("user=%38", 403),
    ("us%65r=8", 403),
    ("user=8&user=7", 403),
    ("user=7/../8", 403),
    ("user=user:8", 403),
    ("user=07", 403),
    ("user=7/", 403),
    ("user=7%00", 400),
    ("user=", 400),
    ("user=7+", 400),
    ("user=%EF%BC%97", 400),
    // Of a repeated user the first counts, which is the one that is followed.
    ("user=7&user=8", 200),
    // Names that are none of ours mean nothing.
    ("TOPIC=user:8", 200),
    ("Topic=user:8", 200),
    ("USER=8", 200),
    ("topic%00=user:8", 200),
    ("topic%20=user:8", 200),
    ("topic[]=user:8", 200),
    ("user[]=8", 200),
    ("%20user=8", 200),
    (";topic=user:8", 200),
    ("route=8&slot=8", 200),
    ("", 200),
    ("topic=user:7", 200),
    // The service's own.
    ("topic=tidings.revocations", 400),
    ("topic=tidings%2Erevocations", 400),
];

#[tokio::test]
async fn no_spelling_leads_to_another_inbox() {
    let world = World::new();
    for topic in ["user:8", "user:08", "user:77", "USER:8", "user:8/"] {
        world.publish(topic, None, "of another");
    }
    world.publish("user:7", None, "mine");
    let edge = start(&world, options());
    let header = bearer(&token("7", &[]));
    let headers = [("authorization", &*header)];
    for (query, want) in SPELLINGS {
        let uri = format!("/v1/events?{query}&since=earliest");
        assert_eq!(status(&edge, "GET", &uri, &headers).await, *want, "{query}");
        if *want == 200 {
            assert_eq!(first(&edge, &uri, &headers).await, "mine", "{query}");
        }
    }
    for path in [
        "/v1/events/",
        "/v1//events",
        "/V1/events",
        "/v1/events%3Ftopic=user:8",
        "/v1/./events",
        "/v1/route/../events",
    ] {
        assert_eq!(
            status(&edge, "GET", &format!("{path}?topic=user:8"), &headers).await,
            404,
            "{path}"
        );
    }
    let mut client = grpc::client(&edge).await;
    for (topic, code) in [
        ("user:8", Code::PermissionDenied),
        ("User:8", Code::PermissionDenied),
        ("user:8/", Code::PermissionDenied),
        ("user%3A8", Code::InvalidArgument),
        ("user:8\0", Code::InvalidArgument),
        ("user\u{ff1a}8", Code::InvalidArgument),
        ("tidings.revocations", Code::InvalidArgument),
    ] {
        let request = grpc::request(&["user:7", topic], "", None);
        let error = client
            .subscribe(grpc::with_token(request, &token("7", &[])))
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{topic}");
    }
}

#[tokio::test]
async fn a_claim_grants_topics_and_no_more() {
    let world = World::new();
    world.publish("other", None, "not granted");
    world.publish("orders/1", None, "granted");
    let edge = start(&world, options());
    let header = bearer(&token("7", &["orders/*", "t/{sub}/**"]));
    let headers = [("authorization", &*header)];
    assert_eq!(
        first(&edge, "/v1/events?topic=orders/1&since=earliest", &headers).await,
        "granted"
    );
    for (query, want) in [
        ("topic=orders/1&topic=t/7/a/b", 200),
        ("topic=orders/1&topic=orders/1/2", 403),
        ("topic=t/8/a", 403),
        ("topic=orders/", 403),
        ("topic=orders", 403),
    ] {
        assert_eq!(
            status(&edge, "GET", &format!("/v1/events?{query}"), &headers).await,
            want,
            "{query}"
        );
    }
    let (head, body) = ask(&edge, "GET", "/v1/events?topic=orders/1&topic=secret", &headers).await;
    assert!(
        head.has("www-authenticate: Bearer realm=\"tidings\", error=\"insufficient_scope\""),
        "{head:?}"
    );
    assert!(body.contains("may not use the topic secret"), "{body}");
    // Staff: a pattern that names inboxes grants them, and nobody is anybody else for it.
    let header = bearer(&token("boss", &["user:*"]));
    let headers = [("authorization", &*header)];
    assert_eq!(status(&edge, "GET", "/v1/events?topic=user:8", &headers).await, 200);
    assert_eq!(status(&edge, "GET", "/v1/events?user=8", &headers).await, 403);
    // A token that is nobody's has no inbox.
    let header = bearer(&token_with(HOUR, &json!({ "tidings": { "follow": ["a"] } })));
    let headers = [("authorization", &*header)];
    assert_eq!(status(&edge, "GET", "/v1/events?topic=a", &headers).await, 200);
    assert_eq!(status(&edge, "GET", "/v1/events", &headers).await, 400);
    assert_eq!(status(&edge, "GET", "/v1/events?topic=a&user=7", &headers).await, 403);
    // One whose user cannot be one is no token.
    let header = bearer(&token("7 or 8", &["**"]));
    assert_eq!(
        status(&edge, "GET", "/v1/events?topic=a", &[("authorization", &header)]).await,
        401
    );
}

#[tokio::test]
async fn the_anonymous_read_what_is_public() {
    let world = World::new();
    world.publish("orders", None, "not public");
    world.publish("news/a", None, "public");
    let auth = asking(Asked {
        public: &["news/*"],
        ..Asked::default()
    });
    let edge = start(
        &world,
        Options {
            auth,
            ..Options::default()
        },
    );
    assert_eq!(
        first(&edge, "/v1/events?topic=news/a&since=earliest", &[]).await,
        "public"
    );
    for (query, want) in [
        ("topic=news/a&topic=news/b", 200),
        ("topic=news/a&topic=orders", 401),
        ("topic=news/a/b", 401),
        ("topic=news/a&user=7", 401),
        ("user=7", 401),
        ("topic=user:7", 401),
        ("topic=News/a", 401),
        ("topic=tidings.x", 400),
        ("", 400),
        // A token that is not good is not the same as none.
        ("topic=news/a&token=x.y.z", 401),
    ] {
        assert_eq!(
            status(&edge, "GET", &format!("/v1/events?{query}"), &[]).await,
            want,
            "{query}"
        );
    }
    assert_eq!(status(&edge, "GET", "/v1/route?topic=news/a", &[]).await, 200);
    assert_eq!(status(&edge, "GET", "/v1/route?topic=orders", &[]).await, 401);
    // Whoever has a token may read that too.
    let header = bearer(&token("7", &[]));
    assert_eq!(
        status(&edge, "GET", "/v1/events?topic=news/a", &[("authorization", &header)]).await,
        200
    );
}

#[tokio::test]
async fn headers_that_are_not_as_they_should_be() {
    let edge = start(&World::new(), options());
    let (good, other) = (token("7", &[]), token("8", &[]));
    let (header, lower) = (bearer(&good), format!("bearer {good}"));
    let twice = format!("Bearer {good}, Bearer {other}");
    let two_words = format!("Bearer Bearer {good}");
    let (tab, basic) = (format!("Bearer\t{good}"), format!("Basic {good}"));
    let (cookie, cookies) = (
        format!("tidings_token={good}"),
        format!("tidings_token={good}; tidings_token={other}"),
    );
    let truncated = bearer(&good[..good.len() - 1]);
    let auth = "authorization";
    for (headers, query, want) in [
        (vec![(auth, &*lower)], "", 200),
        (vec![(auth, &*header), (auth, &*header)], "", 400),
        (vec![(auth, &*header), ("Authorization", "Bearer x.y.z")], "", 400),
        (vec![(auth, &*twice)], "", 401),
        (vec![(auth, &*two_words)], "", 401),
        (vec![(auth, &*tab)], "", 401),
        (vec![(auth, &*basic)], "", 401),
        (vec![(auth, &*good)], "", 401),
        (vec![(auth, "Bearer")], "", 401),
        (vec![(auth, "Bearer ")], "", 401),
        (vec![(auth, "")], "", 401),
        (vec![(auth, &*truncated)], "", 401),
        // The first place that holds something decides, good or bad.
        (vec![(auth, "Bearer x.y.z"), ("cookie", &*cookie)], "", 401),
        (vec![("cookie", &*cookie)], "&token=x.y.z", 401),
        (vec![("cookie", &*cookie)], "&token=", 401),
        (vec![("cookie", &*cookies)], "", 400),
        (vec![("cookie", &*cookie), ("cookie", &*cookie)], "", 400),
        (vec![], &*format!("&token={good}&token={good}"), 400),
        (vec![], &*format!("&TOKEN={good}"), 401),
        (vec![], &*format!("&token={good}%00"), 401),
        (vec![], &*format!("&token=%20{good}"), 401),
    ] {
        let uri = format!("/v1/events?user=7{query}");
        assert_eq!(status(&edge, "GET", &uri, &headers).await, want, "{headers:?} {query}");
    }
    // One connection outlives refusals.
    let mut client = Client::connect(edge.address()).await;
    for _ in 0..3 {
        client
            .request("GET", "/v1/events", &[("authorization", "Bearer no")])
            .await;
        assert_eq!(client.answer().await.0.status, 401);
    }
    client.request("GET", "/v1/events", &[("authorization", &header)]).await;
    assert_eq!(client.head().await.status, 200);
}

#[tokio::test]
async fn a_token_of_a_megabyte_is_refused_and_the_node_goes_on() {
    let edge = start(&World::new(), options());
    let huge = "x".repeat(1 << 20);
    for (uri, header) in [
        ("/v1/events".to_owned(), bearer(&huge)),
        (format!("/v1/events?token={huge}"), String::new()),
    ] {
        let mut client = Client::connect(edge.address()).await;
        let request = format!("GET {uri} HTTP/1.1\r\nhost: t\r\nauthorization: {header}\r\n\r\n");
        // The edge may have closed it before all of it was written.
        let _ = guard(tokio::io::AsyncWriteExt::write_all(
            &mut client.socket,
            request.as_bytes(),
        ))
        .await;
        client.closed().await;
    }
    // The largest that fits a head, by far too long to be one.
    let long = "x".repeat(12_000);
    assert_eq!(
        status(&edge, "GET", "/v1/events", &[("authorization", &bearer(&long))]).await,
        401
    );
    let good = bearer(&token("7", &[]));
    assert_eq!(
        status(&edge, "GET", "/v1/events", &[("authorization", &good)]).await,
        200
    );
}

#[tokio::test]
async fn a_key_that_is_not_known_yet_sheds_streams() {
    let auth = asking(Asked {
        keys: Keys::asked_for(),
        ..Asked::default()
    });
    let edge = start(
        &World::new(),
        Options {
            auth,
            ..Options::default()
        },
    );
    let token = token("7", &["a"]);
    let header = bearer(&token);
    let headers = [("authorization", &*header)];
    let mut client = Client::stream(edge.address(), "/v1/events?topic=a", &headers).await;
    let all = client.all().await;
    assert!(matches!(all[..], [Said::Retry(1_000..=4_000)]), "{all:?}");
    let mut connection = http2::connect(edge.address()).await;
    let mut stream = http2::Stream::of(http2::ask(&mut connection, "GET", "/v1/events?topic=a", &headers).await);
    assert!(matches!(stream.said().await, Some(Said::Retry(1_000..=4_000))));
    assert_eq!(stream.said().await, None);
    for (method, uri) in [("HEAD", "/v1/events?topic=a"), ("GET", "/v1/route?topic=a")] {
        assert_eq!(status(&edge, method, uri, &headers).await, 503, "{method} {uri}");
    }
    let call = grpc::with_token(grpc::request(&["a"], "", None), &token);
    let error = grpc::client(&edge).await.subscribe(call).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.get_error_details().retry_info().is_some());
}

#[tokio::test]
async fn the_services_own_topics_are_nobodys_in_open_mode_either() {
    let edge = start_with(Settings::default());
    for query in ["topic=tidings.revocations", "topic=a&topic=tidings.x", "topic=tidings."] {
        let (head, body) = ask(&edge, "GET", &format!("/v1/events?{query}"), &[]).await;
        assert_eq!(head.status, 400, "{query}");
        assert!(body.contains("\"field\":\"topic\""), "{body}");
    }
    assert_eq!(status(&edge, "GET", "/v1/route?topic=tidings.x", &[]).await, 400);
    assert_eq!(
        status(&edge, "GET", "/v1/events?topic=tidings&topic=tidingsx.y", &[]).await,
        200
    );
    let error = grpc::client(&edge)
        .await
        .subscribe(grpc::request(&["tidings.x"], "", None))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn attempts_with_bad_tokens_are_counted_on_one_connection_too() {
    let mut options = options();
    options.limits.attempts_per_second_per_address = 10;
    options.limits.exempt_loopback = false;
    let edge = start(&World::new(), options);
    let mut connection = http2::connect(edge.address()).await;
    let headers = [("authorization", "Bearer x.y.z")];
    let (mut refused, mut shed) = (0, 0);
    // A thousand do not take a hundred seconds.
    for _ in 0..1_000 {
        match http2::ask(&mut connection, "GET", "/v1/events?topic=a", &headers)
            .await
            .status()
            .as_u16()
        {
            401 => refused += 1,
            200 => shed += 1,
            other => panic!("{other}"),
        }
    }
    assert!(refused > 0 && shed > 0, "{refused} refused, {shed} shed");
    let mut routes = Vec::new();
    for _ in 0..1_000 {
        routes.push(
            http2::ask(&mut connection, "GET", "/v1/route?topic=a", &headers)
                .await
                .status()
                .as_u16(),
        );
    }
    assert!(routes.contains(&429) && routes.iter().all(|status| [401, 429].contains(status)));
}
