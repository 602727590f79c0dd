//! Whether ports are encrypted.

use super::{Grpc, Http};

impl Http {
    /// Whether streams are served over TLS.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        !self.tls_cert.as_os_str().is_empty()
    }
}

impl Grpc {
    /// Whether the port is served over TLS.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        !self.tls_cert.as_os_str().is_empty()
    }
}
