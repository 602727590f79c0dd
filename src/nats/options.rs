//! From settings to the client's options: all that can never work is found here.

use std::{sync::Arc, time::Duration};

use async_nats::{AuthError, ConnectOptions, ServerAddr};

use super::{Auth, NatsError, Settings, Subjects, settings::Tls};
use crate::tls::{ClientFiles, ClientTls, NamedFile, TlsError};

const CA: &str = "nats.tls_ca";
const CERT: &str = "nats.tls_cert";
const KEY: &str = "nats.tls_key";

/// A server that says nothing for so long is asked whether it is there; after two unanswered questions it is left.
const PING: Duration = Duration::from_secs(1);
/// How long a server may take to let a client in.
const CONNECTING: Duration = Duration::from_secs(2);
/// How long an answer may take unless it is asked for with another deadline.
const ANSWERING: Duration = Duration::from_secs(5);
/// Messages that wait for one subscription before more are lost: a slow consumer.
const SUBSCRIPTION: usize = 16 << 10;
/// What is to be sent, and waits for the connection.
const COMMANDS: usize = 4 << 10;

/// The options for these settings, and the servers.
pub(super) fn check(settings: &Settings, subjects: &Subjects) -> Result<(ConnectOptions, Vec<ServerAddr>), NatsError> {
    let servers = servers(&settings.urls)?;
    // So that a file that is wrong is told of now.
    settings.auth.answer(b"nonce")?;
    check_tls(&settings.tls)?;

    let mut options = match settings.auth {
        Auth::None => ConnectOptions::new(),
        _ => {
            let auth = Arc::new(settings.auth.clone());
            ConnectOptions::with_auth_callback(move |nonce| {
                let auth = Arc::clone(&auth);
                async move { auth.answer(&nonce).map_err(AuthError::new) }
            })
        }
    };
    options = options
        .name(&settings.name)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .ping_interval(PING)
        .connection_timeout(CONNECTING)
        .request_timeout(Some(ANSWERING))
        .subscription_capacity(SUBSCRIPTION)
        .client_capacity(COMMANDS)
        .custom_inbox_prefix(subjects.inbox())
        .require_tls(settings.tls.is_required());
    if let Some(path) = &settings.tls.ca_file {
        options = options.add_root_certificates(path.clone());
    }
    if let Some(client) = &settings.tls.client {
        options = options.add_client_certificate(client.cert_file.clone(), client.key_file.clone());
    }
    Ok((options, servers))
}

fn servers(urls: &[String]) -> Result<Vec<ServerAddr>, NatsError> {
    if urls.is_empty() {
        return Err(NatsError::NoServers);
    }
    urls.iter().map(|url| server(url.trim())).collect()
}

fn server(url: &str) -> Result<ServerAddr, NatsError> {
    if let Some((_, host)) = url.rsplit_once('@') {
        return Err(NatsError::SecretInUrl { host: host.to_owned() });
    }
    let wrong = |cause: String| NatsError::Url {
        url: url.to_owned(),
        cause,
    };
    let server: ServerAddr = url.parse().map_err(|error: std::io::Error| wrong(error.to_string()))?;
    if !matches!(server.scheme(), "nats" | "tls") {
        return Err(wrong("only nats:// and tls:// are spoken".to_owned()));
    }
    if server.host().is_empty() {
        return Err(wrong("it has no host".to_owned()));
    }
    Ok(server)
}

/// The client reads the files itself, for each connection, and would only say then that one is wrong.
fn check_tls(tls: &Tls) -> Result<(), TlsError> {
    let identity = tls.client.as_ref();
    let files = ClientFiles {
        ca: tls.ca_file.as_ref().map(|path| NamedFile::new(CA, path)),
        identity: identity.map(|files| {
            (
                NamedFile::new(CERT, &files.cert_file),
                NamedFile::new(KEY, &files.key_file),
            )
        }),
    };
    ClientTls::load(files).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::ClientCertificate;

    #[test]
    fn addresses_that_can_never_work_are_named() {
        for url in ["http://a", "nats://", "nats://a:port", "wss://a"] {
            let error = server(url).expect_err(url).to_string();
            assert!(error.contains("nats.urls") && error.contains(url), "{error}");
        }
        assert!(matches!(servers(&[]), Err(NatsError::NoServers)));
        assert_eq!(server("nats-0").expect("valid").as_url_str(), "nats://nats-0");
    }

    #[test]
    fn secrets_do_not_belong_into_addresses_and_are_not_repeated() {
        let error = server("nats://derek:s3cr3t@nats-0:4222")
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("nats-0:4222") && error.contains("nats.password"),
            "{error}"
        );
        assert!(!error.contains("s3cr3t") && !error.contains("derek"), "{error}");
    }

    #[test]
    fn certificates_that_can_never_work_are_named() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "nothing").expect("written");
        let ca = Tls {
            ca_file: Some(file.path().to_owned()),
            ..Tls::default()
        };
        let client = Tls {
            client: Some(ClientCertificate {
                cert_file: "/nowhere/cert.pem".into(),
                key_file: file.path().to_owned(),
            }),
            ..Tls::default()
        };
        for (tls, setting) in [(ca, CA), (client, CERT)] {
            let error = check_tls(&tls).expect_err("wrong").to_string();
            assert!(error.contains(setting), "{error}");
        }
    }
}
