//! The driver: what gives a hub its clock, its bus and its log. It owns all that the hub has under way.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Aborted, LocalBoxFuture, abortable},
    stream::FuturesUnordered,
};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use super::{Answer, Effect, Follow, FollowerId, Hub, HubSettings, Outlet, Question, Ticket};
use crate::{
    bus::{Bus, Line},
    log::{Log, ReadError},
    model::Layout,
};

/// How long a slot without followers is kept, at least; twice that at most.
const SWEEP: Duration = Duration::from_secs(30);
/// The first wait before a question is put again, doubled up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LAST_WAIT: Duration = Duration::from_secs(1);
/// How often it is told, by each worker, that the log cannot be read.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Notices taken from the bus, and delivered, at once.
const BURST: usize = 64;
/// So many things are looked at before others on this thread have their turn.
const TURNS: usize = 32;

/// A hub and what drives it. Lives on one worker's thread; cheap to clone there.
#[derive(Clone)]
pub struct HubHandle(Rc<Shared>);

struct Shared {
    hub: RefCell<Hub>,
    /// The hub wants something done.
    bell: Notify,
}

impl HubHandle {
    /// A hub, and what drives it, which is to be run for as long as the hub is used.
    #[must_use]
    pub fn new(layout: Layout, settings: HubSettings, log: Arc<dyn Log>, bus: &dyn Bus) -> (Self, Driver) {
        let shared = Rc::new(Shared {
            hub: RefCell::new(Hub::new(layout, settings)),
            bell: Notify::new(),
        });
        let driver = Driver {
            shared: shared.clone(),
            line: bus.open(),
            log,
            asked: FuturesUnordered::new(),
            handles: HashMap::new(),
            told: None,
        };
        (Self(shared), driver)
    }

    /// Takes on a follower. Must not be called by an [`Outlet`].
    pub fn attach(&self, follow: Follow, outlet: Rc<dyn Outlet>) -> FollowerId {
        self.with(|hub| hub.attach(follow, outlet))
    }

    /// Lets a follower go; one that is gone already is no mistake. Must not be called by an [`Outlet`].
    pub fn detach(&self, id: FollowerId) {
        self.with(|hub| hub.detach(id));
    }

    /// A follower's outlet has room again. Must not be called by an [`Outlet`].
    pub fn drained(&self, id: FollowerId) {
        self.with(|hub| hub.drained(id));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Hub) -> T) -> T {
        let changed = change(&mut self.0.hub.borrow_mut());
        self.0.bell.notify_one();
        changed
    }
}

/// What gives a hub its clock, its bus and its log.
pub struct Driver {
    shared: Rc<Shared>,
    line: Box<dyn Line>,
    log: Arc<dyn Log>,
    /// As many as there are followers that catch up, at most.
    asked: FuturesUnordered<LocalBoxFuture<'static, Result<(Ticket, Answer), Aborted>>>,
    handles: HashMap<Ticket, AbortHandle>,
    /// When it was last told that the log cannot be read.
    told: Option<Instant>,
}

impl Driver {
    /// Drives the hub until the bus is closed. However many answers or notices wait, others on this thread have their turns between them.
    pub async fn run(mut self) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turns = 0;
        loop {
            self.carry_out();
            turns += 1;
            if turns > TURNS {
                turns = 0;
                tokio::task::yield_now().await;
            }
            tokio::select! {
                notice = self.line.next() => {
                    let Some(notice) = notice else {
                        debug!("the bus is closed");
                        return;
                    };
                    // What waits besides is delivered with it: under load, one write for many events.
                    let mut burst = vec![notice];
                    while burst.len() < BURST
                        && let Some(Some(notice)) = self.line.next().now_or_never()
                    {
                        burst.push(notice);
                    }
                    self.shared.hub.borrow_mut().notices(&burst);
                    // To tell a crowd takes long by itself.
                    turns = TURNS;
                }
                Some(answered) = self.asked.next() => {
                    // One that was aborted is one that the hub has forgotten.
                    if let Ok((ticket, answer)) = answered {
                        self.handles.remove(&ticket);
                        if let Answer::Failed(error) = &answer {
                            self.tell(error);
                        }
                        self.shared.hub.borrow_mut().answer(ticket, &answer);
                    }
                }
                () = self.shared.bell.notified() => {}
                _ = sweep.tick() => self.shared.hub.borrow_mut().sweep(),
            }
        }
    }

    /// Says now and then that the log cannot be read: thousands of questions may be put again every second.
    fn tell(&mut self, error: &ReadError) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            warn!(%error, under_way = self.asked.len(), "the log could not be read, trying again");
        } else {
            debug!(%error, "the log could not be read, trying again");
        }
    }

    fn carry_out(&mut self) {
        loop {
            let effects = self.shared.hub.borrow_mut().take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Follow(slot) => self.line.follow(slot),
                    Effect::Unfollow(slot) => self.line.unfollow(slot),
                    Effect::Ask {
                        ticket,
                        question,
                        attempt,
                    } => {
                        let (asked, handle) = abortable(ask(self.log.clone(), ticket, question, attempt));
                        self.handles.insert(ticket, handle);
                        self.asked.push(asked.boxed_local());
                    }
                    Effect::Forget(ticket) => {
                        if let Some(handle) = self.handles.remove(&ticket) {
                            handle.abort();
                        }
                    }
                }
            }
        }
    }
}

async fn ask(log: Arc<dyn Log>, ticket: Ticket, question: Question, attempt: u32) -> (Ticket, Answer) {
    if attempt > 0 {
        let wait = LAST_WAIT.min(FIRST_WAIT * 2_u32.saturating_pow(attempt - 1));
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
    }
    let answer = match question {
        Question::Heads(shard) => log.heads(shard).await.map(Answer::Heads),
        Question::Replay(request) => log.replay(request).await.map(Answer::Replay),
        Question::Fill(request) => log.fill(request).await.map(Answer::Replay),
        Question::Locate(shard, time) => log.locate(shard, time).await.map(Answer::Located),
    };
    (ticket, answer.unwrap_or_else(Answer::Failed))
}

#[cfg(test)]
mod tests {
    use futures::future::{self, BoxFuture};

    use super::*;
    use crate::{
        bus::{Announcement, Digest, Notice},
        log::{Heads, Located, Replay, ReplayRequest},
        model::{Event, Shard, Slot, UnixMillis},
    };

    /// A log that never answers, and a bus on which there is always more to hear.
    struct Storm;

    impl Log for Storm {
        fn heads(&self, _: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
            future::pending().boxed()
        }

        fn replay(&self, _: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
            future::pending().boxed()
        }

        fn locate(&self, _: Shard, _: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
            future::pending().boxed()
        }
    }

    impl Bus for Storm {
        fn announce(&self, _: &[Announcement]) {}
        fn digest(&self, _: &Digest) {}
        fn ephemeral(&self, _: Slot, _: Arc<Event>) {}
        fn open(&self) -> Box<dyn Line> {
            Box::new(Endless(0))
        }
    }

    struct Endless(u32);

    impl Line for Endless {
        fn follow(&mut self, _: Slot) {}
        fn unfollow(&mut self, _: Slot) {}
        fn next(&mut self) -> BoxFuture<'_, Option<Notice>> {
            self.0 += 1;
            assert!(self.0 < 10_000, "nobody else has a turn");
            future::ready(Some(Notice::Unverified)).boxed()
        }
    }

    #[tokio::test]
    async fn others_have_their_turns_however_much_there_is_to_hear() {
        let (_hub, driver) = HubHandle::new(Layout::EMBEDDED, HubSettings::default(), Arc::new(Storm), &Storm);
        let others = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = driver.run() => panic!("the bus is never closed"),
            () = others => {}
        }
    }
}
