//! Appends per second over gRPC, each durable before it is acknowledged, with so many in flight.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use futures::{channel::mpsc, future::try_join_all};
use hdrhistogram::Histogram;
use tidings_proto::v1::{
    PublishRequest, PublishStreamResponse, publish_stream_response::Outcome, publisher_client::PublisherClient,
};
use tonic::transport::{Channel, Endpoint};

use crate::{Node, Report};

/// What to publish.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Requests in flight at the same time; several figures are measured one after another.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 1_024])]
    pub in_flight: Vec<usize>,

    /// How they are sent.
    #[arg(long, value_enum, default_value_t = Call::Stream)]
    pub call: Call,

    /// Connections over which they are spread.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,

    /// Seconds for which each figure is measured.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,

    /// Bytes of each payload.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,

    /// Topics over which the events are spread.
    #[arg(long, default_value_t = 1_000)]
    pub topics: u64,

    /// Give each event a key, as one who retries would.
    #[arg(long)]
    pub keys: bool,
}

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Call {
    /// Pipelined on one call per connection: `PublishStream`.
    Stream,
    /// A call each: `Publish`.
    Unary,
}

/// What one publisher has seen: how long each acknowledgement took, in nanoseconds.
pub(crate) type Times = Histogram<u64>;

/// An empty record of times, in nanoseconds, to three digits.
pub(crate) fn times() -> Times {
    Times::new(3).expect("3 digits are within what histograms have")
}

/// Connects the publisher of this number.
pub(crate) async fn connect(node: &Node, number: usize) -> Result<PublisherClient<Channel>> {
    let address = node.publishing(number);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let channel = endpoint.connect().await;
    Ok(PublisherClient::new(
        channel.with_context(|| format!("cannot connect to {address}"))?,
    ))
}

/// Publishes and measures.
///
/// # Errors
/// If the server cannot be reached or refuses an event.
pub async fn run(node: &Node, options: &Options) -> Result<Report> {
    let mut report = Report::new("publish")
        .setting("call", format!("{:?}", options.call).to_lowercase())
        .setting("connections", options.connections)
        .setting("seconds", options.seconds)
        .setting("payload", options.payload)
        .setting("topics", options.topics)
        .setting("keys", options.keys);
    for &in_flight in &options.in_flight {
        ensure!(in_flight > 0, "`--in-flight` is at least 1");
        let (times, elapsed) = measure(node, options, in_flight).await?;
        let appends = times.len() as f64 / elapsed.as_secs_f64();
        report.measured(format!("appends, {in_flight} in flight"), appends, "per second");
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let milliseconds = times.value_at_quantile(quantile) as f64 / 1e6;
            report.measured(
                format!("acknowledged, {in_flight} in flight, {name}"),
                milliseconds,
                "ms",
            );
        }
    }
    Ok(report)
}

async fn measure(node: &Node, options: &Options, in_flight: usize) -> Result<(Times, Duration)> {
    let connections = options.connections.clamp(1, in_flight);
    let mut clients = Vec::with_capacity(connections);
    for number in 0..connections {
        clients.push(connect(node, number).await?);
    }
    let begin = Instant::now();
    let until = begin + Duration::from_secs(options.seconds);
    let lanes = match options.call {
        Call::Stream => connections,
        Call::Unary => in_flight,
    };
    let tasks = (0..lanes).map(|lane| {
        let client = clients[lane % connections].clone();
        let source = Source::new(options, lane, lanes);
        let window = in_flight / lanes + usize::from(lane < in_flight % lanes);
        let call = options.call;
        async move {
            // A lane is a task, so that lanes are spread over the cores.
            let lane = match call {
                Call::Stream => tokio::spawn(stream(client, source, window, until)),
                Call::Unary => tokio::spawn(unary(client, source, until)),
            };
            lane.await?
        }
    });
    let mut all = times();
    for times in try_join_all(tasks).await? {
        all.add(times)?;
    }
    Ok((all, begin.elapsed()))
}

/// One call after another.
async fn unary(mut client: PublisherClient<Channel>, mut source: Source, until: Instant) -> Result<Times> {
    let mut times = times();
    while Instant::now() < until {
        let sent = Instant::now();
        client.publish(source.next()).await?;
        times.record(nanoseconds(sent.elapsed()))?;
    }
    Ok(times)
}

/// One pipelined call: whenever an answer comes the next request goes out.
async fn stream(
    mut client: PublisherClient<Channel>,
    mut source: Source,
    window: usize,
    until: Instant,
) -> Result<Times> {
    let (requests, receiver) = mpsc::unbounded();
    let mut sent = VecDeque::with_capacity(window);
    for _ in 0..window {
        requests.unbounded_send(source.next())?;
        sent.push_back(Instant::now());
    }
    let mut answers = client.publish_stream(receiver).await?.into_inner();
    let mut times = times();
    while let Some(at) = sent.pop_front() {
        let answer = answers.message().await?.context("the server ended the call")?;
        accepted(answer)?;
        times.record(nanoseconds(at.elapsed()))?;
        if Instant::now() < until {
            requests.unbounded_send(source.next())?;
            sent.push_back(Instant::now());
        }
    }
    Ok(times)
}

/// Demands that an event was accepted.
pub(crate) fn accepted(answer: PublishStreamResponse) -> Result<()> {
    match answer.outcome {
        Some(Outcome::Published(published)) => {
            let failed = published.results.iter().find_map(|result| result.error.as_ref());
            failed.map_or(Ok(()), |error| bail!("an event was refused in part: {}", error.message))
        }
        Some(Outcome::Error(error)) => bail!("an event was refused: {}", error.message),
        None => bail!("an answer without an outcome"),
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Events, one different from the other.
struct Source {
    payload: String,
    topics: u64,
    run: Option<u128>,
    next: u64,
    step: u64,
}

impl Source {
    fn new(options: &Options, lane: usize, lanes: usize) -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        Self {
            payload: "x".repeat(options.payload),
            topics: options.topics.max(1),
            run: options.keys.then_some(now),
            next: lane as u64,
            step: lanes as u64,
        }
    }

    fn next(&mut self) -> PublishRequest {
        let number = self.next;
        self.next += self.step;
        PublishRequest {
            topics: vec![format!("user:{}", number % self.topics)],
            data: self.payload.clone(),
            key: self.run.map_or_else(String::new, |run| format!("{run}-{number}")),
            ..PublishRequest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_never_publish_the_same_event() {
        let options = Options {
            in_flight: vec![1],
            call: Call::Unary,
            connections: 1,
            seconds: 1,
            payload: 3,
            topics: 2,
            keys: true,
        };
        let mut source = Source::new(&options, 1, 2);
        let (one, three) = (source.next(), source.next());
        assert_eq!((one.topics[0].as_str(), one.data.as_str()), ("user:1", "xxx"));
        assert!(one.key.ends_with("-1") && three.key.ends_with("-3"));
    }
}
