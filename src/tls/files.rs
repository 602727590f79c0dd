//! The files, and what is in them.

use std::{fs, io, path::PathBuf};

use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{Problem, TlsError};

/// A file, and the setting (or the flag) that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The setting, for whoever has to correct it.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
}

impl NamedFile {
    /// A file that a setting names.
    #[must_use]
    pub fn new(setting: &'static str, path: impl Into<PathBuf>) -> Self {
        Self {
            setting,
            path: path.into(),
        }
    }

    /// Reads it.
    pub(super) fn read(&self) -> Content {
        Content {
            file: self.clone(),
            bytes: fs::read(&self.path),
        }
    }
}

/// What is in a file.
pub(super) struct Content {
    pub(super) file: NamedFile,
    bytes: io::Result<Vec<u8>>,
}

impl Content {
    /// What tells it from anything else that could be in the file. It stands for a key without being one.
    pub(super) fn print(&self) -> Option<[u8; 32]> {
        self.bytes.as_ref().ok().map(|bytes| Sha256::digest(bytes).into())
    }

    /// The certificates in it, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.bytes()?).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(self.wrong(Problem::NoCertificate)),
        }
    }

    /// The certificates in it as those from which others must come.
    pub(super) fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| self.wrong(Problem::UnusableCertificate(error.to_string())))?;
        }
        Ok(roots)
    }

    /// The first key in it.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        /// In the first line of PKCS #8, and in the head of the older forms.
        const ENCRYPTED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"4,ENCRYPTED"];

        let bytes = self.bytes()?;
        let holds = |words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
        if ENCRYPTED.into_iter().any(holds) {
            return Err(self.wrong(Problem::EncryptedKey));
        }
        PrivateKeyDer::from_pem_slice(bytes).map_err(|_| self.wrong(Problem::NoKey))
    }

    fn bytes(&self) -> Result<&[u8], TlsError> {
        self.bytes.as_deref().map_err(|error| {
            // It cannot be cloned.
            let cause = error
                .raw_os_error()
                .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            self.wrong(Problem::Unreadable(cause))
        })
    }

    /// That something is wrong with this file.
    pub(super) fn wrong(&self, problem: Problem) -> TlsError {
        TlsError {
            setting: self.file.setting,
            path: self.file.path.clone(),
            problem,
        }
    }
}
