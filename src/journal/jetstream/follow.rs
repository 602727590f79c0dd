//! Following a stream: what it holds is applied to the replica, and its leader is asked how far it is.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_nats::jetstream::{self, stream::RawMessageErrorKind};

use super::{
    apply::{self, Applied},
    progress::Progress,
    pull::{Pull, PullError},
    replica::Settings,
    sightings::Sightings,
    stream::{Checked, Names, StreamError, check, epoch, look, told},
};
use crate::{
    log::{Store, StoreError},
    model::Seq,
};

/// How often the leader is asked how far the stream is.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What it takes to follow a stream.
pub(super) struct Follower<'a> {
    pub(super) context: &'a jetstream::Context,
    pub(super) names: &'a Names,
    pub(super) node: &'a str,
    pub(super) store: &'a Arc<Store>,
    pub(super) progress: &'a Progress,
    pub(super) sightings: &'a Sightings,
    pub(super) settings: &'a Settings,
}

/// Why following ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// To be begun again.
    Again { cause: String },
    /// The stream was made anew.
    OtherStream,
    /// The stream does not hold what was applied.
    Diverged { cause: String },
    /// The store refuses.
    Store(StoreError),
}

impl From<PullError> for Ended {
    fn from(error: PullError) -> Self {
        Self::Again {
            cause: error.to_string(),
        }
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Follower<'_> {
    /// Follows until it cannot. Cancelling it loses nothing.
    pub(super) async fn run(&self, found: &Checked) -> Ended {
        tokio::select! {
            ended = self.apply(found) => ended.err().unwrap_or(Ended::OtherStream),
            ended = self.ask() => ended,
        }
    }

    async fn apply(&self, found: &Checked) -> Result<(), Ended> {
        let applied = self.store.head().last;
        let first = Seq(found.first);
        if first > applied.next() {
            self.leave_out(Seq(first.0 - 1)).await?;
        }
        let applied = self.store.head().last;
        // With the last one that was applied, to see whether it still is what it was.
        let mut pull = Pull::begin(self.context, self.names, self.node, applied).await?;
        let ended = self.pull(&mut pull).await;
        // It may take a while if the server is gone, and nothing depends on it.
        tokio::spawn(pull.end());
        ended
    }

    async fn pull(&self, pull: &mut Pull) -> Result<(), Ended> {
        let mut is_first = true;
        loop {
            let mut messages = pull.next().await?;
            let Some(oldest) = messages.first() else {
                continue;
            };
            let next = self.store.head().last.next();
            if is_first && oldest.seq > next {
                self.confirm_gone(next).await?;
                self.leave_out(Seq(oldest.seq.0 - 1)).await?;
            }
            is_first = false;
            let published = messages.last().map(|last| last.published_nanos);
            let (store, names) = (Arc::clone(self.store), self.names.clone());
            let applying =
                tokio::task::spawn_blocking(move || apply::apply(&store, &names, &std::mem::take(&mut messages)));
            match applying.await {
                Ok(Ok(Applied::All(appends))) => self.applied(appends, published),
                Ok(Ok(Applied::Hole { found })) => {
                    return Err(Ended::Again {
                        cause: format!("something was lost on the way before message {found}"),
                    });
                }
                Ok(Ok(Applied::Other { at })) => {
                    return Err(Ended::Diverged {
                        cause: format!("message {at} of the stream is not the one that was applied"),
                    });
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(error) => {
                    return Err(Ended::Again {
                        cause: error.to_string(),
                    });
                }
            }
        }
    }

    fn applied(&self, appends: Vec<(u64, Seq)>, published_nanos: Option<i128>) {
        let head = self.store.head();
        self.store
            .forget_keys_before(head.time.before(self.settings.known_for()));
        // Seen first: whoever waits for the position then looks whether it was seen.
        self.sightings.saw(appends);
        self.progress.applied(head.last);
        if let Some(age) = published_nanos.and_then(age)
            && let Some(at) = Instant::now().checked_sub(age)
        {
            self.progress.level(at);
        }
    }

    /// Asks the leader whether a message that was not delivered is not there either: a server that is itself still catching up may lack it.
    async fn confirm_gone(&self, seq: Seq) -> Result<(), Ended> {
        let again = |cause: String| Ended::Again { cause };
        let stream = self.context.get_stream_no_info(self.names.stream()).await;
        let stream = stream.map_err(|error| again(error.to_string()))?;
        match stream.get_raw_message(seq.0).await {
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(()),
            Err(error) => Err(again(told(&error))),
            Ok(_) => Err(again(format!("message {seq} is in the stream and was not delivered"))),
        }
    }

    async fn leave_out(&self, last: Seq) -> Result<(), Ended> {
        tracing::warn!(
            stream = self.names.stream(), applied = %self.store.head().last, gone_up_to = %last,
            "the stream does not hold any more what follows the replica: its history begins after that now"
        );
        let store = Arc::clone(self.store);
        let leaving = tokio::task::spawn_blocking(move || apply::leave_out(&store, last));
        match leaving.await {
            Ok(left_out) => left_out?,
            Err(error) => {
                return Err(Ended::Again {
                    cause: error.to_string(),
                });
            }
        }
        self.progress.applied(last);
        Ok(())
    }

    /// Asks the leader again and again, until it says that the stream is another one, or lost something.
    async fn ask(&self) -> Ended {
        let (mut shorter_since, mut missing_since) = (None::<Instant>, None::<Instant>);
        let lasts = |since: &mut Option<Instant>, now: Instant| {
            now.duration_since(*since.get_or_insert(now)) >= self.settings.loss_confirmed_after
        };
        // What the leader said, and when it was asked, until that has been applied.
        let mut said: Option<(Seq, Instant)> = None;
        loop {
            let asked_at = Instant::now();
            let applied = self.store.head().last;
            match look(self.context, self.names).await {
                Ok(info) if epoch(&info) != self.store.epoch() => return Ended::OtherStream,
                Ok(info) => {
                    missing_since = None;
                    // It may be edited at any time.
                    if let Err(error) = check(&info, self.names, &self.settings.stream) {
                        return Ended::Again {
                            cause: error.to_string(),
                        };
                    }
                    let last = Seq(info.state.last_sequence);
                    self.progress.leader_said(last);
                    let confirmed_after = self.settings.loss_confirmed_after;
                    self.store.leader_said(last, asked_at, confirmed_after);
                    if last < applied {
                        if lasts(&mut shorter_since, asked_at) {
                            return Ended::Diverged {
                                cause: format!("the stream ends at {last}, and {applied} was applied"),
                            };
                        }
                        self.progress.trouble("the stream is shorter than what was applied");
                    } else {
                        shorter_since = None;
                        said.get_or_insert((last, asked_at));
                    }
                }
                Err(error @ StreamError::Missing { .. }) => {
                    if lasts(&mut missing_since, asked_at) {
                        return Ended::OtherStream;
                    }
                    self.progress.trouble(&error.to_string());
                }
                Err(error) => self.progress.trouble(&error.to_string()),
            }
            if let Some((last, at)) = said
                && self.store.head().last >= last
            {
                self.progress.level(at);
                said = None;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

/// How long ago a message was published, by this machine's clock.
fn age(published_nanos: i128) -> Option<Duration> {
    let published = u64::try_from(published_nanos).ok().map(Duration::from_nanos)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(now.saturating_sub(published))
}
