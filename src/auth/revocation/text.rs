//! A revocation as the data of an event, JSON:
//!
//! ```json
//! {"v":1,"token":"<jti>","until":1767225600000}
//! {"v":1,"user":"<sub>","issued_before":1735689600000,"until":1767225600000}
//! {"v":1,"all":true,"issued_before":1735689600000,"until":1767225600000}
//! ```
//!
//! Times are milliseconds since 1970. A later version has another `v`: whoever does not know it must not take it for something else.

use serde::{Deserialize, Serialize};

use super::{Revocation, Target};
use crate::{auth::token::NAME_BYTES, model::UnixMillis};

/// The version that is written, and the only one that is read.
const VERSION: u64 = 1;
/// The longest text that is read: a name with every character escaped, and the rest.
const MAX_BYTES: usize = 4 * 1024;

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Written {
    v: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    all: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_before: Option<u64>,
    until: Option<u64>,
}

/// Only this is read of one that may be of another version.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

impl Revocation {
    /// The text of it.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut written = Written {
            v: VERSION,
            until: Some(self.until.0),
            ..Written::default()
        };
        match &self.target {
            Target::Token(id) => written.token = Some(id.to_string()),
            Target::User { subject, issued_before } => {
                written.user = Some(subject.to_string());
                written.issued_before = Some(issued_before.0);
            }
            Target::All { issued_before } => {
                written.all = Some(true);
                written.issued_before = Some(issued_before.0);
            }
        }
        serde_json::to_string(&written).expect("texts and numbers are always JSON")
    }

    /// Reads one.
    ///
    /// # Errors
    /// If it is of another version, or makes no sense.
    pub fn from_json(text: &str) -> Result<Self, RevocationError> {
        if text.len() > MAX_BYTES {
            return Err(RevocationError::Malformed);
        }
        let Version { v } = serde_json::from_str(text).map_err(|_| RevocationError::Malformed)?;
        if v != VERSION {
            return Err(RevocationError::Version { version: v });
        }
        let written: Written = serde_json::from_str(text).map_err(|_| RevocationError::Malformed)?;
        let issued_before = written.issued_before.map(UnixMillis);
        let target = match (written.token, written.user, written.all, issued_before) {
            (Some(id), None, None, None) => Target::token(&id)?,
            (None, Some(subject), None, Some(issued_before)) => Target::user(&subject, issued_before)?,
            (None, None, Some(true), Some(issued_before)) => Target::All { issued_before },
            _ => return Err(RevocationError::Malformed),
        };
        Ok(Self {
            target,
            until: UnixMillis(written.until.ok_or(RevocationError::Malformed)?),
        })
    }
}

impl Target {
    /// The token of this id.
    ///
    /// # Errors
    /// If no token can have it.
    pub fn token(id: &str) -> Result<Self, RevocationError> {
        Ok(Self::Token(name(id)?.into()))
    }

    /// The tokens of this user that were issued before a moment.
    ///
    /// # Errors
    /// If no token can be of that user.
    pub fn user(subject: &str, issued_before: UnixMillis) -> Result<Self, RevocationError> {
        Ok(Self::User {
            subject: name(subject)?.into(),
            issued_before,
        })
    }
}

/// What tokens cannot have as a name cannot be taken back either.
fn name(text: &str) -> Result<&str, RevocationError> {
    let is_one = (1..=NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control);
    is_one.then_some(text).ok_or(RevocationError::Name)
}

/// Why something is no revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// It is none.
    #[error("is not a revocation")]
    Malformed,
    /// It may be one for a later version of the service.
    #[error("is a revocation of version {version}, which only a later version of this service understands")]
    Version {
        /// Which.
        version: u64,
    },
    /// It names what no token can have.
    #[error("a token's id or user has 1 to 255 bytes and no control characters")]
    Name,
}
