//! `tidings revoke`: taking back what was granted, and seeing what was.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};
use tidings_proto::v1::{
    ListRevocationsRequest, Revocation, RevokeRequest, UserTokens, control_client::ControlClient, revocation,
    revoke_request::Target,
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    bearer::{Bearer, with_token},
    certificates::{Identity, Trust},
    server::printable,
};
use crate::tls::{self, ClientTls};

/// How long connecting, and the answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest list that is read, in bytes: of as many revocations as there may be, with the longest names.
const LARGEST_LIST: usize = 64 << 20;

/// What to revoke, and where.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("what").required(true).multiple(true).args(["token_id", "user", "issued_before", "list"]),
    after_help = "Examples:
  tidings revoke --user 42 --reason 'logged out everywhere'
  tidings revoke --user 42 --block --for 30d
  tidings revoke --issued-before 2026-11-20T12:00:00Z
  tidings revoke --list"
)]
pub struct Arguments {
    /// The token of this id (its claim `jti`).
    #[arg(long, value_name = "ID", conflicts_with_all = ["user", "issued_before"])]
    token_id: Option<String>,

    /// The tokens of this user (the claim `sub`) that were issued until now, or before --issued-before.
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Also those that are yet to be issued: the user is shut out until the revocation expires.
    #[arg(long, requires = "user", conflicts_with = "issued_before")]
    block: bool,

    /// Tokens that were issued (the claim `iat`) before this time: of everybody, or of --user. `now`, or a time such as 2026-11-20T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    issued_before: Option<SystemTime>,

    /// For how long: at least as long as the longest-lived token that it covers.
    #[arg(long = "for", value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
    lasts: Duration,

    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// List what is revoked now instead.
    #[arg(long, conflicts_with_all = ["token_id", "user", "issued_before", "reason"])]
    list: bool,

    /// Where the server's gRPC is: any node that takes events.
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    url: String,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    identity: Identity,

    #[command(flatten)]
    bearer: Bearer,
}

/// Revokes or lists, and prints what is revoked.
///
/// # Errors
/// If the server cannot be reached, or refuses.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let token = arguments.bearer.token()?;
    let tls = arguments.trust.load_with(&arguments.identity)?;
    let mut client = connect(&arguments.url, &tls).await?;
    let revocations = if arguments.list {
        let request = with_token(ListRevocationsRequest {}, token.as_ref());
        let answer = client.list_revocations(request).await.map_err(refused)?;
        answer.into_inner().revocations
    } else {
        let request = with_token(request(&arguments)?, token.as_ref());
        let answer = client.revoke(request).await.map_err(refused)?;
        answer.into_inner().revocation.into_iter().collect()
    };
    let mut lines: Vec<_> = revocations
        .iter()
        .map(|revocation| format!("{}\n", readable(revocation)))
        .collect();
    lines.sort();
    io::stdout().write_all(lines.concat().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn connect(url: &str, tls: &ClientTls) -> anyhow::Result<ControlClient<Channel>> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .with_context(|| format!("{url:?} is not the address of a server: http://127.0.0.1:50051 is one"))?;
    let endpoint = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE);
    let channel = tls::connect(&endpoint, tls).await;
    let channel = channel.with_context(|| {
        format!("{url} cannot be reached: does --url name the gRPC port of a node that takes events?")
    })?;
    Ok(ControlClient::new(channel).max_decoding_message_size(LARGEST_LIST))
}

fn request(arguments: &Arguments) -> anyhow::Result<RevokeRequest> {
    let before = arguments.issued_before.map(millis);
    let target = match (&arguments.token_id, &arguments.user, before) {
        (Some(id), ..) => Target::TokenId(id.clone()),
        (None, Some(user), before) => Target::User(UserTokens {
            user: user.clone(),
            issued_before_ms: before.unwrap_or_default(),
            block: arguments.block,
        }),
        (None, None, Some(before)) => Target::IssuedBeforeMs(before),
        (None, None, None) => bail!("nothing is named that is to be revoked: --token-id, --user or --issued-before"),
    };
    if arguments.lasts.is_zero() {
        bail!("--for is nothing: for how long is it to be revoked?");
    }
    Ok(RevokeRequest {
        target: Some(target),
        for_ms: u64::try_from(arguments.lasts.as_millis()).unwrap_or(u64::MAX).max(1),
        reason: arguments.reason.clone().unwrap_or_default(),
    })
}

fn refused(status: Status) -> anyhow::Error {
    let message = printable(status.message());
    anyhow::anyhow!("the server refuses ({}): {message}", status.code().description())
}

/// `now`, or a time as RFC 3339 writes it.
fn time(text: &str) -> Result<SystemTime, String> {
    if text == "now" {
        return Ok(SystemTime::now());
    }
    humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}: `now`, or a time (UTC) such as 2026-11-20T12:00:00Z"))
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn readable(revocation: &Revocation) -> String {
    let time = |millis: u64| {
        let time = UNIX_EPOCH.checked_add(Duration::from_millis(millis));
        // What is so far ahead has no date.
        let time = time.filter(|_| millis < 253_402_300_800_000);
        time.map_or_else(
            || "for ever".to_owned(),
            |time| humantime::format_rfc3339_millis(time).to_string(),
        )
    };
    let what = match &revocation.target {
        Some(revocation::Target::TokenId(id)) => format!("token {}", printable(id)),
        Some(revocation::Target::User(UserTokens { user, block: true, .. })) => {
            format!("user {}, whenever issued", printable(user))
        }
        Some(revocation::Target::User(UserTokens {
            user, issued_before_ms, ..
        })) => {
            format!("user {}, issued before {}", printable(user), time(*issued_before_ms))
        }
        Some(revocation::Target::IssuedBeforeMs(before)) => format!("everybody, issued before {}", time(*before)),
        None => "something that this version does not know".to_owned(),
    };
    format!("{what}, until {}", time(revocation.until_ms))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parsed(arguments: &[&str]) -> Result<RevokeRequest, String> {
        let arguments = ["revoke"].iter().chain(arguments);
        let program = Program::try_parse_from(arguments).map_err(|error| error.to_string())?;
        request(&program.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_say_what_is_revoked() {
        let of_user = |issued_before_ms, block| {
            Target::User(UserTokens {
                user: "7".to_owned(),
                issued_before_ms,
                block,
            })
        };
        let second = "1970-01-01T00:00:01Z";
        for (arguments, target) in [
            (&["--token-id", "x"][..], Target::TokenId("x".to_owned())),
            (&["--user", "7"], of_user(0, false)),
            (&["--user", "7", "--block"], of_user(0, true)),
            (&["--user", "7", "--issued-before", second], of_user(1_000, false)),
            (&["--issued-before", second], Target::IssuedBeforeMs(1_000)),
        ] {
            let request = parsed(arguments).expect("valid");
            assert_eq!(
                (request.target, request.for_ms),
                (Some(target), 24 * 60 * 60 * 1_000),
                "{arguments:?}"
            );
        }
        assert_eq!(parsed(&["--user", "7", "--for", "2s"]).expect("valid").for_ms, 2_000);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for arguments in [
            &[][..],
            &["--block"],
            &["--reason", "x"],
            &["--token-id", "x", "--user", "7"],
            &["--token-id", "x", "--issued-before", "now"],
            &["--user", "7", "--block", "--issued-before", "now"],
            &["--list", "--user", "7"],
            &["--issued-before", "yesterday"],
            &["--user", "7", "--for", "0s"],
        ] {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn what_is_revoked_is_told_for_people() {
        let revoked = |target| {
            readable(&Revocation {
                target: Some(target),
                until_ms: 1_000,
            })
        };
        let until = "until 1970-01-01T00:00:01.000Z";
        let user = |issued_before_ms, block| {
            revocation::Target::User(UserTokens {
                user: "a\u{1b}b".to_owned(),
                issued_before_ms,
                block,
            })
        };
        assert_eq!(
            revoked(revocation::Target::TokenId("x".to_owned())),
            format!("token x, {until}")
        );
        assert_eq!(
            revoked(user(0, true)),
            format!("user a\\u{{1b}}b, whenever issued, {until}")
        );
        assert_eq!(
            revoked(user(0, false)),
            format!("user a\\u{{1b}}b, issued before 1970-01-01T00:00:00.000Z, {until}")
        );
        assert_eq!(
            revoked(revocation::Target::IssuedBeforeMs(u64::MAX)),
            format!("everybody, issued before for ever, {until}")
        );
    }
}
