use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{EventType, Seq, Topic, UnixMillis};

/// An event as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    id: String,
    event_type: String,
    data: String,
}

/// A reader by the letter of <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>. Returns the
/// events, the last `retry`, and the last event id at the end.
fn read(stream: &[u8]) -> (Vec<Seen>, Option<u64>, String) {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut events = Vec::new();
    let (mut id, mut retry, mut event_type, mut data) = (String::new(), None, String::new(), String::new());
    let mut rest = text;
    // A last line without an end is discarded with the rest of its block.
    while let Some(end) = rest.find(['\r', '\n']) {
        let line = &rest[..end];
        rest = &rest[end + if rest[end..].starts_with("\r\n") { 2 } else { 1 }..];
        if line.is_empty() {
            if !data.is_empty() {
                data.pop();
                events.push(Seen {
                    id: id.clone(),
                    event_type: std::mem::take(&mut event_type),
                    data: std::mem::take(&mut data),
                });
            }
            event_type.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event_type = value.to_owned(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => id = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => retry = value.parse().ok(),
            _ => {}
        }
    }
    (events, retry, id)
}

fn event(event_type: Option<&str>, data: &str) -> Arc<Event> {
    Arc::new(Event::new(
        Topic::parse("t").expect("a topic"),
        event_type.map(|text| EventType::parse(text).expect("a type")),
        data.into(),
        UnixMillis(0),
        Some(Seq(1)),
    ))
}

fn render(event: &Arc<Event>, cursor: Option<&str>) -> Bytes {
    Frame::of(&Delivery::Event {
        event,
        cursor,
        shared: None,
    })
    .expect("an event is a frame")
    .into_bytes()
}

/// What a reader makes of line ends: each is one LF.
fn normalised(data: &str) -> String {
    data.replace("\r\n", "\n").replace('\r', "\n")
}

/// Payloads made of what is hard: line ends, colons, spaces, fields, long characters.
fn payloads() -> impl Strategy<Value = String> {
    let hard = prop::sample::select(vec![
        "\r", "\n", "\r\n", " ", ":", "data: x", "id: 7", "event: y", "retry: 1", "\u{feff}", "😀", "é", "\t", "a", "",
    ]);
    prop_oneof![
        prop::collection::vec(hard, 0..24).prop_map(|parts| parts.concat()),
        any::<String>().prop_map(|text| text.replace('\0', "")),
    ]
}

proptest! {
    #[test]
    fn a_reader_gets_what_was_published(
        sent in prop::collection::vec((payloads(), prop::option::of("[a-z ä.-]{1,12}[!-~]"), "[a-z0-9._-]{1,130}"), 0..5),
    ) {
        let mut stream = opening(Duration::from_secs(3)).to_vec();
        let mut want = Vec::new();
        for (data, event_type, cursor) in &sent {
            let Some(event_type) = event_type.as_deref().map_or(Some(None), |text| EventType::parse(text).ok().map(Some)) else {
                continue;
            };
            let event = event(event_type.as_ref().map(EventType::as_str), data);
            stream.extend_from_slice(&render(&event, Some(cursor)));
            stream.extend_from_slice(HEARTBEAT);
            want.push(Seen {
                id: cursor.clone(),
                event_type: event_type.map_or_else(String::new, |t| t.to_string()),
                data: normalised(data),
            });
        }
        let last = want.last().map_or_else(String::new, |seen| seen.id.clone());
        prop_assert_eq!(read(&stream), (want, Some(3_000), last));
        prop_assert!(std::str::from_utf8(&stream).is_ok_and(|text| !text.contains('\r')));
    }

    #[test]
    fn a_cut_stream_shows_whole_events_or_nothing(data in payloads(), cut in any::<prop::sample::Index>()) {
        let frame = render(&event(None, &data), Some("1-1.1"));
        let cut = cut.index(frame.len());
        prop_assert_eq!(read(&frame[..cut]).0, vec![]);
    }

    /// A client that notes an id as soon as its line ends has the event by then.
    #[test]
    fn an_id_comes_after_its_event(data in payloads()) {
        let frame = render(&event(None, &data), Some("1-1.1"));
        let noted = |cut: &usize| read(&frame[..*cut]).2 == "1-1.1";
        let first = (0..=frame.len()).find(noted);
        prop_assert_eq!(first, Some(frame.len() - 1));
    }

    #[test]
    fn the_blank_line_is_only_at_the_end(data in payloads()) {
        let frame = render(&event(Some("t"), &data), Some("1-1.1"));
        let blank = frame.windows(2).position(|pair| pair == b"\n\n");
        prop_assert_eq!(blank, Some(frame.len() - 2));
        prop_assert!(frame.starts_with(b"event: t\ndata:") && frame.ends_with(b"\nid: 1-1.1\n\n"));
    }
}

#[test]
fn published_bytes() {
    for (event_type, data, cursor, want) in [
        (None, "", Some("1-1.1"), "data:\nid: 1-1.1\n\n"),
        (
            Some("order"),
            "a",
            Some("1-1.2"),
            "event: order\ndata: a\nid: 1-1.2\n\n",
        ),
        (None, " a", None, "data:  a\n\n"),
        (None, "a\rb\nc\r\nd", None, "data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (None, "a\n", None, "data: a\ndata:\n\n"),
        (None, "\r\n\r\n", None, "data:\ndata:\ndata:\n\n"),
        (None, "\n\r", None, "data:\ndata:\ndata:\n\n"),
        (None, "x\rid: 9", None, "data: x\ndata: id: 9\n\n"),
    ] {
        assert_eq!(render(&event(event_type, data), cursor), want, "{data:?}");
    }
}

#[test]
fn the_body_is_rendered_once_and_shared() {
    let event = event(Some("t"), "payload");
    let frame = |cursor| {
        Frame::of(&Delivery::Event {
            event: &event,
            cursor: Some(cursor),
            shared: None,
        })
        .expect("an event is a frame")
    };
    let (one, two) = (frame("1-1.1"), frame("1-1.2"));
    assert_ne!(one.end, two.end);
    assert_eq!(one.body.as_ptr(), two.body.as_ptr());
    assert_eq!(one.len(), one.into_bytes().len());
}

#[test]
fn gaps_are_named_events_with_an_id() {
    for (reason, name) in [
        (GapReason::Expired, "expired"),
        (GapReason::Forked, "forked"),
        (GapReason::Unknown, "unknown"),
    ] {
        let cursor = "1-1.5";
        let frame = Frame::of(&Delivery::Gap { reason, cursor }).expect("a gap is a frame");
        let want = Seen {
            id: cursor.to_owned(),
            event_type: "tidings.gap".to_owned(),
            data: format!("{{\"reason\":\"{name}\"}}"),
        };
        assert_eq!(read(&frame.into_bytes()).0, [want]);
    }
}

#[test]
fn becoming_level_is_silent() {
    assert!(Frame::of(&Delivery::Level { cursor: "1-1.1" }).is_none());
}

#[test]
fn a_bare_retry_counts_and_is_no_event() {
    assert_eq!(retry(Duration::from_millis(1_234)), "retry: 1234\n");
    assert_eq!(read(b"retry: 1234\n"), (vec![], Some(1_234), String::new()));
}

#[test]
fn the_head_is_lower_case_and_opens_at_once() {
    let value = HeaderValue::from_static(CONTENT_TYPE);
    let head = |coding| {
        http1_head(
            "Thu, 01 Jan 1970 00:00:00 GMT",
            [("content-type", &value)].into_iter(),
            coding,
            Duration::from_secs(3),
        )
    };
    assert_eq!(
        head(Coding::Chunked),
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\ne\r\nretry: 3000\n:\n\r\n"
    );
    assert_eq!(
        head(Coding::Identity),
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nconnection: close\r\n\r\n\
         retry: 3000\n:\n"
    );
}

#[test]
fn chunks_have_their_size_in_hexadecimal() {
    for (body, want) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (255, "ff\r\n"),
        (256, "100\r\n"),
        (0x0012_3abc, "123abc\r\n"),
    ] {
        assert_eq!(&Coding::Chunked.front(body)[..], want.as_bytes());
        assert!(Coding::Identity.front(body).is_empty());
    }
}

#[test]
fn the_end_is_a_retry_and_the_last_chunk() {
    let after = Duration::from_secs(5);
    assert_eq!(Coding::Chunked.end(after), "c\r\nretry: 5000\n\r\n0\r\n\r\n");
    assert_eq!(Coding::Identity.end(after), "retry: 5000\n");
}
