//! How full the disk under the data directory is, and whether that is too full to write.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::log::Store;

/// How old a measurement may be: compaction, and whoever else writes to the disk, do not say how much.
const FRESH: Duration = Duration::from_millis(100);
/// How much may be written after a measurement, in bytes: a fast writer fills a small disk sooner than that.
const FRESH_BYTES: u64 = 4 << 20;

/// Measures the space of a file system.
pub type DiskProbe = Box<dyn Fn() -> io::Result<DiskSpace> + Send + Sync>;

/// The space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What is taken.
    pub used: u64,
    /// What is left for this process: less than what is free, where some is set aside for the administrator.
    pub available: u64,
}

impl DiskSpace {
    /// The space of the file system that a path is on.
    ///
    /// # Errors
    /// If the file system does not say.
    pub fn of(path: &Path) -> io::Result<Self> {
        let blocks = rustix::fs::statvfs(path)?;
        let bytes = |count: u64| count.saturating_mul(blocks.f_frsize);
        Ok(Self {
            used: bytes(blocks.f_blocks.saturating_sub(blocks.f_bfree)),
            available: bytes(blocks.f_bavail),
        })
    }

    /// How much of it is taken, in per cent, rounded up as `df` does.
    #[must_use]
    pub fn used_percent(self) -> u8 {
        let (used, available) = (u128::from(self.used), u128::from(self.available));
        let percent = (used * 100).div_ceil((used + available).max(1));
        u8::try_from(percent).unwrap_or(100)
    }
}

/// The disk is too full to write: it is over the mark, or less than the reserve is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the disk under the data directory is {used_percent} % full and has {} MiB left, and nothing is published over the high-water mark of {high_water_percent} % or with less than a reserve of {} MiB left", available >> 20, reserve >> 20
)]
pub struct DiskFull {
    /// How full it is.
    pub used_percent: u8,
    /// How full it may be.
    pub high_water_percent: u8,
    /// How many bytes are left.
    pub available: u64,
    /// How many have to be.
    pub reserve: u64,
}

/// The disk that journals write to. All that are on the same one share it: what one writes the others lack.
#[derive(Debug, Clone)]
pub struct Disk(pub(super) Arc<DiskGauge>);

impl Disk {
    /// How many bytes have to stay free for each store beside the first. Memory that is not flushed they have in common, but each has a
    /// write-ahead log that is allocated ahead of time, a manifest and logs of its own, and a batch under way.
    const FURTHER_STORE: u64 = 96 << 20;

    /// A disk with so many stores on it. Nothing is appended while it is fuller than a mark, in per cent, or less is left than the stores may
    /// need to flush what they have in memory and to be opened again.
    #[must_use]
    pub fn new(probe: DiskProbe, high_water_percent: u8, stores: usize) -> Self {
        let further = u64::try_from(stores.saturating_sub(1)).unwrap_or(u64::MAX);
        let reserve = Store::RESERVE.saturating_add(further.saturating_mul(Self::FURTHER_STORE));
        Self(Arc::new(DiskGauge::new(probe, high_water_percent, reserve)))
    }
}

/// Remembers the last measurement, so that asking is cheap.
pub(super) struct DiskGauge {
    probe: DiskProbe,
    high_water_percent: u8,
    reserve: u64,
    last: Mutex<Option<Measurement>>,
}

#[derive(Debug, Clone, Copy)]
struct Measurement {
    at: Instant,
    /// What was written since, in bytes.
    written: u64,
    /// `None` as long as the disk could not be measured at all.
    space: Option<DiskSpace>,
}

impl DiskGauge {
    /// A gauge that finds a disk full over a mark, in per cent, and when less than a reserve is left, in bytes.
    pub(super) fn new(probe: DiskProbe, high_water_percent: u8, reserve: u64) -> Self {
        Self {
            probe,
            high_water_percent,
            reserve,
            last: Mutex::default(),
        }
    }

    /// Whether there is room, as of [`FRESH`] and [`FRESH_BYTES`] ago at most. A disk that cannot be measured counts as it did last.
    pub(super) fn check(&self) -> Result<(), DiskFull> {
        let Some(space) = self.space() else {
            return Ok(());
        };
        let used_percent = space.used_percent();
        if used_percent > self.high_water_percent || space.available < self.reserve {
            return Err(DiskFull {
                used_percent,
                high_water_percent: self.high_water_percent,
                available: space.available,
                reserve: self.reserve,
            });
        }
        Ok(())
    }

    /// Notes that so many bytes were written.
    pub(super) fn wrote(&self, bytes: u64) {
        if let Some(last) = self.lock().as_mut() {
            last.written = last.written.saturating_add(bytes);
        }
    }

    fn space(&self) -> Option<DiskSpace> {
        let mut last = self.lock();
        let before = match *last {
            Some(fresh) if fresh.at.elapsed() < FRESH && fresh.written < FRESH_BYTES => return fresh.space,
            Some(stale) => stale.space,
            None => None,
        };
        let space = match (self.probe)() {
            Ok(space) => Some(space),
            Err(error) => {
                tracing::warn!(%error, "the space left on the disk cannot be measured");
                before
            }
        };
        *last = Some(Measurement {
            at: Instant::now(),
            written: 0,
            space,
        });
        space
    }

    fn lock(&self) -> MutexGuard<'_, Option<Measurement>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DiskGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskGauge")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn per_cent_are_those_of_df() {
        for (used, available, percent) in [
            (0, 0, 0),
            (0, 100, 0),
            (1, 999, 1),
            (50, 50, 50),
            (951, 49, 96),
            (100, 0, 100),
            (u64::MAX, u64::MAX, 50),
        ] {
            assert_eq!(
                DiskSpace { used, available }.used_percent(),
                percent,
                "{used} and {available}"
            );
        }
    }

    #[test]
    fn a_real_disk_is_neither_empty_nor_over_full() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let space = DiskSpace::of(dir.path()).expect("measured");
        assert!(space.available > 0, "{space:?}");
        assert!(space.used_percent() <= 100, "{space:?}");
    }

    #[test]
    fn a_disk_that_cannot_be_measured_holds_nothing_up() {
        let gauge = DiskGauge::new(Box::new(|| Err(io::Error::other("gone"))), 0, u64::MAX);
        assert_eq!(gauge.check(), Ok(()));
    }

    #[test]
    fn either_bound_makes_a_disk_full_and_both_are_said() {
        for (used, available, full) in [
            (95, 5, false),
            (96, 4, true),
            (50, 3, false),
            (50, 2, true),
            (0, 2, true),
        ] {
            let (used, available) = (used << 20, available << 20);
            let gauge = DiskGauge::new(Box::new(move || Ok(DiskSpace { used, available })), 95, 3 << 20);
            let checked = gauge.check();
            assert_eq!(checked.is_err(), full, "{used} and {available}");
            let Err(error) = checked else { continue };
            assert_eq!((error.available, error.reserve), (available, 3 << 20));
            let text = error.to_string();
            let said = ["mark of 95 %", "reserve of 3 MiB"];
            assert!(said.iter().all(|bound| text.contains(bound)), "{text}");
        }
    }

    #[test]
    fn more_stores_need_more_room_and_what_one_writes_the_others_see() {
        let left = Arc::new(AtomicU64::new(Store::RESERVE));
        let disk = |stores| {
            let left = Arc::clone(&left);
            let probe = move || {
                let available = left.load(Ordering::SeqCst);
                Ok(DiskSpace { used: 0, available })
            };
            Disk::new(Box::new(probe), 100, stores)
        };
        assert_eq!(disk(1).0.check(), Ok(()));
        assert!(disk(2).0.check().is_err());
        left.store(2 * Store::RESERVE, Ordering::SeqCst);
        let one = disk(2);
        let other = one.clone();
        assert_eq!(one.0.check(), Ok(()));
        left.store(0, Ordering::SeqCst);
        other.0.wrote(FRESH_BYTES);
        assert!(one.0.check().is_err());
    }

    #[test]
    fn whoever_writes_much_has_it_measured_again() {
        // Each measurement finds 4 MiB less.
        let left = AtomicU64::new(12 << 20);
        let probe = move || {
            let available = left.fetch_sub(4 << 20, Ordering::SeqCst);
            Ok(DiskSpace { used: 0, available })
        };
        let gauge = DiskGauge::new(Box::new(probe), 100, 6 << 20);
        let mut written = 0;
        while gauge.check().is_ok() {
            gauge.wrote(1 << 20);
            written += 1;
            assert!(written <= 8, "not measured again");
        }
        assert!(written > 0);
    }
}
