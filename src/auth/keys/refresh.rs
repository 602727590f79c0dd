//! Asks the server of a key set again and again, and at once when a token names a key that is not known; and goes on with the last good keys for as
//! long as there are no better ones.

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::{
    Keys, REFRESH_AT_MOST_EVERY,
    endpoint::Endpoint,
    source::{Content, Reader, SourceError},
};
use crate::model::UnixMillis;

/// How often a server is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// When all is well.
    pub(super) refresh: Duration,
    /// At most, whatever tokens come.
    pub(super) at_most_every: Duration,
    /// Again for the first time, when there are no keys at all yet.
    pub(super) first_retry: Duration,
}

impl Pace {
    pub(super) const fn every(refresh: Duration) -> Self {
        Self {
            refresh,
            at_most_every: REFRESH_AT_MOST_EVERY,
            first_retry: Duration::from_secs(1),
        }
    }

    /// How long to wait after so many failures in a row. `chance` is from 0 to 1: those who ask the same server do not do it together.
    fn wait(&self, failures: u32, has_keys: bool, chance: f64) -> Duration {
        let slowly = |first: Duration, most: Duration| first.saturating_mul(1 << (failures - 1).min(16)).min(most);
        let wait = match failures {
            0 => self.refresh,
            _ if has_keys => slowly(self.at_most_every, self.at_most_every * 6).min(self.refresh),
            _ => slowly(self.first_retry, self.at_most_every),
        };
        wait.mul_f64(0.9 + 0.2 * chance)
    }
}

/// Keeps the keys of one issuer.
#[derive(Debug)]
pub(super) struct Refresh {
    endpoint: Endpoint,
    pace: Pace,
    keys: Arc<Keys>,
    reader: Reader,
    failures: u32,
    /// What is wrong now, and has been told.
    trouble: Option<String>,
}

impl Refresh {
    pub(super) const fn new(endpoint: Endpoint, pace: Pace, keys: Arc<Keys>, reader: Reader) -> Self {
        Self {
            endpoint,
            pace,
            keys,
            reader,
            failures: 0,
            trouble: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let asked = Instant::now();
            match self.ask().await {
                Ok(()) => self.failures = 0,
                Err(error) => self.failed(&error),
            }
            // Who wanted a key meanwhile has what there is.
            let _ = self.keys.wanted().now_or_never();
            let has_keys = !self.keys.current().is_empty();
            let wait = self.pace.wait(self.failures, has_keys, rand::random());
            tokio::select! {
                () = sleep_until(asked + wait) => {}
                () = self.keys.wanted() => sleep_until(asked + self.pace.at_most_every).await,
            }
        }
    }

    async fn ask(&mut self) -> Result<(), SourceError> {
        let text = self.endpoint.fetch().await?;
        let keys = self.reader.read(Content::PublicJwks, &text)?;
        if self.trouble.take().is_some() || self.keys.current().is_empty() {
            info!(issuer = %self.reader.issuer, keys = keys.len(), "the keys of an issuer are here");
        }
        self.keys.replace(keys, UnixMillis::now());
        Ok(())
    }

    /// Tells what is wrong, once for each thing.
    fn failed(&mut self, error: &SourceError) {
        self.failures = self.failures.saturating_add(1);
        let trouble = error.to_string();
        if self.trouble.as_ref() != Some(&trouble) {
            let count = self.keys.current().len();
            warn!(issuer = %self.reader.issuer, error = trouble, keys = count, "the keys of an issuer cannot be had: those known stay in use");
            self.trouble = Some(trouble);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Never a flood, never silence.
        #[test]
        fn it_asks_at_a_pace(
            failures in any::<u32>(), has_keys in any::<bool>(), chance in 0.0..1.0, refresh in 10..100_000_u64,
        ) {
            let pace = Pace::every(Duration::from_secs(refresh));
            let wait = pace.wait(failures, has_keys, chance);
            prop_assert!(wait >= Duration::from_millis(900));
            prop_assert!(wait <= pace.refresh.mul_f64(1.1).max(Duration::from_secs(11)));
            if failures > 0 {
                prop_assert!(wait <= Duration::from_secs(66));
            }
        }
    }
}
