//! Who is asking, and what they may do: follow, publish, and take back what was granted.
//!
//! Everything here is decided from what a request brings ([`Presented`]) and what the node is set up with ([`Auth`]); nothing waits, so that
//! it can be asked on the way of every request. Keys come in from the side, as they change; so do revocations ([`Revocations`]).
//!
//! Without authentication configured a node is *open*: whoever connects names the user they are, unverified, and may follow and publish
//! every topic. That is for loopback and for trying things out; anything else needs `--insecure`.

mod caller;
mod denied;
mod pattern;
mod revocation;

use std::sync::Arc;

pub use self::{
    caller::{Lease, Publisher, Subscriber, TokenFacts, User},
    denied::Denied,
    pattern::{Pattern, PatternError, Patterns},
    revocation::{Revocation, RevocationError, Revocations, Target},
};
use crate::model::UnixMillis;

/// What a request brings to say who sends it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presented<'a> {
    /// A token, as it came.
    pub token: Option<&'a str>,
    /// The names of the client's certificate (its subject alternative names), if TLS asked for one and found it good.
    pub certificate: &'a [String],
}

/// The names of the certificate that a connection's other end showed, if TLS asked for one and found it good: an extension of each request that
/// comes over it.
#[derive(Debug, Clone)]
pub struct ClientNames(pub Arc<[String]>);

/// Decides who is asking. Shared by everything that serves requests.
#[derive(Debug)]
pub struct Auth {
    revocations: Arc<Revocations>,
}

impl Auth {
    /// Nobody is asked who they are.
    #[must_use]
    pub fn open() -> Self {
        Self {
            revocations: Arc::default(),
        }
    }

    /// Whether nobody is asked who they are.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        true
    }

    /// Who wants to follow. In an open node that is anybody; the user they say they are is the caller's to read.
    ///
    /// # Errors
    /// If what they bring is not good. Whoever brings nothing is anonymous, and may follow what is public.
    pub fn subscriber(&self, _presented: &Presented<'_>, _now: UnixMillis) -> Result<Subscriber, Denied> {
        Ok(Subscriber::unverified(None))
    }

    /// Who wants to publish.
    ///
    /// # Errors
    /// If what they bring is not good, or they bring nothing.
    pub fn publisher(&self, _presented: &Presented<'_>, _now: UnixMillis) -> Result<Publisher, Denied> {
        Ok(Publisher::unverified())
    }

    /// What has been taken back.
    #[must_use]
    pub const fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }
}
