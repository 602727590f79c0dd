//! The names of whoever shows a certificate.

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The subject alternative names of a certificate (DER) that are of use as an identity: URIs and DNS names, as they are written there. A
/// name that could be taken for one of the other kind is left out, and so is the subject's common name.
#[must_use]
pub fn names(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.contains(':') => Some((*uri).to_owned()),
        GeneralName::DNSName(name) if is_host(name) => Some((*name).to_owned()),
        _ => None,
    });
    names.collect()
}

fn is_host(name: &str) -> bool {
    let is_of_hosts = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*');
    !name.is_empty() && name.bytes().all(is_of_hosts)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn uris_and_hosts_are_names_and_neither_passes_for_the_other() {
        let mut params =
            CertificateParams::new(vec!["orders.internal".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        let text = |text: &str| text.try_into().expect("ASCII");
        params.subject_alt_names.extend([
            SanType::URI(text("spiffe://example.org/orders")),
            SanType::DnsName(text("spiffe://example.org/billing")),
            SanType::URI(text("billing.internal")),
        ]);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        assert_eq!(
            names(certificate.der()),
            ["orders.internal", "spiffe://example.org/orders"]
        );
        assert_eq!(names(b"no certificate"), [""; 0]);
    }
}
