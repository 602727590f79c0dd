//! The `tidings` program.

use std::process::ExitCode;

use clap::Parser as _;
use tidings::{
    cli::{self, Cli},
    node,
};

fn main() -> ExitCode {
    cli::run(Cli::parse().command, |role, config| Ok(node::run(role, &config)?)).unwrap_or_else(|error| {
        eprintln!("tidings: {error:#}");
        ExitCode::FAILURE
    })
}
