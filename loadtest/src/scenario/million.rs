//! As many streams as one machine holds: a cluster and all its clients on it, each stream with a token, its inbox and one topic that all share.
//!
//! Everybody gets a shared event, some inboxes get theirs, some edges are killed, and a shared event and inbox events are published while their
//! clients are away, who then resume on the edges that are left. Nothing may be lost, and nothing come twice.

use std::{
    cell,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use rand::Rng as _;
use tokio::time::{Instant, sleep};

use super::{
    course::Course,
    run::{available_memory, plan},
};
use crate::{
    Report,
    fleet::{Comeback, Follows, Host, Settled, Totals},
    kernel::{self, Kernel},
    payload::{Key, now},
    process::Memory,
    report::{Cell, Limit, Table},
    target::{
        Tokens,
        cluster::{self, Cluster, Journal},
    },
};

/// Streams of an edge before any is killed. It may open 20,000 files by default where containers leave it at that, and has room for those of the killed.
const PER_EDGE: u32 = 18_600;
/// What a stream may take in all, in bytes: the edge, the client, and both sockets in the kernel. docs/performance.md has what it took.
const PER_STREAM: u64 = 12_500;
/// What an edge takes without streams, in bytes, when it follows all slots.
const PER_NODE: u64 = 16 << 20;
/// Connections to an edge over gRPC: there are none but those of operators.
const GRPC: usize = 16;
/// For how long nothing changes where all is as it will be.
const STILL: Duration = Duration::from_secs(2);
const EVERYBODY: Key = Key::Shared(0);

/// How many, and of what.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Streams.
    #[arg(default_value_t = 1_000_000)]
    pub streams: u32,

    /// Edges; 0: as many as it takes with 18,600 streams each.
    #[arg(long, default_value_t = 0)]
    pub edges: usize,

    /// Edges that are killed. Those that are left have to have room for their streams.
    #[arg(long, default_value_t = 3)]
    pub killed: usize,

    /// Inboxes, chosen at random, that get an event; once before the edges are killed and once while they are away.
    #[arg(long, default_value_t = 10_000)]
    pub inboxes: u32,

    /// Streams that are being opened at the same time.
    #[arg(long, default_value_t = 2_000)]
    pub at_a_time: u32,

    /// Bytes of each payload.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,

    /// Seconds for which all are open and nothing happens, to see what that takes of the processor.
    #[arg(long, default_value_t = 10)]
    pub idle: u64,

    /// Memory that is to be left on this machine, in MiB: a run that would take it ends.
    #[arg(long, default_value_t = 1_536)]
    pub spare: u64,

    /// What makes the events durable.
    #[arg(long, value_enum, default_value_t = Journal::Rocksdb)]
    pub journal: Journal,

    /// The program of NATS; by default the one on the PATH, or the one that `tests/nats/setup` has installed.
    #[arg(long, value_name = "PATH")]
    pub nats_server: Option<PathBuf>,
}

/// Opens them, publishes, kills, and has them resume. `tidings` is the program, `host` holds the clients.
///
/// # Errors
/// If the cluster does not start, or a stream cannot be opened, or memory runs out.
pub async fn run(tidings: &Path, host: &Host, options: &Options) -> Result<Report> {
    let spare = options.spare << 20;
    let mut report = Report::new("million");
    let streams = fitting(options, spare, &mut report)?;
    let edges = match options.edges {
        0 => usize::try_from(streams.div_ceil(PER_EDGE))?.max(options.killed + 1),
        edges => edges,
    };
    ensure!(options.killed < edges, "an edge has to be left");
    let report = report
        .setting("streams", streams)
        .setting("edges", edges)
        .setting("killed", options.killed)
        .setting("inboxes", options.inboxes)
        .setting("journal", options.journal.name())
        .setting("at_a_time", options.at_a_time)
        .setting("payload", options.payload);
    let mut cluster = start(tidings, edges, options).await?;
    let mut course = prepare(&cluster, host, streams, options).await?;
    course.run.spare(spare);
    let ran = Million {
        course: course.loud(),
        cluster: &mut cluster,
        options,
        report,
    };
    let ran = ran.run().await;
    if ran.as_ref().map_or(true, Report::failed) {
        eprintln!("the logs of all nodes are in {}", cluster.keep_logs().display());
    }
    ran
}

/// How many streams this machine has the memory for, at most as many as were asked for.
fn fitting(options: &Options, spare: u64, report: &mut Report) -> Result<u32> {
    let available = available_memory()?;
    let nodes = u64::from(options.streams.div_ceil(PER_EDGE)) * PER_NODE;
    let fit = available.saturating_sub(spare + nodes) / PER_STREAM;
    if fit >= u64::from(options.streams) {
        return Ok(options.streams);
    }
    let fit = u32::try_from(fit)?;
    report.fail(format!(
        "{} streams would take about {:.1} GiB, and {:.1} GiB are available: only {fit} were opened",
        options.streams,
        gib(u64::from(options.streams) * PER_STREAM + nodes + spare),
        gib(available)
    ));
    Ok(fit)
}

async fn start(tidings: &Path, edges: usize, options: &Options) -> Result<Cluster> {
    let plan = cluster::Options {
        edges,
        ingest_nodes: 1,
        nats_servers: 1,
        journal: options.journal,
        nats_server: options.nats_server.clone(),
    };
    cluster::Plan::of(&plan, tidings)?
        .asking(Tokens::new(&["**"]))
        // Many processes share few cores.
        .set("http.workers", "1")
        // Silence is what is measured.
        .set("http.heartbeat", "1h")
        .set("limits.grpc_connections", &GRPC.to_string())
        .start()
        .await
}

async fn prepare(cluster: &Cluster, host: &Host, streams: u32, options: &Options) -> Result<Course> {
    let node = cluster.node();
    let follows = Follows {
        inbox: true,
        shared: vec![0],
    };
    let mut plan = plan(&node, follows);
    plan.comeback = Comeback {
        after: Duration::ZERO,
        within: Duration::from_secs(2),
        listens: false,
    };
    let what = (node.to()?, options.payload);
    let mut course = Course::start((&node, host), (&plan, streams), what, || EVERYBODY).await?;
    let [edges, ingest, nats] = cluster.pids();
    let recorder = course.recorder();
    recorder.watch("edges", edges);
    recorder.watch("ingest", ingest);
    recorder.watch("nats", nats);
    recorder.watch("clients", [std::process::id()]);
    Ok(course)
}

struct Million<'a> {
    course: Course,
    cluster: &'a mut Cluster,
    options: &'a Options,
    report: Report,
}

/// Memory by part, in bytes.
type Parts = [(&'static str, u64); 5];

impl Million<'_> {
    async fn run(mut self) -> Result<Report> {
        let streams = self.course.run.fleet.streams();
        let empty = self.memory()?;
        self.open(streams).await?;
        let full = self.memory()?;
        self.report_memory(&empty, &full);
        self.idle().await?;
        self.broadcast(streams).await?;
        self.inboxes().await?;
        self.kill(streams).await?;
        let Self { course, mut report, .. } = self;
        course.end(&mut report).await?;
        Ok(report)
    }

    async fn open(&mut self, streams: u32) -> Result<()> {
        self.course.phase("opening");
        let begin = Instant::now();
        self.course.run.open(streams, self.options.at_a_time).await?;
        let took = begin.elapsed().as_secs_f64();
        self.report.measured("opening all streams", took, "s");
        self.report.measured("opened", f64::from(streams) / took, "per second");
        Ok(())
    }

    async fn idle(&mut self) -> Result<()> {
        self.course.phase("idle");
        let parts = self.cluster.pids();
        let used = || -> Result<Duration> {
            let of = parts.iter().flatten().map(|&pid| crate::process::processor_time(pid));
            of.sum()
        };
        let before = used()?;
        let time = Duration::from_secs(self.options.idle);
        self.course
            .wait_for(async {
                sleep(time).await;
                Ok(())
            })
            .await?;
        let share = (used()? - before).as_secs_f64() / time.as_secs_f64().max(f64::MIN_POSITIVE);
        self.report
            .measured("processor while idle, all nodes and NATS", share * 100.0, "% of a core");
        Ok(())
    }

    async fn broadcast(&mut self, streams: u32) -> Result<()> {
        self.course.phase("one event to all");
        let begin = now();
        self.course.publish(vec![EVERYBODY]).await?;
        let settled = self.course.settle(Duration::from_secs(120)).await?;
        let took = settled.at.saturating_sub(begin) as f64 / 1e9;
        self.report
            .measured("one event to all: until the last has it", took, "s");
        self.report
            .measured("one event to all", f64::from(streams) / took, "deliveries per second");
        self.complete(&settled, "one event to all")
    }

    async fn inboxes(&mut self) -> Result<()> {
        self.course.phase("inboxes");
        let begin = now();
        let keys = self.random_inboxes(&[]);
        let events = keys.len();
        self.course.publish(keys).await?;
        let settled = self.course.settle(Duration::from_secs(120)).await?;
        let took = settled.at.saturating_sub(begin) as f64 / 1e9;
        self.report
            .measured(format!("{events} inboxes: until the last has its event"), took, "s");
        self.complete(&settled, "inboxes")
    }

    async fn kill(&mut self, streams: u32) -> Result<()> {
        if self.options.killed == 0 {
            return Ok(());
        }
        self.course.phase("edges are killed");
        let count = self.cluster.edges.len();
        // Neighbours: where a stream goes is its number by the number of edges, and so those of neighbours come to all that are left alike.
        let killed: Vec<usize> = (count / 2..count)
            .chain(0..count / 2)
            .take(self.options.killed)
            .collect();
        let gone: Vec<u32> = (0..streams)
            .filter(|&stream| killed.contains(&(stream as usize % count)))
            .collect();
        let left = self.cluster.edges.iter().enumerate();
        let left: Vec<_> = left
            .filter(|(number, _)| !killed.contains(number))
            .map(|(_, edge)| edge.address)
            .collect();
        self.course.run.fleet.stay_away(true)?;
        self.course.run.fleet.edges(&left)?;
        for &number in &killed {
            self.cluster.edges[number].part.kill().await?;
        }
        let all = u64::from(streams);
        let seen = cell::Cell::new((all, Instant::now()));
        let is_still = |totals: &Totals| {
            let (open, since) = seen.get();
            if totals.open != open {
                seen.set((totals.open, Instant::now()));
            }
            totals.open < all && totals.open == open && since.elapsed() > STILL
        };
        self.course
            .until("the clients of killed edges notice", Duration::from_secs(60), is_still)
            .await?;
        self.course.phase("published while they are away");
        let keys = std::iter::once(EVERYBODY).chain(self.random_inboxes(&gone));
        self.course.publish(keys.collect()).await?;
        let away = all - self.course.run.fleet.totals().open;
        ensure!(away > 0, "all streams are open, though edges were killed");
        self.report
            .measured("streams that were away while it was published", away as f64, "streams");
        self.course.phase("they come back");
        let begin = Instant::now();
        self.course.run.fleet.stay_away(false)?;
        self.course
            .until("all are back", Duration::from_secs(300), |totals| {
                totals.open >= u64::from(streams)
            })
            .await?;
        let took = begin.elapsed().as_secs_f64();
        let name = format!(
            "{} streams of {} killed edges back on those left",
            gone.len(),
            killed.len()
        );
        self.report.measured(name, took, "s");
        let settled = self.course.settle(Duration::from_secs(120)).await?;
        self.course.phase("all have everything");
        self.complete(&settled, "after the kill")
    }

    /// Random inboxes, a fifth of them among those given, if there are any.
    fn random_inboxes(&self, among: &[u32]) -> Vec<Key> {
        let mut random = rand::rng();
        let streams = self.course.run.fleet.streams();
        let inbox = |number: u32| match among.is_empty() || !number.is_multiple_of(5) {
            true => Key::Inbox(random.random_range(0..streams)),
            false => Key::Inbox(among[random.random_range(0..among.len())]),
        };
        (0..self.options.inboxes).map(inbox).collect()
    }

    fn complete(&mut self, settled: &Settled, what: &str) -> Result<()> {
        let missing = settled.totals.missing.unwrap_or_default();
        if missing > 0 {
            // The ledger says the same in the end, unless they come late.
            self.report
                .fail(format!("{what}: {missing} deliveries did not come in time"));
        }
        Ok(())
    }

    /// What every part takes now: proportional, so that the program itself counts once, and of the kernel all that it keeps.
    fn memory(&self) -> Result<Parts> {
        let sum = |pids: &[u32]| -> Result<u64> {
            let each = pids.iter().map(|&pid| Ok(Memory::of(pid)?.proportional));
            each.sum()
        };
        let [edges, ingest, nats] = self.cluster.pids();
        let mut clients = self.course.run.fleet.processes();
        clients.push(std::process::id());
        Ok([
            ("edges", sum(&edges)?),
            ("kernel", Kernel::read()?.own),
            ("clients", sum(&clients)?),
            ("NATS", sum(&nats)?),
            ("ingest", sum(&ingest)?),
        ])
    }

    fn report_memory(&mut self, empty: &Parts, full: &Parts) {
        let streams = f64::from(self.course.run.fleet.streams());
        let columns = ["part", "without streams, MiB", "with all, MiB", "per stream, bytes"];
        let note = "Of processes the proportional set size, of the kernel everything that it keeps.";
        let mut table = Table::new("Memory by part", columns).note(note);
        let mut total = (0, 0);
        for (&(part, before), &(_, after)) in empty.iter().zip(full) {
            total = (total.0 + before, total.1 + after);
            table.row(row(part, before, after, streams));
            let each = (after as f64 - before as f64) / streams;
            self.report
                .measured(format!("memory per stream, {part}"), each, "bytes");
        }
        table.row(row("all", total.0, total.1, streams));
        self.report.table(table);
        let each = (total.1 as f64 - total.0 as f64) / streams;
        self.report.measured("memory per stream, all", each, "bytes");
        self.report.measured("memory, all", gib(total.1), "GiB");
        self.report.goal(
            "streams open at once",
            streams,
            Limit::AtLeast(f64::from(self.options.streams)),
            "streams",
        );
        if let Ok(objects) = kernel::objects() {
            let mut table = Table::new("Kernel memory by kind of object", ["objects", "count", "MiB"]);
            let mut objects: Vec<_> = objects.into_iter().collect();
            objects.sort_by_key(|(_, objects)| std::cmp::Reverse(objects.bytes));
            for (name, objects) in objects.into_iter().take(12) {
                table.row([name.into(), objects.count.into(), mib(objects.bytes).into()]);
            }
            self.report.table(table);
        }
    }
}

fn row(part: &str, before: u64, after: u64, streams: f64) -> [Cell; 4] {
    let each = (after as f64 - before as f64) / streams;
    [part.into(), mib(before).into(), mib(after).into(), each.into()]
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
