//! Streams and the end of what their caller was granted: told of once, ended in time, resumed exactly.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tidings_proto::v1::{subscribe_request::Start, subscribe_response::Message};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    bearer::{Asked, HOUR, asking, bearer, options, short, token_with},
    client::{Client, Said, guard},
    grpc, http2, slow,
    world::{Options, World, start, until_streams},
};

const BRIEF: Duration = Duration::from_millis(1_500);

/// How many milliseconds are left, if that is what was said.
fn expires_in(said: &Said) -> Option<u64> {
    let Said::Event { id, event_type, data } = said else {
        return None;
    };
    if event_type != "tidings.token_expiring" {
        return None;
    }
    assert_eq!(id, "", "it moves no cursor");
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    Some(data["expires_in_ms"].as_u64().expect("a number"))
}

/// What a stream says that is meant for people: neither comments nor what comes first.
fn told(all: &[Said]) -> Vec<Said> {
    all.iter()
        .filter(|said| matches!(said, Said::Event { .. }))
        .cloned()
        .collect()
}

#[tokio::test]
async fn the_end_is_announced_once_and_comes_in_time() {
    let world = World::new();
    let edge = start(&world, options());
    let header = bearer(&short("7", BRIEF));
    let mut client = Client::stream(edge.address(), "/v1/events", &[("authorization", &header)]).await;
    let mut connection = http2::connect(edge.address()).await;
    let response = http2::ask(&mut connection, "GET", "/v1/events", &[("authorization", &header)]).await;
    let mut stream = http2::Stream::of(response);
    let all = client.all().await;
    assert!(matches!(all[..2], [Said::Retry(_), Said::Comment]), "{all:?}");
    assert!(matches!(all.last(), Some(Said::Retry(3_000..=4_500))), "{all:?}");
    let [notice] = &told(&all)[..] else { panic!("{all:?}") };
    assert!(
        (1..=1_500).contains(&expires_in(notice).expect("a notice")),
        "{notice:?}"
    );
    let mut all = Vec::new();
    while let Some(said) = stream.said().await {
        all.push(said);
    }
    assert!(matches!(all.last(), Some(Said::Retry(3_000..=4_500))), "{all:?}");
    let [notice] = &told(&all)[..] else { panic!("{all:?}") };
    assert!(expires_in(notice).is_some());
    // What comes back with it is served while it is good, and refused for good after that.
    loop {
        let mut client = Client::connect(edge.address()).await;
        client.request("GET", "/v1/events", &[("authorization", &header)]).await;
        let head = client.head().await;
        if head.status == 401 {
            assert!(
                head.has("www-authenticate: Bearer realm=\"tidings\", error=\"invalid_token\""),
                "{head:?}"
            );
            break;
        }
        assert_eq!(told(&client.all().await).len(), 1);
    }
    until_streams(&edge, 0).await;
}

#[tokio::test]
async fn over_grpc_it_is_a_message_and_a_status() {
    let world = World::new();
    let edge = start(&world, options());
    let token = short("7", BRIEF);
    let mut client = grpc::client(&edge).await;
    let request = || grpc::with_token(grpc::request(&["user:7"], "", None), &token);
    let mut stream = client.subscribe(request()).await.unwrap().into_inner();
    let (mut notices, mut levels) = (0, 0);
    let status = loop {
        match guard(stream.message()).await {
            Ok(message) => match message.expect("it ends with a status").message.expect("something") {
                Message::Expiring(expiring) => {
                    assert!((1..=1_500).contains(&expiring.expires_in_ms));
                    notices += 1;
                }
                Message::Level(_) => levels += 1,
                other => panic!("{other:?}"),
            },
            Err(status) => break status,
        }
    };
    assert_eq!((notices, levels, status.code()), (1, 1, Code::Unauthenticated));
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "EXPIRED_TOKEN");
    loop {
        match client.subscribe(request()).await {
            Ok(stream) => {
                // Served to its end: many at once would be over a limit.
                let mut stream = stream.into_inner();
                while let Ok(Some(_)) = guard(stream.message()).await {}
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated);
                assert_eq!(status.get_error_details().error_info().unwrap().reason, "EXPIRED_TOKEN");
                break;
            }
        }
    }
}

#[tokio::test]
async fn it_is_told_when_it_is_time_and_not_before() {
    let world = World::new();
    let auth = asking(Asked {
        notice: Duration::from_millis(700),
        ..Asked::default()
    });
    let edge = start(
        &world,
        Options {
            auth,
            ..Options::default()
        },
    );
    let header = bearer(&short("7", Duration::from_secs(2)));
    let uri = "/v1/events?since=earliest";
    let mut client = Client::stream(edge.address(), uri, &[("authorization", &header)]).await;
    world.publish("user:7", None, "before");
    let all = client.all().await;
    let said = told(&all);
    assert_eq!(said.len(), 2, "{all:?}");
    assert!(
        matches!(&said[0], Said::Event { data, .. } if data == "before"),
        "{all:?}"
    );
    let Said::Event { event_type, data, .. } = &said[1] else {
        panic!("{all:?}")
    };
    assert_eq!(event_type, "tidings.token_expiring");
    let left: serde_json::Value = serde_json::from_str(data).unwrap();
    assert!((300..=700).contains(&left["expires_in_ms"].as_u64().unwrap()), "{data}");
}

#[tokio::test]
async fn one_that_is_just_over_is_good_for_the_leeway() {
    let auth = asking(Asked {
        leeway: Duration::from_secs(3),
        ..Asked::default()
    });
    let edge = start(
        &World::new(),
        Options {
            auth,
            ..Options::default()
        },
    );
    let header = bearer(&short("7", Duration::ZERO));
    let mut client = Client::stream(edge.address(), "/v1/events", &[("authorization", &header)]).await;
    let all = client.all().await;
    let [notice] = &told(&all)[..] else { panic!("{all:?}") };
    assert!(expires_in(notice).expect("a notice") <= 3_000);
}

/// Follows through the ends of many tokens, and has each event once and in order.
#[tokio::test]
async fn what_is_published_around_an_end_comes_once_and_in_order() {
    const EVENTS: usize = 600;
    let world = World::new();
    let edge = start(&world, options());
    let publisher = tokio::spawn({
        let world = Arc::clone(&world);
        async move {
            let mut every = tokio::time::interval(Duration::from_millis(5));
            for number in 0..EVENTS {
                every.tick().await;
                world.publish("user:7", None, &number.to_string());
            }
        }
    });
    let (mut got, mut cursor, mut ends) = (Vec::new(), String::new(), 0);
    while got.len() < EVENTS {
        let header = bearer(&short("7", Duration::from_millis(600)));
        let headers = [("authorization", &*header), ("last-event-id", &*cursor)];
        let mut client = Client::stream(edge.address(), "/v1/events?since=earliest", &headers).await;
        while let Some(said) = client.said().await {
            match said {
                Said::Event { data, .. } if data.contains("expires_in_ms") => {}
                Said::Event { id, data, event_type } => {
                    assert_eq!(event_type, "");
                    got.push(data.parse::<usize>().expect("a number"));
                    cursor = id;
                }
                Said::Comment | Said::Retry(_) => {}
            }
        }
        ends += 1;
    }
    publisher.await.unwrap();
    assert_eq!(got, (0..EVENTS).collect::<Vec<_>>());
    assert!(ends > 2, "{ends} ends");
}

/// An edge that holds little for a slow reader, and asks who follows.
fn narrow_edge() -> Options {
    Options {
        auth: options().auth,
        ..slow::options()
    }
}

/// A reader that reads nothing, with a full queue or in the middle of the log, keeps neither its stream nor its place.
#[tokio::test]
async fn a_stuck_reader_is_cut_off_and_resumes_exactly() {
    const EVENTS: usize = 300;
    for is_live in [true, false] {
        let world = World::new();
        let edge = start(&world, narrow_edge());
        let payload = "x".repeat(2_000);
        let publish = || (0..EVENTS).for_each(|number| world.publish("user:7", None, &format!("{number} {payload}")));
        if !is_live {
            publish();
        }
        let header = bearer(&short("7", BRIEF));
        let mut stuck = slow::narrow(&edge, "/v1/events?since=earliest", &[("authorization", &header)]).await;
        if is_live {
            world.publish("user:7", None, "first");
            assert_eq!(stuck.data().await.replace("first", ""), "");
            publish();
        }
        // It reads nothing, and its stream is over all the same.
        until_streams(&edge, 0).await;
        let (mut got, mut cursor) = (Vec::new(), String::new());
        while let Some(said) = stuck.said().await {
            if let Said::Event { id, event_type, data } = said
                && event_type.is_empty()
            {
                got.push(data);
                cursor = id;
            }
        }
        assert!(got.len() < EVENTS, "it was not stuck");
        assert!(!stuck.has_said_its_end());
        let header = bearer(&short("7", HOUR));
        let headers = [("authorization", &*header), ("last-event-id", &*cursor)];
        let mut again = Client::stream(edge.address(), "/v1/events?since=earliest", &headers).await;
        while got.len() < EVENTS {
            got.push(again.data().await);
        }
        let want: Vec<_> = (0..EVENTS).map(|number| format!("{number} {payload}")).collect();
        assert!(got == want, "live: {is_live}");
    }
}

#[tokio::test]
async fn a_stuck_reader_over_http2_or_grpc_gives_up_its_place() {
    let world = World::new();
    let payload = "y".repeat(60_000);
    for _ in 0..100 {
        world.publish("user:7", None, &payload);
    }
    let edge = start(&world, narrow_edge());
    let token = short("7", BRIEF);
    let header = bearer(&token);
    let mut connection = http2::connect(edge.address()).await;
    let uri = "/v1/events?since=earliest";
    let stream = http2::ask(&mut connection, "GET", uri, &[("authorization", &header)]).await;
    let mut client = grpc::client(&edge).await;
    let request = grpc::request(&["user:7"], "", Some(Start::Earliest(true)));
    let call = client.subscribe(grpc::with_token(request, &token)).await.unwrap();
    assert!(edge.streams() > 0);
    until_streams(&edge, 0).await;
    // What is under way still arrives, and then the reason.
    let mut call = call.into_inner();
    let status = loop {
        match guard(call.message()).await {
            Ok(message) => assert!(message.is_some(), "it ends with a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "EXPIRED_TOKEN");
    drop(stream);
}

/// Whichever comes first ends a stream, and once: a drain, or the end of its token.
#[tokio::test]
async fn a_drain_and_an_end_do_not_meet_twice() {
    let edge = start(&World::new(), options());
    let mut clients = Vec::new();
    for number in 0..60 {
        let header = bearer(&short(&number.to_string(), BRIEF + Duration::from_millis(number * 20)));
        clients.push(Client::stream(edge.address(), "/v1/events", &[("authorization", &header)]).await);
    }
    edge.drain(Duration::from_secs(2));
    for client in &mut clients {
        let all = client.all().await;
        assert!(matches!(all[..2], [Said::Retry(_), Said::Comment]), "{all:?}");
        let (Some(Said::Retry(_)), rest) = (all.last(), &all[2..all.len() - 1]) else {
            panic!("{all:?}")
        };
        assert!(
            rest.len() <= 1 && rest.iter().all(|said| expires_in(said).is_some()),
            "{all:?}"
        );
        assert!(client.has_said_its_end());
    }
    guard(edge.stopped()).await.unwrap();
}

/// A token of years opens a stream like any other.
#[tokio::test]
async fn a_long_lease_is_silent() {
    let world = World::new();
    let edge = start(&world, options());
    for years in [1, 1_000, 7_000] {
        let lives = Duration::from_secs(years * 365 * 24 * 3_600);
        let header = bearer(&token_with(lives, &json!({ "sub": "7" })));
        let uri = "/v1/events?since=earliest";
        let mut client = Client::stream(edge.address(), uri, &[("authorization", &header)]).await;
        world.publish("user:7", None, "hello");
        assert_eq!(client.data().await, "hello");
    }
}
