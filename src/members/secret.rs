//! What the nodes of a cluster know each other by where they read each other's log and append to each other's shards.
//!
//! What is sent is not the secret but a digest of it, in the metadata of each call: as good as the secret for whoever reads it off the wire, which
//! TLS is against, but of a fixed length, in letters that metadata has, and of no use elsewhere.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::server::TcpConnectInfo,
};
use tracing::warn;

use crate::nats::Seldom;

/// Where it is in the metadata of a call.
const METADATA: &str = "tidings-cluster-secret";
/// What is digested before it, so that the digest is of no use elsewhere.
const PURPOSE: &[u8] = b"tidings.v1 cluster secret\0";

/// The secret of a cluster, or that it has none. Cheap to clone.
///
/// As an [`Interceptor`] it is for clients: it goes with each of their calls.
#[derive(Clone, Default)]
pub struct ClusterSecret(Option<MetadataValue<Ascii>>);

impl ClusterSecret {
    /// The shortest that it may be, in bytes.
    pub const LEAST: usize = 16;

    /// This one.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let digest = Sha256::new().chain_update(PURPOSE).chain_update(secret).finalize();
        let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let value = MetadataValue::try_from(text).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        debug_assert!(value.is_some(), "hexadecimal digits are ASCII");
        Self(value)
    }

    /// What a service asks its callers for.
    #[must_use]
    pub fn asked(&self) -> AskedFor {
        AskedFor {
            secret: self.clone(),
            refused: Arc::default(),
        }
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "ClusterSecret(…)"
        } else {
            "ClusterSecret(none)"
        })
    }
}

impl Interceptor for ClusterSecret {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert(METADATA, value.clone());
        }
        Ok(request)
    }
}

/// Lets those call who have the secret; everybody if there is none.
#[derive(Debug, Clone)]
pub struct AskedFor {
    secret: ClusterSecret,
    refused: Arc<Mutex<Seldom>>,
}

impl Interceptor for AskedFor {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(expected) = &self.secret.0 else {
            return Ok(request);
        };
        let mut found = request.metadata().get_all(METADATA).iter();
        let (first, second) = (found.next(), found.next());
        let problem = match (first, second) {
            (None, _) => "brings no secret",
            (Some(value), None) if value.as_bytes().ct_eq(expected.as_bytes()).into() => return Ok(request),
            _ => "brings another secret than this node has",
        };
        let mut seldom = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = seldom.happened(Instant::now()) {
            let connection = request.extensions().get::<TcpConnectInfo>();
            let peer: Option<SocketAddr> = connection.and_then(TcpConnectInfo::remote_addr);
            let peer = peer.map(tracing::field::display);
            warn!(
                peer,
                problem, times, "a node is refused: give all nodes of the cluster the same `cluster.secret`"
            );
        }
        Err(Status::unauthenticated(format!(
            "this is for the nodes of the cluster, and the call {problem}: give all of them the same `cluster.secret`"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(asked: Option<&str>, shown: &[Option<&str>]) -> bool {
        let secret = |text: Option<&str>| text.map_or_else(ClusterSecret::default, ClusterSecret::new);
        let mut request = Request::new(());
        for text in shown {
            let mut one = secret(*text).call(Request::new(())).expect("nothing is refused");
            for value in &one.metadata_mut().get_all(METADATA) {
                request.metadata_mut().append(METADATA, value.clone());
            }
        }
        secret(asked).asked().call(request).is_ok()
    }

    #[test]
    fn the_same_secret_is_needed_where_there_is_one() {
        assert!(asks(None, &[None]) && asks(None, &[Some("a")]));
        assert!(asks(Some("open sesame"), &[Some("open sesame")]));
        for shown in [
            &[None][..],
            &[Some("")],
            &[Some("open sesamf")],
            &[Some("open sesame"); 2],
        ] {
            assert!(!asks(Some("open sesame"), shown), "{shown:?}");
        }
    }

    #[test]
    fn it_shows_nowhere() {
        let mut secret = ClusterSecret::new("open sesame");
        let request = secret.call(Request::new(())).expect("nothing is refused");
        let shown = format!("{secret:?} {request:?} {:?}", secret.asked());
        let digits = secret.0.as_ref().expect("set").to_str().expect("ASCII");
        assert!(!shown.contains(digits) && !shown.contains("sesame"), "{shown}");
        assert_eq!(digits.len(), 64);
    }
}
