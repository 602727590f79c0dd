//! `tidings publish`: one event from the arguments, or every record of an NDJSON file.

mod ledger;
mod pipeline;
mod source;
mod template;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidings_proto::v1::PublishRequest;
use tokio_util::sync::CancellationToken;

use super::{
    bearer::Bearer,
    certificates::{Identity, Trust},
};

use self::{
    pipeline::{IN_FLIGHT, PublishError, Report, Settings, Watch, publish},
    source::{Mapping, records, single},
    template::Template,
};

/// What to publish, and where.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidings publish user:42 --type order --data '{\"id\":7}'
  tidings publish --ndjson examples/earthquakes.ndjson \\
    --topic 'quakes/{properties.net}' --type earthquake --key '{id}'")]
pub struct Arguments {
    /// The topics of the one event.
    #[arg(value_name = "TOPIC", required_unless_present = "ndjson", conflicts_with = "ndjson")]
    topics: Vec<String>,

    /// Publish the records of this file; `-` for standard input.
    #[arg(long, value_name = "FILE", requires = "topic")]
    ndjson: Option<PathBuf>,

    /// With --ndjson, a template for the topic of each record; several for several topics.
    #[arg(long, value_name = "TEMPLATE", requires = "ndjson", conflicts_with = "topics")]
    topic: Vec<String>,

    /// The type: the SSE event name. With --ndjson a template.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// The data. With --ndjson a template; without it, the whole record.
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    data: Option<String>,

    /// The key that makes it safe to send again. With --ndjson a template.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Do not keep it: for whoever listens now, at most once.
    #[arg(long, conflicts_with = "key")]
    ephemeral: bool,

    /// Where the server's gRPC is.
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    url: String,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    identity: Identity,

    #[command(flatten)]
    bearer: Bearer,

    /// Give up when the server has answered nothing for this long.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    retry_for: Duration,

    /// Send events without a key again too when the connection breaks: they may be published twice.
    #[arg(long)]
    retry_unkeyed: bool,
}

/// Publishes, and tells how many were acknowledged, repeated and refused.
///
/// # Errors
/// If a template or the input cannot be read, or the server cannot be reached for as long as was allowed.
pub async fn run(arguments: Arguments, interrupt: CancellationToken) -> anyhow::Result<ExitCode> {
    // What is wrong with it now is told at once; later it may be in the middle of being replaced.
    arguments.bearer.token()?;
    let settings = Settings {
        url: arguments.url.clone(),
        bearer: arguments.bearer.clone(),
        tls: arguments.trust.load_with(&arguments.identity)?,
        retry_for: arguments.retry_for,
        retry_unkeyed: arguments.retry_unkeyed,
    };
    let (source, length) = match &arguments.ndjson {
        Some(path) => records(path, mapping(&arguments)?, IN_FLIGHT)
            .with_context(|| format!("{} cannot be read", path.display()))?,
        None => (single(event(arguments)?), Some(0)),
    };
    let mut bar = Bar::new(length);
    let report = publish(source, &settings, &mut bar, &interrupt).await;
    bar.bar.finish_and_clear();
    Ok(tell(&report))
}

fn mapping(arguments: &Arguments) -> anyhow::Result<Mapping> {
    let template = |flag: &'static str, text: &str| {
        text.parse::<Template>()
            .with_context(|| format!("{flag} {text:?} is not a template"))
    };
    let optional = |flag, text: &Option<String>| text.as_deref().map(|text| template(flag, text)).transpose();
    Ok(Mapping {
        topics: arguments
            .topic
            .iter()
            .map(|topic| template("--topic", topic))
            .collect::<Result<_, _>>()?,
        event_type: optional("--type", &arguments.event_type)?,
        key: optional("--key", &arguments.key)?,
        data: optional("--data", &arguments.data)?,
        ephemeral: arguments.ephemeral,
    })
}

fn event(arguments: Arguments) -> anyhow::Result<PublishRequest> {
    let data = if let Some(data) = arguments.data {
        data
    } else {
        if io::stdin().is_terminal() {
            anyhow::bail!("there is nothing to publish: give --data TEXT, or the data on standard input");
        }
        let mut data = String::new();
        io::stdin()
            .read_to_string(&mut data)
            .context("the data on standard input cannot be read (it must be UTF-8 text)")?;
        let line = data.strip_suffix('\n').unwrap_or(&data);
        line.strip_suffix('\r').unwrap_or(line).to_owned()
    };
    Ok(PublishRequest {
        topics: arguments.topics,
        r#type: arguments.event_type.unwrap_or_default(),
        data,
        key: arguments.key.unwrap_or_default(),
        ephemeral: arguments.ephemeral,
    })
}

/// Tells how it went, on standard error.
fn tell(report: &Report) -> ExitCode {
    let tally = &report.tally;
    if let Some(cause) = &report.ended_early {
        eprintln!("tidings: {cause}");
        let what = match report.first_line {
            Some(line) => format!("line {line} and those after it have"),
            None => "the event has".to_owned(),
        };
        eprintln!("tidings: {what} no answer; with --key the same command can be run again and delivers nothing twice");
    }
    let mut line = format!(
        "{} acknowledged, {} of them repeated; {} refused",
        tally.acknowledged, tally.repeated, tally.refused
    );
    if tally.unknown > 0 {
        line.push_str(&format!("; {} unknown", tally.unknown));
    }
    eprintln!("{line}");
    match report.ended_early {
        Some(PublishError::Interrupted) => ExitCode::from(130),
        None if tally.refused == 0 && tally.unknown == 0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A progress bar where standard error is a terminal, and a place for lines above it.
struct Bar {
    bar: ProgressBar,
}

impl Bar {
    fn new(length: Option<u64>) -> Self {
        let form = match length {
            Some(0) => {
                return Self {
                    bar: ProgressBar::hidden(),
                };
            }
            Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{spinner} {bytes} {bytes_per_sec}",
        };
        let bar = match length {
            Some(length) => ProgressBar::new(length),
            None => ProgressBar::new_spinner(),
        };
        // Hidden by itself where standard error is no terminal.
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        Self { bar }
    }
}

impl Watch for Bar {
    fn settled(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn tell(&mut self, text: &str) {
        self.bar.suspend(|| eprintln!("tidings: {text}"));
    }
}
