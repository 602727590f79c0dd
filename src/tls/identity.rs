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
use tracing::{info, warn};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    Problem, TlsError,
    files::{Content, NamedFile},
    provider,
};

/// A certificate that ends within this time is warned of: somebody should have renewed it by now.
const SOON: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) shown: Arc<SingleCertAndKey>,
    pub(super) term: Term,
}

impl Identity {
    /// The pair of two files. One that has expired is a pair too: it is for the other side to refuse, and for the log to tell.
    pub(super) fn of(certificate: &Content, key: &Content) -> Result<Self, TlsError> {
        let chain = certificate.certificates()?;
        let term = Term::of(&certificate.file, &chain[0]).ok_or_else(|| {
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
        let Term {
            file, serial, expires, ..
        } = &term;
        info!(setting = file.setting, path = %file.path.display(), serial, expires, "certificate loaded");
        term.remind(SystemTime::now());
        Ok(Self {
            shown: Arc::new(SingleCertAndKey::from(pair)),
            term,
        })
    }
}

/// For how long a certificate is good.
#[derive(Debug)]
pub(super) struct Term {
    file: NamedFile,
    serial: String,
    pub(super) not_after: SystemTime,
    expires: String,
}

/// What is to be done about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    Good,
    Ending,
    Ended,
}

impl Term {
    fn of(file: &NamedFile, certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let not_after = certificate.validity().not_after;
        // None is good until a time before 1970.
        let seconds = u64::try_from(not_after.timestamp()).unwrap_or_default();
        Some(Self {
            file: file.clone(),
            serial: certificate.raw_serial_as_string(),
            not_after: UNIX_EPOCH + Duration::from_secs(seconds),
            expires: not_after.to_string(),
        })
    }

    fn outlook(&self, now: SystemTime) -> Outlook {
        match self.not_after.duration_since(now) {
            Err(_) => Outlook::Ended,
            Ok(left) if left < SOON => Outlook::Ending,
            Ok(_) => Outlook::Good,
        }
    }

    /// Warns of a certificate that somebody should have renewed by now.
    pub(super) fn remind(&self, now: SystemTime) {
        let (setting, path) = (self.file.setting, self.file.path.display());
        let (serial, expires) = (&self.serial, &self.expires);
        match self.outlook(now) {
            Outlook::Good => {}
            Outlook::Ending => warn!(setting, %path, serial, expires, "the certificate expires soon: renew it"),
            Outlook::Ended => warn!(setting, %path, serial, expires, "the certificate has expired: renew it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_is_told_of_before_it_ends_and_after() {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("signed");
        let term = Term::of(&NamedFile::new("http.tls_cert", "cert.pem"), certificate.der()).expect("a certificate");
        let second = Duration::from_secs(1);
        for (now, outlook) in [
            (SystemTime::now(), Outlook::Good),
            (term.not_after - SOON, Outlook::Good),
            (term.not_after - SOON + second, Outlook::Ending),
            (term.not_after, Outlook::Ending),
            (term.not_after + second, Outlook::Ended),
        ] {
            assert_eq!(term.outlook(now), outlook, "{now:?}");
        }
        assert!(
            Term::of(
                &NamedFile::new("http.tls_cert", "cert.pem"),
                &b"nothing".as_slice().into()
            )
            .is_none()
        );
    }
}
