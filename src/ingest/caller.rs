//! Who calls, for as long as the call lasts.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use http::{Extensions, HeaderMap};
use tonic::{Request, Status, service::Interceptor, transport::server::TcpConnectInfo};

use super::{Ingest, grpc};
use crate::{
    auth::{Auth, ClientNames, Denied, Presented, Publisher, presented},
    model::{Topic, UnixMillis},
};

/// How long it is slept at most before the machine's clock is looked at again: it may have been set.
const NAP: Duration = Duration::from_secs(60);

/// Somebody who calls, and may.
#[derive(Debug)]
pub struct Caller {
    auth: Arc<Auth>,
    publisher: Publisher,
    peer: Option<SocketAddr>,
}

impl Caller {
    /// Who sends a request of these headers. Only the `authorization` header and the certificate say so here: a cookie is sent by pages that nobody
    /// asked, and a token in a URL is for those who cannot send headers.
    ///
    /// # Errors
    /// If what they bring is not good, or they bring nothing where that is not enough.
    pub(super) fn identify(auth: &Arc<Auth>, headers: &HeaderMap, extensions: &Extensions) -> Result<Self, Denied> {
        let publisher = if auth.is_open() {
            // Whatever it brings is meant for somebody else.
            Publisher::unverified()
        } else {
            let token = presented(headers, None, None)?;
            let certificate = extensions.get::<ClientNames>();
            let presented = Presented {
                token: token.as_deref(),
                certificate: certificate.map_or(&[], |names| &names.0),
            };
            auth.publisher(&presented, UnixMillis::now())?
        };
        Ok(Self {
            auth: Arc::clone(auth),
            publisher,
            peer: peer(extensions),
        })
    }

    /// Who they are; nothing in an open node.
    pub(super) const fn name(&self) -> Option<&Arc<str>> {
        self.publisher.name()
    }

    /// Whether it is an issuer that says who they are, and not the configuration: one may call a user as the other calls a publisher.
    pub(super) const fn is_issued(&self) -> bool {
        self.publisher.lease().is_some()
    }

    /// Where they call from.
    pub(super) const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Checks that they may publish to all of these topics.
    ///
    /// # Errors
    /// The place of the first that they may not publish to, and why.
    pub(super) fn check_topics(&self, topics: &[Topic]) -> Result<(), (usize, Denied)> {
        match topics.iter().position(|topic| !self.publisher.may_publish(topic)) {
            Some(index) => Err((
                index,
                Denied::Topic {
                    topic: topics[index].clone(),
                },
            )),
            None => Ok(()),
        }
    }

    /// Checks that they may take back what was granted.
    ///
    /// # Errors
    /// If they may not.
    pub(super) const fn check_control(&self) -> Result<(), Denied> {
        if self.publisher.may_control() {
            Ok(())
        } else {
            Err(Denied::Action {
                action: "revoke tokens, or see which are revoked",
            })
        }
    }

    /// Resolves when they may not go on: when their token ends, or is taken back. Without a token, never.
    pub(super) fn ends(&self) -> BoxFuture<'static, Denied> {
        let Some(lease) = self.publisher.lease().cloned() else {
            return Box::pin(std::future::pending());
        };
        let revocations = Arc::clone(self.auth.revocations());
        Box::pin(async move {
            let mut changes = revocations.changes();
            loop {
                let now = UnixMillis::now();
                if revocations.covers(&lease.token, now) {
                    return Denied::Revoked;
                }
                let left = Duration::from_millis(lease.ends.0.saturating_sub(now.0));
                if left.is_zero() {
                    return Denied::Expired;
                }
                // An error would mean that nothing is revoked any more.
                let _ = tokio::time::timeout(left.min(NAP), changes.changed()).await;
            }
        })
    }
}

/// Asks who calls before anything of a message is read: what strangers send is not held in memory.
pub(super) fn asked(ingest: &Ingest) -> impl Interceptor + Clone + Send + Sync + use<> {
    let ingest = ingest.clone();
    move |mut request: Request<()>| {
        let caller = ingest.caller(request.metadata().as_ref(), request.extensions());
        let caller = caller.map_err(|denied| grpc::status(&denied.into()))?;
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

/// Who makes a call, once they were [`asked`].
pub(super) fn of<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    let caller = request.extensions().get::<Arc<Caller>>();
    caller
        .cloned()
        .ok_or_else(|| Status::internal("nobody has asked who calls"))
}

/// Where a request comes from.
pub(super) fn peer(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr)
}
