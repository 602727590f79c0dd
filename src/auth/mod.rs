//! Who is asking, and what they may do: follow, publish, and take back what was granted.
//!
//! Everything here is decided from what a request brings ([`Presented`]) and what the node is set up with ([`Auth`]); nothing waits, so that
//! it can be asked on the way of every request. Keys come in from the side, as they change; so do revocations ([`Revocations`]).
//!
//! Without authentication configured a node is *open*: whoever connects names the user they are, unverified, and may follow and publish
//! every topic. That is for loopback and for trying things out; anything else needs `--insecure`.

mod caller;
mod credential;
mod denied;
mod digest;
mod issuer;
pub mod keys;
mod pattern;
mod publishers;
mod revocation;
mod sign;
mod token;

use std::{sync::Arc, time::Duration};

pub use self::{
    caller::{Lease, Publisher, Subscriber, TokenFacts, User},
    credential::{may_be_token, presented},
    denied::Denied,
    digest::Digest,
    issuer::Issuer,
    pattern::{Pattern, PatternError, Patterns},
    publishers::{Credential, KnownPublisher, TokenHash},
    revocation::{Added, Revocation, RevocationError, Revocations, Target},
    sign::{SigningKey, SigningKeyError},
    token::MAX_BYTES as MAX_TOKEN_BYTES,
};
use self::{
    issuer::{Clocks, Verified, verify},
    publishers::Publishers,
};
use crate::model::UnixMillis;

/// How long to stay away while what was taken back is not known yet.
const NOT_READY: Duration = Duration::from_secs(2);

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

/// Who is let in.
#[derive(Debug, Default)]
pub struct Settings {
    /// Whose tokens are accepted.
    pub issuers: Vec<Issuer>,
    /// Publishers with a token of their own, or a certificate.
    pub publishers: Vec<KnownPublisher>,
    /// What anybody may follow, without a token.
    pub public: Vec<Pattern>,
    /// The cookie that a subscriber's token may be in, if there is one.
    pub cookie: Option<String>,
    /// How far the clocks of issuers may be off.
    pub leeway: Duration,
    /// How long before its token's end a stream is told that it ends.
    pub expiry_notice: Duration,
}

/// Decides who is asking. Shared by everything that serves requests.
#[derive(Debug)]
pub struct Auth {
    /// Nothing: nobody is asked.
    rules: Option<Rules>,
    revocations: Arc<Revocations>,
}

#[derive(Debug)]
struct Rules {
    issuers: Vec<Issuer>,
    publishers: Publishers,
    public: Patterns,
    has_public: bool,
    cookie: Option<String>,
    clocks: Clocks,
}

impl Auth {
    /// Nobody is asked who they are.
    #[must_use]
    pub fn open() -> Self {
        Self {
            rules: None,
            revocations: Arc::default(),
        }
    }

    /// Everybody is asked; without issuers, publishers and public topics nobody is let in.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let rules = Rules {
            issuers: settings.issuers,
            publishers: Publishers::new(settings.publishers),
            has_public: !settings.public.is_empty(),
            public: Patterns::new(settings.public, None),
            cookie: settings.cookie.filter(|name| !name.is_empty()),
            clocks: Clocks {
                leeway: settings.leeway,
                notice: settings.expiry_notice,
            },
        };
        Self {
            rules: Some(rules),
            revocations: Arc::default(),
        }
    }

    /// Whether nobody is asked who they are.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.rules.is_none()
    }

    /// The cookie that a subscriber's token may be in, for [`presented`]; nothing in an open node.
    #[must_use]
    pub fn cookie(&self) -> Option<&str> {
        self.rules.as_ref()?.cookie.as_deref()
    }

    /// Who wants to follow. In an open node that is anybody; the user they say they are is the caller's to read.
    ///
    /// A token need not say whose it is (`sub`): then there is no inbox, and `{sub}` in its patterns grants nothing.
    ///
    /// # Errors
    /// If what they bring is not good. Whoever brings nothing is anonymous, and may follow what is public.
    pub fn subscriber(&self, presented: &Presented<'_>, now: UnixMillis) -> Result<Subscriber, Denied> {
        let Some(rules) = &self.rules else {
            return Ok(Subscriber::unverified(None));
        };
        let Some(token) = presented.token else {
            let anonymous = || Subscriber::anonymous(rules.public.clone());
            return rules.has_public.then(anonymous).ok_or(Denied::Missing);
        };
        let Verified {
            subject, follow, lease, ..
        } = rules.verify(token, &self.revocations, now)?;
        let user = subject.as_deref().map(User::unverified).transpose();
        let user = user.map_err(|_| Denied::Claim { claim: "sub".into() })?;
        let follow = Patterns::new(follow, subject);
        Ok(Subscriber::known(user, follow, rules.public.clone(), lease))
    }

    /// Who wants to publish. A token is who they are, if they bring one, whatever certificate there is.
    ///
    /// A token (JWT) must say whose it is: `sub` is the name in the audit log and in quotas.
    ///
    /// # Errors
    /// If what they bring is not good, or they bring nothing.
    pub fn publisher(&self, presented: &Presented<'_>, now: UnixMillis) -> Result<Publisher, Denied> {
        let Some(rules) = &self.rules else {
            return Ok(Publisher::unverified());
        };
        let Some(token) = presented.token else {
            if presented.certificate.is_empty() {
                return Err(Denied::Missing);
            }
            let known = rules.publishers.with_certificate(presented.certificate);
            return known.ok_or(Denied::Certificate);
        };
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denied::Malformed);
        }
        if let Some(known) = rules.publishers.with_token(token) {
            return Ok(known);
        }
        let Verified {
            subject,
            publish,
            control,
            lease,
            ..
        } = rules.verify(token, &self.revocations, now)?;
        let subject = subject.ok_or(Denied::Claim { claim: "sub".into() })?;
        let publish = Patterns::new(publish, Some(subject.clone()));
        Ok(Publisher::known(subject, publish, control, Some(lease)))
    }

    /// What has been taken back.
    #[must_use]
    pub const fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }
}

impl Rules {
    fn verify(&self, token: &str, revocations: &Revocations, now: UnixMillis) -> Result<Verified, Denied> {
        let verified = verify(&self.issuers, token, self.clocks, revocations, now)?;
        if !revocations.is_level() {
            return Err(Denied::NotReady { retry_after: NOT_READY });
        }
        Ok(verified)
    }
}

#[cfg(test)]
mod tests;
