//! The task that keeps a replica: of the stream's epoch, and following.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{connection::State as Link, jetstream};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use super::{
    differences::advice,
    follow::{Ended, Follower},
    progress::{Progress, State},
    replica::{Home, Settings},
    sightings::Sightings,
    stream::{Checked, Names, ensure, server_version},
    version,
    writer::Session,
};
use crate::{
    log::{LocalLog, OpenError, Store, keep},
    nats::Seldom,
};

/// How long it waits before it begins again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// What is said of a replica that diverged.
const DIVERGED: &str = "the stream has lost events that were acknowledged, so this replica is neither followed nor read: find out what was lost (the other holders' logs may say the same), then have all holders begin a new epoch from what the stream holds, with another number in `nats stream edit";

/// Keeps the replica: of the stream's epoch, and following.
pub(super) struct Keeper {
    pub(super) context: jetstream::Context,
    pub(super) names: Names,
    pub(super) settings: Settings,
    pub(super) home: Home,
    pub(super) log: Arc<LocalLog>,
    pub(super) progress: Arc<Progress>,
    pub(super) sightings: Arc<Sightings>,
    pub(super) sessions: watch::Sender<Option<Session>>,
    pub(super) stop: CancellationToken,
    /// The opening or the closing of the store that is under way: neither can be interrupted, and both have to be waited for.
    pub(super) opening: Option<JoinHandle<Result<Arc<Store>, OpenError>>>,
    pub(super) closing: Option<JoinHandle<()>>,
    /// What was told of the stream, so that it is told once.
    pub(super) told: Vec<String>,
}

impl Keeper {
    /// Keeps it until it is told to stop, and then closes it.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut pause = PAUSES.0;
        let mut failing = Failing::default();
        loop {
            let begun = Instant::now();
            let ended = tokio::select! {
                ended = self.follow() => ended,
                () = stop.cancelled() => break,
            };
            if begun.elapsed() > 5 * PAUSES.1 {
                pause = PAUSES.0;
                failing = Failing::default();
            }
            match ended {
                Again::Soon { cause } => {
                    self.progress.trouble(&cause);
                    // What is lost with the connection is told where that is watched.
                    let is_linked = self.context.client().connection_state() == Link::Connected;
                    match failing.failed(Instant::now()).filter(|_| is_linked) {
                        Some(times) => {
                            tracing::warn!(shard = %self.home.shard, cause, times, "the stream cannot be followed, it is tried again");
                        }
                        None => {
                            tracing::debug!(shard = %self.home.shard, cause, "the stream is not followed now, it is tried again");
                        }
                    }
                }
                Again::Never => {
                    stop.cancelled().await;
                    break;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
            pause = (pause * 2).min(PAUSES.1);
        }
        self.progress.turn(State::Closed);
        self.let_go().await;
    }

    /// Checks the stream, opens the replica if it is not, and follows until that ends.
    async fn follow(&mut self) -> Again {
        let found = match ensure(&self.context, &self.names, &self.settings.stream).await {
            Ok(found) => found,
            Err(error) => {
                if error.is_for_the_operator() {
                    self.tell(error.to_string());
                    self.progress.turn(State::Unusable {
                        cause: error.to_string(),
                    });
                }
                return Again::soon(error);
            }
        };
        if let State::Unusable { .. } = self.progress.now().state {
            tracing::info!(shard = %self.home.shard, "the stream can be used");
            // If it is edited again, that is to be told again.
            self.told.clear();
        }
        if !found.differences.is_empty() {
            let stream = self.names.stream();
            let differences: Vec<_> = found.differences.iter().map(ToString::to_string).collect();
            let to_do = advice(&stream, &found.differences);
            self.tell(format!(
                "the stream {stream} is not as the settings have it: {}; it is used as it is: {to_do}",
                differences.join("; ")
            ));
        }
        version::advise(&server_version(&self.context));
        let open = self.sessions.borrow().clone();
        let store = match open {
            Some(session) if session.epoch == found.epoch => session.store,
            other => {
                if other.is_some() {
                    tracing::warn!(shard = %self.home.shard, epoch = %found.epoch, "the stream was made anew: the replica is made again from it");
                    self.progress.turn(State::Starting);
                    self.let_go().await;
                }
                if let State::Diverged { .. } = self.progress.now().state
                    && self.progress.now().epoch == Some(found.epoch)
                {
                    // Until its epoch is changed, nothing changes.
                    return Again::Soon {
                        cause: "the stream has lost events".to_owned(),
                    };
                }
                match self.open(&found).await {
                    Ok(store) => store,
                    Err(again) => return again,
                }
            }
        };
        self.progress.begin(found.epoch, store.head().last);
        let follower = Follower {
            context: &self.context,
            names: &self.names,
            node: &self.settings.node,
            store: &store,
            progress: &self.progress,
            sightings: &self.sightings,
            settings: &self.settings,
        };
        match follower.run(&found).await {
            Ended::Again { cause } => Again::Soon { cause },
            Ended::OtherStream => Again::Soon {
                cause: "the stream was made anew".to_owned(),
            },
            Ended::Diverged { cause } => {
                let stream = self.names.stream();
                tracing::error!(stream, cause, "{DIVERGED} {stream} --metadata=tidings-epoch:<number>`");
                self.log.let_go(self.home.shard);
                self.progress.turn(State::Diverged { cause });
                self.let_go().await;
                Again::Soon {
                    cause: "the stream has lost events".to_owned(),
                }
            }
            Ended::Store(error) => {
                let cause = error.to_string();
                tracing::error!(shard = %self.home.shard, cause, "the replica cannot be written: see to the disk, then restart the node");
                self.progress.turn(State::Failed { cause });
                Again::Never
            }
        }
    }

    async fn open(&mut self, found: &Checked) -> Result<Arc<Store>, Again> {
        let (home, epoch) = (self.home.clone(), found.epoch);
        let opening = self.opening.insert(spawn_blocking(move || {
            Store::open_replica(&home.dir, home.layout, home.shard, epoch, &home.memory)
        }));
        let opened = opening.await;
        self.opening = None;
        let store = match opened {
            Ok(Ok(store)) => store,
            Ok(Err(error)) => {
                tracing::error!(shard = %self.home.shard, %error, "the replica cannot be opened, it is tried again");
                return Err(Again::soon(error));
            }
            Err(error) => return Err(Again::soon(error)),
        };
        if let Some((retention, every)) = self.settings.retention {
            // Ends when the store is closed.
            tokio::spawn(keep(Arc::clone(&store), retention, every));
        }
        self.log.hold(Arc::clone(&store));
        self.sessions.send_replace(Some(Session {
            store: Arc::clone(&store),
            epoch: found.epoch,
        }));
        Ok(store)
    }

    /// Closes the replica, if it is open or on its way to be. When this returns, nothing touches its directory.
    async fn let_go(&mut self) {
        // Whatever was interrupted goes on by itself, on a thread of its own.
        let opening = match self.opening.as_mut() {
            Some(opening) => opening.await.ok().and_then(Result::ok),
            None => None,
        };
        self.opening = None;
        let session = self.sessions.send_replace(None).map(|session| session.store);
        if let Some(store) = opening.or(session) {
            self.log.let_go(self.home.shard);
            self.closing = Some(spawn_blocking(move || store.close()));
        }
        if let Some(closing) = self.closing.as_mut()
            && let Err(error) = closing.await
        {
            tracing::error!(%error, "the replica was not closed");
        }
        self.closing = None;
    }

    /// Says something once.
    fn tell(&mut self, text: String) {
        if !self.told.contains(&text) {
            tracing::warn!(shard = %self.home.shard, "{text}");
            self.told.push(text);
        }
    }
}

/// A stream that cannot be followed, one time after the other.
#[derive(Default)]
struct Failing {
    since: Option<Instant>,
    seldom: Seldom,
}

impl Failing {
    /// An election takes less.
    const WORTH_TELLING: Duration = Duration::from_secs(15);

    /// It failed once more: how many times, if that is worth telling now.
    fn failed(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) < Self::WORTH_TELLING {
            return None;
        }
        self.seldom.happened(now)
    }
}

/// When following is begun again.
enum Again {
    Soon { cause: String },
    Never,
}

impl Again {
    fn soon(cause: impl ToString) -> Self {
        Self::Soon {
            cause: cause.to_string(),
        }
    }
}
