//! The time from publish to receive through a whole server, at a rate that does not wait for anything.
//!
//! Publisher and readers are in this process: one clock. A payload says when it was due and its number in its topic; readers demand
//! that the numbers come without a gap, and the last event of each topic ends them.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::{channel::mpsc, future::try_join_all};
use tidings_proto::v1::PublishRequest;

use crate::{
    Node, Report,
    alarm::Alarm,
    publish::{Times, accepted, connect, nanoseconds, times},
    stream::EventStream,
};

/// The type of the event that ends a topic's readers.
const END: &str = "end";

/// How long the last events may take to arrive.
const LAST: Duration = Duration::from_secs(30);

/// What to publish, and to whom.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Events per second.
    #[arg(long, default_value_t = 200)]
    pub rate: u32,

    /// Streams that receive them.
    #[arg(long, default_value_t = 100)]
    pub readers: usize,

    /// Topics, in turn; the readers are shared out among them.
    #[arg(long, default_value_t = 10)]
    pub topics: usize,

    /// Bytes of each payload, at least.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,

    /// Seconds before the measurement begins.
    #[arg(long, default_value_t = 2)]
    pub warm_up: u64,

    /// Seconds for which it is measured.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,

    /// Publish ephemeral events: neither journal nor log.
    #[arg(long)]
    pub ephemeral: bool,
}

impl Options {
    fn topic(&self, number: usize) -> String {
        format!("latency/{}", number % self.topics.max(1))
    }
}

/// When it began, and from when on times count.
#[derive(Debug, Clone, Copy)]
struct Clock {
    begin: Instant,
    counts: Duration,
}

/// Publishes, receives and measures.
///
/// # Errors
/// If the server cannot be reached, refuses an event, or loses, repeats or reorders one.
pub async fn run(node: &Node, options: &Options) -> Result<Report> {
    let options = Arc::new(options.clone());
    ensure!(
        options.rate > 0 && options.topics > 0,
        "`--rate` and `--topics` are at least 1"
    );
    let mut streams = Vec::with_capacity(options.readers);
    for reader in 0..options.readers {
        let query = format!("topic={}", options.topic(reader));
        streams.push(EventStream::open(node.streams(reader), reader, &query).await?);
    }
    let clock = Clock {
        begin: Instant::now(),
        counts: Duration::from_secs(options.warm_up),
    };
    let readers: Vec<_> = streams
        .into_iter()
        .map(|stream| tokio::spawn(read(stream, clock)))
        .collect();
    let acknowledged = publish(node, Arc::clone(&options), clock).await?;
    let received = tokio::time::timeout(LAST, try_join_all(readers))
        .await
        .context("events are missing that were acknowledged")??;
    let mut all = times();
    for times in received {
        all.add(times?)?;
    }

    let mut report = Report::new("latency")
        .setting("rate", options.rate)
        .setting("readers", options.readers)
        .setting("topics", options.topics)
        .setting("payload", options.payload)
        .setting("seconds", options.seconds)
        .setting("ephemeral", options.ephemeral)
        .setting("edges", node.http.len());
    let seconds = Duration::from_secs(options.seconds.max(1)).as_secs_f64();
    report.measured("published", acknowledged.len() as f64 / seconds, "per second");
    report.measured("received", all.len() as f64 / seconds, "per second");
    for (what, times) in [("publish to acknowledged", &acknowledged), ("publish to receive", &all)] {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            let milliseconds = times.value_at_quantile(quantile) as f64 / 1e6;
            report.measured(format!("{what}, {name}"), milliseconds, "ms");
        }
    }
    Ok(report)
}

/// Receives up to the last event.
async fn read(mut stream: EventStream, clock: Clock) -> Result<Times> {
    let mut times = times();
    let mut last = None;
    loop {
        let event = stream.next().await?.context("the server ended a stream")?;
        let received = clock.begin.elapsed();
        let (number, sent) =
            parse(&event.data).with_context(|| format!("an event that nobody published: {event:?}"))?;
        // The first place is where the stream was level; from there on there is no excuse.
        ensure!(
            last.is_none_or(|last| number == last + 1),
            "event {number} came after event {last:?}"
        );
        last = Some(number);
        if event.event == END {
            return Ok(times);
        }
        if sent >= clock.counts {
            times.record(nanoseconds(received.saturating_sub(sent)))?;
        }
    }
}

/// Publishes at the rate, whatever the answers do, and returns how long these took from when each event was due.
async fn publish(node: &Node, options: Arc<Options>, clock: Clock) -> Result<Times> {
    let mut client = connect(node, 0).await?;
    let (requests, receiver) = mpsc::unbounded();
    let (sent, mut awaited) = mpsc::unbounded();
    let sender = tokio::spawn(async move {
        let total = clock.counts + Duration::from_secs(options.seconds);
        let mut alarm = Alarm::new()?;
        let mut number = 0_u64;
        let request = |number: u64, event_type: &str, at: Duration| {
            let topics = options.topics as u64;
            let request = PublishRequest {
                topics: vec![options.topic(usize::try_from(number % topics)?)],
                r#type: event_type.to_owned(),
                data: payload(number / topics, at, options.payload),
                ephemeral: options.ephemeral,
                ..PublishRequest::default()
            };
            // The other ends stay until this one is dropped, or the call has failed, which they tell.
            let _ = requests.unbounded_send(request);
            let _ = sent.unbounded_send(at);
            anyhow::Ok(())
        };
        loop {
            let due = Duration::from_secs_f64(number as f64 / f64::from(options.rate));
            if due >= total {
                break;
            }
            let early = due.saturating_sub(clock.begin.elapsed());
            if !early.is_zero() {
                alarm.wait(early).await?;
            }
            request(number, "", due)?;
            number += 1;
        }
        for _ in 0..options.topics {
            request(number, END, clock.begin.elapsed())?;
            number += 1;
        }
        anyhow::Ok(())
    });
    let mut answers = client.publish_stream(receiver).await?.into_inner();
    let mut waiting = VecDeque::new();
    let mut times = times();
    while let Some(answer) = answers.message().await? {
        accepted(answer)?;
        while let Ok(at) = awaited.try_recv() {
            waiting.push_back(at);
        }
        let at: Duration = waiting.pop_front().context("an answer to nothing")?;
        if at >= clock.counts {
            times.record(nanoseconds(clock.begin.elapsed().saturating_sub(at)))?;
        }
    }
    sender.await??;
    Ok(times)
}

/// A number, a time and padding.
fn payload(number: u64, at: Duration, bytes: usize) -> String {
    format!("{:<bytes$}", format!("{number} {} ", at.as_nanos()))
}

fn parse(payload: &str) -> Option<(u64, Duration)> {
    let (number, rest) = payload.split_once(' ')?;
    let (at, _) = rest.split_once(' ')?;
    Some((number.parse().ok()?, Duration::from_nanos(at.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_when_and_which() {
        let at = Duration::from_nanos(1_234_567);
        for bytes in [0, 256] {
            let payload = payload(42, at, bytes);
            assert!(payload.len() >= bytes);
            assert_eq!(parse(&payload), Some((42, at)));
        }
        assert_eq!(parse("something else"), None);
    }
}
