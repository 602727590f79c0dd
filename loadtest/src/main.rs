//! `tidings-loadtest SCENARIO`: measures a server from outside.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use tidings_loadtest::{
    Node, Report,
    fleet::Host,
    process, raw,
    report::{Output, Progress, compare},
    scenario::{
        edges, fanout, growth, hold, inboxes, interest, latency, million, mixed, publish, rawlimit, resume, rolling,
        storm,
    },
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

    /// The smallest server that there can be: scenarios start this.
    #[command(hide = true)]
    RawServer(raw::Options),
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// One topic to many streams: what a delivery costs, and how long it takes.
    Fanout(fanout::Options),
    /// The same with the smallest server that there can be, and what share of it the server reaches.
    Rawlimit(fanout::Options),
    /// Whether a stream and a delivery cost the same, however many there are.
    Growth(growth::Options),
    /// Memory and processor time per idle stream.
    Hold(hold::Options),
    /// Each event to one of many users: time from publish to receive, at a given rate.
    Inboxes(inboxes::Options),
    /// Inboxes, groups and everybody, with some readers that are slow.
    Mixed(mixed::Options),
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
    Edges(edges::Options),
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
        Command::RawServer(options) => {
            raw::run(&options)?;
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
    let host = Host::processes()?;
    let report = run(scenario, target, &host).await;
    // Whatever came of it: nothing is under way any more.
    Progress::here().done();
    let mut report = report?;
    output.write(&mut report)?;
    // However fast it was: what was lost is lost.
    Ok(if report.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn run(scenario: Scenario, target: &target::Options, host: &Host) -> Result<Report> {
    let node = || Node::reach(target, &["**"]);
    // Others start and end their nodes themselves.
    let tidings = || {
        let program = target.serve.as_deref();
        program.context("this scenario starts its nodes itself: say `--serve PATH`")
    };
    match scenario {
        Scenario::Fanout(options) => fanout::run(&node()?, host, &options).await,
        Scenario::Growth(options) => growth::run(&node()?, host, &options).await,
        Scenario::Rawlimit(options) => rawlimit::run(&node()?, host, &options).await,
        Scenario::Hold(options) => hold::run(&node()?, host, &options).await,
        Scenario::Inboxes(options) => inboxes::run(&node()?, host, &options).await,
        Scenario::Mixed(options) => mixed::run(&node()?, host, &options).await,
        Scenario::Latency(options) => latency::run(&node()?, &options).await,
        Scenario::Interest(options) => interest::run(&node()?, &options).await,
        Scenario::Publish(options) => publish::run(&node()?, &options).await,
        Scenario::Resume(options) => resume::run(tidings()?, host, &options).await,
        Scenario::Storm(options) => storm::run(tidings()?, host, &options).await,
        Scenario::Rolling(options) => rolling::run(tidings()?, host, &options).await,
        Scenario::Edges(options) => edges::run(tidings()?, host, &options).await,
        Scenario::Million(options) => million::run(tidings()?, host, &options).await,
    }
}
