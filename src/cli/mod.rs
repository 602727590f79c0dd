//! The command line. `serve`, `edge` and `ingest` are the server itself; the others are clients and tools.

mod backoff;
pub mod bearer;
pub mod certificates;
pub mod check_config;
pub mod listen;
pub mod publish;
pub mod revoke;
pub mod role;
pub mod route;
mod server;
pub mod token;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Role};

/// Tidings, a distributed notification service: publish over gRPC, follow over Server-Sent Events, resume exactly.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, max_term_width = 120, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: publishing, streams and the log, all in this process.
    ///
    /// Settings come from the file, the environment (`TIDINGS_HTTP__LISTEN`) and these flags, the later winning; `tidings check-config`
    /// prints what they come to. SIGTERM and Ctrl-C end it in good order, a second one at once.
    Serve(role::Arguments),
    /// Run an edge of a cluster: streams, without a disk.
    ///
    /// It hears over NATS what is published and reads the log from the ingest nodes. Settings and signals are as with `serve`.
    Edge(role::Arguments),
    /// Run an ingest node of a cluster: publishing, and the log of the shards that are placed on it.
    ///
    /// Settings and signals are as with `serve`.
    Ingest(role::Arguments),
    /// Publish one event, or every record of an NDJSON file.
    ///
    /// One event: the topics and --data, or the data on standard input (one line break at its end is taken off).
    ///
    /// Many: --ndjson with a file of one JSON record per line (`-` for standard input), and templates that make an event of each. In a
    /// template `{properties.net}` stands for that field of the record, and a brace that is meant is written twice.
    ///
    /// Every acknowledged event is durable. With --key, what was not acknowledged is sent again when the connection breaks, and arrives
    /// once; running the same command again within the server's window (10 minutes by default) delivers nothing twice. Without --key,
    /// what was under way then is counted as unknown. Ends with 1 if anything was refused or is unknown.
    Publish(publish::Arguments),
    /// Follow topics and print their events; goes on by itself after every kind of interruption.
    ///
    /// A stream that breaks is asked for again from the last event, as often as it takes. It goes on across its own restarts too: with
    /// --output exactly, with --cursor-file but for the one event that it may be killed over.
    Listen(listen::Arguments),
    /// Tell which edge of a cluster a user's streams, or a topic's, belong on.
    ///
    /// Prints the slot and the owner's name and address, as the edge that is asked sees the cluster.
    Route(route::Arguments),
    /// Make tokens, and the hashes of publishers' own.
    Token(token::Arguments),
    /// Take back tokens before they expire: one, a user's, or all that were issued before some time; or list what is revoked.
    ///
    /// Every edge hears of it within a second: it ends the streams that it covers, and refuses their tokens from then on, across restarts, until
    /// the revocation expires. Needs a token that may (`control`), from --token-file or TIDINGS_TOKEN.
    Revoke(revoke::Arguments),
    /// Check the configuration and print what is effective.
    ///
    /// Takes what `serve` takes, and the role that it is for. Ends with 1 and everything that is wrong, each with where it came from, if
    /// anything is. Secrets are shown as stars.
    CheckConfig(check_config::Arguments),
}

/// Runs a command; `node` runs a role until it ends, and this module does not know it.
///
/// # Errors
/// Whatever keeps the command from doing what it was asked for, with what to do about it.
pub fn run(command: Command, node: impl FnOnce(Role, Config) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let serve = |role, arguments| {
        if let Some(config) = role::configure(role, arguments)? {
            node(role, config)?;
        }
        Ok(ExitCode::SUCCESS)
    };
    match command {
        Command::Serve(arguments) => serve(Role::Serve, &arguments),
        Command::Edge(arguments) => serve(Role::Edge, &arguments),
        Command::Ingest(arguments) => serve(Role::Ingest, &arguments),
        Command::Route(arguments) => interruptible(|_| route::run(arguments)),
        Command::Token(arguments) => token::run(&arguments),
        Command::Revoke(arguments) => interruptible(|_| revoke::run(arguments)),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Publish(arguments) => interruptible(|interrupt| publish::run(arguments, interrupt)),
        Command::Listen(arguments) => interruptible(|interrupt| listen::run(arguments, interrupt)),
    }
}

/// How long a client may take to end after an interrupt before it is ended.
const ENDING: Duration = Duration::from_secs(1);

/// Runs a client that ends by itself, between one event and the next, when it is interrupted.
fn interruptible<F: Future<Output = anyhow::Result<ExitCode>>>(
    client: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<ExitCode> {
    // The client itself runs on this thread; the other hears signals even while this one waits for a full pipe.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let interrupt = CancellationToken::new();
    let mut terminate = {
        let _context = runtime.enter();
        signal(SignalKind::terminate())?
    };
    runtime.spawn({
        let interrupt = interrupt.clone();
        async move {
            tokio::select! {
                heard = tokio::signal::ctrl_c() => if heard.is_err() { return },
                _ = terminate.recv() => {}
            }
            interrupt.cancel();
            tokio::time::sleep(ENDING).await;
            std::process::exit(130);
        }
    });
    let outcome = runtime.block_on(client(interrupt));
    // What still runs (a read of standard input, say) has nothing left to do.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// What stands on a command line others on the machine can see.
    #[test]
    fn secrets_are_in_files_or_the_environment_and_never_flags() {
        let mut commands = vec![Cli::command()];
        let mut files = 0;
        while let Some(command) = commands.pop() {
            for argument in command.get_arguments() {
                let flag = argument.get_long().unwrap_or_default();
                let words = ["token", "secret", "password", "cert-key"];
                // An id is no secret.
                if flag != "token-id" && words.iter().any(|word| flag.contains(word)) {
                    let values = argument.get_value_names().unwrap_or_default();
                    assert_eq!(values.join(" "), "FILE", "--{flag}");
                    files += 1;
                }
            }
            commands.extend(command.get_subcommands().cloned());
        }
        assert!(files > 3, "{files}");
    }
}
