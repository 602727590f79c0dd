//! `tidings route`: which edge a user's streams belong on.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;
use clap::Args;
use http::StatusCode;
use serde::Deserialize;

use super::{
    bearer::{Bearer, authorization},
    certificates::Trust,
    server::{Server, body, explain, printable},
};

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who asks, and whom.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The user whose streams are to be placed; they go where the user's inbox is.
    #[arg(value_name = "USER", required_unless_present = "topic")]
    user: Option<String>,

    /// The first topic of the stream, for one without a user.
    #[arg(long, value_name = "TOPIC", conflicts_with = "user")]
    topic: Option<String>,

    /// Where the streams of any edge are.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    bearer: Bearer,

    /// Print the answer as it came: {"slot":…,"route":"…","node":"…","url":"…"}.
    #[arg(long)]
    json: bool,
}

/// The answer.
#[derive(Debug, Deserialize)]
struct Route {
    slot: u32,
    node: String,
    url: Option<String>,
}

/// Asks, and prints the answer.
///
/// # Errors
/// If the server cannot be reached, or does not know.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let server = Server::parse(&arguments.url, &arguments.trust.load()?)?;
    let query: Vec<(&str, &str)> = [("user", &arguments.user), ("topic", &arguments.topic)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .collect();
    let token = arguments.bearer.token()?.as_ref().map(authorization);
    let headers: Vec<_> = token.iter().map(|token| ("authorization", token.as_str())).collect();
    let response = server.get("/v1/route", &query, &headers, PATIENCE).await?;
    let status = response.status();
    let body = body(response).await;
    if status != StatusCode::OK {
        bail!("{} gives no route ({status}): {}", server.address(), explain(&body));
    }
    let Ok(route) = serde_json::from_slice::<Route>(&body) else {
        bail!(
            "{} does not answer with a route: does --url name an edge's streams?",
            server.address()
        );
    };
    let text = if arguments.json {
        format!("{}\n", String::from_utf8_lossy(&body).trim_end())
    } else {
        readable(&route)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn readable(route: &Route) -> String {
    let url = route.url.as_deref().unwrap_or("(where you asked)");
    format!(
        "slot   {}\nowner  {}\nurl    {}\n",
        route.slot,
        printable(&route.node),
        printable(url)
    )
}
