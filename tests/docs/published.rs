//! What is published of the code: vectors, tables, layouts.

use std::{fmt::Write as _, time::Duration};

use tidings::{
    auth::Denied,
    ingest::{IngestError, Measure, OverQuota, Refusal, json::Malformed},
    journal::{AppendError, DiskFull, Unavailable},
    log::FORMAT,
    model::{Cursor, Shard, Topic, TopicError},
};
use tonic::Code;

use crate::{document::table, read};

/// A cursor in words, as `docs/semantics.md` has them.
fn in_words(cursor: &Cursor) -> String {
    let shards = cursor.shards().map(|(shard, position)| {
        let mut words = format!(
            "shard {shard} of epoch {}: everything up to {}",
            position.epoch, position.watermark
        );
        for (slot, seq) in position.ahead() {
            write!(words, ", slot {slot} up to {seq}").expect("text");
        }
        words
    });
    shards.collect::<Vec<_>>().join("; ")
}

#[test]
fn published_cursors_are_those_of_the_code() {
    let text = read("docs/semantics.md");
    let source = read("src/model/cursor.rs");
    for row in table(&text, "| text | cursor |\n") {
        let written = row[0].trim_matches('`');
        let cursor = Cursor::parse(written).unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(cursor.to_string(), written);
        assert_eq!(in_words(&cursor), row[1], "{written}");
        assert!(
            source.contains(&format!("\"{written}\"")),
            "{written} is not among the vectors of the code"
        );
    }
    for row in table(&text, "| text | why |\n") {
        let written = row[0].trim_matches('`');
        assert!(Cursor::parse(written).is_err(), "{written}");
    }
    let grammar = text
        .split("```text\n")
        .find(|block| block.starts_with("cursor "))
        .expect("the grammar");
    for line in grammar.lines().take_while(|line| *line != "```") {
        assert!(
            source.contains(&format!("//! {line}\n")),
            "the code's grammar has no line {line:?}"
        );
    }
}

#[test]
fn published_errors_are_those_of_the_code() {
    let cause = || "cause".to_owned();
    let node = || "ingest-0".to_owned();
    let shard = Shard(0);
    let unavailable = |cause| IngestError::Append(AppendError::Unavailable { shard, cause });
    let errors = [
        IngestError::Refused(Refusal::Topic {
            index: 0,
            error: TopicError::Empty,
        }),
        IngestError::Malformed(Malformed::NoTopics),
        IngestError::Refused(Refusal::DataTooLong { bytes: 2, limit: 1 }),
        IngestError::OverQuota(OverQuota {
            measure: Measure::Events,
            per_second: 1,
            wait: Duration::from_millis(1_700),
        }),
        IngestError::Append(AppendError::DiskFull(DiskFull {
            used_percent: 96,
            high_water_percent: 95,
            available: 1 << 30,
            reserve: 1 << 28,
        })),
        IngestError::Append(AppendError::ReadOnly { cause: cause() }),
        IngestError::Append(AppendError::Closed),
        IngestError::Draining,
        unavailable(Unavailable::NoHolder),
        unavailable(Unavailable::Unreachable {
            node: node(),
            cause: cause(),
        }),
        unavailable(Unavailable::Leaving { node: node() }),
        unavailable(Unavailable::NotHeld { node: node() }),
        unavailable(Unavailable::CatchingUp { cause: cause() }),
        unavailable(Unavailable::Diverged { cause: cause() }),
        unavailable(Unavailable::NoNats { cause: cause() }),
        unavailable(Unavailable::Unusable { cause: cause() }),
        unavailable(Unavailable::NoQuorum { cause: cause() }),
        IngestError::Append(AppendError::StreamFull { shard, cause: cause() }),
        IngestError::Append(AppendError::StreamRefused { shard, cause: cause() }),
        IngestError::Append(AppendError::TooSlow {
            shard,
            waited: Duration::from_secs(1),
        }),
        IngestError::TooManyRevocations,
        IngestError::Append(AppendError::Partly { outcomes: Vec::new() }),
        IngestError::Append(AppendError::Unknown { cause: cause() }),
        IngestError::Deadline,
        IngestError::Late {
            within: Duration::from_secs(60),
        },
    ];
    let expected: Vec<_> = errors
        .iter()
        .map(|error| {
            let verdict = error.verdict();
            let wait = match (error, verdict.retry_after) {
                // It is another each time.
                (IngestError::OverQuota(_), Some(_)) => "as told".to_owned(),
                (_, wait) => wait.map_or_else(String::new, |wait| format!("{} s", wait.as_secs())),
            };
            [
                format!("`{}`", verdict.label.to_uppercase()),
                status(verdict.code),
                verdict.status.as_u16().to_string(),
                wait,
            ]
        })
        .collect();
    let text = read("docs/semantics.md");
    let rows = table(&text, "| reason | gRPC | HTTP | wait | what to do |\n");
    assert_eq!(rows.iter().map(|row| row[..4].to_vec()).collect::<Vec<_>>(), expected);
}

/// A gRPC status as it is written in contracts.
fn status(code: Code) -> String {
    let mut text = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

#[test]
fn published_denials_are_those_of_the_code() {
    let retry_after = Duration::from_secs(2);
    let denials = [
        Denied::Missing,
        Denied::Ambiguous,
        Denied::Malformed,
        Denied::Untrusted,
        Denied::KeyPending { retry_after },
        Denied::NotReady { retry_after },
        Denied::Elsewhere,
        Denied::Claim { claim: "exp".into() },
        Denied::Expired,
        Denied::NotYetValid,
        Denied::Revoked,
        Denied::Certificate,
        Denied::Topic {
            topic: Topic::revocations(),
        },
        Denied::Action { action: "revoke" },
    ];
    let expected = denials.iter().map(|denied| {
        let verdict = denied.verdict();
        [
            format!("`{}`", verdict.label.to_uppercase()),
            status(verdict.code),
            verdict.status.as_u16().to_string(),
        ]
    });
    let text = read("docs/semantics.md");
    let rows = table(&text, "| reason | gRPC | HTTP | what it means |\n");
    let rows: Vec<_> = rows.iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(rows, expected.collect::<Vec<_>>());
}

#[test]
fn the_data_directory_is_described_as_it_is() {
    let text = read("docs/storage.md");
    assert!(text.contains(&format!("\nformat = {FORMAT}\n")));
    let stored = read("src/log/value.rs");
    for message in text.split("\nmessage ").skip(1) {
        let name = message.split(' ').next().expect("a name");
        let (_, code) = stored
            .split_once(&format!("struct {name} {{"))
            .unwrap_or_else(|| panic!("the code stores no {name}"));
        let (code, _) = code.split_once("\n}").expect("its end");
        let between = |before: &str, after: &str| -> Vec<&str> {
            let parts = code.split(before).skip(1);
            parts.filter_map(|rest| Some(rest.split_once(after)?.0)).collect()
        };
        let (described, _) = message.split_once("\n}").expect("its end");
        let described: Vec<String> = described
            .lines()
            .filter_map(|line| Some(line.split_once(';')?.0.split_whitespace().collect::<Vec<_>>()))
            .map(|words| {
                let (label, words) = match words[0] {
                    "optional" => ("optional, ", &words[1..]),
                    "repeated" => ("repeated, ", &words[1..]),
                    _ => ("", &words[..]),
                };
                let kind = if words[0].starts_with("Stored") {
                    "message"
                } else {
                    words[0]
                };
                format!("{}: {kind}, {label}tag = \"{}\"", words[1], words[3])
            })
            .collect();
        let kinds = between("#[prost(", ")]");
        let names = between("pub(super) ", ":");
        let there: Vec<String> = names
            .into_iter()
            .zip(kinds)
            .map(|(name, kind)| format!("{name}: {kind}"))
            .collect();
        assert_eq!(described, there, "{name}");
    }
}
