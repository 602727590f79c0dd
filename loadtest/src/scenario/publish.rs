//! Appends per second, each durable before it is acknowledged, with so many in flight.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    Node, Report,
    payload::Key,
    process::processor_time,
    publish::{Call, Pace, Publisher, Times, To, What},
    report::{Along, Ledger, Limit, Plot},
    template::Publish,
};

/// With so many in flight, group commit is to give at least [`GAIN`] times the rate of one in flight.
const MANY: u64 = 256;
const GAIN: f64 = 50.0;

/// How much of the time goes by before it is measured.
const WARM_UP: f64 = 0.1;

/// What to publish.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Requests in flight at the same time; several figures are measured one after another.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256, 1_024])]
    pub in_flight: Vec<u64>,

    /// How they are sent over gRPC.
    #[arg(long, value_enum, default_value_t = Call::Stream)]
    pub call: Call,

    /// Connections over which they are spread; by default one over gRPC, and over HTTP what the template says.
    #[arg(long, default_value_t = 0)]
    pub connections: usize,

    /// Seconds for which each figure is measured.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,

    /// Bytes of each payload, at least.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,

    /// Topics over which the events are spread: inboxes.
    #[arg(long, default_value_t = 1_000)]
    pub topics: u32,

    /// Give each event a key, as one who retries would.
    #[arg(long)]
    pub keys: bool,
}

/// What was measured with so many in flight.
struct Measured {
    per_second: f64,
    times: Times,
    /// Processor time of the server for each append, in microseconds, if its process is known.
    cost: Option<f64>,
}

/// Publishes and measures.
///
/// # Errors
/// If the server cannot be reached or refuses an event.
pub async fn run(node: &Node, options: &Options) -> Result<Report> {
    ensure!(options.topics > 0, "`--topics` is at least 1");
    let mut report = Report::new("publish").setting("server", node.template.name.as_str());
    if node.template.publish == Publish::Grpc {
        report = report.setting("call", options.call.to_string());
    }
    report = report
        .setting("connections", options.connections)
        .setting("seconds", options.seconds)
        .setting("payload", options.payload)
        .setting("topics", options.topics)
        .setting("keys", options.keys);
    let mut rates = Vec::new();
    let [mut p50, mut p99] = [Vec::new(), Vec::new()];
    let mut all = Plot::new("Acknowledged", "ms")
        .along(Along::Percentile)
        .log_scale()
        .note("From sent to acknowledged as durable.");
    for &in_flight in &options.in_flight {
        ensure!(in_flight > 0, "`--in-flight` is at least 1");
        let measured = measure(node, options, in_flight, &mut report).await?;
        let times = &measured.times;
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
        report.measured(
            format!("appends, {in_flight} in flight"),
            measured.per_second,
            "per second",
        );
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            report.measured(
                format!("acknowledged, {in_flight} in flight, {name}"),
                at(quantile),
                "ms",
            );
        }
        if let Some(cost) = measured.cost {
            report.measured(format!("processor per append, {in_flight} in flight"), cost, "µs");
        }
        rates.push((in_flight as f64, measured.per_second));
        p50.push((in_flight as f64, at(0.5)));
        p99.push((in_flight as f64, at(0.99)));
        let quantiles = (0..1_000).map(|part| f64::from(part) / 1_000.0);
        all = all.line(
            format!("{in_flight} in flight"),
            quantiles.map(|quantile| (quantile * 100.0, at(quantile))),
        );
    }
    let rate = |wanted: u64| rates.iter().find(|&&(in_flight, _)| in_flight == wanted as f64);
    if let (Some(&(_, one)), Some(&(_, many))) = (rate(1), rate(MANY)) {
        let name = format!("appends, {MANY} in flight over one");
        report.goal(name, many / one, Limit::AtLeast(GAIN), "times");
    }
    let along = || Along::Quantity("in flight".to_owned());
    if rates.len() > 1 {
        report.plot(Plot::new("Appends", "per second").along(along()).line("appends", rates));
        let plot = Plot::new("Acknowledged", "ms").along(along());
        report.plot(plot.line("p50", p50).line("p99", p99));
    }
    report.plot(all);
    Ok(report)
}

async fn measure(node: &Node, options: &Options, in_flight: u64, report: &mut Report) -> Result<Measured> {
    let to = To {
        call: options.call,
        connections: options.connections,
        ..node.to()?
    };
    let topics = u64::from(options.topics);
    let topic = move |number| Key::Inbox(u32::try_from(number % topics).unwrap_or_default());
    let what = What {
        keys: options.keys,
        ..What::new(options.payload, topic)
    };
    let mut publisher = Publisher::start(to, what).await?;
    publisher.pace(Pace::Window {
        in_flight,
        events: None,
    });
    let time = Duration::from_secs(options.seconds);
    tokio::time::sleep(time.mul_f64(WARM_UP)).await;
    publisher.check()?;
    let processor = || node.pid.map(processor_time).transpose();
    let (begin, (_, before), used) = (Instant::now(), publisher.so_far(), processor()?);
    drop(publisher.interval());
    tokio::time::sleep(time).await;
    let (elapsed, (_, after), used_then) = (begin.elapsed(), publisher.so_far(), processor()?);
    let times = publisher.interval();
    publisher.check()?;
    let tally = publisher.stop().await?;
    report.ledger(Ledger {
        published: tally.published,
        acknowledged: tally.acknowledged,
        ..Ledger::default()
    });
    let appends = (after - before) as f64;
    Ok(Measured {
        per_second: appends / elapsed.as_secs_f64(),
        times,
        cost: used
            .zip(used_then)
            .map(|(used, then)| then.saturating_sub(used).as_secs_f64() * 1e6 / appends),
    })
}
