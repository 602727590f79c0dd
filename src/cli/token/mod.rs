//! `tidings token`: makes tokens, and the hashes by which publishers' own tokens are known.

mod hash;
mod mint;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// What to do about tokens.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token (JWT) and print it.
    ///
    /// The key is a private one (PEM: RSA, EC P-256 or Ed25519) in --key-file, or a secret in --secret-file or the variable
    /// TIDINGS_TOKEN_SECRET; which it is decides the algorithm. What the server must know of it is in its `[[auth.issuers]]`.
    Mint(Box<mint::Arguments>),
    /// Print the hash of a token of a publisher's own, for `token_sha256` in `[[auth.publishers]]`.
    ///
    /// The token is read from standard input: what stands on a command line, others can see.
    Hash(hash::Arguments),
}

/// Does it.
///
/// # Errors
/// If there is no key, no token, or they make no sense.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Mint(arguments) => mint::run(arguments),
        Command::Hash(arguments) => hash::run(arguments),
    }
}
