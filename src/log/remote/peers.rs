//! The nodes that are asked: a connection to each, kept as long as it holds something, and which are to be asked last for a while.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use crate::{
    members::{ClusterSecret, Holder, Holders},
    tls::{self, ClientTls},
};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a node that failed is asked last, doubled with each failure in a row up to the last.
const FIRST_REST: Duration = Duration::from_millis(500);
const LAST_REST: Duration = Duration::from_secs(16);
/// How long one that has too much to do is.
const BUSY_REST: Duration = Duration::from_millis(250);
/// How long a node may say nothing at all to what it is asked until it counts as hung, at least.
const HANGS: Duration = Duration::from_millis(200);

/// A connection with whose calls the cluster's secret goes.
pub(super) type Trusted = InterceptedService<Channel, ClusterSecret>;

/// A node.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its name.
    pub(super) node: Arc<str>,
    channel: Result<Trusted, String>,
    health: Mutex<Health>,
}

impl Peer {
    fn new(holder: &Holder, tls: &ClientTls, secret: &ClusterSecret) -> Self {
        let endpoint = Endpoint::from_shared(holder.grpc.clone()).map(|endpoint| {
            endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEPALIVE)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                .keep_alive_while_idle(true)
                .tcp_nodelay(true)
        });
        Self {
            node: holder.node.as_str().into(),
            channel: endpoint
                .map(|endpoint| InterceptedService::new(tls::channel(&endpoint, tls), secret.clone()))
                .map_err(|error| format!("its address {:?} is none: {error}", holder.grpc)),
            health: Mutex::default(),
        }
    }

    /// The connection.
    ///
    /// # Errors
    /// If the node's address is none.
    pub(super) fn channel(&self) -> Result<Trusted, String> {
        self.channel.clone()
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a node is to be asked last. Pure.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
    rests_until: Option<Instant>,
    /// It is asked after a rest, and has yet to answer.
    on_trial: bool,
    /// It has been asked since then, and has not said a word.
    silent_since: Option<Instant>,
}

impl Health {
    /// Whether it is to be asked last.
    pub(super) fn rests(&self, now: Instant) -> bool {
        !self.rest(now).is_zero()
    }

    /// For how long yet.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        self.rests_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Whether it says nothing at all, for much longer than `patience`, which is what an answer takes at most as a rule. One that has much to
    /// do is slow, but says something now and then.
    pub(super) fn hangs(&self, now: Instant, patience: Duration) -> bool {
        self.silent_since
            .is_some_and(|since| now.saturating_duration_since(since) > HANGS.max(2 * patience))
    }

    /// It is asked. The first question after a rest is a trial: until it is answered the others go elsewhere.
    pub(super) fn asked(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
        if self.failures > 0 && !self.rests(now) {
            self.rests_until = Some(now + FIRST_REST);
            self.on_trial = true;
        }
    }

    /// It answered.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// It failed, or did not answer in time.
    pub(super) fn failed(&mut self, now: Instant) {
        self.silent_since = None;
        // Those that were under way together fail together, which counts once.
        if self.on_trial || !self.rests(now) {
            self.failures = self.failures.saturating_add(1);
            self.on_trial = false;
        }
        let rest = LAST_REST.min(FIRST_REST * 2_u32.saturating_pow(self.failures.saturating_sub(1)));
        self.rests_until = Some(now + rest);
    }

    /// It has too much to do.
    pub(super) fn busy(&mut self, now: Instant) {
        self.answered();
        self.rests_until = Some(now + BUSY_REST);
    }

    /// Another one, asked later, was faster.
    pub(super) fn outrun(&mut self, now: Instant, patience: Duration) {
        if self.on_trial || self.hangs(now, patience) {
            self.failed(now);
        }
    }
}

/// All nodes that hold something.
#[derive(Debug)]
pub(super) struct Peers {
    tls: ClientTls,
    secret: ClusterSecret,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    holders: Arc<Holders>,
    by_url: HashMap<String, Arc<Peer>>,
}

impl Peers {
    /// Nobody yet. `tls` is how those are reached whose URL begins with https, and `secret` what they know this node by.
    pub(super) fn new(tls: ClientTls, secret: ClusterSecret) -> Self {
        Self {
            tls,
            secret,
            known: Mutex::default(),
        }
    }

    /// The nodes of these holders, of all that there are now. Connections to others are closed once nobody uses them.
    pub(super) fn of(&self, holders: &[Holder], all: &Arc<Holders>) -> Vec<Arc<Peer>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&known.holders, all) {
            let urls: HashSet<&str> = all.all().map(|holder| &*holder.grpc).collect();
            known.by_url.retain(|url, _| urls.contains(&**url));
            known.holders = Arc::clone(all);
        }
        let peers = holders.iter().map(|holder| {
            let peer = known.by_url.get(&holder.grpc).filter(|peer| *peer.node == *holder.node);
            if let Some(peer) = peer {
                return Arc::clone(peer);
            }
            let peer = Arc::new(Peer::new(holder, &self.tls, &self.secret));
            known.by_url.insert(holder.grpc.clone(), Arc::clone(&peer));
            peer
        });
        peers.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_failed_is_asked_last_the_longer_the_oftener_and_then_tried_once() {
        let (mut now, mut health) = (Instant::now(), Health::default());
        for rest in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 16_000] {
            health.asked(now);
            assert_eq!(health.rests(now), rest > 500, "others go elsewhere while it is tried");
            for _ in 0..10 {
                // Those that were under way together.
                health.failed(now);
            }
            let rest = Duration::from_millis(rest);
            assert!(health.rests(now + rest - Duration::from_millis(1)));
            now += rest;
            assert!(!health.rests(now));
        }
        health.asked(now);
        health.answered();
        assert!(!health.rests(now));
    }

    #[test]
    fn one_that_says_nothing_hangs_and_one_that_is_slow_does_not() {
        let (begin, patience) = (Instant::now(), Duration::from_millis(20));
        let at = |ms| begin + Duration::from_millis(ms);
        let mut slow = Health::default();
        for ms in (0..10_000).step_by(50) {
            slow.asked(at(ms));
            slow.outrun(at(ms + 30), patience);
            assert!(!slow.rests(at(ms + 30)) && !slow.hangs(at(ms + 30), patience));
            if ms % 200 == 150 {
                // To one of those that were put before.
                slow.answered();
            }
        }
        let mut hung = Health::default();
        for ms in (0..=200).step_by(50) {
            hung.asked(at(ms));
            hung.outrun(at(ms), patience);
            assert!(!hung.rests(at(ms)) && !hung.hangs(at(ms), patience));
        }
        assert!(hung.hangs(at(201), patience));
        assert!(!hung.hangs(at(201), Duration::from_millis(500)), "all take long");
        hung.outrun(at(201), patience);
        assert!(hung.rests(at(202)));
        // Then it is tried, and has no better luck.
        hung.asked(at(1_000));
        hung.outrun(at(1_020), patience);
        assert!(hung.rests(at(1_021)) && hung.rests(at(2_000)) && !hung.rests(at(2_021)));
    }
}
