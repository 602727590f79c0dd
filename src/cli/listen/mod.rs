//! `tidings listen`: follows topics over Server-Sent Events and prints what comes.

mod client;
mod follow;
mod output;
mod parser;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use tokio_util::sync::CancellationToken;

use self::{
    follow::{Flow, FollowError, Settings, Start, follow},
    output::{CursorFile, Output, open_file},
};
use crate::{
    cli::{
        bearer::Bearer,
        certificates::Trust,
        server::{Server, printable},
    },
    model::Topic,
};

/// The event that stands for those that could not be kept.
const GAP: &str = "tidings.gap";

/// The event that says that the token ends soon. No event of anybody's: it is told, and goes nowhere.
const TOKEN_EXPIRING: &str = "tidings.token_expiring";

/// What to follow, and where it goes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The topics to follow; none are needed with --user.
    #[arg(value_name = "TOPIC", value_parser = topic, required_unless_present = "user")]
    topics: Vec<String>,

    /// Follow the inbox of this user too: the topic `user:<USER>`.
    #[arg(long, value_name = "USER", value_parser = user)]
    user: Option<String>,

    /// Where the server's streams are.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    bearer: Bearer,

    /// Begin this long ago (`10m`, `2h`), or with the `earliest` event that is kept. Does not count once there is a cursor.
    #[arg(long, value_name = "DURATION|earliest", value_parser = since)]
    since: Option<Start>,

    /// Print one JSON object per event: {"id":…,"event":…,"data":"…"}.
    #[arg(long)]
    json: bool,

    /// Keep the cursor of the last printed event in this file and go on from there. If this process is killed between the print and
    /// the note, that one event is printed again.
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    cursor_file: Option<PathBuf>,

    /// Add the events to this file as JSON lines and go on after the last one in it: each event is there once, however often this
    /// process is killed.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// End after this many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Give up when the server could not be reached for this long [default: never].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    retry_for: Option<Duration>,

    /// Take a stream for dead when it was silent for this long: more than the server's heartbeat.
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = humantime::parse_duration)]
    silence: Duration,
}

fn topic(text: &str) -> Result<String, crate::model::TopicError> {
    Topic::parse(text).map(|topic| topic.to_string())
}

fn user(text: &str) -> Result<String, crate::model::TopicError> {
    Topic::inbox(text).map(|_| text.to_owned())
}

fn since(text: &str) -> Result<Start, humantime::DurationError> {
    match text {
        "earliest" => Ok(Start::Earliest),
        _ => humantime::parse_duration(text).map(Start::Since),
    }
}

/// Follows until interrupted, or until there are as many events as were asked for.
///
/// # Errors
/// If the request is wrong or refused for good, if the server cannot be reached for as long as was allowed, or if nothing can be written.
pub async fn run(arguments: Arguments, interrupt: CancellationToken) -> anyhow::Result<ExitCode> {
    let server = Server::parse(&arguments.url, &arguments.trust.load()?)?;
    // What is wrong with it now is told at once; later it may be in the middle of being replaced.
    arguments.bearer.token()?;
    let (mut output, cursor) = match (&arguments.output, &arguments.cursor_file) {
        (Some(path), _) => {
            let (file, cursor) = open_file(path)?;
            (Output::File(file), cursor)
        }
        (None, Some(path)) => {
            let (file, cursor) = CursorFile::open(path)?;
            (standard_output(arguments.json, Some(file)), cursor)
        }
        (None, None) => (standard_output(arguments.json, None), None),
    };
    let tell_gaps = matches!(output, Output::Readable(_));
    let settings = Settings {
        server,
        topics: arguments.topics,
        user: arguments.user,
        bearer: arguments.bearer,
        start: arguments.since.unwrap_or(Start::Now),
        cursor,
        silence: arguments.silence,
        retry: Duration::from_secs(1),
        retry_for: arguments.retry_for,
    };
    let mut left = arguments.count;
    let following = follow(
        settings,
        |event| {
            if event.event == TOKEN_EXPIRING {
                tell(&expiring(&event.data));
                return Ok(Flow::More);
            }
            output.write(event)?;
            if event.event == GAP {
                if tell_gaps {
                    tell(&format!("some events may be missing here: {}", gap(&event.data)));
                }
                return Ok(Flow::More);
            }
            left = left.map(|left| left - 1);
            Ok(if left == Some(0) { Flow::Enough } else { Flow::More })
        },
        tell,
    );
    let followed = tokio::select! {
        followed = following => followed,
        () = interrupt.cancelled() => return Ok(ExitCode::from(130)),
    };
    match followed {
        // Whoever read the other end of the pipe has enough.
        Err(FollowError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

const fn standard_output(json: bool, cursor: Option<CursorFile>) -> Output {
    if json {
        Output::Json(cursor)
    } else {
        Output::Readable(cursor)
    }
}

/// Why there is a gap, in words.
fn gap(data: &str) -> String {
    let said: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    match said["reason"].as_str() {
        Some("expired") => {
            "they are older than what the server keeps (`log.retention_age`, `log.retention_bytes`)".to_owned()
        }
        Some("forked") => "the server's log was restored or made anew since; this goes on live".to_owned(),
        Some("unknown") => "this server never gave the cursor that was sent; this goes on live".to_owned(),
        Some(other) => printable(other),
        None => "the server does not say why".to_owned(),
    }
}

/// When the token ends, in words.
fn expiring(data: &str) -> String {
    let said: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    let when = match said["expires_in_ms"].as_u64() {
        Some(ms) => format!(
            "in {}",
            humantime::format_duration(Duration::from_secs(ms.div_ceil(1_000)))
        ),
        None => "soon".to_owned(),
    };
    format!("the token expires {when}: the server ends the stream a little earlier")
}

fn tell(text: &str) {
    eprintln!("tidings: {text}");
}
