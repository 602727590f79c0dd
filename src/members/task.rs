//! The task behind [`Members`](super::Members).

use std::{sync::Arc, time::Duration};

use async_nats::{Message, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use tidings_cluster::{Beat, Membership, View};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use super::{Condition, Holders, Me, log, wire};
use crate::nats::{Nats, Seldom};

/// How often a node tells of itself.
const BEAT: Duration = Duration::from_secs(1);
/// The least time between two beats that others ask for: many may come at once.
const ASKED: Duration = Duration::from_millis(250);
/// How long the client may take to take a message; it has more to say later.
const COMMAND: Duration = Duration::from_millis(500);
/// How long the server may take to take the last beat.
const LAST: Duration = Duration::from_millis(500);

pub(super) struct Task {
    pub(super) nats: Nats,
    pub(super) me: Me,
    pub(super) condition: Box<dyn Fn() -> Condition + Send + Sync>,
    pub(super) incarnation: u64,
    pub(super) membership: Membership,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) holders: watch::Sender<Arc<Holders>>,
    pub(super) tell: Arc<Notify>,
    pub(super) leaving: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Task {
    pub(super) async fn run(mut self) {
        let subjects = self.nats.subjects().clone();
        let (Some(mut beats), Some(mut hellos)) = (
            self.subscribe(subjects.beats()).await,
            self.subscribe(subjects.hello()).await,
        ) else {
            return;
        };
        let mut link = self.nats.link();
        link.mark_changed();
        let mut tick = interval(BEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = Instant::now();
        let (mut told, mut number) = (start - ASKED, 0);
        let mut malformed = Seldom::default();
        loop {
            let mut tells = false;
            tokio::select! {
                biased;
                Ok(()) = link.changed() => {
                    let up = link.borrow_and_update().up;
                    if self.membership.link(start.elapsed(), up) {
                        self.publish_view();
                    }
                    if up {
                        self.send(subjects.hello(), self.me.node.clone().into()).await;
                    }
                    tells = up;
                }
                Some(sent) = self.leaving.recv() => {
                    number += 1;
                    self.last_beat(number).await;
                    let _ = sent.send(());
                    return;
                }
                _ = tick.tick() => {
                    if self.membership.tick(start.elapsed()) {
                        self.publish_view();
                    }
                    tells = true;
                }
                () = self.tell.notified() => tells = true,
                Some(hello) = hellos.next() => {
                    let from_us = *hello.payload == *self.me.node.as_bytes();
                    tells = !from_us && told.elapsed() >= ASKED;
                }
                Some(message) = beats.next() => match wire::decode(&message.payload) {
                    Ok(beat) => self.hear(start.elapsed(), beat),
                    Err(problem) => refuse(&mut malformed, &message, &problem),
                },
            }
            if tells {
                number += 1;
                told = Instant::now();
                let beat = self.beat(number);
                let payload = wire::encode(&beat);
                // Whatever becomes of the message, this node is there.
                self.hear(start.elapsed(), beat);
                self.send(subjects.beat(&self.me.node), payload).await;
            }
        }
    }

    async fn subscribe(&self, subject: Subject) -> Option<Subscriber> {
        let subscribed = self.nats.client().subscribe(subject).await;
        subscribed
            .inspect_err(|error| debug!(%error, "the nats client is closed"))
            .ok()
    }

    fn beat(&self, number: u64) -> Beat {
        let condition = (self.condition)();
        Beat {
            node: self.me.node.clone(),
            incarnation: self.incarnation,
            number,
            role: self.me.role,
            http: self.me.http.clone(),
            grpc: self.me.grpc.clone(),
            connections: condition.connections,
            weight: condition.weight,
            draining: condition.draining,
            leaving: false,
            shards: condition.shards,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            layout_slots: self.me.layout.slots(),
            layout_shards: self.me.layout.shards().into(),
        }
    }

    async fn last_beat(&self, number: u64) {
        let beat = Beat {
            leaving: true,
            draining: true,
            ..self.beat(number)
        };
        let subject = self.nats.subjects().beat(&self.me.node);
        self.send(subject, wire::encode(&beat)).await;
        if let Err(error) = self.nats.round_trip(LAST).await {
            debug!(%error, "nobody may have heard that this node leaves");
        }
    }

    fn hear(&mut self, now: Duration, beat: Beat) {
        if self.membership.beat(now, beat) {
            self.publish_view();
        }
    }

    /// Sends while there is a connection; what is not taken soon is dropped.
    async fn send(&self, subject: Subject, payload: Bytes) {
        if !self.nats.link().borrow().up {
            return;
        }
        match tokio::time::timeout(COMMAND, self.nats.client().publish(subject, payload)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "nats takes no beat"),
            Err(_) => debug!("nats takes no beat in time"),
        }
    }

    fn publish_view(&self) {
        let view = Arc::clone(self.membership.view());
        log::changes(&self.me.node, &self.view.borrow(), &view);
        let holders = Holders::of_view(&view).or_last(&self.holders.borrow());
        self.holders.send_if_modified(|known| {
            let differs = **known != holders;
            if differs {
                *known = Arc::new(holders);
            }
            differs
        });
        self.view.send_replace(view);
    }
}

fn refuse(malformed: &mut Seldom, message: &Message, problem: &wire::Malformed) {
    if let Some(times) = malformed.happened(std::time::Instant::now()) {
        let subject = message.subject.as_str();
        warn!(subject, %problem, times, "a beat cannot be read: do all nodes run compatible versions?");
    }
}
