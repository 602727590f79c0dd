//! `[auth]`: who may follow and publish what.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Secret, values};

/// `[auth]`: who may follow and publish what. Without issuers, publishers and public topics nobody is asked who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Whose tokens (JWT) are accepted.
    pub issuers: Vec<Issuer>,
    /// Publishers that bring something other than such a token: a token of their own, or a certificate.
    pub publishers: Vec<Publisher>,
    /// Patterns of the topics that anybody may follow, without a token.
    pub public: Vec<String>,
    /// The cookie that a token may be in, for pages whose EventSource sends credentials; empty: none.
    pub cookie: String,
    /// How far the clocks of issuers may be off.
    #[serde(with = "values::duration")]
    pub leeway: Duration,
    /// How long before its token's end a stream is told that it ends.
    #[serde(with = "values::duration")]
    pub expiry_notice: Duration,
    /// How often the key sets of issuers are asked for again.
    #[serde(with = "values::duration")]
    pub jwks_refresh: Duration,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            publishers: Vec::new(),
            public: Vec::new(),
            cookie: "tidings_token".to_owned(),
            leeway: Duration::from_secs(30),
            expiry_notice: Duration::from_secs(30),
            jwks_refresh: Duration::from_secs(5 * 60),
        }
    }
}

impl Auth {
    /// Whether nobody is asked who they are.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.issuers.is_empty() && self.publishers.is_empty() && self.public.is_empty()
    }
}

/// An entry of `auth.issuers`: whose tokens are accepted, and with which keys they are signed. The keys are in one place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Issuer {
    /// What its tokens say as `iss`; empty: that is not looked at.
    pub issuer: String,
    /// What its tokens must say as `aud`: one of these.
    pub audience: Vec<String>,
    /// The algorithms that it signs with: HS256, RS256, ES256, EdDSA; none named: those that its keys are for.
    pub algorithms: Vec<String>,
    /// The claim that says what a token grants: an object with the lists `follow` and `publish`; empty: `tidings`.
    pub claim: String,
    /// A secret shared with the issuer (HS256): 32 bytes or more.
    pub secret: Secret,
    /// The file that the secret is in.
    pub secret_file: PathBuf,
    /// The issuer's public key (PEM).
    pub key: String,
    /// The file that the public key is in.
    pub key_file: PathBuf,
    /// The file that the issuer's key set (JWKS) is in.
    pub jwks_file: PathBuf,
    /// The URL at which the issuer's key set (JWKS) is.
    pub jwks_url: String,
    /// The certificates of those who may vouch for the server of that URL, instead of the system's.
    pub jwks_ca: PathBuf,
}

/// An entry of `auth.publishers`: who publishes with a token of their own, or a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publisher {
    /// Who it is: in the audit log and in quotas.
    pub name: String,
    /// The SHA-256 of its token, in hexadecimal, as `tidings token hash` prints it.
    pub token_sha256: String,
    /// A subject alternative name of its certificate, such as `spiffe://example.org/orders` or `orders.internal`.
    pub certificate: String,
    /// Patterns of the topics that it may publish to.
    pub publish: Vec<String>,
    /// Whether it may revoke tokens.
    pub control: bool,
}
