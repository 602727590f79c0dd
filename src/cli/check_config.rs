//! `tidings check-config`: is this configuration what was meant?

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use super::role;
use crate::config::Role;

/// What a role takes, and which role it is.
#[derive(Debug, Args)]
#[group(id = "check")]
pub struct Arguments {
    /// What the configuration is for.
    #[arg(long, value_enum, default_value_t = For::Serve)]
    role: For,

    #[command(flatten)]
    role_arguments: role::Arguments,
}

/// The roles, as they are named here.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum For {
    /// Everything in one process: `tidings serve`.
    Serve,
    /// Streams: `tidings edge`.
    Edge,
    /// Publishing and the log: `tidings ingest`.
    Ingest,
}

impl From<For> for Role {
    fn from(role: For) -> Self {
        match role {
            For::Serve => Self::Serve,
            For::Edge => Self::Edge,
            For::Ingest => Self::Ingest,
        }
    }
}

/// Prints the effective configuration, or everything that is wrong with it.
///
/// # Errors
/// The mistakes; or that nothing can be printed.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.role_arguments.load(arguments.role.into())?;
    io::stdout().write_all(config.to_toml().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
