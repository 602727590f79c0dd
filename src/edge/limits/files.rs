//! The number of connections that the process's file limit allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, and returns what it is then; `None` if there is none.
///
/// # Errors
/// If the system refuses.
pub fn raise_file_limit() -> std::io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )?;
    }
    Ok(getrlimit(Resource::Nofile).current)
}

/// How many connections fit a limit of open files beside so many of `publishers`, when so many files are kept for all else.
#[must_use]
pub fn connections_within(files: Option<u64>, publishers: usize, reserve: usize) -> usize {
    const MOST: u64 = 1 << 24;
    let [publishers, reserve] = [publishers, reserve].map(|files| u64::try_from(files).unwrap_or(u64::MAX));
    let files = files.unwrap_or(MOST).min(MOST).saturating_sub(publishers);
    let connections = files.saturating_sub(reserve).max(files / 4);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept() {
        for (files, connections) in [(20_000, 18_876), (2_148, 1_024), (1_124, 256), (356, 64), (10, 0)] {
            assert_eq!(connections_within(Some(files), 100, 1_024), connections, "{files}");
        }
        assert_eq!(connections_within(None, 0, 1_024), (1 << 24) - 1_024);
    }

    #[test]
    fn the_soft_limit_is_raised() {
        let raised = raise_file_limit().expect("allowed");
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
    }
}
