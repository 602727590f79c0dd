//! From NATS to the lines of a process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::Message;
use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream::SelectAll};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use super::{
    Source,
    follows::{Follows, Subscription},
    silence::Silence,
    wire::{self, Malformed},
};
use crate::{
    bus::{Announcement, Bus as _, LocalBus},
    model::{Shard, Slot},
    nats::{Link, Nats, Seldom, Subjects},
};

/// Announcements that are handed on together.
const BATCH: usize = 256;
/// The most messages that are handed on before a digest that came after them.
const BEFORE_DIGEST: usize = 16 << 10;
/// How often it looks whether all is well.
const LOOK: Duration = Duration::from_millis(250);
/// How often followers ask the log while nothing can be heard.
const DOUBT: Duration = Duration::from_secs(1);
/// The least time between two doubts of the connection: each lost message may be one, and each asks the log.
const BETWEEN_DOUBTS: Duration = Duration::from_millis(200);
/// How long a server may take to take the subscriptions back after a reconnect.
const SETTLING: Duration = Duration::from_secs(2);

/// Hears what is subscribed to and hands it on. One task per bus; it never waits for a line.
pub(super) struct Listener {
    nats: Nats,
    local: Arc<LocalBus>,
    follows: Arc<Follows>,
    made: mpsc::Receiver<(Source, Subscription)>,
    slots: SelectAll<Tagged>,
    digests: SelectAll<Subscription>,
    malformed: Seldom,
}

/// A subscription, and whether what it brings is ephemeral.
struct Tagged {
    ephemeral: bool,
    subscription: Subscription,
}

impl Stream for Tagged {
    type Item = (bool, Message);

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let ephemeral = self.ephemeral;
        self.subscription
            .poll_next_unpin(context)
            .map(|message| Some((ephemeral, message?)))
    }
}

impl Listener {
    pub(super) fn new(
        nats: Nats,
        local: Arc<LocalBus>,
        follows: Arc<Follows>,
        made: mpsc::Receiver<(Source, Subscription)>,
    ) -> Self {
        Self {
            nats,
            local,
            follows,
            made,
            slots: SelectAll::new(),
            digests: SelectAll::new(),
            malformed: Seldom::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut link = self.nats.link();
        let mut doubts = self.nats.doubts();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silence = Silence::new(Instant::now());
        let mut doubted = Instant::now();
        let mut settling: Option<BoxFuture<'static, ()>> = None;
        loop {
            tokio::select! {
                Some((source, subscription)) = self.made.recv() => self.listen_to(source, subscription),
                Some((ephemeral, message)) = self.slots.next(), if !self.slots.is_empty() => {
                    self.hand_on(ephemeral, message, BATCH);
                }
                Some(message) = self.digests.next(), if !self.digests.is_empty() => {
                    if let Some(shard) = self.hand_on_digest(&message) {
                        silence.heard(Instant::now(), shard);
                    }
                }
                Ok(()) = link.changed() => settling = settle(&self.nats, *link.borrow_and_update()),
                () = wait_for(&mut settling), if settling.is_some() => {
                    settling = None;
                    self.local.doubt();
                }
                Ok(()) = doubts.changed(), if doubted.elapsed() >= BETWEEN_DOUBTS => {
                    doubted = Instant::now();
                    self.local.doubt();
                }
                _ = look.tick() => {
                    let now = Instant::now();
                    let up = link.borrow().up;
                    if !up || !self.follows.any() {
                        silence.excused(now);
                    }
                    if (!up || silence.is_long(now)) && now.duration_since(doubted) >= DOUBT {
                        doubted = now;
                        self.local.doubt();
                    }
                    if silence.is_too_long(now) {
                        warn!("no digest was heard for seconds, leaving this nats server for another");
                        self.nats.reconnect().await;
                    }
                }
            }
        }
    }

    fn listen_to(&mut self, source: Source, subscription: Subscription) {
        match source {
            Source::Digests => self.digests.push(subscription),
            Source::Announcements(_) | Source::Ephemeral(_) => self.slots.push(Tagged {
                ephemeral: matches!(source, Source::Ephemeral(_)),
                subscription,
            }),
        }
    }

    /// Hands on a message and what else is there, up to `most`.
    fn hand_on(&mut self, ephemeral: bool, message: Message, most: usize) {
        let mut batch = Vec::new();
        let mut next = Some((ephemeral, message));
        let mut taken = 0;
        while let Some((ephemeral, message)) = next.take() {
            taken += 1;
            match read(ephemeral, &message) {
                Ok(Heard::Announcement(announcement)) => batch.push(announcement),
                Ok(Heard::Ephemeral(slot, event)) => {
                    self.announce(&mut batch);
                    self.local.ephemeral(slot, Arc::new(event));
                }
                Err(problem) => self.refuse(&message, &problem),
            }
            if batch.len() >= BATCH {
                self.announce(&mut batch);
            }
            if taken < most {
                next = self.one_more();
            }
        }
        self.announce(&mut batch);
    }

    fn announce(&self, batch: &mut Vec<Announcement>) {
        if !batch.is_empty() {
            self.local.announce(batch);
            batch.clear();
        }
    }

    fn one_more(&mut self) -> Option<(bool, Message)> {
        tokio::task::unconstrained(self.slots.next()).now_or_never().flatten()
    }

    /// Hands on a digest, after all that came before it: or it would tell of what only seems to be lost. Returns whose it is.
    fn hand_on_digest(&mut self, message: &Message) -> Option<Shard> {
        if let Some((ephemeral, first)) = self.one_more() {
            self.hand_on(ephemeral, first, BEFORE_DIGEST);
        }
        match wire::decode_digest(&message.payload) {
            Ok(digest) => {
                self.local.digest(&digest);
                Some(digest.shard)
            }
            Err(problem) => {
                self.refuse(message, &problem);
                None
            }
        }
    }

    fn refuse(&mut self, message: &Message, problem: &Malformed) {
        if let Some(times) = self.malformed.happened(Instant::now()) {
            let subject = message.subject.as_str();
            warn!(subject, %problem, times, "a message on nats cannot be read and is dropped: do all nodes run compatible versions?");
        }
    }
}

enum Heard {
    Announcement(Announcement),
    Ephemeral(Slot, crate::model::Event),
}

fn read(ephemeral: bool, message: &Message) -> Result<Heard, Malformed> {
    let slot = Subjects::slot_in(&message.subject).ok_or_else(Malformed::subject)?;
    if ephemeral {
        Ok(Heard::Ephemeral(slot, wire::decode_ephemeral(&message.payload)?))
    } else {
        wire::decode_announcement(slot, message.headers.as_ref(), &message.payload).map(Heard::Announcement)
    }
}

/// What is to be waited for after a change of the connection: until the server has the subscriptions again. Only then is what the log says
/// followed by all that comes later.
fn settle(nats: &Nats, link: Link) -> Option<BoxFuture<'static, ()>> {
    let nats = nats.clone();
    link.up.then(|| {
        async move {
            // If it takes longer, digests find what was lost.
            let _ = nats.round_trip(SETTLING).await;
        }
        .boxed()
    })
}

async fn wait_for(settling: &mut Option<BoxFuture<'static, ()>>) {
    match settling {
        Some(settling) => settling.await,
        None => std::future::pending().await,
    }
}
