//! What can be wrong with a file.

use std::{io, path::PathBuf};

/// A file that a setting names cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{setting}` names {}, which {problem}", path.display())]
pub struct TlsError {
    /// The setting.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a file. Nothing of what is in it is repeated: it may be a key.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is not there, or not for this process.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// There is no certificate in it, or what should be one is cut short.
    #[error("holds no certificate (PEM: -----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// There is a certificate in it that is none.
    #[error("holds a certificate that cannot be used: {0}")]
    UnusableCertificate(String),
    /// There is no key in it.
    #[error("holds no private key (PEM: -----BEGIN PRIVATE KEY-----)")]
    NoKey,
    /// Nobody is there to type the passphrase.
    #[error(
        "holds an encrypted private key: store it without a passphrase, for nobody but this process to read (openssl pkey -in FILE -out FILE)"
    )]
    EncryptedKey,
    /// It is a key of a kind that is not used, or too small.
    #[error("holds a private key that cannot be used: RSA of 2048 bits or more, ECDSA and Ed25519 can")]
    UnusableKey,
    /// Certificate and key are not of one pair.
    #[error("does not go with the first certificate in the file of `{certificate}`")]
    OtherKey {
        /// The setting that names the certificate.
        certificate: &'static str,
    },
}
