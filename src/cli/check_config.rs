//! `tidings check-config`: is this configuration what was meant?

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::serve::Arguments;

/// Prints the effective configuration, or everything that is wrong with it.
///
/// # Errors
/// The mistakes; or that nothing can be printed.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.load()?;
    io::stdout().write_all(config.to_toml().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
