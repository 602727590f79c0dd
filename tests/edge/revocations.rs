//! What was taken back ends streams that are open, and keeps new ones from opening.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::json;
use tidings::{
    auth::{Auth, Revocation, Target},
    edge::EdgeHandle,
    model::UnixMillis,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    bearer::{HOUR, bearer, options, token, token_with},
    client::{Client, Said, guard},
    grpc, http2,
    world::{Options, World, start, until_streams},
};

fn revoke(auth: &Auth, target: Target) {
    let now = UnixMillis::now();
    let until = UnixMillis(now.0 + 3_600_000);
    auth.revocations().add(Revocation { target, until }, now);
}

/// A user, from now on.
fn user(name: &str) -> Target {
    Target::User {
        subject: name.into(),
        issued_before: UnixMillis(UnixMillis::now().0 + 1),
    }
}

fn many() -> (EdgeHandle, Arc<World>, Arc<Auth>) {
    let mut options: Options = options();
    options.limits.connections = 50_000;
    options.limits.connections_per_user = 50_000;
    let (world, auth) = (World::new(), Arc::clone(&options.auth));
    (start(&world, options), world, auth)
}

#[tokio::test]
async fn a_stream_of_every_protocol_ends_and_comes_back_to_a_refusal() {
    let (edge, _, auth) = many();
    for kind in ["token", "user", "all"] {
        // In seconds.
        let now = UnixMillis::now().0 / 1_000;
        let claims = json!({ "sub": kind, "jti": format!("id of {kind}"), "iat": now - 100 });
        let bad = token_with(HOUR, &claims);
        let header = bearer(&bad);
        let headers = [("authorization", &*header)];
        let mut one = Client::stream(edge.address(), "/v1/events", &headers).await;
        let mut connection = http2::connect(edge.address()).await;
        let mut two = http2::Stream::of(http2::ask(&mut connection, "GET", "/v1/events", &headers).await);
        let mut client = grpc::client(&edge).await;
        let call = || grpc::with_token(grpc::request(&[&format!("user:{kind}")], "", None), &bad);
        let mut three = client.subscribe(call()).await.unwrap().into_inner();
        grpc::next(&mut three).await;
        let later = token("other", &[]);
        let mut other = Client::stream(edge.address(), "/v1/events", &[("authorization", &bearer(&later))]).await;
        revoke(
            &auth,
            match kind {
                "token" => Target::Token("id of token".into()),
                "user" => user("user"),
                _ => Target::All {
                    issued_before: UnixMillis((now - 50) * 1_000),
                },
            },
        );
        let all = one.all().await;
        assert!(
            matches!(all[..], [Said::Retry(_), Said::Comment, Said::Retry(1_000..=1_500)]),
            "{all:?}"
        );
        let mut all = Vec::new();
        while let Some(said) = two.said().await {
            all.push(said);
        }
        assert!(matches!(all.last(), Some(Said::Retry(1_000..=1_500))), "{all:?}");
        let status = guard(three.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "REVOKED_TOKEN");
        let mut again = Client::connect(edge.address()).await;
        again.request("GET", "/v1/events", &headers).await;
        let (head, body) = again.answer().await;
        assert_eq!(head.status, 401);
        assert!(
            head.has("www-authenticate: Bearer realm=\"tidings\", error=\"invalid_token\""),
            "{head:?}"
        );
        assert!(body.contains("has been revoked"), "{body}");
        assert_eq!(
            client.subscribe(call()).await.unwrap_err().code(),
            Code::Unauthenticated
        );
        // The other is still there.
        assert!(matches!(other.said().await, Some(Said::Retry(_))));
        assert_eq!(other.said().await, Some(Said::Comment));
        until_streams(&edge, 1).await;
        drop(other);
        until_streams(&edge, 0).await;
    }
}

/// Two thousand of ten thousand streams go at once; the others stay and hear what comes.
#[tokio::test]
async fn a_fifth_of_a_crowd_goes_and_the_others_stay() {
    const CONNECTIONS: usize = 50;
    const EACH: usize = 200;
    let (edge, world, auth) = many();
    let headers = [bearer(&token("bad", &["all"])), bearer(&token("good", &["all"]))];
    let mut streams = [Vec::new(), Vec::new()];
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = http2::connect(edge.address()).await;
        for number in 0..EACH {
            let kind = usize::from(number % 5 != 0);
            let headers = [("authorization", &*headers[kind])];
            let response = http2::ask(&mut connection, "GET", "/v1/events?topic=all&since=earliest", &headers).await;
            streams[kind].push(http2::Stream::of(response));
        }
        connections.push(connection);
    }
    let [mut bad, mut good] = streams;
    assert_eq!((bad.len(), good.len(), edge.streams()), (2_000, 8_000, 10_000));
    revoke(&auth, user("bad"));
    until_streams(&edge, 8_000).await;
    world.publish("all", None, "afterwards");
    for stream in &mut bad {
        let mut last = None;
        while let Some(said) = stream.said().await {
            assert!(!matches!(said, Said::Event { .. }), "{said:?}");
            last = Some(said);
        }
        assert!(matches!(last, Some(Said::Retry(1_000..=1_500))), "{last:?}");
    }
    for stream in &mut good {
        assert_eq!(stream.data().await, "afterwards");
    }
    assert_eq!(edge.streams(), 8_000);
}

/// Streams open all the while when something is taken back: none of them stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_slips_through_while_it_opens() {
    for round in 0..15 {
        let (edge, _, auth) = many();
        let header = bearer(&token("bad", &[]));
        let over = Arc::new(AtomicBool::new(false));
        let openers: Vec<_> = (0..4)
            .map(|_| {
                let (address, header, over) = (edge.address(), header.clone(), Arc::clone(&over));
                tokio::spawn(async move {
                    let mut open = Vec::new();
                    loop {
                        let was_over = over.load(Ordering::Acquire);
                        let mut client = Client::connect(address).await;
                        client
                            .request("GET", "/v1/events?since=earliest", &[("authorization", &header)])
                            .await;
                        match client.head().await.status {
                            200 => assert!(!was_over, "opened after it was taken back"),
                            status => {
                                assert_eq!(status, 401);
                                return open;
                            }
                        }
                        open.push(client);
                    }
                })
            })
            .collect();
        until_some(&edge, 3 + round).await;
        revoke(&auth, user("bad"));
        over.store(true, Ordering::Release);
        for opener in openers {
            for mut client in opener.await.unwrap() {
                assert!(matches!(client.all().await.last(), Some(Said::Retry(1_000..=1_500))));
            }
        }
        until_streams(&edge, 0).await;
    }
}

async fn until_some(edge: &EdgeHandle, least: usize) {
    let there = async {
        while edge.streams() < least {
            tokio::task::yield_now().await;
        }
    };
    guard(there).await;
}
