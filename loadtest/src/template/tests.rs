use super::*;

fn asked(template: &Template, asked: &Asked<'_>) -> String {
    let mut request = Vec::new();
    template
        .ask(template.server.streams, asked, &mut request)
        .expect("can be asked");
    String::from_utf8(request).expect("text")
}

#[test]
fn tidings_is_asked_for_an_inbox_and_topics() {
    let tidings = Template::tidings();
    let anonymous = Asked {
        user: Some(5),
        shared: &[1, 20],
        ..Asked::default()
    };
    assert_eq!(
        asked(&tidings, &anonymous),
        "GET /v1/events?user=5&topic=t1&topic=t20 HTTP/1.1\r\nhost: 127.0.0.1:8080\r\naccept: text/event-stream\r\n\r\n"
    );
    let known = Asked {
        token: Some("abc"),
        last_event_id: Some(b"1.a"),
        ..anonymous
    };
    assert_eq!(
        asked(&tidings, &known),
        "GET /v1/events?topic=t1&topic=t20 HTTP/1.1\r\nhost: 127.0.0.1:8080\r\naccept: text/event-stream\r\n\
         authorization: Bearer abc\r\nlast-event-id: 1.a\r\n\r\n"
    );
    let alone = Asked { shared: &[], ..known };
    assert!(asked(&tidings, &alone).starts_with("GET /v1/events HTTP/1.1\r\n"));
    assert_eq!(tidings.name(Key::Inbox(5)), "user:5");
}

#[test]
fn every_template_is_one_and_can_be_sent_to_another_process() {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let mut found = Vec::new();
    for entry in fs::read_dir(peers).expect("a directory") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let template = Template::read(&path).expect("a template");
        assert_eq!(path.file_stem().and_then(|name| name.to_str()), Some(&*template.name));
        let sent = serde_json::to_string(&template).expect("can be sent");
        assert_eq!(serde_json::from_str::<Template>(&sent).expect("can be read"), template);
        let one = Asked {
            user: Some(7),
            ..Asked::default()
        };
        let request = asked(&template, &one);
        assert!(request.starts_with("GET /") && request.contains('7'), "{request}");
        if let Publish::Http(http) = &template.publish {
            let value = |place| match place {
                Place::Topic => Some(&b"i7"[..]),
                Place::Payload => Some(&b"~i7 1 2 ~"[..]),
                _ => None,
            };
            let (mut scratch, mut request) = (Vec::new(), Vec::new());
            http.request
                .render(template.server.publish, value, &mut scratch, &mut request);
            let request = String::from_utf8(request).expect("text");
            assert!(request.contains("i7") && request.contains('~'), "{request}");
        }
        found.push(template.name);
    }
    found.sort();
    assert_eq!(found, ["centrifugo", "mercure", "nchan", "pushpin", "raw", "tidings"]);
}

#[test]
fn one_topic_is_one_and_no_more() {
    let mut template = Template::tidings();
    template.stream.path = Text::parse("/sub/{topic:url}").expect("a text");
    let one = Asked {
        shared: &[3],
        ..Asked::default()
    };
    assert!(asked(&template, &one).starts_with("GET /sub/t3 HTTP/1.1\r\n"));
    let two = Asked { user: Some(1), ..one };
    let error = template
        .ask(template.server.streams, &two, &mut Vec::new())
        .expect_err("too many")
        .to_string();
    assert_eq!(error, "a stream of tidings follows 1 topics at most, not 2");
}

#[test]
fn what_is_wrong_is_told() {
    let tidings = include_str!("../../peers/tidings.toml");
    let wrong = [
        ("[stream]", "[stream]\nresume = true", "unknown field `resume`"),
        ("{topics}", "{topicks}", "there is no {topicks}"),
        ("{topics}", "all", "`stream.path` has {topics} where"),
        ("topic={topic:url}", "topic", "`stream.topics.each` has {topic}"),
        (
            "{last_event_id}",
            "{payload}",
            "`stream.headers.last-event-id` cannot have {payload}",
        ),
        (
            "grpc = {}",
            "http = { path = \"/\", body = \"{payload}\" }",
            "has {topic} and {payload}",
        ),
        (
            "grpc = {}",
            "http = { path = \"/{topic}\", body = \"{payload}\", pipelined = 0 }",
            "at least 1",
        ),
        ("grpc = {}", "http = { path = \"/\", bodi = \"\" }", "bod"),
    ];
    for (right, instead, told) in wrong {
        assert!(tidings.contains(right), "{right}");
        let error = Template::parse(&tidings.replacen(right, instead, 1)).expect_err("wrong");
        assert!(format!("{error:#}").contains(told), "{error:#}");
    }
}
