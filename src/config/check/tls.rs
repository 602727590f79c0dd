//! The rules of certificates and keys: what goes together, and that the files are there. What is in them is found out by whoever uses them.

use std::{fs::File, path::Path};

use super::super::{Config, Role};

/// Calls `refuse` with the key and the problem of each value that cannot be, for this role.
pub(super) fn check(config: &Config, role: Role, refuse: &mut impl FnMut(&str, String)) {
    let (http, grpc, cluster) = (&config.http, &config.grpc, &config.cluster);
    if role != Role::Ingest {
        pair(
            ("http.tls_cert", &http.tls_cert),
            ("http.tls_key", &http.tls_key),
            refuse,
        );
    }
    pair(
        ("grpc.tls_cert", &grpc.tls_cert),
        ("grpc.tls_key", &grpc.tls_key),
        refuse,
    );
    if is_set(&grpc.tls_client_ca) {
        is_there("grpc.tls_client_ca", &grpc.tls_client_ca, refuse);
        if !grpc.speaks_tls() {
            let problem = "is of no use without `grpc.tls_cert` and `grpc.tls_key`: clients show certificates over TLS";
            refuse("grpc.tls_client_ca", problem.to_owned());
        }
    }
    if role != Role::Serve {
        is_there("cluster.tls_ca", &cluster.tls_ca, refuse);
        pair(
            ("cluster.tls_cert", &cluster.tls_cert),
            ("cluster.tls_key", &cluster.tls_key),
            refuse,
        );
    }
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// A certificate and its key are set together or not at all.
fn pair(cert: (&str, &Path), key: (&str, &Path), refuse: &mut impl FnMut(&str, String)) {
    for (there, missing) in [(cert, key), (key, cert)] {
        if is_set(there.1) && !is_set(missing.1) {
            refuse(missing.0, format!("is missing: there is `{}`", there.0));
        }
        is_there(there.0, there.1, refuse);
    }
}

/// Tells of a file that is not there, or not for this process.
fn is_there(key: &str, path: &Path, refuse: &mut impl FnMut(&str, String)) {
    if !is_set(path) {
        return;
    }
    let problem = match File::open(path).and_then(|file| file.metadata()) {
        Ok(facts) if facts.is_file() => return,
        Ok(_) => "is no file".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    refuse(key, format!("names {}, which {problem}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(role: Role, change: impl FnOnce(&mut Config, &Path)) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut config = Config::default();
        change(&mut config, file.path());
        let mut refused = Vec::new();
        check(&config, role, &mut |key, problem| {
            refused.push(format!("{key} {problem}"));
        });
        refused
    }

    #[test]
    fn what_goes_together_is_set_together() {
        assert_eq!(refused(Role::Serve, |_, _| {}), [""; 0]);
        let alone = refused(Role::Serve, |config, file| config.http.tls_key = file.to_owned());
        assert_eq!(alone, ["http.tls_cert is missing: there is `http.tls_key`"]);
        let alone = refused(Role::Edge, |config, file| config.cluster.tls_cert = file.to_owned());
        assert_eq!(alone, ["cluster.tls_key is missing: there is `cluster.tls_cert`"]);
        let both = |config: &mut Config, file: &Path| {
            (config.grpc.tls_cert, config.grpc.tls_key) = (file.to_owned(), file.to_owned());
            config.grpc.tls_client_ca = file.to_owned();
        };
        assert_eq!(refused(Role::Ingest, both), [""; 0]);
        let useless = refused(Role::Serve, |config, file| config.grpc.tls_client_ca = file.to_owned());
        assert!(matches!(&useless[..], [one] if one.starts_with("grpc.tls_client_ca is of no use")));
    }

    #[test]
    fn files_are_there() {
        let told = refused(Role::Edge, |config, file| {
            config.cluster.tls_ca = "/nowhere/ca.pem".into();
            config.http.tls_cert = file.to_owned();
            config.http.tls_key = std::env::temp_dir();
        });
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("http.tls_key names ") && told[0].ends_with("which is no file"),
            "{told:?}"
        );
        assert!(
            told[1].starts_with("cluster.tls_ca names /nowhere/ca.pem, which cannot be read"),
            "{told:?}"
        );
    }
}
