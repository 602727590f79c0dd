//! Whose tokens are accepted, and what makes one acceptable.

use std::{sync::Arc, time::Duration};

use super::{
    Denied, Digest, Lease, Pattern, Revocations, TokenFacts,
    keys::Keys,
    token::{Claims, Compact},
};
use crate::model::UnixMillis;

/// When it makes sense to come back for a key that is being asked for.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// An issuer that is trusted.
#[derive(Debug)]
pub struct Issuer {
    /// What its tokens say as `iss`; nothing: that is not looked at.
    pub name: Option<Box<str>>,
    /// What its tokens must say as `aud`: one of these.
    pub audience: Vec<Box<str>>,
    /// The claim that says what a token grants.
    pub claim: Box<str>,
    /// What it signs with.
    pub keys: Arc<Keys>,
}

/// How strictly clocks are taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    /// How far the clocks of issuers may be off.
    pub(super) leeway: Duration,
    /// How long before its end the holder of a token is told.
    pub(super) notice: Duration,
}

/// A token that is good.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) subject: Option<Arc<str>>,
    pub(super) follow: Vec<Pattern>,
    pub(super) publish: Vec<Pattern>,
    pub(super) control: bool,
    pub(super) lease: Arc<Lease>,
}

/// Verifies a token. Any issuer that it may be from has to be content with all of it.
pub(super) fn verify(
    issuers: &[Issuer],
    token: &str,
    clocks: Clocks,
    revocations: &Revocations,
    now: UnixMillis,
) -> Result<Verified, Denied> {
    let token = Compact::parse(token)?;
    let claims = Claims::parse(&token.claims)?;
    let (mut is_known, mut is_pending, mut refused) = (false, false, None);
    for issuer in issuers {
        if issuer.name.is_some() && issuer.name.as_deref() != claims.issuer.as_deref() {
            continue;
        }
        is_known = true;
        match issuer.signed(&token, now) {
            Signed::Yes => match issuer.check(&claims, clocks, revocations, now) {
                Ok(verified) => return Ok(verified),
                Err(denied) => refused = refused.or(Some(denied)),
            },
            Signed::No => {}
            Signed::Pending => is_pending = true,
        }
    }
    // What is most use to whoever holds it: what is wrong with a token that is known to be genuine comes first.
    Err(match refused {
        Some(denied) => denied,
        None if is_pending => Denied::KeyPending {
            retry_after: KEY_PATIENCE,
        },
        None if is_known => Denied::Untrusted,
        None => Denied::Elsewhere,
    })
}

enum Signed {
    Yes,
    No,
    /// With a key that is being asked for.
    Pending,
}

impl Issuer {
    /// Whether one of its keys signed the token.
    fn signed(&self, token: &Compact<'_>, now: UnixMillis) -> Signed {
        let keys = self.keys.current();
        let id = token.header.key.as_deref();
        let mut candidates = keys.candidates(id, token.header.algorithm);
        if candidates.any(|key| key.verifies(token.message.as_bytes(), token.signature)) {
            Signed::Yes
        } else if !keys.has(id) && self.keys.want(&keys, now) {
            Signed::Pending
        } else {
            Signed::No
        }
    }

    /// What it says, once it is known to be genuine.
    fn check(
        &self,
        claims: &Claims<'_>,
        clocks: Clocks,
        revocations: &Revocations,
        now: UnixMillis,
    ) -> Result<Verified, Denied> {
        let missing = |claim: &'static str| Denied::Claim { claim: claim.into() };
        if !claims.is_for(&self.audience)? {
            return Err(Denied::Elsewhere);
        }
        let expires = claims.time("exp")?.ok_or_else(|| missing("exp"))?;
        let (not_before, issued_at) = (claims.time("nbf")?, claims.time("iat")?);
        let leeway = millis(clocks.leeway);
        let over = expires.0.saturating_add(leeway);
        if now.0 >= over {
            return Err(Denied::Expired);
        }
        let is_ahead = |time: Option<UnixMillis>| time.is_some_and(|time| time.0 > now.0.saturating_add(leeway));
        if is_ahead(not_before) || is_ahead(issued_at) {
            return Err(Denied::NotYetValid);
        }
        let (id, subject) = (claims.name("jti")?, claims.name("sub")?);
        let token = TokenFacts {
            id: id.as_deref().map(Digest::of),
            subject: subject.as_deref().map(Digest::of),
            issued_at,
        };
        let granted = claims.granted(&self.claim)?;
        if revocations.covers(&token, now) {
            return Err(Denied::Revoked);
        }
        Ok(Verified {
            subject,
            follow: granted.follow,
            publish: granted.publish,
            control: granted.control,
            lease: Arc::new(Lease {
                notice: expires.before(clocks.notice),
                // Who comes with a token that is just over is let in for the leeway, and no longer.
                ends: if now < expires { expires } else { UnixMillis(over) },
                token,
            }),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
