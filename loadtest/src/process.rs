//! What the system says of a process: memory, processor time, open files.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::{time::clock_getcpuclockid, unistd::Pid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A process's memory, in bytes. The kernel's own share (its socket buffers) is in none of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// What is resident, shared pages and all.
    pub resident: u64,
    /// What is resident, with pages that others map too counted in proportion.
    pub proportional: u64,
    /// What is resident and belongs to no file: heap and stacks.
    pub anonymous: u64,
}

impl Memory {
    /// That of several processes together.
    ///
    /// # Errors
    /// If one of them is not there, or another user's.
    pub fn of_all(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            let one = Self::of(pid)?;
            sum.resident += one.resident;
            sum.proportional += one.proportional;
            sum.anonymous += one.anonymous;
        }
        Ok(sum)
    }

    /// That of a process, from `/proc/PID/smaps_rollup`.
    ///
    /// # Errors
    /// If there is no such process, or it is another user's.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let bytes = |name: &str| kib(&text, name).with_context(|| format!("{path} has no {name}"));
        Ok(Self {
            resident: bytes("Rss:")? * 1_024,
            proportional: bytes("Pss:")? * 1_024,
            anonymous: bytes("Anonymous:")? * 1_024,
        })
    }
}

/// What stands behind a name at the beginning of a line.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim())
}

/// What stands behind a name, in KiB.
pub(crate) fn kib(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix(" kB")?.parse().ok()
}

/// What a process uses at a moment: a few microseconds to read, however much memory it has, so that many can be read often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory that belongs to no file, in bytes: heap and stacks.
    pub anonymous: u64,
    /// Resident memory that is a file's, in bytes: the program itself, above all. Several processes of one program share it.
    pub file: u64,
    /// Resident memory that is shared with other processes and belongs to no file, in bytes.
    pub shared: u64,
    /// Time on a processor, of all threads that it ever had.
    pub processor: Duration,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// That of a process, from `/proc/PID/status` and its processor clock. The kernel keeps the figures of memory per processor, and may be
    /// some dozen pages behind; [`Memory::of`] is exact, and reads every page of the process for it.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let usage = Self::parse(&text).with_context(|| format!("{path} is not as expected"))?;
        Ok(Self {
            processor: processor_time(pid)?,
            ..usage
        })
    }

    fn parse(status: &str) -> Option<Self> {
        Some(Self {
            anonymous: kib(status, "RssAnon:")? * 1_024,
            file: kib(status, "RssFile:")? * 1_024,
            shared: kib(status, "RssShmem:")? * 1_024,
            processor: Duration::ZERO,
            threads: field(status, "Threads:")?.parse().ok()?,
        })
    }
}

/// The processor time that a process has used, in user and kernel mode, by all threads that it ever had: to the nanosecond.
///
/// # Errors
/// If there is no such process.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let time = || {
        clock_getcpuclockid(Pid::from_raw(pid.try_into()?))?
            .now()
            .map_err(anyhow::Error::from)
    };
    let time = time().with_context(|| format!("process {pid} has no processor clock"))?;
    Ok(time.into())
}

/// The processor time that a process has used in user mode, and in kernel mode for itself: in ticks of mostly 10 ms.
///
/// # Errors
/// If there is no such process.
pub fn user_and_kernel_time(pid: u32) -> Result<(Duration, Duration)> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (user, kernel) = ticks(&text).with_context(|| format!("{path} is not as expected"))?;
    let per_second = rustix::param::clock_ticks_per_second();
    let time = |ticks| Duration::from_millis(ticks * 1_000 / per_second);
    Ok((time(user), time(kernel)))
}

/// Fields 14 and 15, counted from 1. The name, which is the second, may hold anything: it ends with the last parenthesis.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The processes that this one started, directly or through others, and that still run.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn descendants(pid: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended in between.
        if let Some(parent) = fs::read_to_string(format!("/proc/{child}/stat"))
            .ok()
            .as_deref()
            .and_then(parent)
        {
            parents.push((child, parent));
        }
    }
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&of) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|&&(_, parent)| parent == of)
                .map(|&(child, _)| child),
        );
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

/// Field 4, counted from 1.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
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
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(ticks(stat), Some((250, 50)));
        assert_eq!(parent(stat), Some(1));
        assert_eq!(ticks("7 (a)"), None);
    }

    #[test]
    fn usage_is_read_from_a_status() {
        let status = "Name:\ttidings\nVmRSS:\t    1760 kB\nRssAnon:\t     112 kB\nRssFile:\t    1648 kB\nRssShmem:\t       0 kB\nThreads:\t3\n";
        let usage = Usage {
            anonymous: 112 * 1_024,
            file: 1_648 * 1_024,
            shared: 0,
            processor: Duration::ZERO,
            threads: 3,
        };
        assert_eq!(Usage::parse(status), Some(usage));
        // A kernel thread has no memory of its own.
        assert_eq!(Usage::parse("Name:\tkthreadd\nThreads:\t1\n"), None);
    }

    #[test]
    fn processor_time_includes_threads_that_have_ended() {
        let pid = std::process::id();
        let before = processor_time(pid).expect("readable");
        let burn = move || {
            let begin = processor_time(pid).expect("readable");
            while processor_time(pid).expect("readable") - begin < Duration::from_millis(5) {
                std::hint::spin_loop();
            }
        };
        std::thread::spawn(burn).join().expect("ends");
        let usage = Usage::of(pid).expect("readable");
        assert!(usage.processor >= before + Duration::from_millis(5));
        assert!(usage.anonymous > 0 && usage.threads > 0);
        let (user, kernel) = user_and_kernel_time(pid).expect("readable");
        assert!(user + kernel <= processor_time(pid).expect("readable") + Duration::from_millis(20));
    }

    #[test]
    fn descendants_are_found_through_others() {
        let mut child = std::process::Command::new("sh")
            // A shell that waits for what it started.
            .args(["-c", "sh -c 'read line; true'; true"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        let found = loop {
            // The second is there when the first has come so far.
            let found = descendants(child.id()).expect("readable");
            if !found.is_empty() {
                break found;
            }
        };
        assert!(descendants(std::process::id()).expect("readable").contains(&found[0]));
        drop(child.stdin.take());
        child.wait().expect("ends");
        assert!(Usage::of(child.id()).is_err());
    }
}
