//! The state of the connection, and what happens to it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_nats::{Client, Event, connection::State};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use super::{Seldom, servers::Servers};

/// Events are told when there is room; what they changed is seen by looking, this often at least.
const LOOK: Duration = Duration::from_millis(500);
/// A server that is about to end is left within this time, so that not all of its clients come to the others at once.
const LEAVING: Duration = Duration::from_secs(1);
/// How long the client may take to take a command.
const COMMAND: Duration = Duration::from_secs(1);

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Whether there is a connection now.
    pub up: bool,
    /// How often one was made: one more is a reconnect, and what was sent in between is lost.
    pub connects: u64,
}

/// Follows a connection. One task per connection; it ends with it.
pub(super) struct Watch {
    pub(super) client: Client,
    pub(super) servers: Arc<Servers>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) link: watch::Sender<Link>,
    pub(super) doubts: watch::Sender<u64>,
}

impl Watch {
    pub(super) async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut slow = Seldom::default();
        let mut errors = Seldom::default();
        let mut away = false;
        let mut leave_at: Option<Instant> = None;
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                _ = look.tick() => None,
            };
            self.look(&mut away);
            if leave_at.take_if(|at| *at <= Instant::now()).is_some() {
                reconnect(&self.client).await;
            }
            match event {
                None | Some(Event::Connected | Event::Disconnected | Event::Draining | Event::Closed) => {}
                Some(Event::SlowConsumer(_)) => {
                    self.doubt();
                    if let Some(lost) = slow.happened(Instant::now()) {
                        warn!(
                            lost,
                            "messages from nats came faster than they were taken, and were lost"
                        );
                    }
                }
                Some(Event::LameDuckMode) => {
                    self.doubt();
                    let leaves = self.servers.leave();
                    warn!(
                        server = self.servers.chosen(),
                        leaves, "the nats server is about to end"
                    );
                    leave_at = leaves.then(|| Instant::now() + LEAVING.mul_f64(rand::random_range(0.0..1.0)));
                }
                Some(Event::ServerError(error)) => {
                    // What it does not let this node say, others do not hear; this node hears all it did.
                    let of_sending = error.to_string().contains("Permissions Violation for Publish");
                    if !of_sending {
                        self.doubt();
                    }
                    if let Some(times) = errors.happened(Instant::now()) {
                        warn!(%error, times, server = self.servers.chosen(), "nats complains");
                    }
                }
                // Of an attempt to connect; `Servers` tells of it with its cause.
                Some(Event::ClientError(error)) => debug!(%error, "nats client"),
            }
        }
    }

    /// Something may have been lost.
    fn doubt(&self) {
        self.doubts.send_modify(|doubts| *doubts += 1);
    }

    /// Takes note of what changed.
    fn look(&self, away: &mut bool) {
        let now = Link {
            up: self.client.connection_state() == State::Connected,
            connects: self.client.statistics().connects.load(Ordering::Relaxed),
        };
        let before = *self.link.borrow();
        if now == before {
            return;
        }
        if now.up && now.connects != before.connects {
            self.servers.connected();
            let server = self.client.server_info();
            info!(
                server = self.servers.chosen(),
                name = server.server_name,
                version = server.version,
                reconnects = now.connects.saturating_sub(1),
                "connected to nats"
            );
            *away = false;
        } else if !now.up && !std::mem::replace(away, true) {
            warn!(
                server = self.servers.chosen(),
                "the connection to nats is lost, trying again"
            );
        }
        if before.connects > 0 {
            self.doubt();
        }
        self.link.send_replace(now);
    }
}

/// Has the client connect anew. One that cannot even take that command is found out by its own pings.
pub(super) async fn reconnect(client: &Client) {
    if tokio::time::timeout(COMMAND, client.force_reconnect()).await.is_err() {
        debug!("the nats client takes no command");
    }
}
