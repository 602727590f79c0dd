//! `tidings serve`, `edge` and `ingest`: the configuration that their flags, the environment and the file make.

use std::{io::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::{
    config::{Config, ConfigError, Flag, LogFormat, Role, Sources},
    telemetry,
};

/// What every role takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Arguments {
    /// The configuration file; without it `tidings.toml` in the working directory, if there is one.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where streams are served [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,

    /// Where publishing is served, gRPC and JSON [default: 127.0.0.1:50051].
    #[arg(long, value_name = "ADDR")]
    pub grpc: Option<String>,

    /// Where health is served [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,

    /// The directory of the log [default: ./data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,

    /// The servers of NATS, for the nodes of a cluster [default: nats://127.0.0.1:4222].
    #[arg(long, value_name = "URL[,URL]")]
    pub nats: Option<String>,

    /// Allow addresses beyond loopback although nothing asks who calls.
    #[arg(long)]
    pub insecure: bool,

    /// Print the effective configuration as TOML and end.
    #[arg(long)]
    pub print_config: bool,
}

impl Arguments {
    /// The configuration that these flags, the environment and the file make, for a role.
    ///
    /// # Errors
    /// Everything that is wrong with it, together.
    pub fn load(&self, role: Role) -> Result<Config, ConfigError> {
        let flags = [
            ("--http", "http.listen", &self.http),
            ("--grpc", "grpc.listen", &self.grpc),
            ("--admin", "admin.listen", &self.admin),
            ("--data", "data.dir", &self.data),
            ("--nats", "nats.urls", &self.nats),
        ];
        let sources = Sources {
            file: self.config.clone(),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            flags: flags
                .into_iter()
                .filter_map(|(name, key, value)| {
                    let value = value.clone()?;
                    Some(Flag { name, key, value })
                })
                .collect(),
            insecure: self.insecure,
            role,
        };
        sources.load()
    }
}

/// The configuration to run a role with, log lines begun; or nothing if it was only to be printed.
///
/// # Errors
/// If the configuration has mistakes, or log lines cannot be written.
pub fn configure(role: Role, arguments: &Arguments) -> anyhow::Result<Option<Config>> {
    let config = arguments.load(role)?;
    if arguments.print_config {
        std::io::stdout()
            .write_all(config.to_toml().as_bytes())
            .context("the configuration cannot be printed")?;
        return Ok(None);
    }
    telemetry::init(&telemetry::Settings {
        filter: config.telemetry.log.clone(),
        json: config.telemetry.format == LogFormat::Json,
    })?;
    Ok(Some(config))
}
