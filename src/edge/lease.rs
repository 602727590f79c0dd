//! When a stream whose caller's token ends is told of it, and when it ends.
//!
//! ```text
//! ── notice ─────────────────────────── end ──────── lease.ends
//!    `tidings.token_expiring`, once      `retry:`, end    what a stuck reader did not take is dropped
//! ```
//!
//! A token's times are those of the wall clock; a stream's timers are ticks. So what is due is looked up again when it comes up, and
//! at least every [`LOOK_AGAIN`]: a clock that is set while a stream is open makes it wrong for no longer than that.

use std::time::Duration;

use crate::{auth::Lease, model::UnixMillis};

/// How long a timer waits at most before the wall clock is looked at again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How long before the end of its lease a stream ends, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Margin(u16);

impl Margin {
    /// 1 to 5 seconds, each stream its own; a quarter of what is left if that is less.
    ///
    /// So whoever has got a new token comes back while the old one is still good, and those whose tokens end together do not come
    /// back together.
    pub(super) fn of(lease: &Lease, now: UnixMillis) -> Self {
        let quarter = lease.ends.0.saturating_sub(now.0) / 4;
        let margin: u16 = rand::random_range(1_000..=5_000);
        Self(margin.min(u16::try_from(quarter).unwrap_or(u16::MAX)))
    }

    /// When the stream ends.
    pub(super) fn end(self, lease: &Lease) -> UnixMillis {
        UnixMillis(lease.ends.0.saturating_sub(u64::from(self.0)))
    }

    /// When its client is told: never after the end, however late the notice is set.
    pub(super) fn notice(self, lease: &Lease) -> UnixMillis {
        UnixMillis(lease.notice.0.min(self.end(lease).0))
    }
}

/// How long it is until then; nothing if that is past.
pub(super) const fn left(until: UnixMillis, now: UnixMillis) -> Duration {
    Duration::from_millis(until.0.saturating_sub(now.0))
}

/// After how long to look whether it is then; nothing left to wait for: it is.
pub(super) fn look_after(until: UnixMillis, now: UnixMillis) -> Option<Duration> {
    let left = left(until, now);
    (!left.is_zero()).then(|| left.min(LOOK_AGAIN))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::TokenFacts;

    fn lease(notice: u64, ends: u64) -> Lease {
        Lease {
            notice: UnixMillis(notice),
            ends: UnixMillis(ends),
            token: TokenFacts::default(),
        }
    }

    #[test]
    fn streams_of_long_leases_end_one_to_five_seconds_early() {
        let lease = lease(970_000, 1_000_000);
        let margins: Vec<u16> = (0..1_000).map(|_| Margin::of(&lease, UnixMillis(0)).0).collect();
        assert!(margins.iter().all(|margin| (1_000..=5_000).contains(margin)));
        assert!(margins.iter().max() > margins.iter().min());
        assert_eq!(Margin::of(&lease, UnixMillis(999_000)), Margin(250));
        assert_eq!(Margin::of(&lease, UnixMillis(2_000_000)), Margin(0));
    }

    proptest! {
        #[test]
        fn the_notice_comes_first_and_the_end_within_the_lease(notice: u64, ends: u64, now: u64) {
            let lease = lease(notice, ends);
            let margin = Margin::of(&lease, UnixMillis(now));
            prop_assert!(margin.notice(&lease).0 <= margin.end(&lease).0);
            prop_assert!(margin.end(&lease).0 <= ends);
            // One that is not over yet is not over at once.
            prop_assert!(now >= ends || margin.end(&lease).0 > now);
        }

        #[test]
        fn one_looks_again_until_it_is_then(until: u64, now: u64) {
            match look_after(UnixMillis(until), UnixMillis(now)) {
                None => prop_assert!(now >= until),
                Some(wait) => prop_assert!(now < until && !wait.is_zero() && wait <= LOOK_AGAIN),
            }
        }
    }
}
