//! Idle streams: what each costs the server, and what is left when they have come and gone.

mod held;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

pub use self::held::{Held, Topics};
use super::run::{Run, plan};
use crate::{
    Node, Report,
    fleet::{Follows, Host, How},
    kernel::{self, Kernel},
    payload::Key,
    process::Memory,
    publish::{Publisher, What},
    report::{Along, Limit, Plot, Progress, Table},
    template::Template,
};

/// Streams that share each of the topics that are not a stream's own.
const GROUP: u32 = 100;

/// How often memory is read on the way up, and how often while streams come and go.
const STEPS: u32 = 8;

/// How long the last events may take to arrive.
const LAST: Duration = Duration::from_secs(60);

/// What to hold.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Streams to hold. The server needs a file for each.
    #[arg(long, default_value_t = 15_000)]
    pub streams: u32,

    /// Streams to hold before the first measurement: what each costs is measured between the two.
    #[arg(long, default_value_t = 1_000)]
    pub first: u32,

    /// Topics that each follows beside its inbox: each with 100 streams.
    #[arg(long, default_value_t = 2)]
    pub shared: usize,

    /// Streams that are being opened at the same time.
    #[arg(long, default_value_t = 32)]
    pub opening: u32,

    /// Seconds for which to hold them, to see what that takes of the processor.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,

    /// Disconnects and reconnects after that, in all, to see whether they leave something behind.
    #[arg(long, default_value_t = 0)]
    pub cycles: u64,

    /// Publish nothing at the end: by default an event to each inbox shows that every stream is alive.
    #[arg(long)]
    pub silent: bool,
}

/// Memory at a moment.
#[derive(Debug, Clone, Copy)]
struct Reading {
    server: Memory,
    /// Of the processes that hold the other ends, in bytes.
    clients: u64,
    /// What the kernel keeps, in bytes.
    kernel: u64,
}

impl Reading {
    fn take(node: &Node, run: &Run) -> Result<Self> {
        let mut clients = 0;
        for pid in run.fleet.processes() {
            clients += Memory::of(pid)?.anonymous;
        }
        Ok(Self {
            server: Memory::of_all(&node.processes())?,
            clients,
            kernel: Kernel::read()?.own,
        })
    }
}

/// Holds the streams and measures.
///
/// # Errors
/// If the server's process is not known, or a stream cannot be opened or does not stay.
pub async fn run(node: &Node, host: &Host, options: &Options) -> Result<Report> {
    let Options { streams, first, .. } = *options;
    // Says how it can become known.
    node.process()?;
    ensure!(
        0 < first && first < streams,
        "`--first` is to be less than `--streams`: memory is measured between them"
    );
    let mut report = Report::new("hold")
        .setting("server", node.template.name.as_str())
        .setting("streams", streams)
        .setting("first", first)
        .setting("topics", options.shared + 1)
        .setting("opening", options.opening)
        .setting("seconds", options.seconds)
        .setting("cycles", options.cycles);
    let follows = Follows {
        inbox: true,
        shared: vec![GROUP; options.shared],
    };
    let mut run = Run::start(node, host, &plan(node, follows), streams)?;
    let empty = Reading::take(node, &run)?;
    let objects = kernel::objects().ok();
    let begin = Instant::now();
    let mut readings = Vec::new();
    for step in 0..=STEPS {
        let to = first + u32::try_from(u64::from(streams - first) * u64::from(step) / u64::from(STEPS))?;
        run.open(to, options.opening).await?;
        readings.push((to, Reading::take(node, &run)?));
    }
    report.measured("time to connect all", begin.elapsed().as_secs_f64(), "s");
    let opened_in = run.opened_in();
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        let time = opened_in.value_at_quantile(quantile) as f64 / 1e6;
        report.measured(format!("connect to open, {name}"), time, "ms");
    }
    if let Some((before, after)) = objects.zip(kernel::objects().ok()) {
        report.table(grown(&kernel::growth(&before, &after), streams));
    }

    let time = Duration::from_secs(options.seconds);
    Progress::here().phase_for("holding", time);
    run.recorder.mark("idle");
    run.sample()?;
    run.recorder.measure();
    run.watch(time).await?;
    run.recorder.measured();
    let idle = run.recorder.summary();
    let open = run.fleet.totals().open;
    if open != u64::from(streams) {
        report.fail(format!("{} streams ended by themselves", u64::from(streams) - open));
    }
    let after = Reading::take(node, &run)?;
    per_stream(&mut report, empty, &readings, after);
    // A goal of this server, and of no other.
    if node.template == Template::tidings()
        && let Some(bytes) = report.get("per stream, resident")
    {
        let name = "memory of the server per stream";
        report.goal(name, bytes, Limit::AtMost(1_536.0), "bytes");
    }
    if let Some(server) = idle.part("server") {
        let share = server.processor.as_secs_f64() / idle.seconds;
        report.measured("processor while idle", share * 100.0, "% of a core");
    }

    if options.cycles > 0 {
        cycles(node, &mut run, options, &mut report).await?;
    }
    if !options.silent {
        run.recorder.mark("an event to each");
        let what = What::new(0, move |number| Key::Inbox((number % u64::from(streams)) as u32));
        let mut publisher = Publisher::start(node.to()?, what).await?;
        publisher.publish(streams.into(), 256).await?;
        run.publish(publisher);
    }
    run.finish(LAST, &mut report).await?;
    Ok(report)
}

/// What a stream costs: the slope between the first reading and the last.
fn per_stream(report: &mut Report, empty: Reading, readings: &[(u32, Reading)], after: Reading) {
    let [(first, few), .., (streams, many)] = *readings else {
        return;
    };
    for (name, reading) in [
        ("no streams".to_owned(), empty),
        (format!("{first} streams"), few),
        (format!("{streams} streams"), many),
        ("after the wait".to_owned(), after),
    ] {
        report.measured(format!("resident, {name}"), mib(reading.server.resident), "MiB");
    }
    let slope = |of: fn(&Reading) -> u64| (of(&many) as f64 - of(&few) as f64) / f64::from(streams - first);
    report.measured(
        "per stream, resident",
        slope(|reading| reading.server.resident),
        "bytes",
    );
    report.measured(
        "per stream, proportional",
        slope(|reading| reading.server.proportional),
        "bytes",
    );
    report.measured(
        "per stream, anonymous",
        slope(|reading| reading.server.anonymous),
        "bytes",
    );
    let from_none = (after.server.resident as f64 - empty.server.resident as f64) / f64::from(streams);
    report.measured("per stream, resident from none", from_none, "bytes");
    report.measured(
        "per stream beside the server, kernel (both ends)",
        slope(|reading| reading.kernel),
        "bytes",
    );
    report.measured(
        "per stream beside the server, client",
        slope(|reading| reading.clients),
        "bytes",
    );
    let line = |of: fn(&Reading) -> u64| {
        readings
            .iter()
            .map(move |(streams, reading)| (f64::from(*streams), of(reading) as f64))
    };
    let plot = Plot::new("Memory of the server by streams", "bytes").along(Along::Quantity("streams".to_owned()));
    report.plot(
        plot.line("resident", line(|reading| reading.server.resident))
            .line("anonymous", line(|reading| reading.server.anonymous)),
    );
}

/// What there is more of in the kernel.
fn grown(growth: &[(String, kernel::Objects)], streams: u32) -> Table {
    const MOST: usize = 12;
    let columns = ["kind", "more of them", "MiB", "bytes per stream"];
    let mut table = Table::new("Objects of the kernel", columns).note(
        "What there is more of with all streams open than with none, on the whole machine and at both ends of each stream.",
    );
    for (name, more) in growth.iter().take(MOST) {
        let per_stream = more.bytes as f64 / f64::from(streams);
        table.row([
            name.as_str().into(),
            more.count.into(),
            mib(more.bytes).into(),
            per_stream.into(),
        ]);
    }
    table
}

/// Cuts off all streams again and again, until so many have come back.
async fn cycles(node: &Node, run: &mut Run, options: &Options, report: &mut Report) -> Result<()> {
    let (streams, cycles) = (u64::from(options.streams), options.cycles);
    Progress::here().phase("coming and going", cycles);
    run.recorder.mark("coming and going");
    let began = run.fleet.totals().streams;
    let mut points = vec![(0.0, Reading::take(node, run)?.server.anonymous as f64)];
    let mut how = [How::Goodbye, How::Reset].into_iter().cycle();
    loop {
        let cut = run.fleet.totals().streams.cut;
        run.fleet.cut(1.0, how.next().unwrap_or(How::Goodbye))?;
        // All are open again, after some were not.
        loop {
            run.watch(Duration::from_millis(50)).await?;
            let totals = run.fleet.totals();
            if totals.streams.cut >= cut + streams && totals.open == streams {
                break;
            }
        }
        let reopened = run.fleet.totals().streams.reopened - began.reopened;
        Progress::here().at(reopened);
        let due = cycles * points.len() as u64 / u64::from(STEPS);
        if reopened >= due.min(cycles) {
            points.push((reopened as f64, Reading::take(node, run)?.server.anonymous as f64));
        }
        if reopened >= cycles {
            break;
        }
    }
    run.recorder.mark("all are back");
    // The first ones bring tables and heap to the size that this takes: from there on nothing is to grow.
    if let (Some(&(from, settled)), Some(&(to, last))) = (points.get(1), points.last()) {
        report.measured("memory after the first cycles", settled / f64::from(1 << 20), "MiB");
        report.measured("memory after all cycles", last / f64::from(1 << 20), "MiB");
        report.measured("growth per cycle", (last - settled) / (to - from).max(1.0), "bytes");
        report.goal(
            format!(
                "growth over the last {:.0} % of {cycles} connects and disconnects",
                (1.0 - from / to) * 100.0
            ),
            (last / settled - 1.0) * 100.0,
            Limit::AtMost(2.0),
            "%",
        );
    }
    let along = Along::Quantity("connects and disconnects".to_owned());
    report.plot(
        Plot::new("Memory of the server while streams come and go", "bytes")
            .along(along)
            .line("anonymous", points),
    );
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
