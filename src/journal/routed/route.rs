//! The task of one shard: brings its parts to whoever holds it, one target at a time.

use std::{collections::HashSet, future::Future, pin::pin, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    Settings,
    order::{Order, Part},
    peers::Peers,
    target::{Event, Remote, Target},
};
use crate::{
    journal::{
        AppendError, Journal, Unavailable,
        lane::{Lane, is_for_another},
    },
    members::{Holder, Holders},
    model::Shard,
};

/// So many answers are dealt with before new parts are looked for.
const AT_ONCE: usize = 64;
/// How often is looked whether an answer is overdue.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The pause between two rounds through the holders, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// See the module.
pub(super) struct Route {
    shard: Shard,
    node: String,
    local: Option<Arc<dyn Journal>>,
    holders: watch::Receiver<Arc<Holders>>,
    peers: Arc<Peers>,
    settings: Settings,
    parts: mpsc::UnboundedReceiver<Part>,
    /// Whether more parts may come.
    open: bool,
    order: Order,
    /// Whoever failed since the last answer.
    failed: HashSet<String>,
    trouble: Option<Trouble>,
    pause: Duration,
}

/// Since when nobody answers.
struct Trouble {
    since: Instant,
    last: Instant,
    error: AppendError,
}

/// Why a target is left.
enum End {
    /// There is a better one, and nothing is under way.
    Moved,
    /// Nothing more comes, and all is answered.
    Closed,
    /// It failed, or takes no more.
    Failed(AppendError),
}

/// Somebody who may take events.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Candidate {
    Local,
    Remote(Holder),
}

impl Route {
    pub(super) fn new(
        shard: Shard,
        node: &str,
        local: Option<Arc<dyn Journal>>,
        holders: watch::Receiver<Arc<Holders>>,
        peers: Arc<Peers>,
        parts: mpsc::UnboundedReceiver<Part>,
        settings: Settings,
    ) -> Self {
        Self {
            shard,
            node: node.to_owned(),
            local,
            holders,
            peers,
            settings,
            parts,
            open: true,
            order: Order::default(),
            failed: HashSet::new(),
            trouble: None,
            pause: PAUSE.0,
        }
    }

    /// Runs until its queue is closed and everything is answered.
    pub(super) async fn run(mut self) {
        loop {
            // Nobody is asked before there is something to append.
            if self.order.is_empty() {
                match self.parts.recv().await {
                    Some(part) => self.order.push(part),
                    None => return,
                }
            }
            let began = Instant::now();
            let (end, since) = match self.find().await {
                Ok(target) => (self.follow(target).await, Instant::now()),
                Err(error) => (End::Failed(error), began),
            };
            match end {
                End::Moved => {}
                End::Closed => return,
                End::Failed(error) => self.in_trouble(error, since).await,
            }
        }
    }

    /// Those who may take events, the best first: this process, unless it is said to take none.
    fn candidates(&self) -> Vec<Candidate> {
        let holders = Arc::clone(&self.holders.borrow());
        let holders = holders.of(self.shard);
        let others = holders
            .iter()
            .filter(|holder| holder.writable && holder.node != self.node)
            .cloned()
            .map(Candidate::Remote);
        let mut candidates: Vec<_> = others.collect();
        if self.local.is_some() {
            let refuses = holders
                .iter()
                .any(|holder| holder.node == self.node && !holder.writable);
            let place = if refuses { candidates.len() } else { 0 };
            candidates.insert(place, Candidate::Local);
        }
        candidates
    }

    /// Turns to the best one that has not failed yet.
    async fn find(&mut self) -> Result<Target, AppendError> {
        let candidates = self.candidates();
        let untried = candidates.iter().find(|candidate| !self.has_failed(candidate));
        if untried.is_none() {
            self.failed.clear();
        }
        let Some(candidate) = untried.or(candidates.first()).cloned() else {
            return Err(self.unavailable(Unavailable::NoHolder));
        };
        match (candidate, &self.local) {
            (Candidate::Local, Some(journal)) => Ok(Target::Local(Lane::new(Arc::clone(journal)))),
            (Candidate::Local, None) => Err(self.unavailable(Unavailable::NoHolder)),
            (Candidate::Remote(holder), _) => self.connect(holder).await,
        }
    }

    async fn connect(&mut self, Holder { node, grpc, .. }: Holder) -> Result<Target, AppendError> {
        let (peers, settings, shard) = (Arc::clone(&self.peers), self.settings, self.shard);
        let opening = {
            let node = node.clone();
            async move {
                let channel = peers
                    .channel(&grpc)
                    .map_err(|error| format!("{grpc:?} is no address: {error}"))?;
                // Twice: the connection, and the stream on it.
                let within = settings.connect_within * 2;
                let stream = Remote::open(channel, node, shard, settings.in_flight_at_a_node);
                timeout(within, stream)
                    .await
                    .unwrap_or_else(|_| Err(format!("it does not answer within {within:?}")))
            }
        };
        let opened = self.meanwhile(opening, false).await;
        opened.map(Target::Remote).map_err(|cause| {
            self.failed.insert(node.clone());
            self.unavailable(Unavailable::Unreachable { node, cause })
        })
    }

    /// Brings parts to a target, until it is left.
    async fn follow(&mut self, mut target: Target) -> End {
        let mut leaving = false;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Ok(part) = self.parts.try_recv() {
                self.order.push(part);
            }
            if !leaving {
                self.fill(&mut target);
            }
            // Those that are there already, before anything is waited for.
            for _ in 0..AT_ONCE {
                let Some(event) = target.next().now_or_never() else {
                    break;
                };
                if let Some(end) = self.heard(event, &target, &mut leaving) {
                    return end;
                }
            }
            if leaving && self.order.under_way() == 0 {
                return End::Moved;
            }
            if !self.open && self.order.is_empty() {
                return End::Closed;
            }
            tokio::select! {
                biased;
                event = target.next() => if let Some(end) = self.heard(event, &target, &mut leaving) {
                    return end;
                },
                part = self.parts.recv(), if self.open => match part {
                    Some(part) => self.order.push(part),
                    None => self.open = false,
                },
                () = changed(&mut self.holders) => leaving = self.should_leave(&target),
                now = look.tick(), if !self.order.is_empty() => {
                    self.expire(now);
                    let overdue = self.order.unanswered_since().is_some_and(|since| now >= since + self.settings.answer_within);
                    if overdue && matches!(target, Target::Remote(_)) {
                        return self.broken(&target, format!("no answer within {:?}", self.settings.answer_within));
                    }
                }
            }
        }
    }

    /// Goes by what a target does; tells the end, if it is that.
    fn heard(&mut self, event: Event, target: &Target, leaving: &mut bool) -> Option<End> {
        match event {
            Event::Room => None,
            Event::Outcome(outcome) => {
                let refused = outcome.as_ref().is_err_and(is_for_another);
                if !self.order.answer(outcome) {
                    return Some(self.broken(target, "it answered what it was not asked".to_owned()));
                }
                if !refused {
                    self.is_well();
                } else if !*leaving {
                    *leaving = self.turn_from(target);
                }
                None
            }
            Event::Ended(error) => {
                self.order.not_taken();
                self.failed.insert(self.name_of(target));
                Some(End::Failed(error))
            }
            Event::Broken { cause } => Some(self.broken(target, cause)),
        }
    }

    fn fill(&mut self, target: &mut Target) {
        while target.has_room(self.order.under_way()) {
            let Some(publish) = self.order.next(Instant::now()) else {
                return;
            };
            target.send(publish);
        }
    }

    fn broken(&mut self, target: &Target, cause: String) -> End {
        let node = self.name_of(target);
        self.order
            .broken(target.cut(), &format!("the connection to node {node} broke: {cause}"));
        self.failed.insert(node.clone());
        End::Failed(self.unavailable(Unavailable::Unreachable { node, cause }))
    }

    /// Whether there is another one to turn to from a target that refuses what it had taken. What it refused is answered: it may not overtake
    /// what the target has taken since.
    fn turn_from(&mut self, target: &Target) -> bool {
        self.failed.insert(self.name_of(target));
        self.candidates().iter().any(|candidate| !self.has_failed(candidate))
    }

    /// Whether a target should be left for another.
    fn should_leave(&self, target: &Target) -> bool {
        let candidates = self.candidates();
        match target {
            Target::Local(_) => candidates.first() != Some(&Candidate::Local),
            Target::Remote(remote) => {
                let holds = |candidate: &Candidate| matches!(candidate, Candidate::Remote(holder) if holder.node == remote.node);
                candidates.first() == Some(&Candidate::Local)
                    || !(candidates.is_empty() || candidates.iter().any(holds))
            }
        }
    }

    /// What is to be done when a target failed: nothing but to try the next, until all have failed; then a pause. If the patience is over by then,
    /// what waits is given up, and so is what comes during the pause: what comes after it is worth another try.
    async fn in_trouble(&mut self, error: AppendError, since: Instant) {
        if self.order.is_empty() {
            return;
        }
        let now = Instant::now();
        // Whoever comes after a quiet while is given the whole patience.
        let since = match &self.trouble {
            Some(trouble) if now <= trouble.last + self.settings.patience => trouble.since,
            _ => since,
        };
        if self.trouble.is_none() {
            tracing::warn!(shard = %self.shard, %error, "events of a shard have to wait");
        }
        self.trouble = Some(Trouble {
            since,
            last: now,
            error,
        });
        let all_failed = self.candidates().iter().all(|candidate| self.has_failed(candidate));
        if !all_failed {
            return;
        }
        let pause = self.pause.mul_f64(rand::random_range(0.5..1.0));
        self.pause = (self.pause * 2).min(PAUSE.1);
        let mut holders = self.holders.clone();
        let pausing = async move {
            tokio::select! {
                () = sleep(pause) => {}
                () = changed(&mut holders) => {}
            }
        };
        self.meanwhile(pausing, true).await;
        self.holders.mark_unchanged();
        self.failed.clear();
    }

    /// Goes on taking parts and giving up those that expire while something is done.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>, give_up: bool) -> T {
        let mut work = pin!(work);
        loop {
            if give_up {
                self.give_up_if_due();
            }
            let due = self.due().filter(|_| give_up && !self.order.is_empty());
            let next = match (due, self.order.expires()) {
                (Some(due), Some(expires)) => Some(due.min(expires)),
                (due, expires) => due.or(expires),
            };
            tokio::select! {
                biased;
                done = &mut work => return done,
                part = self.parts.recv(), if self.open => match part {
                    Some(part) => self.order.push(part),
                    None => self.open = false,
                },
                () = until(next) => self.expire(Instant::now()),
            }
        }
    }

    /// When the patience is over.
    fn due(&self) -> Option<Instant> {
        self.trouble
            .as_ref()
            .map(|trouble| trouble.since + self.settings.patience)
    }

    fn give_up_if_due(&mut self) {
        if let Some(trouble) = &self.trouble
            && Instant::now() >= trouble.since + self.settings.patience
        {
            self.order.refuse_waiting(&trouble.error);
        }
    }

    fn expire(&mut self, now: Instant) {
        let (trouble, shard) = (&self.trouble, self.shard);
        self.order.expire(now, |waited| match trouble {
            Some(trouble) => trouble.error.clone(),
            None => AppendError::TooSlow { shard, waited },
        });
    }

    fn is_well(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(shard = %self.shard, "events of the shard go on");
        }
        self.failed.clear();
        self.pause = PAUSE.0;
    }

    fn has_failed(&self, candidate: &Candidate) -> bool {
        self.failed.contains(match candidate {
            Candidate::Local => &self.node,
            Candidate::Remote(holder) => &holder.node,
        })
    }

    fn name_of(&self, target: &Target) -> String {
        match target {
            Target::Local(_) => self.node.clone(),
            Target::Remote(remote) => remote.node.clone(),
        }
    }

    const fn unavailable(&self, cause: Unavailable) -> AppendError {
        AppendError::Unavailable {
            shard: self.shard,
            cause,
        }
    }
}

/// Waits until the holders change; for ever if nobody tells any more.
async fn changed(holders: &mut watch::Receiver<Arc<Holders>>) {
    if holders.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
