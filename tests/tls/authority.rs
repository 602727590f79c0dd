//! Certificates, made by openssl: a root, one below it that signs, and what that signs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use crate::node::Setup;

/// A kind of key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    Ec,
    Rsa,
}

impl Key {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Ec => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::Rsa => &["-newkey", "rsa:2048"],
        }
    }
}

/// Runs openssl, which has to succeed; answers what it prints.
pub(crate) fn openssl(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output();
    let output = output.expect("openssl is installed: run tests/tls/setup");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A number that nothing else of this run has.
fn number() -> String {
    static NUMBERS: AtomicU32 = AtomicU32::new(4_096);
    NUMBERS.fetch_add(1, Ordering::Relaxed).to_string()
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// The certificate, and the one that signed it.
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Its number, as openssl prints it.
    pub(crate) serial: String,
}

impl Pair {
    /// Puts this pair in the place of another, in two steps as anybody would.
    pub(crate) fn replace(&self, other: &Self) {
        for (from, to) in [(&self.cert, &other.cert), (&self.key, &other.key)] {
            fs::copy(from, to).expect("copied");
        }
    }

    /// A copy, to be replaced.
    pub(crate) fn copy_to(&self, dir: &Path) -> Self {
        let copy = Self {
            cert: dir.join("tls.crt"),
            key: dir.join("tls.key"),
            serial: self.serial.clone(),
        };
        self.replace(&copy);
        copy
    }

    /// Has a node show it on the ports of these sections.
    pub(crate) fn on(&self, setup: Setup, sections: &[&str]) -> Setup {
        sections.iter().fold(setup, |setup, section| {
            setup
                .set(&format!("{section}.tls_cert"), text(&self.cert))
                .set(&format!("{section}.tls_key"), text(&self.key))
        })
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Those who sign.
pub(crate) struct Authority {
    dir: TempDir,
    kind: Key,
}

impl Authority {
    /// A new root, and one below it.
    pub(crate) fn new(kind: Key) -> Self {
        let authority = Self {
            dir: tempfile::tempdir().expect("a directory"),
            kind,
        };
        // Two of the same name would be taken for one with two keys.
        let name = format!("/CN=root {}", number());
        let subject = ["-nodes", "-keyout", "root.key", "-out", "root.pem", "-subj", &name];
        let usage = ["-days", "30", "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        let arguments = [&["req", "-x509"][..], kind.arguments(), &subject, &usage].concat();
        openssl(authority.dir(), &arguments);
        let usage = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n";
        authority.sign("between", "root", usage, "30");
        authority
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What clients are given to trust: the root.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir().join("root.pem")
    }

    fn sign(&self, name: &str, by: &str, extensions: &str, days: &str) -> String {
        let serial = number();
        let file = |ending: &str| format!("{name}.{ending}");
        let (key, request, signed, wanted) = (file("key"), file("csr"), file("pem"), file("ext"));
        fs::write(self.dir().join(&wanted), extensions).expect("written");
        let subject = format!("/CN={name}");
        let asked = ["-nodes", "-keyout", &key, "-out", &request, "-subj", &subject];
        openssl(self.dir(), &[&["req"][..], self.kind.arguments(), &asked].concat());
        let (ca, ca_key) = (format!("{by}.pem"), format!("{by}.key"));
        openssl(
            self.dir(),
            &[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &ca,
                "-CAkey",
                &ca_key,
                "-out",
                &signed,
                "-days",
                days,
                "-set_serial",
                &serial,
                "-extfile",
                &wanted,
            ],
        );
        let printed = openssl(self.dir(), &["x509", "-in", &signed, "-noout", "-serial"]);
        printed.trim().trim_start_matches("serial=").to_owned()
    }

    /// A certificate for these names, such as `DNS:localhost` or `URI:spiffe://example.org/orders`, for servers and clients alike.
    pub(crate) fn issue(&self, name: &str, names: &str) -> Pair {
        self.issue_for(name, names, "10")
    }

    /// A certificate that was good until yesterday.
    pub(crate) fn expired(&self, name: &str, names: &str) -> Pair {
        self.issue_for(name, names, "-1")
    }

    fn issue_for(&self, name: &str, names: &str, days: &str) -> Pair {
        let extensions =
            format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n");
        let serial = self.sign(name, "between", &extensions, days);
        let read = |name: &str| fs::read_to_string(self.dir().join(name)).expect("made");
        let cert = self.dir().join(format!("{name}.chain.pem"));
        fs::write(&cert, read(&format!("{name}.pem")) + &read("between.pem")).expect("written");
        Pair {
            cert,
            key: self.dir().join(format!("{name}.key")),
            serial,
        }
    }

    /// A certificate for this machine as tests reach it.
    pub(crate) fn local(&self, name: &str) -> Pair {
        self.issue(name, "DNS:localhost,IP:127.0.0.1")
    }
}
