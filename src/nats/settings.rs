//! Where NATS is, and how a node identifies itself there.

use std::path::PathBuf;

use crate::model::Secret;

/// How a node connects to NATS.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The servers: `nats://host:port` or `tls://host:port`, at least one. Others of the same cluster are discovered.
    pub urls: Vec<String>,
    /// The name of the Tidings cluster, which all its subjects begin with.
    pub cluster: String,
    /// The name of the connection, for those who look at the NATS server.
    pub name: String,
    /// Who the node is.
    pub auth: Auth,
    /// How the connection is secured.
    pub tls: Tls,
}

/// Who a node is, to NATS.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Nobody asks.
    #[default]
    None,
    /// A user with a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// Whoever knows the token.
    Token(Secret),
    /// Who has the NKEY whose seed is in this file. It is read anew for each connection.
    NkeyFile(PathBuf),
    /// Who has the JWT and the NKEY seed in this file (`.creds`). It is read anew for each connection, so it can be replaced.
    CredentialsFile(PathBuf),
}

/// How a connection is secured. Anything set but `required` requires TLS as well.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Whether a server that does not offer TLS is refused.
    pub required: bool,
    /// The certificates (PEM) that servers' certificates must come from; without it, those of the system. Read for each connection.
    pub ca_file: Option<PathBuf>,
    /// What the node itself shows.
    pub client: Option<ClientCertificate>,
}

impl Tls {
    /// Whether a server that does not offer TLS is refused.
    #[must_use]
    pub const fn is_required(&self) -> bool {
        self.required || self.ca_file.is_some() || self.client.is_some()
    }
}

/// A certificate that a node shows to servers. Its files are read for each connection: a pair that does not match keeps the node away until it does.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The certificate, and those between it and the root (PEM).
    pub cert_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let auth = Auth::Password {
            user: "edge".to_owned(),
            password: "s3cr3t".into(),
        };
        let shown = format!("{auth:?} {:?}", Auth::Token("s3cr3t".into()));
        assert!(shown.contains("edge") && !shown.contains("s3cr3t"), "{shown}");
    }
}
