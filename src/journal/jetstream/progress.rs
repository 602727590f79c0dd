//! How far a replica has come, for whoever waits for it and whoever wants to know.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::model::{Epoch, Seq, Shard};

/// How a holder's replica of a shard is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Which shard.
    pub shard: Shard,
    /// What it does.
    pub state: State,
    /// The stream's epoch, once it is known.
    pub epoch: Option<Epoch>,
    /// The last message that it has applied.
    pub applied: Seq,
    /// The last message of the stream, when its leader was last asked.
    pub stream_last: Seq,
    /// Everything that was in the stream then has been applied.
    pub level_at: Option<Instant>,
    /// What keeps it from following at the moment, if anything does.
    pub trouble: Option<String>,
}

/// What a replica does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has not begun: the stream is not there, or not as it has to be. [`Status::trouble`] says why.
    Starting,
    /// It follows the stream, however far behind.
    Following,
    /// The stream is not as it has to be: nothing is appended, and reading goes on if it ever began.
    Unusable {
        /// What is wrong, and what to do.
        cause: String,
    },
    /// It holds what the stream does not: the stream has lost what it acknowledged. Nothing more is applied, appended or read here.
    Diverged {
        /// Where they differ, and what to do.
        cause: String,
    },
    /// Its disk refuses.
    Failed {
        /// What failed.
        cause: String,
    },
    /// It was closed.
    Closed,
}

impl Status {
    pub(super) const fn new(shard: Shard) -> Self {
        Self {
            shard,
            state: State::Starting,
            epoch: None,
            applied: Seq::ZERO,
            stream_last: Seq::ZERO,
            level_at: None,
            trouble: None,
        }
    }

    /// How many messages it has still to apply.
    #[must_use]
    pub const fn messages_behind(&self) -> u64 {
        self.stream_last.0.saturating_sub(self.applied.0)
    }

    /// How old what it has applied may be: nothing while it is level, as far as is known; `None` if it never was.
    #[must_use]
    pub fn time_behind(&self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.level_at?);
        // The leader is asked about once a second: what is younger is no lag.
        let is_level = self.messages_behind() == 0 && self.trouble.is_none() && since < Duration::from_secs(3);
        Some(if is_level { Duration::ZERO } else { since })
    }

    /// Whether it follows, and no further behind than this.
    #[must_use]
    pub fn is_within(&self, bound: Duration, now: Instant) -> bool {
        self.state == State::Following && self.time_behind(now).is_some_and(|behind| behind <= bound)
    }
}

/// The writing end of a status.
#[derive(Debug)]
pub(super) struct Progress(watch::Sender<Status>);

impl Progress {
    pub(super) fn new(shard: Shard) -> Self {
        Self(watch::Sender::new(Status::new(shard)))
    }

    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    pub(super) fn now(&self) -> Status {
        self.0.borrow().clone()
    }

    /// It begins to follow a stream of this epoch, from what its store holds.
    pub(super) fn begin(&self, epoch: Epoch, applied: Seq) {
        self.0.send_modify(|status| {
            status.state = State::Following;
            if status.epoch.replace(epoch) != Some(epoch) {
                status.level_at = None;
            }
            status.applied = applied;
        });
    }

    /// It has applied everything up to a message.
    pub(super) fn applied(&self, seq: Seq) {
        self.0.send_modify(|status| {
            status.applied = seq;
            status.trouble = None;
        });
    }

    /// The leader said how far the stream was when it was asked.
    pub(super) fn leader_said(&self, last: Seq) {
        self.0
            .send_if_modified(|status| std::mem::replace(&mut status.stream_last, last) != last);
    }

    /// Everything has been applied that was in the stream at a time.
    pub(super) fn level(&self, at: Instant) {
        self.0.send_modify(|status| {
            status.level_at = status.level_at.max(Some(at));
            status.trouble = None;
        });
    }

    /// Something keeps it from following; it goes on trying.
    pub(super) fn trouble(&self, cause: &str) {
        self.0.send_if_modified(|status| {
            let is_new = status.trouble.as_deref() != Some(cause);
            status.trouble = Some(cause.to_owned());
            is_new
        });
    }

    /// It is in another state.
    pub(super) fn turn(&self, state: State) {
        self.0.send_modify(|status| status.state = state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_told_in_messages_and_in_time() {
        let progress = Progress::new(Shard(1));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(progress.now().time_behind(at(1)), None);
        progress.begin(Epoch(1), Seq(4));
        progress.leader_said(Seq(10));
        assert_eq!(progress.now().messages_behind(), 6);
        assert!(!progress.now().is_within(Duration::from_secs(60), at(1)));
        progress.applied(Seq(10));
        progress.level(at(1));
        assert_eq!(progress.now().time_behind(at(2)), Some(Duration::ZERO));
        progress.leader_said(Seq(11));
        assert_eq!(progress.now().time_behind(at(2)), Some(Duration::from_secs(1)));
        progress.applied(Seq(12));
        progress.trouble("nobody answers");
        assert_eq!(progress.now().time_behind(at(9)), Some(Duration::from_secs(8)));
        assert!(!progress.now().is_within(Duration::from_secs(7), at(9)));
        progress.begin(Epoch(2), Seq(0));
        assert_eq!(progress.now().time_behind(at(9)), None);
    }
}
