//! The connection to NATS that everything of a node shares.
//!
//! It need not be there: a node starts without NATS, goes on when NATS is lost, and is connected again as soon as any server lets it in.
//! Only settings that can never work are errors ([`NatsError`]); all else is told in the log, once for each change.

mod error;
mod identity;
mod link;
mod options;
mod seldom;
mod servers;
mod settings;
mod subjects;

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Request, RequestErrorKind, ServerInfo};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

pub use self::{
    error::{NatsError, RoundTripError},
    link::Link,
    seldom::Seldom,
    settings::{Auth, ClientCertificate, Settings, Tls},
    subjects::{ClusterNameError, Subjects},
};
use self::{link::Watch, servers::Servers};

/// What the client tells of itself and waits to be taken note of.
const EVENTS: usize = 256;

/// A node's connection to NATS. Cheap to clone; it ends when the last clone, and the last client of it, is gone.
#[derive(Debug, Clone)]
pub struct Nats(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    subjects: Subjects,
    servers: Arc<Servers>,
    link: watch::Receiver<Link>,
    doubts: watch::Receiver<u64>,
    watch: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Nats {
    /// Begins to connect, and goes on doing so for as long as it takes. Returns at once.
    ///
    /// # Errors
    /// If the settings can never work.
    pub async fn connect(settings: &Settings) -> Result<Self, NatsError> {
        let subjects = Subjects::new(&settings.cluster)?;
        let (options, urls) = options::check(settings, &subjects)?;
        let servers = Arc::new(Servers::new(settings.auth.advice()));
        let chooser = Arc::clone(&servers);
        let (tell, events) = mpsc::channel(EVENTS);
        let client = options
            .reconnect_to_server_callback(move |pool, _| {
                let next = chooser.next(&pool);
                async move { next }
            })
            .event_callback(move |event| {
                // What does not fit is found by looking.
                let _ = tell.try_send(event);
                async {}
            })
            .connect(urls)
            .await
            .map_err(|error| NatsError::Setup(error.to_string()))?;
        let (link_sender, link) = watch::channel(Link::default());
        let (doubts_sender, doubts) = watch::channel(0);
        let watch = Watch {
            client: client.clone(),
            servers: Arc::clone(&servers),
            events,
            link: link_sender,
            doubts: doubts_sender,
        };
        let watch = tokio::spawn(watch.run()).abort_handle();
        Ok(Self(Arc::new(Inner {
            client,
            subjects,
            servers,
            link,
            doubts,
            watch,
        })))
    }

    /// The client. What is sent while there is no connection waits in it, up to a bound, and then holds up its sender.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The names that the cluster uses.
    #[must_use]
    pub fn subjects(&self) -> &Subjects {
        &self.0.subjects
    }

    /// The state of the connection, now and whenever it changes.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.0.link.clone()
    }

    /// Changes whenever messages to this node may have been lost: after a reconnect, when they came too fast, when the server is about to
    /// end or complains.
    #[must_use]
    pub fn doubts(&self) -> watch::Receiver<u64> {
        self.0.doubts.clone()
    }

    /// The server that the node is connected to, or was last; `None` before the first.
    #[must_use]
    pub fn server(&self) -> Option<ServerInfo> {
        self.0.client.try_server_info()
    }

    /// Leaves this server for another, if there is one, and otherwise connects to it anew.
    pub async fn reconnect(&self) {
        self.0.servers.leave();
        link::reconnect(&self.0.client).await;
    }

    /// Goes to the server and back: what was sent before has arrived there, and what was subscribed to before is. Other servers of its
    /// cluster may learn of it later.
    ///
    /// # Errors
    /// If there is no connection, or no answer in time.
    pub async fn round_trip(&self, patience: Duration) -> Result<(), RoundTripError> {
        if !self.0.link.borrow().up {
            return Err(RoundTripError::Away);
        }
        // The client's own flush is no such thing: it ends when the bytes are handed to the system.
        let request = Request::new().timeout(Some(patience));
        let asked = self.0.client.send_request(self.0.subjects.nobody(), request);
        match tokio::time::timeout(patience, asked).await {
            Err(_) => Err(RoundTripError::TimedOut(patience)),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => match error.kind() {
                RequestErrorKind::NoResponders => Ok(()),
                RequestErrorKind::TimedOut => Err(RoundTripError::TimedOut(patience)),
                _ => Err(RoundTripError::Closed),
            },
        }
    }
}
