//! The certificates that a node serves and connects with, from the configuration.

use std::{path::Path, sync::Arc};

use tokio::task::JoinSet;

use super::NodeError;
use crate::{
    config::Config,
    tls::{ClientFiles, ClientTls, NamedFile, ServerFiles, ServerTls},
};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    /// Of the streams.
    pub(super) http: Option<Arc<ServerTls>>,
    /// Of the port that backends and other nodes talk to.
    pub(super) grpc: Option<Arc<ServerTls>>,
    /// With which other nodes are reached.
    pub(super) cluster: ClientTls,
}

impl Certificates {
    /// Reads them. Nothing is bound before they are good.
    pub(super) fn load(config: &Config) -> Result<Self, NodeError> {
        let (http, grpc, cluster) = (&config.http, &config.grpc, &config.cluster);
        let cluster = ClientFiles {
            ca: file("cluster.tls_ca", &cluster.tls_ca),
            identity: file("cluster.tls_cert", &cluster.tls_cert).zip(file("cluster.tls_key", &cluster.tls_key)),
        };
        Ok(Self {
            http: server(
                file("http.tls_cert", &http.tls_cert),
                file("http.tls_key", &http.tls_key),
                None,
            )?,
            grpc: server(
                file("grpc.tls_cert", &grpc.tls_cert),
                file("grpc.tls_key", &grpc.tls_key),
                file("grpc.tls_client_ca", &grpc.tls_client_ca),
            )?,
            cluster: ClientTls::load(cluster)?,
        })
    }

    /// Follows their files, in tasks that end with the others.
    pub(super) fn keep(&self, background: &mut JoinSet<()>) {
        for server in [&self.http, &self.grpc].into_iter().flatten() {
            let server = Arc::clone(server);
            background.spawn(async move { match server.keep().await {} });
        }
        let cluster = self.cluster.clone();
        background.spawn(async move { match cluster.keep().await {} });
    }
}

fn file(setting: &'static str, path: &Path) -> Option<NamedFile> {
    (!path.as_os_str().is_empty()).then(|| NamedFile::new(setting, path))
}

fn server(
    cert: Option<NamedFile>,
    key: Option<NamedFile>,
    client_ca: Option<NamedFile>,
) -> Result<Option<Arc<ServerTls>>, NodeError> {
    let Some((cert, key)) = cert.zip(key) else {
        return Ok(None);
    };
    let files = ServerFiles { cert, key, client_ca };
    Ok(Some(Arc::new(ServerTls::load(files)?)))
}
