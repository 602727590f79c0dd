//! The processes, or threads, themselves: told over their input, heard over their output.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    process::{Child, Command as Process, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::sync::Notify;

use super::{Host, Interval, Totals};
use crate::swarm::{
    self,
    say::{Command, Part, Sample, note},
};

/// How long a process may be silent before it is taken for dead. It tells four times a second, if it gets its turn.
const SILENCE: Duration = Duration::from_secs(60);

/// All of them.
pub(super) struct Crew {
    parts: Vec<Part>,
    workers: Mutex<Vec<Worker>>,
    heard: Notify,
}

struct Worker {
    input: Box<dyn Write + Send>,
    child: Option<Child>,
    /// How many commands it was given.
    commands: u64,
    last: Sample,
    interval: Interval,
    /// Its output has ended.
    is_gone: bool,
}

impl Crew {
    /// Starts one for each part.
    pub(super) fn start(host: &Host, parts: &[Part]) -> Result<Arc<Self>> {
        let crew = Arc::new(Self {
            parts: parts.to_vec(),
            workers: Mutex::default(),
            heard: Notify::new(),
        });
        for number in 0..parts.len() {
            let (input, output, child) = match host {
                Host::Processes { program, .. } => spawn(program)?,
                Host::Threads(_) => thread()?,
            };
            lock(&crew.workers).push(Worker {
                input,
                child,
                commands: 0,
                last: Sample::default(),
                interval: Interval::default(),
                is_gone: false,
            });
            let listens = Arc::downgrade(&crew);
            // Ends with the process, or thread, whose output it reads.
            thread::spawn(move || {
                for line in BufReader::new(output).lines() {
                    let sample = line.ok().and_then(|line| serde_json::from_str::<Sample>(&line).ok());
                    let (Some(sample), Some(crew)) = (sample, listens.upgrade()) else {
                        break;
                    };
                    crew.told(number, sample);
                }
                if let Some(crew) = listens.upgrade() {
                    lock(&crew.workers)[number].is_gone = true;
                    crew.heard.notify_waiters();
                }
            });
        }
        Ok(crew)
    }

    fn told(&self, number: usize, sample: Sample) {
        let mut workers = lock(&self.workers);
        let worker = &mut workers[number];
        for &(time, count) in &sample.latency {
            note(&mut worker.interval.latency, time, count);
        }
        for &(time, count) in &sample.opened_in {
            note(&mut worker.interval.opened_in, time, count);
        }
        worker.last = sample;
        drop(workers);
        self.heard.notify_waiters();
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(super) fn processes(&self) -> Vec<u32> {
        let workers = lock(&self.workers);
        workers
            .iter()
            .filter_map(|worker| Some(worker.child.as_ref()?.id()))
            .collect()
    }

    pub(super) fn tell(&self, command: &Command) -> Result<()> {
        (0..self.parts.len()).try_for_each(|worker| self.tell_one(worker, command))
    }

    pub(super) fn tell_one(&self, worker: usize, command: &Command) -> Result<()> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        let worker = &mut lock(&self.workers)[worker];
        worker.commands += 1;
        let written = worker.input.write_all(&line).and_then(|()| worker.input.flush());
        written.context("a process that holds streams is gone")
    }

    /// Waits until one has told something.
    pub(super) async fn heard(&self) -> Result<()> {
        let heard = tokio::time::timeout(SILENCE, self.heard.notified()).await;
        heard.context("no process that holds streams has said anything for a minute")?;
        if lock(&self.workers)
            .iter()
            .any(|worker| worker.is_gone && !worker.last.is_last)
        {
            bail!("a process that holds streams has ended");
        }
        Ok(())
    }

    /// Whether each has told what it saw after its last command.
    pub(super) fn have_obeyed(&self) -> bool {
        lock(&self.workers)
            .iter()
            .all(|worker| worker.last.told == worker.commands)
    }

    pub(super) fn are_done(&self) -> bool {
        lock(&self.workers).iter().all(|worker| worker.last.is_last)
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let mut missing = Some(0);
        for Worker { last, .. } in &*lock(&self.workers) {
            totals.open += u64::from(last.open);
            totals.opening += u64::from(last.opening);
            totals.away += u64::from(last.away);
            totals.streams += last.streams;
            totals.events += last.events;
            missing = missing.zip(last.missing).map(|(all, own)| all + own);
            totals.last_event = totals.last_event.max(last.last_event);
            if totals.complaint.is_none() {
                totals.complaint.clone_from(&last.complaint);
            }
        }
        totals.missing = missing;
        totals
    }

    pub(super) fn interval(&self) -> Interval {
        let mut all = Interval::default();
        for worker in &mut *lock(&self.workers) {
            let own = std::mem::take(&mut worker.interval);
            // They are of the same kind, and grow as they need.
            all.latency += own.latency;
            all.opened_in += own.opened_in;
        }
        all
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself; nothing else can go wrong, and nothing would depend on it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

type Started = (Box<dyn Write + Send>, Box<dyn Read + Send>, Option<Child>);

fn spawn(program: &std::path::Path) -> Result<Started> {
    let mut child = Process::new(program)
        .arg("swarm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let input = child.stdin.take().context("no input")?;
    let output = child.stdout.take().context("no output")?;
    Ok((Box::new(input), Box::new(output), Some(child)))
}

fn thread() -> Result<Started> {
    let (input, commands) = std::io::pipe()?;
    let (samples, output) = std::io::pipe()?;
    // Ends when its commands do.
    thread::spawn(move || {
        if let Err(error) = swarm::run(input, output) {
            eprintln!("a thread that holds streams has failed: {error:#}");
        }
    });
    Ok((Box::new(commands), Box::new(samples), None))
}

/// Nothing panics while it is locked: what is within is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
