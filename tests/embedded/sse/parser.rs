//! The event-stream format, as section 9.2.6 of the HTML standard has it read.

use std::collections::VecDeque;

use bytes::{Buf as _, BytesMut};

/// Something that a stream said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Event(Event),
    /// `retry:`, in milliseconds.
    Retry(u64),
    Comment,
}

/// A dispatched event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The last event id, as of this event.
    pub(crate) id: String,
    /// `message` if it has no name of its own.
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Event {
    /// Whether it stands for events that could not be kept, and why.
    pub(crate) fn gap(&self) -> Option<String> {
        (self.name == "tidings.gap").then(|| {
            let data: serde_json::Value = serde_json::from_str(&self.data).expect("a gap's data is JSON");
            data["reason"].as_str().expect("a reason").to_owned()
        })
    }
}

/// Reads a stream in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    rest: BytesMut,
    /// A CR was the last byte: an LF that follows belongs to it.
    after_cr: bool,
    last_event_id: String,
    name: String,
    data: String,
    has_data: bool,
}

impl Parser {
    /// Takes some more bytes; gives what they complete.
    pub(crate) fn push(&mut self, bytes: &[u8], items: &mut VecDeque<Item>) {
        self.rest.extend_from_slice(bytes);
        loop {
            if self.after_cr && !self.rest.is_empty() {
                self.after_cr = false;
                if self.rest[0] == b'\n' {
                    self.rest.advance(1);
                }
            }
            let Some(end) = self.rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return;
            };
            let line = self.rest.split_to(end);
            self.after_cr = self.rest[0] == b'\r';
            self.rest.advance(1);
            let line = std::str::from_utf8(&line).expect("streams are UTF-8");
            items.extend(self.line(line));
        }
    }

    fn line(&mut self, line: &str) -> Option<Item> {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Some(Item::Comment),
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
                self.has_data = true;
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.last_event_id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                return value.parse().ok().map(Item::Retry);
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Item> {
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        data.pop();
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Item::Event(Event {
            id: self.last_event_id.clone(),
            name,
            data,
        }))
    }
}

/// Id, type and data of an event.
type Expected = (&'static str, &'static str, &'static str);

#[test]
fn the_parser_reads_the_standards_examples() {
    let cases: [(&str, &[Expected]); 7] = [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", &[("", "message", "YHOO\n+2\n10")]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            &[
                ("1", "message", "first event"),
                ("", "message", "second event"),
                ("", "message", " third event"),
            ],
        ),
        (
            "data\n\ndata\ndata\n\ndata:",
            &[("", "message", ""), ("", "message", "\n")],
        ),
        (
            "data:test\r\rdata: test\r\n\r\n",
            &[("", "message", "test"), ("", "message", "test")],
        ),
        ("event: a\n\ndata: b\n\n", &[("", "message", "b")]),
        ("event: a\ndata: b\r\n\n", &[("", "a", "b")]),
        ("id: 7\n\ndata: b\n\n", &[("7", "message", "b")]),
    ];
    for (text, expected) in cases {
        for size in 1..=text.len() {
            let (mut parser, mut items) = (Parser::default(), VecDeque::new());
            for chunk in text.as_bytes().chunks(size) {
                parser.push(chunk, &mut items);
            }
            let events: Vec<_> = items
                .iter()
                .filter_map(|item| match item {
                    Item::Event(event) => Some((&*event.id, &*event.name, &*event.data)),
                    _ => None,
                })
                .collect();
            assert_eq!(events, expected, "{text:?} in pieces of {size}");
        }
    }
}
