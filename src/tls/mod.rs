//! Connections that are encrypted, and who is at their other end: certificates from files, for those who serve and for those who connect.
//!
//! Certificates change while a process runs. Whoever holds a [`ServerTls`] or a [`ClientTls`] has its `keep` run beside it: the files are
//! looked at again and again, by what they hold, so that it does not matter how they are replaced (in place, by a rename, by the
//! symbolic link of a Kubernetes volume). What is new counts for the connections made from then on; those that are open go on as they
//! are. Files that cannot be used, such as a certificate whose key is yet to come, change nothing.

mod client;
mod connector;
mod error;
mod files;
mod identity;
mod kept;
mod names;
mod plain;
mod server;

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use self::{
    client::{ClientFiles, ClientTls, Protocol},
    connector::{channel, connect},
    error::{Problem, TlsError},
    files::NamedFile,
    names::names,
    server::{ServerFiles, ServerTls, speaks_http2},
};

/// What every TLS connection begins with: a record of the handshake.
pub const FIRST_BYTE: u8 = 0x16;

/// What encrypts and signs. Named wherever a configuration is made: which one is the process's default is not this module's to say.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
