//! Hears what is revoked, and keeps it from being forgotten.
//!
//! Revocations are events on a topic of the service itself. Each process follows that topic from the oldest event that is kept, as any stream
//! follows its topics, with a hub of its own on a thread of its own, so that no number of streams holds it up. What it hears goes to
//! [`Auth::revocations`]; until it has heard everything once, no token is accepted. When the log or the bus is away, what it has heard goes on to
//! count.
//!
//! Events are dropped by retention; revocations may last longer. So whoever has a journal appends those again that are about to be dropped, under a
//! key that is the same for all who do: it is appended once.

mod known;

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::{
    sync::{Notify, oneshot},
    task::LocalSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, error, info, warn};

use self::known::Known;
use crate::{
    auth::{Added, Auth},
    bus::Bus,
    hub::{Delivery, Flow, Follow, HubHandle, HubSettings, Offer, Outlet, Start},
    journal::{AppendError, Journal},
    log::Log,
    model::{Layout, Publish, Shard, Topic, UnixMillis},
};

/// How long to wait, after a gap, before another is looked into.
const AFTER_GAP: Duration = Duration::from_secs(1);
/// How often it is looked whether anything has to be appended again, at most and at least.
const OFTEN: Duration = Duration::from_millis(100);
const SELDOM: Duration = Duration::from_secs(10);
/// How many are appended at once.
const AT_ONCE: usize = 64;

/// What revocations are heard from, and for whom.
pub(super) struct Hearing {
    pub(super) layout: Layout,
    pub(super) log: Arc<dyn Log>,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) auth: Arc<Auth>,
}

/// What they are appended to again.
pub(super) struct Renewal {
    pub(super) journal: Arc<dyn Journal>,
    /// For how long events are kept.
    pub(super) age: Duration,
}

/// Follows what is revoked, until it is dropped.
pub(super) struct Revoked {
    ended: Option<oneshot::Receiver<()>>,
    _stop: DropGuard,
}

impl Revoked {
    /// Begins. Where nobody is asked who they are, nothing is followed. `safe` is cancelled once everything has been heard, and what was about to be
    /// dropped has been appended again: nothing old should be dropped before.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(super) fn follow(hearing: Hearing, renewal: Option<Renewal>, safe: CancellationToken) -> io::Result<Self> {
        let stop = CancellationToken::new();
        if hearing.auth.is_open() {
            safe.cancel();
            return Ok(Self {
                ended: None,
                _stop: stop.drop_guard(),
            });
        }
        hearing.auth.revocations().set_behind();
        let (ends, ended) = oneshot::channel();
        std::thread::Builder::new().name("revocations".to_owned()).spawn({
            let stop = stop.clone();
            move || {
                if let Err(error) = run(hearing, renewal, safe, &stop) {
                    error!(%error, "what is revoked cannot be followed");
                }
                // Nobody may be left to hear it.
                let _ = ends.send(());
            }
        })?;
        Ok(Self {
            ended: Some(ended),
            _stop: stop.drop_guard(),
        })
    }

    /// Goes on until it ends by itself, which it does not as a rule; dropped, it stops.
    pub(super) async fn kept(mut self) {
        match self.ended.take() {
            // An error means that its thread panicked.
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    }
}

/// The shard that they are in.
pub(super) fn shard(layout: Layout) -> Shard {
    Shard(layout.shard(layout.slot(Topic::revocations().as_str())))
}

fn run(
    hearing: Hearing,
    renewal: Option<Renewal>,
    safe: CancellationToken,
    stop: &CancellationToken,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ear = Rc::new(Ear {
        auth: hearing.auth,
        known: RefCell::default(),
        is_level: Cell::new(false),
        level: Notify::new(),
        gap: Notify::new(),
    });
    let shard = shard(hearing.layout);
    LocalSet::new().block_on(&runtime, async {
        let (hub, driver) = HubHandle::new(
            hearing.layout,
            HubSettings::default(),
            hearing.log.clone(),
            &*hearing.bus,
        );
        tokio::select! {
            () = stop.cancelled() => {}
            () = driver.run() => {}
            () = follow(&hub, &ear) => {}
            () = renew(&ear, renewal, &*hearing.log, shard, safe) => {}
        }
    });
    Ok(())
}

/// Follows for ever; again from the beginning whenever something may have been missed. To hear a thing twice does no harm.
async fn follow(hub: &HubHandle, ear: &Rc<Ear>) {
    let attach = || {
        let follow = Follow {
            topics: vec![Topic::revocations()],
            start: Start::Earliest,
        };
        hub.attach(follow, Rc::new(Hears(Rc::clone(ear))))
    };
    let mut id = attach();
    loop {
        ear.gap.notified().await;
        ear.known.borrow_mut().doubt();
        hub.detach(id);
        id = attach();
        sleep(AFTER_GAP).await;
    }
}

/// What is heard goes here.
struct Ear {
    auth: Arc<Auth>,
    known: RefCell<Known>,
    /// Everything has been heard, since the beginning or the last gap.
    is_level: Cell<bool>,
    level: Notify,
    gap: Notify,
}

struct Hears(Rc<Ear>);

impl Outlet for Hears {
    fn offer(&self, delivery: &Delivery<'_>, _: Flow) -> Offer {
        let ear = &self.0;
        match delivery {
            Delivery::Event { event, .. } => {
                let now = UnixMillis::now();
                match ear.known.borrow_mut().hear(event, now) {
                    Ok(Some(revocation)) => {
                        if ear.auth.revocations().add(revocation, now) == Added::Full {
                            error!("there are more revocations than there is room for: this one has no effect here");
                        }
                    }
                    Ok(None) => {}
                    Err(error) => warn!(%error, seq = event.seq.map(|seq| seq.0), "a revocation is not understood"),
                }
            }
            Delivery::Gap { reason, .. } => {
                warn!(
                    ?reason,
                    "revocations may have been missed: what is known counts, and what is kept is read again"
                );
                ear.is_level.set(false);
                ear.gap.notify_one();
            }
            Delivery::Level { .. } => {
                debug!("everything that is revoked has been heard");
                ear.auth.revocations().set_level();
                ear.is_level.set(true);
                ear.level.notify_one();
            }
        }
        Offer::Taken
    }

    fn flush(&self) {}
}

/// Appends again what is about to be dropped, for ever.
async fn renew(ear: &Ear, renewal: Option<Renewal>, log: &dyn Log, shard: Shard, safe: CancellationToken) {
    let Some(Renewal { journal, age }) = renewal else {
        return std::future::pending().await;
    };
    ear.level.notified().await;
    let mut ticks = interval((age / 8).clamp(OFTEN, SELDOM));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !ear.is_level.get() {
            continue;
        }
        // What cannot be read now is told of by whoever reads; age alone is known then.
        let heads = log.heads(shard).await.ok();
        let due = ear.known.borrow().due(age, heads.as_ref(), UnixMillis::now());
        let count = due.len();
        let failed = stream::iter(due)
            .map(|publish| append(&*journal, publish))
            .buffer_unordered(AT_ONCE);
        let failed: Vec<AppendError> = failed.filter_map(async |outcome| outcome.err()).collect().await;
        match failed.first() {
            None if count > 0 => info!(count, "revocations were appended again before they are dropped"),
            None => {}
            Some(AppendError::Closed) => debug!("the journal is closed"),
            Some(error) => {
                let failed = failed.len();
                warn!(%error, failed, "revocations could not be appended again, and will be later: what is dropped meanwhile is known to this process alone");
                // There will be no room before something old is dropped.
                if !matches!(error, AppendError::DiskFull { .. }) {
                    continue;
                }
            }
        }
        safe.cancel();
    }
}

async fn append(journal: &dyn Journal, publish: Publish) -> Result<(), AppendError> {
    journal.append(publish).await?.await.map(drop)
}
