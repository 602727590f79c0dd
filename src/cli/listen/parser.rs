//! Reads an event stream as the WHATWG specification has it: bytes in, events out.
//!
//! Lines end in LF, CR or CRLF, wherever the network cuts them; a byte order mark at the start is skipped; what is not UTF-8 is
//! replaced. Only a blank line makes an event: what stands after the last one when a connection breaks never happened.

use std::time::Duration;

/// The largest event that is taken, in bytes; the server's own limit is 1 MiB of data.
const MAX_EVENT_BYTES: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An event as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Received {
    /// Its own id: the cursor that goes on after it. An ephemeral event has none.
    pub(super) id: Option<String>,
    /// Its type; `message` if it was not named.
    pub(super) event: String,
    pub(super) data: String,
}

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Event(Received),
    /// How long to wait before a reconnect.
    Retry(Duration),
}

/// An event larger than any that this service sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream has an event of more than {MAX_EVENT_BYTES} bytes: this is not a Tidings server")]
pub(super) struct TooLarge;

/// The state of one stream. A new connection needs a new one.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    first_line_seen: bool,
    id: Option<String>,
    event: String,
    data: String,
    has_data: bool,
}

impl Parser {
    /// Takes what came from the network, and tells what became complete with it.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Item)) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let taken = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + self.data.len() + taken.len() > MAX_EVENT_BYTES {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(taken);
            let Some(end) = end else { break };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            if let Some(item) = self.line(&line) {
                tell(item);
            }
            // The buffer is used again.
            self.line = line;
            self.line.clear();
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Option<Item> {
        let line = if std::mem::replace(&mut self.first_line_seen, true) {
            line
        } else {
            line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
        };
        if line.is_empty() {
            return self.dispatch();
        }
        let text = String::from_utf8_lossy(line);
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.event),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                return value.parse().ok().map(|ms| Item::Retry(Duration::from_millis(ms)));
            }
            // A comment (an empty field name), or a field of a later version.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Item> {
        let id = self.id.take().filter(|id| !id.is_empty());
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        std::mem::take(&mut self.has_data).then(|| {
            Item::Event(Received {
                id,
                event: if event.is_empty() { "message".to_owned() } else { event },
                data,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Vec<Item> {
        let mut parser = Parser::default();
        let mut items = Vec::new();
        for chunk in chunks {
            parser.feed(chunk, |item| items.push(item)).expect("not too large");
        }
        items
    }

    fn event(id: Option<&str>, event: &str, data: &str) -> Item {
        Item::Event(Received {
            id: id.map(str::to_owned),
            event: event.to_owned(),
            data: data.to_owned(),
        })
    }

    /// The stimuli of the web-platform-tests' `eventsource/format-*`.
    #[test]
    fn reads_what_browsers_read() {
        for (text, expected) in [
            ("data:1\n\n", vec![event(None, "message", "1")]),
            ("data\n\n", vec![event(None, "message", "")]),
            ("data:\n\n", vec![event(None, "message", "")]),
            ("data\ndata\n\n", vec![event(None, "message", "\n")]),
            ("data:  two\n\n", vec![event(None, "message", " two")]),
            ("data: a:b\n\n", vec![event(None, "message", "a:b")]),
            (" data: x\n\n", vec![]),
            ("Data: x\n\n", vec![]),
            ("data: unfinished\n", vec![]),
            (": comment\n\n", vec![]),
            (":\n:\ndata:1\n\n", vec![event(None, "message", "1")]),
            ("\u{FEFF}data:1\n\n", vec![event(None, "message", "1")]),
            (
                "\u{FEFF}\u{FEFF}data:1\n\ndata:2\n\n",
                vec![event(None, "message", "2")],
            ),
            ("data: \u{FEFF}\n\n", vec![event(None, "message", "\u{FEFF}")]),
            (
                "event: a\ndata: 1\n\ndata: 2\n\n",
                vec![event(None, "a", "1"), event(None, "message", "2")],
            ),
            ("event: a\n\ndata: 2\n\n", vec![event(None, "message", "2")]),
            (
                "id: 7\ndata: 1\n\ndata: 2\n\n",
                vec![event(Some("7"), "message", "1"), event(None, "message", "2")],
            ),
            ("id: 7\n\ndata: 2\n\n", vec![event(None, "message", "2")]),
            ("id: 7\0\ndata: 1\n\n", vec![event(None, "message", "1")]),
            ("id\ndata: 1\n\n", vec![event(None, "message", "1")]),
            ("retry: 1500\n", vec![Item::Retry(Duration::from_millis(1_500))]),
            ("retry: 1e3\nretry: -1\nretry:\nretry: 1 \n", vec![]),
            (
                "data:1\r\rdata:2\r\n\r\n",
                vec![event(None, "message", "1"), event(None, "message", "2")],
            ),
            ("data:1\rdata:2\r\ndata:3\n\n", vec![event(None, "message", "1\n2\n3")]),
        ] {
            assert_eq!(parse(&[text.as_bytes()]), expected, "{text:?}");
        }
    }

    #[test]
    fn replaces_what_is_not_utf8() {
        assert_eq!(parse(&[b"data: \xFF!\n\n"]), [event(None, "message", "\u{FFFD}!")]);
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..32).any(|_| parser.feed(&piece, |_| ()) == Err(TooLarge));
        assert!(refused);
    }

    proptest! {
        /// However the network cuts the stream, the same comes out.
        #[test]
        fn cuts_change_nothing(
            text in "(data|id|event|retry|:|: |\r|\n|\r\n|\u{FEFF}|é|😀|7){0,60}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(parse(&chunks), parse(&[bytes]));
        }

        /// What a server renders by the rules comes out as it went in.
        #[test]
        fn events_round_trip(id in "[a-z0-9._-]{1,20}", name in "[a-z.]{1,10}", data in "[^\r\0]{0,80}") {
            let mut text = format!("id: {id}\nevent: {name}\n");
            for line in data.split('\n') {
                text.push_str(&format!("data: {line}\n"));
            }
            text.push('\n');
            prop_assert_eq!(parse(&[text.as_bytes()]), [event(Some(&id), &name, &data)]);
        }
    }
}
