//! `tidings-loadtest SCENARIO`: measures a server from outside.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use tidings_loadtest::{
    Node,
    fleet::Host,
    process, publish,
    report::{Output, compare},
    scenario::{growth, hold, interest, latency, million, resume, rolling, storm},
    swarm, target,
};

/// Measures a Tidings server from outside.
#[derive(Debug, Parser)]
#[command(name = "tidings-loadtest", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    target: target::Options,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Scenario(Scenario),

    /// Reports beside each other, or one once more: from what `--json=FILE` has written.
    Compare(compare::Options),

    /// Holds streams as it is told over standard input: scenarios start this.
    #[command(hide = true)]
    Swarm,
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
    /// Connections cut off at random while events flow: each event once, in order, to everybody.
    Resume(resume::Options),
    /// The server is killed with all streams open, and all resume at once.
    Storm(storm::Options),
    /// The nodes of a cluster restarted one after another under load.
    Rolling(rolling::Options),
    /// What a delivery costs with one edge and with several.
    Growth(growth::Options),
    /// As many streams as this machine holds, over a whole cluster.
    Million(million::Options),
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    process::raise_file_limit()?;
    match arguments.command {
        Command::Swarm => {
            swarm::run(std::io::stdin(), std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Compare(options) => {
            let mut report = compare::run(&options)?;
            arguments.output.write(&mut report)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Scenario(scenario) => measure(scenario, &arguments.target, &arguments.output),
    }
}

#[tokio::main]
async fn measure(scenario: Scenario, target: &target::Options, output: &Output) -> Result<ExitCode> {
    let node = || Node::reach(target, &["**"]);
    // These start and end what they measure.
    let tidings = || {
        let program = target.serve.as_deref();
        program.context("this scenario starts its nodes itself: say `--serve PATH`")
    };
    let mut report = match scenario {
        Scenario::Hold(options) => hold::run(&node()?, &options).await?,
        Scenario::Latency(options) => latency::run(&node()?, &options).await?,
        Scenario::Interest(options) => interest::run(&node()?, &options).await?,
        Scenario::Publish(options) => publish::run(&node()?, &options).await?,
        Scenario::Resume(options) => resume::run(tidings()?, &Host::processes()?, &options).await?,
        Scenario::Storm(options) => storm::run(tidings()?, &Host::processes()?, &options).await?,
        Scenario::Rolling(options) => rolling::run(tidings()?, &Host::processes()?, &options).await?,
        Scenario::Growth(options) => growth::run(tidings()?, &Host::processes()?, &options).await?,
        Scenario::Million(options) => million::run(tidings()?, &Host::processes()?, &options).await?,
    };
    output.write(&mut report)?;
    // However fast it was: what was lost is lost.
    Ok(if report.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
