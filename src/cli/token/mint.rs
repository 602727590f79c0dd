//! `tidings token mint`.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    auth::{Pattern, PatternError, SigningKey},
    model::UnixMillis,
};

/// The secret, where no file has it.
const VARIABLE: &str = "TIDINGS_TOKEN_SECRET";

/// What the token says, and what signs it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidings token mint --sub ann --follow 'orders/{sub}/*' --audience tidings --key-file private.pem
  TIDINGS_TOKEN_SECRET=… tidings token mint --sub billing --publish 'orders/**' --audience tidings --ttl 90days")]
pub(super) struct Arguments {
    /// Whose it is (`sub`): the user who follows, or the publisher's name.
    #[arg(long, value_name = "NAME")]
    sub: Option<String>,

    /// A pattern of topics that it may follow; may be repeated. The user's own inbox needs none.
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    follow: Vec<String>,

    /// A pattern of topics that it may publish to; may be repeated.
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    publish: Vec<String>,

    /// It may revoke tokens.
    #[arg(long)]
    control: bool,

    /// Whom it is for (`aud`): what the server has as `audience`; may be repeated.
    #[arg(long, value_name = "NAME", required = true)]
    audience: Vec<String>,

    /// Who issues it (`iss`): what the server has as `issuer`, if it has one.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,

    /// How long it is valid.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,

    /// Its id (`jti`), by which it can be revoked [default: random].
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    /// The claim that grants topics: what the server has as `claim`.
    #[arg(long, value_name = "NAME", default_value = "tidings")]
    claim: String,

    /// The file of the private key (PEM).
    #[arg(long, value_name = "FILE", conflicts_with = "secret_file")]
    key_file: Option<PathBuf>,

    /// The file of the secret.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// What the key is called (`kid`), for a server that knows several.
    #[arg(long, value_name = "NAME")]
    key_id: Option<String>,
}

fn pattern(text: &str) -> Result<String, PatternError> {
    Pattern::parse(text).map(|pattern| pattern.to_string())
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let key = key(arguments)?;
    let claims = claims(arguments, UnixMillis::now())?;
    let Some(token) = key.mint(&claims, arguments.key_id.as_deref()) else {
        bail!("the key cannot sign");
    };
    writeln!(io::stdout(), "{token}")?;
    Ok(ExitCode::SUCCESS)
}

fn key(arguments: &Arguments) -> anyhow::Result<SigningKey> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    if let Some(path) = &arguments.key_file {
        return SigningKey::from_pem(&read(path)?).with_context(|| format!("{} is of no use", path.display()));
    }
    if let Some(path) = &arguments.secret_file {
        let text = read(path)?;
        let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
        let secret = &text[..end.map_or(0, |end| end + 1)];
        return SigningKey::secret(secret).with_context(|| format!("{} is of no use", path.display()));
    }
    match env::var(VARIABLE) {
        Ok(secret) => SigningKey::secret(secret.as_bytes()).with_context(|| format!("{VARIABLE} is of no use")),
        Err(_) => {
            bail!("there is nothing to sign with: --key-file, --secret-file, or the secret in the variable {VARIABLE}")
        }
    }
}

fn claims(arguments: &Arguments, now: UnixMillis) -> anyhow::Result<Value> {
    let issued_at = now.0 / 1_000;
    ensure!(arguments.ttl >= Duration::from_secs(1), "--ttl is at least 1s");
    let mut claims = Map::new();
    claims.extend(arguments.issuer.as_ref().map(|name| ("iss".to_owned(), json!(name))));
    claims.extend(arguments.sub.as_ref().map(|name| ("sub".to_owned(), json!(name))));
    let audience = match arguments.audience.as_slice() {
        [name] => json!(name),
        names => json!(names),
    };
    claims.insert("aud".to_owned(), audience);
    claims.insert("iat".to_owned(), json!(issued_at));
    claims.insert(
        "exp".to_owned(),
        json!(issued_at.saturating_add(arguments.ttl.as_secs())),
    );
    let id = arguments.id.clone();
    let id = id.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    claims.insert("jti".to_owned(), json!(id));
    let mut granted = Map::new();
    for (name, patterns) in [("follow", &arguments.follow), ("publish", &arguments.publish)] {
        if !patterns.is_empty() {
            granted.insert(name.to_owned(), json!(patterns));
        }
    }
    if arguments.control {
        granted.insert("control".to_owned(), json!(true));
    }
    if !granted.is_empty() {
        claims.insert(arguments.claim.clone(), granted.into());
    }
    Ok(claims.into())
}
