//! What the system says of a process: memory, processor time, open files.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A process's memory, in bytes. The kernel's own share (its socket buffers) is in none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What is resident, shared pages and all.
    pub resident: u64,
    /// What is resident, with pages that others map too counted in proportion.
    pub proportional: u64,
    /// What is resident and belongs to no file: heap and stacks.
    pub anonymous: u64,
}

impl Memory {
    /// That of a process, from `/proc/PID/smaps_rollup`.
    ///
    /// # Errors
    /// If there is no such process, or it is another user's.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let field = |name: &str| kib(&text, name).with_context(|| format!("{path} has no {name}"));
        Ok(Self {
            resident: field("Rss:")? * 1_024,
            proportional: field("Pss:")? * 1_024,
            anonymous: field("Anonymous:")? * 1_024,
        })
    }
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The processor time that a process has used, in user and kernel mode.
///
/// # Errors
/// If there is no such process.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = ticks(&text).with_context(|| format!("{path} is not as expected"))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(ticks * 1_000 / per_second))
}

/// Fields 14 and 15, counted from 1. The name, which is the second, may hold anything: it ends with the last parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// How many files a process has open, sockets included.
///
/// # Errors
/// If there is no such process, or it is another user's.
pub fn open_files(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path)
        .with_context(|| format!("cannot read {path}"))?
        .count())
}

/// Raises this process's limit of open files as far as it goes, and returns it.
///
/// # Errors
/// If the system refuses.
pub fn raise_file_limit() -> Result<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .context("the limit of open files cannot be raised")?;
    Ok(maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_files() {
        let memory = Memory::of(std::process::id()).expect("readable");
        assert!(memory.anonymous > 0 && memory.anonymous <= memory.resident);
        let before = open_files(std::process::id()).expect("readable");
        assert!(before >= 1);
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a)"), None);
    }
}
