//! Processes by the part they play in a run (edges, ingest, NATS, clients), and what each part uses. The kernel is a part, too.

use std::{collections::BTreeMap, time::Duration};

use crate::{kernel::Kernel, process};

/// The name of the part that is the kernel.
pub const KERNEL: &str = "kernel";

/// What a part uses at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory of its own, in bytes: of processes what is anonymous or shared without a file, of the kernel everything that it keeps.
    pub memory: u64,
    /// Time on a processor of all its processes, those that have ended included.
    pub processor: Duration,
    /// Processes that run.
    pub processes: u64,
    /// Their threads.
    pub threads: u64,
}

/// The parts of a run.
#[derive(Debug, Default)]
pub struct Watched {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: String,
    of: Of,
}

#[derive(Debug)]
enum Of {
    Processes(Processes),
    /// What it kept when it began to be watched.
    Kernel(Kernel),
}

#[derive(Debug, Default)]
struct Processes {
    /// With the processor time that each had used when it was last seen.
    running: BTreeMap<u32, Duration>,
    /// Of processes whose number another has by now.
    ended: Duration,
}

impl Watched {
    /// Adds processes to a part, which may be a new one. A process that ends stays in the account with what it used.
    pub fn add(&mut self, part: &str, pids: impl IntoIterator<Item = u32>) {
        let known = self.parts.iter().position(|known| known.name == part);
        let place = known.unwrap_or_else(|| {
            let of = Of::Processes(Processes::default());
            let name = part.to_owned();
            self.parts.push(Part { name, of });
            self.parts.len() - 1
        });
        if let Of::Processes(processes) = &mut self.parts[place].of {
            for pid in pids {
                processes.ended += processes.running.insert(pid, Duration::ZERO).unwrap_or_default();
            }
        }
    }

    /// Adds the kernel as a part: what it keeps more than now. Where the system does not say, there is no such part.
    pub fn add_kernel(&mut self) {
        if let Ok(now) = Kernel::read() {
            let (name, of) = (KERNEL.to_owned(), Of::Kernel(now));
            self.parts.push(Part { name, of });
        }
    }

    /// The names of the parts, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| part.name.as_str())
    }

    /// What each uses, in the order of their names.
    pub fn read(&mut self) -> Vec<Usage> {
        let read = self.parts.iter_mut().map(|part| match &mut part.of {
            Of::Processes(processes) => processes.read(),
            Of::Kernel(before) => Usage {
                memory: Kernel::read().map_or(0, |now| now.own.saturating_sub(before.own)),
                ..Usage::default()
            },
        });
        read.collect()
    }
}

impl Processes {
    fn read(&mut self) -> Usage {
        let mut sum = Usage {
            processor: self.ended,
            ..Usage::default()
        };
        for (&pid, processor) in &mut self.running {
            // One that has ended uses nothing any more, and what it has used is known.
            if let Ok(usage) = process::Usage::of(pid) {
                sum.memory += usage.anonymous + usage.shared;
                sum.threads += usage.threads;
                sum.processes += 1;
                *processor = usage.processor;
            }
            sum.processor += *processor;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_a_process_used_stays_when_it_has_ended() {
        let mut child = Command::new("sh")
            .args(["-c", "echo ready; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("readable");
        let mut watched = Watched::default();
        watched.add("tests", [std::process::id()]);
        watched.add("shell", [child.id()]);
        watched.add_kernel();
        assert_eq!(watched.names().collect::<Vec<_>>(), ["tests", "shell", "kernel"]);
        let usages = watched.read();
        let shell = usages[1];
        assert!(usages[0].memory > 0 && shell.memory > 0 && !shell.processor.is_zero());
        assert_eq!(shell.processes, 1);
        drop(child.stdin.take());
        child.wait().expect("ends");
        let after = watched.read()[1];
        assert_eq!((after.processes, after.memory), (0, 0));
        assert_eq!(after.processor, shell.processor);
    }
}
