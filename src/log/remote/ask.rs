//! A question to the holders of a shard: to the best of them, then to the next, until one has an answer that counts.

use std::{
    collections::HashMap,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tidings_proto::v1::{HeadsRequest, LocateRequest, log_client::LogClient};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tonic::{Code, Status};

use super::{
    Counters, RemoteSettings,
    hedging::Hedging,
    peers::{Peer, Peers, Trusted},
    view::View,
    weigh::Weighing,
};
use crate::{
    log::{Heads, Located, ReadError, Replay, ReplayRequest, wire},
    members::{ClusterSecret, Holders},
    model::{Epoch, Shard, UnixMillis},
    tls::ClientTls,
};

/// The largest answer that is taken, in bytes: a page, whose last event may go over its bound.
const MAX_ANSWER: usize = 16 << 20;
/// How long bad news waits for somebody who knows better.
const CONFIRM: Duration = Duration::from_secs(1);

/// How long a question waits at most when all who could answer it have just failed, or have too much to do.
const ALL_REST: Duration = Duration::from_millis(250);

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Heads(Shard),
    Replay { request: Arc<ReplayRequest>, live: bool },
    Locate(Shard, UnixMillis),
}

impl Question {
    pub(super) fn shard(&self) -> Shard {
        match self {
            Self::Heads(shard) | Self::Locate(shard, _) => *shard,
            Self::Replay { request, .. } => request.shard,
        }
    }
}

/// What is answered, of the same kind.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Heads(Heads),
    Replay(Replay),
    Located(Located),
}

impl Answer {
    pub(super) const fn epoch(&self) -> Epoch {
        match self {
            Self::Heads(heads) => heads.epoch,
            Self::Replay(Replay::Page(page)) => page.epoch,
            Self::Replay(Replay::Gone { epoch, .. } | Replay::Forked { epoch, .. }) => *epoch,
            Self::Located(located) => located.epoch,
        }
    }
}

/// An answer that cannot be one to what was asked.
pub(super) fn another_kind() -> ReadError {
    ReadError::failed("the answer is of another kind than the question")
}

/// Who is asked, and what is known of them.
#[derive(Debug)]
pub(super) struct Asking {
    holders: watch::Receiver<Arc<Holders>>,
    settings: RemoteSettings,
    peers: Peers,
    views: Mutex<HashMap<Shard, Arc<Mutex<View>>>>,
    /// Of heads, which take no time, and of replays, which may.
    hedging: [Mutex<Hedging>; 2],
    counters: Counters,
}

impl Asking {
    pub(super) fn new(
        holders: watch::Receiver<Arc<Holders>>,
        settings: RemoteSettings,
        tls: ClientTls,
        secret: ClusterSecret,
    ) -> Self {
        let hedging = || Mutex::new(Hedging::new(settings.hedge_after, settings.hedge_share));
        Self {
            holders,
            settings,
            peers: Peers::new(tls, secret),
            views: Mutex::default(),
            hedging: [hedging(), hedging()],
            counters: Counters::default(),
        }
    }

    pub(super) const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether the heads of a shard should be asked for once more, because a page of it was empty: whoever gave it may lag, which shows only
    /// when others tell how far they are. About once a second at most.
    pub(super) fn should_compare(&self, shard: Shard, replay: &Replay) -> bool {
        let empty = matches!(replay, Replay::Page(page) if page.events.is_empty());
        let several = || self.holders.borrow().of(shard).len() > 1;
        empty && several() && lock(&self.view(shard)).should_compare(Instant::now().into_std())
    }

    /// Asks for a page.
    pub(super) async fn replay(&self, request: ReplayRequest, live: bool) -> Result<Replay, ReadError> {
        let request = Arc::new(request);
        match self.ask(Question::Replay { request, live }).await? {
            Answer::Replay(replay) => Ok(replay),
            Answer::Heads(_) | Answer::Located(_) => Err(another_kind()),
        }
    }

    /// Asks whoever holds the shard, until there is an answer that counts, nobody is left, or the deadline is over.
    pub(super) async fn ask(&self, question: Question) -> Result<Answer, ReadError> {
        self.counters.questions.fetch_add(1, Ordering::Relaxed);
        let answer = self.ask_all(&question).await;
        if answer.is_err() {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    async fn ask_all(&self, question: &Question) -> Result<Answer, ReadError> {
        let shard = question.shard();
        let view = self.view(shard);
        // Thousands may ask again and again while nobody can answer: their turns are held up here, instead of asking for nothing.
        let rest = self.rest(shard);
        if !rest.is_zero() {
            tokio::time::sleep(rest.min(ALL_REST)).await;
        }
        let holders = self.in_order(question);
        if holders.is_empty() {
            let cause = format!("no node is known to hold shard {shard}: is an ingest node up that does?");
            return Err(ReadError::Failed { cause });
        }
        let nodes = holders.iter().map(|peer| Arc::clone(&peer.node)).collect();
        let weighing = Weighing::new(&lock(&view), question.clone(), nodes);
        let race = Race {
            asking: self,
            question,
            view: &view,
            holders,
            asked: 0,
            done: Vec::new(),
            under_way: FuturesUnordered::new(),
            weighing,
        };
        race.run().await
    }

    /// The holders of a shard, the best to ask first: in the order in which they are told, but those last that failed or had too much to do.
    fn in_order(&self, question: &Question) -> Vec<Arc<Peer>> {
        let all = Arc::clone(&self.holders.borrow());
        let mut peers = self.peers.of(all.of(question.shard()), &all);
        if let (Question::Heads(_), 2..) = (question, peers.len()) {
            // Any of them, so that it shows who lags.
            let by = rand::random_range(0..peers.len());
            peers.rotate_left(by);
        }
        let now = Instant::now().into_std();
        peers.sort_by_cached_key(|peer| peer.health().rests(now));
        peers
    }

    /// For how long yet everyone who holds a shard is to be left alone.
    fn rest(&self, shard: Shard) -> Duration {
        let all = Arc::clone(&self.holders.borrow());
        let now = Instant::now().into_std();
        let peers = self.peers.of(all.of(shard), &all);
        let rests = peers.iter().map(|peer| peer.health().rest(now));
        rests.min().unwrap_or_default()
    }

    fn view(&self, shard: Shard) -> Arc<Mutex<View>> {
        Arc::clone(lock(&self.views).entry(shard).or_default())
    }

    fn hedging(&self, question: &Question) -> MutexGuard<'_, Hedging> {
        lock(&self.hedging[usize::from(!matches!(question, Question::Heads(_)))])
    }
}

/// One question, on its way to one holder after the other.
struct Race<'a> {
    asking: &'a Asking,
    question: &'a Question,
    view: &'a Mutex<View>,
    holders: Vec<Arc<Peer>>,
    /// How many of them have been asked, and which of those have answered, or failed.
    asked: usize,
    done: Vec<usize>,
    under_way: FuturesUnordered<Attempt<'a>>,
    weighing: Weighing,
}

type Attempt<'a> = Pin<Box<dyn Future<Output = (usize, Instant, Result<Answer, Refused>)> + Send + 'a>>;

impl Race<'_> {
    async fn run(mut self) -> Result<Answer, ReadError> {
        let begin = Instant::now();
        let deadline = begin + self.asking.settings.deadline;
        self.asking.hedging(self.question).asked();
        self.ask_next();
        let mut hedge = pin!(sleep_until(begin + self.patience()));
        let mut give_up = pin!(sleep_until(deadline));
        loop {
            tokio::select! {
                ended = self.under_way.next() => {
                    let Some((holder, begun, result)) = ended else { break };
                    if let Some(answer) = self.ended(holder, begun, result) {
                        return Ok(answer);
                    }
                    self.ask_next();
                    if self.weighing.has_an_answer() {
                        let latest = (Instant::now() + CONFIRM).min(give_up.deadline());
                        give_up.as_mut().reset(latest);
                    }
                }
                () = &mut hedge, if self.asked < self.holders.len() => {
                    if self.may_hedge() {
                        self.asking.counters.hedges.fetch_add(1, Ordering::Relaxed);
                        self.ask_next();
                    }
                    hedge.as_mut().reset(Instant::now() + self.patience());
                }
                () = &mut give_up => {
                    for holder in (0..self.asked).filter(|holder| !self.done.contains(holder)) {
                        self.weighing.no_answer(holder, "no answer in time");
                    }
                    break;
                }
            }
        }
        self.weighing.settle(&mut lock(self.view))
    }

    fn patience(&self) -> Duration {
        self.asking.hedging(self.question).after()
    }

    /// Whether the next one may be asked though the one before may yet answer: for a share of the questions, and whenever all that were asked
    /// have failed others meanwhile, or say nothing to anyone.
    fn may_hedge(&self) -> bool {
        let (now, patience) = (Instant::now().into_std(), self.patience());
        let all_fail = self.holders[..self.asked].iter().all(|peer| {
            let health = peer.health();
            health.rests(now) || health.hangs(now, patience)
        });
        all_fail || self.asking.hedging(self.question).may_hedge()
    }

    fn ask_next(&mut self) {
        let Some(peer) = self.holders.get(self.asked).cloned() else {
            return;
        };
        let holder = self.asked;
        self.asked += 1;
        self.asking.counters.attempts.fetch_add(1, Ordering::Relaxed);
        let (question, patience) = (self.question.clone(), self.asking.settings.attempt);
        self.under_way.push(Box::pin(async move {
            let begun = Instant::now();
            peer.health().asked(begun.into_std());
            let answer = match peer.channel() {
                Err(cause) => Err(Refused::Failed(cause)),
                Ok(channel) => match timeout(patience, put(channel, &question)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(Refused::Failed(format!("no answer within {patience:?}"))),
                },
            };
            (holder, begun, answer)
        }));
    }

    /// What an attempt came to: the answer, if it counts.
    fn ended(&mut self, holder: usize, begun: Instant, result: Result<Answer, Refused>) -> Option<Answer> {
        let peer = Arc::clone(&self.holders[holder]);
        let now = Instant::now();
        self.done.push(holder);
        let answer = match result {
            Ok(answer) => {
                peer.health().answered();
                answer
            }
            Err(refused) => {
                match &refused {
                    Refused::NotHeld(_) => peer.health().answered(),
                    Refused::Busy(_) => peer.health().busy(now.into_std()),
                    Refused::Failed(_) => peer.health().failed(now.into_std()),
                }
                let why = refused.to_string();
                if matches!(refused, Refused::Busy(_)) {
                    self.weighing.no_answer(holder, &why);
                } else {
                    self.weighing.failed(&mut lock(self.view), holder, &why);
                }
                return None;
            }
        };
        let answer = self.weighing.answered(&mut lock(self.view), holder, answer)?;
        let patience = self.patience();
        self.asking.hedging(self.question).answered(now - begun);
        // Those that were asked before, and have yet to answer.
        for (slow, peer) in self.holders[..holder].iter().enumerate() {
            if !self.done.contains(&slow) {
                peer.health().outrun(now.into_std(), patience);
            }
        }
        Some(answer)
    }
}

/// Puts a question to one node.
async fn put(channel: Trusted, question: &Question) -> Result<Answer, Refused> {
    let mut client = LogClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    match question {
        Question::Heads(shard) => {
            let request = HeadsRequest { shard: shard.0.into() };
            let heads = client.heads(request).await?.into_inner();
            Ok(Answer::Heads(wire::to_heads(*shard, heads)))
        }
        Question::Replay { request, live } => {
            let response = client.replay(wire::from_request(request, *live)).await?.into_inner();
            let replay = wire::to_replay(request, response).map_err(|bad| Refused::Failed(bad.to_string()))?;
            Ok(Answer::Replay(replay))
        }
        Question::Locate(shard, time) => {
            let request = LocateRequest {
                shard: shard.0.into(),
                time_ms: time.0,
            };
            let located = client.locate(request).await?.into_inner();
            Ok(Answer::Located(wire::to_located(located)))
        }
    }
}

/// Why a node has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refused {
    /// It does not hold the shard.
    #[error("{0}")]
    NotHeld(String),
    /// It has too much to do.
    #[error("{0}")]
    Busy(String),
    /// It failed, or cannot be reached.
    #[error("{0}")]
    Failed(String),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::FailedPrecondition => Self::NotHeld(message),
            Code::ResourceExhausted => Self::Busy(message),
            code => Self::Failed(format!("{code:?}: {message}")),
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
