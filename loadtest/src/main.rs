//! `tidings-loadtest SCENARIO`: measures a server from outside.

use anyhow::Result;
use clap::{Parser, Subcommand};
use tidings_loadtest::{hold, interest, latency, process, publish, target};

/// Measures a Tidings server from outside.
#[derive(Debug, Parser)]
#[command(name = "tidings-loadtest", version)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,

    #[command(flatten)]
    target: target::Options,

    /// Print the report as one JSON object.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Memory and processor time per idle stream.
    Hold(hold::Options),
    /// Time from publish to receive, at a given rate.
    Latency(latency::Options),
    /// What each edge of a cluster hears over NATS, with streams at their owners and anywhere.
    Interest(interest::Options),
    /// Appends per second, each durable before it is acknowledged.
    Publish(publish::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    process::raise_file_limit()?;
    let node = target::Node::reach(&arguments.target, &["**"])?;
    let report = match arguments.scenario {
        Scenario::Hold(options) => hold::run(&node, &options).await?,
        Scenario::Latency(options) => latency::run(&node, &options).await?,
        Scenario::Interest(options) => interest::run(&node, &options).await?,
        Scenario::Publish(options) => publish::run(&node, &options).await?,
    };
    if arguments.json {
        println!("{}", report.to_json());
    } else {
        print!("{report}");
    }
    Ok(())
}
