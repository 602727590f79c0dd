//! Where events come from: the arguments, or the records of an NDJSON file.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    thread,
};

use serde_json::value::RawValue;
use tidings_proto::v1::PublishRequest;
use tokio::sync::mpsc;

use super::template::{FieldError, Template};
use crate::model::json::compact;

/// The most data that any server takes, in bytes. What is larger would end the stream, and with it everything behind it.
const MAX_DATA_BYTES: usize = 1 << 20;

/// The longest line that is read, in bytes, its end included: a record may hold more than becomes data, but not the whole memory.
const MAX_LINE_BYTES: usize = 16 << 20;

/// An event to publish.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// The line it stands on; `None` for the event of the arguments.
    pub(super) line: Option<u64>,
    pub(super) request: PublishRequest,
    /// How many bytes of the input it took.
    pub(super) bytes: u64,
}

/// What comes out of a source.
#[derive(Debug)]
pub(super) enum Next {
    Item(Item),
    /// A record that makes no event.
    Refused {
        line: u64,
        bytes: u64,
        reason: RecordError,
    },
    /// The rest cannot be read.
    Failed {
        line: u64,
        cause: io::Error,
    },
}

/// Why a record makes no event.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("this is not UTF-8 text: {0}")]
    NotText(#[from] std::str::Utf8Error),
    #[error("this is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("{place}: {cause}")]
    Field { place: &'static str, cause: FieldError },
    #[error("this line has {bytes} bytes, and at most {MAX_LINE_BYTES} are read: one record goes on one line")]
    LineTooLong { bytes: u64 },
    #[error("its data has {bytes} bytes, and no server takes more than {MAX_DATA_BYTES}")]
    TooLarge { bytes: usize },
}

/// How a record becomes an event.
#[derive(Debug, Clone)]
pub(super) struct Mapping {
    pub(super) topics: Vec<Template>,
    pub(super) event_type: Option<Template>,
    pub(super) key: Option<Template>,
    /// The whole record without one.
    pub(super) data: Option<Template>,
    pub(super) ephemeral: bool,
}

impl Mapping {
    fn apply(&self, record: &str) -> Result<PublishRequest, RecordError> {
        let record: &RawValue = serde_json::from_str(record)?;
        let at = |place: &'static str| move |cause| RecordError::Field { place, cause };
        let optional = |template: &Option<Template>, place| match template {
            Some(template) => template.fill(record).map_err(at(place)),
            None => Ok(String::new()),
        };
        let data = match &self.data {
            Some(data) => data.fill_any(record).map_err(at("--data"))?,
            None => compact(record.get()),
        };
        if data.len() > MAX_DATA_BYTES {
            return Err(RecordError::TooLarge { bytes: data.len() });
        }
        Ok(PublishRequest {
            topics: self
                .topics
                .iter()
                .map(|topic| topic.fill(record).map_err(at("--topic")))
                .collect::<Result<_, _>>()?,
            r#type: optional(&self.event_type, "--type")?,
            data,
            key: optional(&self.key, "--key")?,
            ephemeral: self.ephemeral,
        })
    }
}

/// The records of a file (`-` is standard input), read ahead by a thread of their own as far as the channel goes; and how many bytes
/// there are, where that is known.
pub(super) fn records(path: &Path, mapping: Mapping, ahead: usize) -> io::Result<(mpsc::Receiver<Next>, Option<u64>)> {
    let (input, length): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        (Box::new(file), metadata.is_file().then_some(metadata.len()))
    };
    let (sender, receiver) = mpsc::channel(ahead);
    thread::Builder::new().name("records".to_owned()).spawn(move || {
        read(BufReader::new(input), &mapping, |next| {
            sender.blocking_send(next).is_ok()
        });
    })?;
    Ok((receiver, length))
}

/// Reads until the end, or until nobody takes any more. Blank lines are passed over.
fn read(mut input: impl BufRead, mapping: &Mapping, mut give: impl FnMut(Next) -> bool) {
    let mut text = Vec::new();
    for line in 1.. {
        let bytes = match read_line(&mut input, &mut text) {
            Ok(0) => return,
            Ok(bytes) => bytes,
            Err(cause) => {
                give(Next::Failed { line, cause });
                return;
            }
        };
        let request = if bytes > MAX_LINE_BYTES as u64 {
            Err(RecordError::LineTooLong { bytes })
        } else {
            let record = text.trim_ascii();
            if record.is_empty() {
                continue;
            }
            str::from_utf8(record)
                .map_err(RecordError::from)
                .and_then(|record| mapping.apply(record))
        };
        let next = match request {
            Ok(request) => Next::Item(Item {
                line: Some(line),
                request,
                bytes,
            }),
            Err(reason) => Next::Refused { line, bytes, reason },
        };
        if !give(next) {
            return;
        }
    }
}

/// Reads a line and answers how many bytes it has, 0 at the end of the input. Of one that is too long no more than that is kept.
fn read_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<u64> {
    text.clear();
    let bytes = input.take(MAX_LINE_BYTES as u64).read_until(b'\n', text)?;
    let rest = if bytes == MAX_LINE_BYTES && !text.ends_with(b"\n") {
        input.skip_until(b'\n')?
    } else {
        0
    };
    Ok(bytes as u64 + rest as u64)
}

/// One event, from the arguments.
pub(super) fn single(request: PublishRequest) -> mpsc::Receiver<Next> {
    let (sender, receiver) = mpsc::channel(1);
    let item = Next::Item(Item {
        line: None,
        request,
        bytes: 0,
    });
    // The channel has room for it.
    let _ = sender.try_send(item);
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn earthquakes() -> Mapping {
        let template = |text: &str| text.parse::<Template>().expect("a template");
        Mapping {
            topics: vec![template("quakes/{properties.net}")],
            event_type: Some(template("earthquake")),
            key: Some(template("{id}")),
            data: None,
            ephemeral: false,
        }
    }

    fn all(text: &[u8], mapping: &Mapping) -> Vec<Next> {
        let mut out = Vec::new();
        read(text, mapping, |next| {
            out.push(next);
            true
        });
        out
    }

    #[test]
    fn every_example_record_makes_an_event() {
        let text = include_str!("../../../examples/earthquakes.ndjson");
        let records = all(text.as_bytes(), &earthquakes());
        assert_eq!(records.len(), 200);
        for (next, record) in records.iter().zip(text.lines()) {
            let Next::Item(item) = next else { panic!("{next:?}") };
            let value: serde_json::Value = serde_json::from_str(record).expect("JSON");
            assert_eq!(
                item.request.topics,
                [format!("quakes/{}", value["properties"]["net"].as_str().expect("text"))]
            );
            assert_eq!(item.request.key, value["id"].as_str().expect("text"));
            assert_eq!(item.request.data, record, "the record is compact already");
        }
    }

    #[test]
    fn a_bad_record_is_told_by_its_line_and_the_rest_goes_on() {
        let good = r#"{"id":"a","properties":{"net":"x"}}"#;
        let text = [
            good.as_bytes(),
            b"\n\nnonsense\n{\"id\":\"b\"}\n\"\xFF\"\r\n",
            good.as_bytes(),
        ]
        .concat();
        let records = all(&text, &earthquakes());
        assert!(matches!(&records[0], Next::Item(Item { line: Some(1), .. })));
        assert!(matches!(
            &records[1],
            Next::Refused {
                line: 3,
                reason: RecordError::NotJson(_),
                ..
            }
        ));
        let Next::Refused { line: 4, reason, .. } = &records[2] else {
            panic!("{:?}", records[2])
        };
        assert_eq!(reason.to_string(), "--topic: the record has no field `properties.net`");
        assert!(matches!(
            &records[3],
            Next::Refused {
                line: 5,
                reason: RecordError::NotText(_),
                ..
            }
        ));
        assert!(matches!(&records[4], Next::Item(Item { line: Some(6), .. })));
        assert_eq!(records.len(), 5);
    }

    #[test]
    fn a_record_that_no_server_takes_does_not_end_the_others() {
        let record = |pad: usize| format!(r#"{{"id":"a","properties":{{"net":"x"}},"pad":"{}"}}"#, "x".repeat(pad));
        let most = MAX_DATA_BYTES - record(0).len();
        let text = [record(most + 1), record(most)].join("\n");
        let records = all(text.as_bytes(), &earthquakes());
        let Next::Refused { line: 1, reason, .. } = &records[0] else {
            panic!("{:?}", records[0])
        };
        assert_eq!(
            reason.to_string(),
            "its data has 1048577 bytes, and no server takes more than 1048576"
        );
        assert!(matches!(&records[1], Next::Item(Item { line: Some(2), .. })));
    }

    #[test]
    fn a_line_without_an_end_is_passed_over_and_the_rest_goes_on() {
        let good = r#"{"id":"a","properties":{"net":"x"}}"#;
        let long = |bytes: usize| good.to_owned() + &" ".repeat(bytes - good.len() - 1);
        let text = [&long(MAX_LINE_BYTES), &long(MAX_LINE_BYTES + 1), good].map(|line| format!("{line}\n"));
        let records = all(text.concat().as_bytes(), &earthquakes());
        assert!(matches!(&records[0], Next::Item(Item { line: Some(1), .. })));
        let Next::Refused { line: 2, bytes, reason } = &records[1] else {
            panic!("{:?}", records[1])
        };
        assert_eq!(*bytes, 16_777_217);
        assert_eq!(
            reason.to_string(),
            "this line has 16777217 bytes, and at most 16777216 are read: one record goes on one line"
        );
        assert!(matches!(&records[2], Next::Item(Item { line: Some(3), .. })));
        let endless = all(long(MAX_LINE_BYTES + 10).as_bytes(), &earthquakes());
        assert!(matches!(
            &endless[..],
            [Next::Refused {
                line: 1,
                bytes: 16_777_225,
                ..
            }]
        ));
    }
}
