//! The certificates of a client: whom it trusts, and what it shows.

use std::path::PathBuf;

use clap::Args;

use crate::tls::{ClientFiles, ClientTls, NamedFile, TlsError};

/// Whom a client trusts.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct Trust {
    /// For https: the certificates (PEM) that the server's must come from, instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// What a client shows.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct Identity {
    /// For https: a certificate (PEM) that says who publishes.
    #[arg(long, value_name = "FILE", requires = "cert-key")]
    cert: Option<PathBuf>,

    /// The certificate's key (PEM).
    #[arg(long = "cert-key", id = "cert-key", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl Trust {
    /// The certificates. Files that change are read again while the program runs; to be called within a runtime.
    ///
    /// # Errors
    /// If a file does not hold what it should.
    pub fn load(&self) -> Result<ClientTls, TlsError> {
        self.load_with(&Identity::default())
    }

    /// The same, with what the client shows.
    ///
    /// # Errors
    /// If a file does not hold what it should.
    pub fn load_with(&self, identity: &Identity) -> Result<ClientTls, TlsError> {
        let file = |flag, path: &Option<PathBuf>| path.as_ref().map(|path| NamedFile::new(flag, path));
        let tls = ClientTls::load(ClientFiles {
            ca: file("--ca", &self.ca),
            identity: file("--cert", &identity.cert).zip(file("--cert-key", &identity.key)),
        })?;
        // It ends with the program.
        tokio::spawn(tls.clone().keep());
        Ok(tls)
    }
}
