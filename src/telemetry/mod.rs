//! What the process tells about itself: log lines on stderr.

use std::io;

use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

/// How log lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Which lines: directives such as `info` or `tidings::edge=debug,warn`.
    pub filter: String,
    /// As JSON, one object per line, rather than for people.
    pub json: bool,
}

/// Begins to write log lines; once per process.
///
/// # Errors
/// If the directives cannot be read, or lines are being written already.
pub fn init(settings: &Settings) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&settings.filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    if settings.json {
        lines.json().flatten_event(true).finish().try_init()?;
    } else {
        lines
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .finish()
            .try_init()?;
    }
    Ok(())
}

/// Why no log lines can be written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives are wrong.
    #[error("`telemetry.log` cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Lines are being written already.
    #[error("log lines are being written already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_that_are_none_are_an_error() {
        let settings = Settings {
            filter: "tidings=loud=er".to_owned(),
            json: false,
        };
        assert!(matches!(init(&settings), Err(TelemetryError::Filter(_))));
    }
}
