//! What a NATS server tells on its monitoring port alone: whether it syncs what it acknowledges.

use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits before it asks again a server that did not answer.
const AGAIN: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const LONGEST: usize = 1 << 20;

/// How a server syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before it acknowledges: what was acknowledged survives a loss of power.
    Always,
    /// Every so often: what was acknowledged since may be lost when several servers lose power at once.
    Every(Duration),
    /// It has no `JetStream`.
    Never,
}

/// Asks servers at their monitoring URLs (`http://host:8222`), each until it answers, and warns of what may lose events.
pub async fn advise(urls: Vec<String>) {
    futures::future::join_all(urls.iter().map(|url| advise_of(url))).await;
}

async fn advise_of(url: &str) {
    let mut told = false;
    loop {
        match ask(url).await {
            Ok(Sync::Always) => tracing::info!(server = url, "the NATS server syncs before it acknowledges"),
            Ok(Sync::Every(interval)) => tracing::warn!(
                server = url,
                ?interval,
                "the NATS server acknowledges what it has not synced: when several lose power at once, acknowledged events are lost; set `sync_interval: always` in its `jetstream` block"
            ),
            Ok(Sync::Never) => tracing::warn!(server = url, "the NATS server has no JetStream"),
            Err(error @ MonitoringError::Url { .. }) => tracing::warn!(%error),
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "whether the NATS server syncs what it acknowledges is not known yet, it is asked again");
                }
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        }
        return;
    }
}

/// Asks a server how it syncs.
///
/// # Errors
/// If it does not answer, or the URL is none.
pub async fn ask(url: &str) -> Result<Sync, MonitoringError> {
    let parsed: Uri = url.parse().map_err(|_| MonitoringError::Url { url: url.to_owned() })?;
    let (Some("http"), Some(authority)) = (parsed.scheme_str(), parsed.authority()) else {
        return Err(MonitoringError::Url { url: url.to_owned() });
    };
    let address = (authority.host(), authority.port_u16().unwrap_or(80));
    let answer = tokio::time::timeout(PATIENCE, get(address, authority.as_str())).await;
    let failed = |cause: String| MonitoringError::NoAnswer {
        url: url.to_owned(),
        cause,
    };
    let answer = answer.map_err(|_| failed(format!("nothing within {PATIENCE:?}")))?;
    let body = answer.map_err(|error| failed(error.to_string()))?;
    read(&body).map_err(|error| failed(error.to_string()))
}

async fn get(address: (&str, u16), host: &str) -> Result<Bytes, Box<dyn std::error::Error + Send + std::marker::Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get("/varz")
        .header(http::header::HOST, host)
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        Limited::new(response.into_body(), LONGEST).collect().await
    };
    // The connection is driven for as long as its answer is awaited, and dropped with it. It may end as soon as the answer has come.
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    Ok(answer?.to_bytes())
}

fn read(body: &[u8]) -> serde_json::Result<Sync> {
    #[derive(Deserialize)]
    struct Varz {
        #[serde(default)]
        jetstream: JetStream,
    }
    #[derive(Default, Deserialize)]
    struct JetStream {
        config: Option<Settings>,
    }
    #[derive(Deserialize)]
    struct Settings {
        #[serde(default)]
        sync_always: bool,
        /// In nanoseconds.
        #[serde(default)]
        sync_interval: u64,
    }
    let varz: Varz = serde_json::from_slice(body)?;
    Ok(match varz.jetstream.config {
        None => Sync::Never,
        Some(settings) if settings.sync_always => Sync::Always,
        Some(settings) => Sync::Every(Duration::from_nanos(settings.sync_interval)),
    })
}

/// Why a server was not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MonitoringError {
    /// The URL is none.
    #[error("{url:?} is no monitoring URL of a NATS server: it is to be as `http://host:8222`")]
    Url {
        /// The URL.
        url: String,
    },
    /// It does not answer.
    #[error("the NATS server does not answer at {url} ({cause})")]
    NoAnswer {
        /// The URL.
        url: String,
        /// What failed.
        cause: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_tells_is_read() {
        let told = |text: &str| read(text.as_bytes()).expect("read");
        let config = r#"{"version":"2.15.1","jetstream":{"config":{"sync_interval":120000000000,"sync_always":true}}}"#;
        assert_eq!(told(config), Sync::Always);
        let config = r#"{"jetstream":{"config":{"sync_interval":120000000000}}}"#;
        assert_eq!(told(config), Sync::Every(Duration::from_secs(120)));
        assert_eq!(told(r#"{"jetstream":{}}"#), Sync::Never);
        assert!(read(b"<html>").is_err());
    }

    #[tokio::test]
    async fn what_is_no_url_is_told() {
        for url in ["", "127.0.0.1", "nats://127.0.0.1:4222", "https://127.0.0.1:8222"] {
            let error = ask(url).await.expect_err("no URL");
            assert!(matches!(error, MonitoringError::Url { .. }), "{url:?}: {error}");
        }
    }
}
