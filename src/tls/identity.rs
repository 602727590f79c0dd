//! What one side shows to the other: a certificate, those between it and the root, and the proof that it has the key.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio_rustls::rustls::{
    Error, InconsistentKeys,
    pki_types::CertificateDer,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tracing::warn;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Problem, TlsError, files::Content, provider};

/// A certificate that ends within this time is warned of when it is loaded: somebody should have renewed it by now.
const SOON: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) shown: Arc<SingleCertAndKey>,
    /// Until when the certificate is good.
    pub(super) not_after: SystemTime,
}

impl Identity {
    /// The pair of two files. One that has expired is a pair too: it is for the other side to refuse, and for the log to tell.
    pub(super) fn of(certificate: &Content, key: &Content) -> Result<Self, TlsError> {
        let chain = certificate.certificates()?;
        let facts = Facts::of(&chain[0]).ok_or_else(|| {
            let cause = "it is not an X.509 certificate".to_owned();
            certificate.wrong(Problem::UnusableCertificate(cause))
        })?;
        let pair = CertifiedKey::from_der(chain, key.key()?, &provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => key.wrong(Problem::OtherKey {
                certificate: certificate.file.setting,
            }),
            Error::InvalidCertificate(cause) => certificate.wrong(Problem::UnusableCertificate(cause.to_string())),
            _ => key.wrong(Problem::UnusableKey),
        })?;
        facts.tell(certificate);
        Ok(Self {
            shown: Arc::new(SingleCertAndKey::from(pair)),
            not_after: facts.not_after,
        })
    }
}

/// What is told of a certificate.
struct Facts {
    serial: String,
    not_after: SystemTime,
    expires: String,
}

impl Facts {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let not_after = certificate.validity().not_after;
        // Nothing is good until a time before 1970.
        let seconds = u64::try_from(not_after.timestamp()).unwrap_or_default();
        Some(Self {
            serial: certificate.raw_serial_as_string(),
            not_after: UNIX_EPOCH + Duration::from_secs(seconds),
            expires: not_after.to_string(),
        })
    }

    fn tell(&self, certificate: &Content) {
        let (setting, path) = (certificate.file.setting, certificate.file.path.display());
        let (serial, expires) = (&self.serial, &self.expires);
        match self.not_after.duration_since(SystemTime::now()) {
            Err(_) => warn!(setting, %path, serial, expires, "the certificate has expired: renew it"),
            Ok(left) if left < SOON => warn!(setting, %path, serial, expires, "the certificate expires soon: renew it"),
            Ok(_) => tracing::info!(setting, %path, serial, expires, "certificate loaded"),
        }
    }
}
