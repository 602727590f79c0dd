//! What each edge of a cluster hears over NATS: once with the streams at the edges that own their users' slots, once with the streams
//! anywhere.
//!
//! NATS itself says how many messages it sent on each edge's connection. What comes without any event (digests, membership) is measured
//! before, over the same time, and taken off.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, channel::mpsc, stream};
use tidings_proto::v1::PublishRequest;
use tokio::{net::TcpStream, time::MissedTickBehavior};

use crate::{
    Node, Report,
    get::Connection,
    publish::{accepted, connect as publisher},
    stream::{connect, read_head},
};

/// What to hold and to publish.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where the NATS servers tell of themselves (their `http` port), all of them.
    #[arg(long, value_name = "ADDR[,ADDR]", value_delimiter = ',', required = true)]
    pub monitor: Vec<SocketAddr>,

    /// What the names of the edges' connections to NATS have in them, and those of others do not.
    #[arg(long, default_value = "edge")]
    pub name: String,

    /// Users, each of whose inboxes is followed once.
    #[arg(long, default_value_t = 30_000)]
    pub users: usize,

    /// Users whose inboxes share a stream, where there are too few files for a stream each. They have the same owner, or none in particular.
    #[arg(long, default_value_t = 1)]
    pub per_stream: usize,

    /// Events per second, each to the inbox of another user.
    #[arg(long, default_value_t = 500)]
    pub rate: u32,

    /// Seconds for which it is measured, without events and with them.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
}

/// Which edge a stream is opened at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placement {
    Owner,
    Anywhere,
}

/// Messages that NATS sent on each edge's connections.
type Sent = BTreeMap<String, u64>;

/// Opens the streams, publishes and counts, for each placement.
///
/// # Errors
/// If the cluster or a NATS server cannot be reached, or an event is refused.
pub async fn run(node: &Node, options: &Options) -> Result<Report> {
    ensure!(
        options.rate > 0 && options.per_stream > 0 && options.users > 0,
        "`--rate`, `--per-stream` and `--users` are at least 1"
    );
    let mut report = Report::new("interest")
        .setting("users", options.users)
        .setting("per_stream", options.per_stream)
        .setting("rate", options.rate)
        .setting("seconds", options.seconds)
        .setting("edges", node.http.len());
    let owners = owners(node, options.users).await?;
    // In this order: an edge forgets the slots of streams that have gone only after a while, and with streams anywhere it has all of them.
    for (placement, name) in [(Placement::Owner, "at owners"), (Placement::Anywhere, "anywhere")] {
        let streams = open(node, options, &owners, placement).await?;
        // Until NATS has heard of all subscriptions, and what the log was asked for is over.
        let settle = Duration::from_secs(5);
        tokio::time::sleep(settle).await;
        let before = sent(options).await?;
        let time = Duration::from_secs(options.seconds);
        tokio::time::sleep(time).await;
        let idle = sent(options).await?;
        let events = publish(node, options).await?;
        let after = sent(options).await?;
        let mut total = 0.0;
        for (edge, &after) in &after {
            let of = |counts: &Sent| counts.get(edge).copied().unwrap_or_default() as f64;
            let quiet = of(&idle) - of(&before);
            let heard = (after as f64 - of(&idle) - quiet) / events as f64;
            total += heard;
            report.measured(format!("{name}, {edge}: messages per event"), heard, "");
            report.measured(
                format!("{name}, {edge}: without events"),
                quiet / time.as_secs_f64(),
                "per second",
            );
        }
        ensure!(
            !after.is_empty(),
            "no connection to NATS has {:?} in its name",
            options.name
        );
        report.measured(
            format!("{name}, each edge: messages per event"),
            total / after.len() as f64,
            "",
        );
        drop(streams);
    }
    Ok(report)
}

/// The place of each user's owner among the edges.
async fn owners(node: &Node, users: usize) -> Result<Vec<usize>> {
    let mut connection = Connection::open(node.streams(0)).await?;
    let mut owners = Vec::with_capacity(users);
    for user in 0..users {
        let route = connection.json(&format!("/v1/route?user={user}")).await?;
        let url = route["url"]
            .as_str()
            .with_context(|| format!("a route without an address: {route}"))?;
        let is_owner = |edge: &SocketAddr| url.trim_end_matches('/') == format!("http://{edge}");
        let place = node.http.iter().position(is_owner);
        owners.push(place.with_context(|| format!("{url} is not among the edges that `--http` names"))?);
    }
    Ok(owners)
}

async fn open(node: &Node, options: &Options, owners: &[usize], placement: Placement) -> Result<Vec<TcpStream>> {
    let mut groups = BTreeMap::<usize, Vec<usize>>::new();
    for (user, &owner) in owners.iter().enumerate() {
        let edge = match placement {
            Placement::Owner => owner,
            Placement::Anywhere => user % node.http.len(),
        };
        groups.entry(edge).or_default().push(user);
    }
    let asks = groups.iter().flat_map(|(&edge, users)| {
        let asks = users.chunks(options.per_stream);
        asks.map(move |users| {
            let topics: Vec<_> = users.iter().map(|user| format!("topic=user:{user}")).collect();
            (node.streams(edge), topics.join("&"))
        })
    });
    let open = |(number, (edge, query)): (usize, (SocketAddr, String))| async move {
        let mut socket = connect(edge, number, &query).await?;
        read_head(&mut socket).await?;
        anyhow::Ok(socket)
    };
    let opened = stream::iter(asks.enumerate()).map(open).buffer_unordered(32);
    opened.try_collect().await.context("a stream cannot be opened")
}

/// What NATS has sent to each edge so far.
async fn sent(options: &Options) -> Result<Sent> {
    let mut sent = Sent::new();
    for &monitor in &options.monitor {
        let told = Connection::open(monitor).await?.json("/connz?limit=10000").await?;
        let connections = told["connections"].as_array().context("no connections")?;
        for connection in connections {
            let name = connection["name"].as_str().unwrap_or_default();
            if name.contains(&options.name) {
                *sent.entry(name.to_owned()).or_default() += connection["out_msgs"].as_u64().unwrap_or_default();
            }
        }
    }
    Ok(sent)
}

/// Publishes at the rate, and returns how many events were acknowledged: all.
async fn publish(node: &Node, options: &Options) -> Result<usize> {
    let events = options.rate as usize * usize::try_from(options.seconds)?;
    let mut client = publisher(node, 0).await?;
    let (requests, receiver) = mpsc::unbounded();
    let (rate, users) = (options.rate, options.users);
    let sender = tokio::spawn(async move {
        let begin = tokio::time::Instant::now();
        let mut interval = tokio::time::interval(Duration::from_millis(1).max(Duration::from_secs(1) / rate));
        interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut number = 0;
        while number < events {
            interval.tick().await;
            let due = begin.elapsed().as_secs_f64() * f64::from(rate);
            while number < events && (number as f64) < due {
                // A step that has no divisor in common with any usual number of users: neighbours come far apart.
                let user = number * 7_919 % users;
                let request = PublishRequest {
                    topics: vec![format!("user:{user}")],
                    data: number.to_string(),
                    ..PublishRequest::default()
                };
                // The other end stays until this one is dropped, or the call has failed, which it tells.
                let _ = requests.unbounded_send(request);
                number += 1;
            }
        }
    });
    let mut answers = client.publish_stream(receiver).await?.into_inner();
    let mut acknowledged = 0;
    while let Some(answer) = answers.message().await? {
        accepted(answer)?;
        acknowledged += 1;
    }
    sender.await?;
    ensure!(acknowledged == events, "{acknowledged} answers to {events} events");
    // What is on its way to the edges.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(events)
}
