//! `tidings token hash`.

use std::{
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;

use crate::auth::{MAX_TOKEN_BYTES, TokenHash, may_be_token};

/// The fewest bytes of a token that cannot be guessed.
const TOKEN_BYTES: usize = 16;

/// Which token.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Make a new token, random, and print it before its hash.
    #[arg(long)]
    generate: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout();
    if arguments.generate {
        let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let hash = TokenHash::of(&token);
        writeln!(out, "token        {token}\ntoken_sha256 {hash}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    let read = io::stdin().take(MAX_TOKEN_BYTES as u64 + 2).read_to_string(&mut text);
    read.context("the token on standard input cannot be read (it must be text)")?;
    let token = text.trim_end_matches(['\r', '\n']);
    writeln!(out, "{}", TokenHash::of(checked(token)?))?;
    Ok(ExitCode::SUCCESS)
}

/// Only what can come in a header, and nobody guesses.
fn checked(token: &str) -> anyhow::Result<&str> {
    ensure!(
        token.len() >= TOKEN_BYTES,
        "a token of {} bytes can be guessed: --generate makes one of 43",
        token.len()
    );
    ensure!(
        token.len() <= MAX_TOKEN_BYTES,
        "a token has at most {MAX_TOKEN_BYTES} bytes"
    );
    ensure!(
        may_be_token(token),
        "a token has only `A-Z a-z 0-9 - . _ ~ + / =`: it comes in a header"
    );
    Ok(token)
}
