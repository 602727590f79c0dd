//! The connection to NATS over TLS: who is trusted, and certificates that are replaced.

use std::{fs, net::Ipv4Addr, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};
use tidings::{
    nats::{ClientCertificate, Link, Nats, NatsError, Settings, Tls},
    tls::TlsError,
};

use crate::{
    logs,
    nats::{PATIENCE, Server, Version, an_address, connect, settings},
};

/// A root, a certificate from it for an address, and one for a client, as files.
struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    fn make(address: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut root = CertificateParams::new(Vec::new()).expect("valid");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = rcgen::KeyPair::generate().expect("a key");
        let write = |name: &str, text: String| fs::write(dir.path().join(name), text).expect("written");
        write("ca.pem", root.self_signed(&root_key).expect("signed").pem());
        let issuer = Issuer::new(root, root_key);
        for (name, of) in [("server", address), ("client", "tests")] {
            let key = rcgen::KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![of.to_owned()]).expect("valid");
            write(
                &format!("{name}.pem"),
                params.signed_by(&key, &issuer).expect("signed").pem(),
            );
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts these files of another in the place of the own.
    fn take(&self, other: &Self, names: &[&str]) {
        for name in names {
            fs::copy(other.path(name), self.path(name)).expect("copied");
        }
    }

    fn client(&self) -> ClientCertificate {
        ClientCertificate {
            cert_file: self.path("client.pem"),
            key_file: self.path("client.key"),
        }
    }
}

#[tokio::test]
async fn tls_and_certificates_of_both_sides() {
    logs::keep();
    let address = an_address();
    let certificates = Certificates::make(&address.to_string());
    let path = |name: &str| certificates.path(name).display().to_string();
    let tls = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    );
    let server = Server::start_at(Version::Newest, address, &tls).expect("installed");
    let with = |ca_file, client| Settings {
        tls: Tls {
            required: true,
            ca_file,
            client,
        },
        ..settings(&[server.url()])
    };
    let ca = Some(certificates.path("ca.pem"));
    let nats = connect(&with(ca.clone(), Some(certificates.client()))).await;
    nats.round_trip(PATIENCE).await.expect("there and back");

    // Another root: the server is not who it should be.
    let others = Certificates::make("127.0.0.1");
    let _stranger = Nats::connect(&with(Some(others.path("ca.pem")), Some(certificates.client())))
        .await
        .expect("settings that can work");
    logs::wait_for(&["cannot be reached", &address.to_string(), "certificate"]).await;

    // A key that does not go with its certificate can never work.
    let mixed = ClientCertificate {
        key_file: others.path("client.key"),
        ..certificates.client()
    };
    let error = Nats::connect(&with(ca, Some(mixed))).await.expect_err("wrong");
    assert!(
        matches!(
            error,
            NatsError::Tls(TlsError {
                setting: "nats.tls_key",
                ..
            })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    logs::keep();
    let server = Server::start(Version::Newest, "").expect("installed");
    let certificates = Certificates::make(&server.address().to_string());
    let tls = Tls {
        ca_file: Some(certificates.path("ca.pem")),
        ..Tls::default()
    };
    let settings = Settings {
        tls,
        ..settings(&[server.url()])
    };
    let nats = Nats::connect(&settings).await.expect("settings that can work");
    logs::wait_for(&["cannot be reached", &server.address().to_string()]).await;
    assert!(!nats.link().borrow().up);
}

/// Files are read for each connection: a node follows its servers to new certificates without a restart, and whatever is wrong with its own files
/// meanwhile keeps it away only until they are right.
#[tokio::test]
async fn new_certificates_count_from_the_next_connection_on() {
    logs::keep();
    let address = an_address();
    let (of_server, of_node) = (at(address), at(address));
    of_node.take(&of_server, &["ca.pem", "client.pem", "client.key"]);
    let path = |name: &str| of_server.path(name).display().to_string();
    let tls = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    );
    let mut server = Server::start_at(Version::Newest, address, &tls).expect("installed");
    let node = Settings {
        tls: Tls {
            required: true,
            ca_file: Some(of_node.path("ca.pem")),
            client: Some(of_node.client()),
        },
        ..settings(&[server.url()])
    };
    let nats = connect(&node).await;
    let mut link = nats.link();

    // Everything of the server comes from another root now. The connection that is there is not touched by that; the next one is refused.
    let renewed = at(address);
    of_server.take(&renewed, &["ca.pem", "server.pem", "server.key"]);
    nats.round_trip(PATIENCE).await.expect("there and back");
    server.restart();
    logs::wait_for(&["cannot be reached", &address.to_string(), "certificate"]).await;
    assert_eq!(link.borrow().connects, 1);

    // A new root, a certificate whose key is yet to come, and the key.
    of_node.take(&renewed, &["ca.pem", "client.pem"]);
    logs::wait_for(&[
        "cannot be reached",
        &address.to_string(),
        "could not add certificate or key",
    ])
    .await;
    assert_eq!(link.borrow().connects, 1);
    of_node.take(&renewed, &["client.key"]);
    let up = link.wait_for(|link: &Link| link.up && link.connects == 2);
    tokio::time::timeout(PATIENCE, up)
        .await
        .expect("in time")
        .expect("open");
    nats.round_trip(PATIENCE).await.expect("there and back");
}

fn at(address: Ipv4Addr) -> Certificates {
    Certificates::make(&address.to_string())
}
