//! A timer to the microsecond. The runtime's own goes by milliseconds, which is much of what is measured here.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Goes off when it was set to.
#[derive(Debug)]
pub(crate) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// One that is not set; within a runtime.
    ///
    /// # Errors
    /// If the process may open no more files.
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        // Deprecated since what it is given might answer with a file that is not its own. An `OwnedFd` answers with its own.
        #[expect(deprecated, reason = "see above")]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Waits for so long. What was waited for before, and given up, is forgotten.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) async fn wait(&mut self, time: Duration) -> io::Result<()> {
        // Nothing would turn it off.
        let time = time.max(Duration::from_nanos(1));
        let at = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(time).map_err(io::Error::other)?,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &at)?;
        loop {
            let mut ready = self.0.readable().await?;
            let gone_off = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; size_of::<u64>()])?));
            if let Ok(gone_off) = gone_off {
                return gone_off.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn it_goes_off_after_its_time_and_not_before() {
        let mut alarm = Alarm::new().expect("a file");
        // Given up: what is set next is what counts.
        assert!(alarm.wait(Duration::from_secs(3_600)).now_or_never().is_none());
        for micros in [0, 100, 300] {
            let (time, begin) = (Duration::from_micros(micros), Instant::now());
            alarm.wait(time).await.expect("a timer");
            assert!(begin.elapsed() >= time);
        }
    }
}
