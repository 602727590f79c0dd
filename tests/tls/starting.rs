//! What is said at the start of files that cannot be used: the setting, the file, and what to do.

use std::fs;

use crate::{
    authority::{Authority, Key, openssl, text},
    node::{Failed, Setup},
};

async fn refused(cert: &str, key: &str, client_ca: Option<&str>) -> String {
    let mut setup = Setup::new().set("grpc.tls_cert", cert).set("grpc.tls_key", key);
    if let Some(ca) = client_ca {
        setup = setup.set("grpc.tls_client_ca", ca);
    }
    let Failed { status, told } = setup.refused(&[]).await;
    assert!(!status.success());
    told
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_their_setting() {
    let authority = Authority::new(Key::Ec);
    let (pair, other) = (authority.local("edge"), authority.local("other"));
    let path = |name: &str| authority.dir().join(name);
    let write = |name: &str, bytes: &[u8]| {
        fs::write(path(name), bytes).expect("written");
        path(name)
    };
    let encrypted = [
        "pkcs8",
        "-topk8",
        "-in",
        "edge.key",
        "-out",
        "encrypted.key",
        "-passout",
        "pass:s3cr3t",
    ];
    openssl(authority.dir(), &encrypted);
    let older = [
        "ec",
        "-in",
        "edge.key",
        "-out",
        "older.key",
        "-aes128",
        "-passout",
        "pass:s3cr3t",
    ];
    openssl(authority.dir(), &older);
    openssl(
        authority.dir(),
        &["genpkey", "-algorithm", "X25519", "-out", "unusable.key"],
    );
    let (missing, nothing) = (path("missing.pem"), write("nothing.pem", b""));
    let nonsense = write(
        "nonsense.pem",
        b"-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n",
    );
    let chain = fs::read(&pair.cert).expect("made");
    let cut = write("cut.pem", &chain[..chain.len() - 100]);
    let (cert, key) = (text(&pair.cert), text(&pair.key));
    for (cert, key, client_ca, setting, problem) in [
        (
            text(&missing),
            key,
            None,
            "grpc.tls_cert",
            "cannot be read: No such file",
        ),
        (
            cert,
            text(&missing),
            None,
            "grpc.tls_key",
            "cannot be read: No such file",
        ),
        (text(&nothing), key, None, "grpc.tls_cert", "holds no certificate"),
        (text(&cut), key, None, "grpc.tls_cert", "holds no certificate"),
        (key, key, None, "grpc.tls_cert", "holds no certificate"),
        (
            text(&nonsense),
            key,
            None,
            "grpc.tls_cert",
            "holds a certificate that cannot be used",
        ),
        (cert, cert, None, "grpc.tls_key", "holds no private key"),
        (
            cert,
            text(&other.key),
            None,
            "grpc.tls_key",
            "does not go with the first certificate",
        ),
        (
            cert,
            text(&path("encrypted.key")),
            None,
            "grpc.tls_key",
            "holds an encrypted private key",
        ),
        (
            cert,
            text(&path("older.key")),
            None,
            "grpc.tls_key",
            "holds an encrypted private key",
        ),
        (
            cert,
            text(&path("unusable.key")),
            None,
            "grpc.tls_key",
            "cannot be used",
        ),
        (
            cert,
            key,
            Some(text(&nothing)),
            "grpc.tls_client_ca",
            "holds no certificate",
        ),
        (
            cert,
            key,
            Some(text(&nonsense)),
            "grpc.tls_client_ca",
            "holds a certificate that cannot be used",
        ),
    ] {
        let told = refused(cert, key, client_ca).await;
        let named = told
            .lines()
            .any(|line| line.contains(&format!("`{setting}`")) && line.contains(problem));
        assert!(named, "{setting} {problem}: {told}");
        let secret = fs::read_to_string(key).unwrap_or_default();
        let shown = secret
            .lines()
            .filter(|line| !line.starts_with("---") && line.len() > 20);
        assert!(shown.clone().all(|line| !told.contains(line)), "{told}");
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_shown_and_warned_of() {
    let authority = Authority::new(Key::Ec);
    let expired = authority.expired("edge", "DNS:localhost");
    let mut node = expired.on(Setup::new(), &["http"]).start().await;
    node.logs("the certificate has expired: renew it").await;
    let (told, let_in) = crate::handshake::shake(node.addresses().http, &authority.ca(), &[]).await;
    assert!(!let_in && told.contains("certificate has expired"), "{told}");
    let good = authority.local("edge");
    let node = good.on(Setup::new(), &["http"]).start().await;
    assert!(node.log().contains("certificate loaded") && !node.log().contains("expired"));
}
