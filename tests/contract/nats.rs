//! The implementations over a real NATS server.

use std::{sync::Arc, time::Duration};

use tidings::{
    bus::{Announcement, Bus, Digest, Line, NatsBus},
    model::{Event, Slot},
    nats::{Auth, Link, Nats, Settings, Tls},
};

pub(crate) use self::server::{Cluster, Server, Version, an_address};

#[path = "../nats/server.rs"]
#[allow(dead_code, reason = "other tests need the rest of it")]
mod server;

/// A deadline, never waited for in full.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How to connect to these servers.
pub(crate) fn settings(urls: &[String]) -> Settings {
    Settings {
        urls: urls.to_vec(),
        cluster: "tests".to_owned(),
        name: "tests".to_owned(),
        auth: Auth::None,
        tls: Tls::default(),
    }
}

/// Connects, and waits until it is.
pub(crate) async fn connect(settings: &Settings) -> Nats {
    let nats = Nats::connect(settings).await.expect("settings that can work");
    let mut link = nats.link();
    let up = link.wait_for(|link: &Link| link.up);
    tokio::time::timeout(PATIENCE, up)
        .await
        .expect("in time")
        .expect("open");
    nats
}

/// A bus over a server of its own.
pub(crate) struct ServedBus {
    bus: NatsBus,
    _server: Server,
}

impl ServedBus {
    /// `None`, and a notice, where this version could not be installed.
    pub(crate) async fn start(version: Version) -> Option<Self> {
        let Some(server) = Server::start(version, "") else {
            println!("skipped: there is no nats-server of {version:?}");
            return None;
        };
        let nats = connect(&settings(&[server.url()])).await;
        Some(Self {
            bus: NatsBus::start(&nats),
            _server: server,
        })
    }
}

impl Bus for ServedBus {
    fn announce(&self, announcements: &[Announcement]) {
        self.bus.announce(announcements);
    }

    fn digest(&self, digest: &Digest) {
        self.bus.digest(digest);
    }

    fn ephemeral(&self, slot: Slot, event: Arc<Event>) {
        self.bus.ephemeral(slot, event);
    }

    fn open(&self) -> Box<dyn Line> {
        self.bus.open()
    }
}
