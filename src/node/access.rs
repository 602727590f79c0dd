//! Who is let in, from the configuration, and the tasks that keep issuers' keys up to date.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::JoinSet;

use super::NodeError;
use crate::{
    auth::{
        Auth, Credential, Issuer, KnownPublisher, Pattern, Settings, TokenHash,
        keys::{Algorithm, Content, Source},
    },
    config::{self, Config},
};

/// The claim that grants topics, unless another is named.
const CLAIM: &str = "tidings";

/// Builds what decides who is let in, and has the keys kept up to date in the background.
pub(super) async fn start(config: &Config, background: &mut JoinSet<()>) -> Result<Arc<Auth>, NodeError> {
    let auth = &config.auth;
    if auth.is_open() {
        return Ok(Arc::new(Auth::open()));
    }
    let mut issuers = Vec::new();
    for (at, entry) in auth.issuers.iter().enumerate() {
        issuers.push(issuer(at, entry, auth, background).await?);
    }
    let publishers = auth.publishers.iter().enumerate();
    let publishers = publishers
        .map(|(at, entry)| publisher(at, entry))
        .collect::<Result<_, _>>()?;
    Ok(Arc::new(Auth::new(Settings {
        issuers,
        publishers,
        public: patterns("auth.public", &auth.public)?,
        cookie: Some(auth.cookie.clone()),
        leeway: auth.leeway,
        expiry_notice: auth.expiry_notice,
    })))
}

async fn issuer(
    at: usize,
    entry: &config::Issuer,
    auth: &config::Auth,
    background: &mut JoinSet<()>,
) -> Result<Issuer, NodeError> {
    let refuse = |key: &str, problem: String| NodeError::Auth {
        key: format!("auth.issuers[{at}].{key}"),
        problem,
    };
    let algorithms = entry.algorithms.iter().map(|name| {
        let unknown = || refuse("algorithms", format!("{name:?} is none that is accepted"));
        Algorithm::parse(name).ok_or_else(unknown)
    });
    let mut algorithms = algorithms.collect::<Result<Vec<_>, _>>()?;
    if algorithms.is_empty() {
        algorithms = Algorithm::ALL.into();
    }
    let (key, source) = source(entry, auth).ok_or_else(|| refuse("key", "there is none".to_owned()))?;
    let name = match entry.issuer.as_str() {
        "" => format!("auth.issuers[{at}]"),
        name => name.to_owned(),
    };
    let opened = source.open(&name, &algorithms).await;
    let (keys, keeper) = opened.map_err(|error| refuse(key, error.to_string()))?;
    if let Some(keeper) = keeper {
        background.spawn(keeper.run());
    }
    let named = |text: &str| (!text.is_empty()).then(|| text.into());
    Ok(Issuer {
        name: named(&entry.issuer),
        audience: entry.audience.iter().map(|name| name.as_str().into()).collect(),
        claim: named(&entry.claim).unwrap_or_else(|| CLAIM.into()),
        keys,
    })
}

/// Where its keys come from, and the setting that says so.
fn source(entry: &config::Issuer, auth: &config::Auth) -> Option<(&'static str, Source)> {
    let file = |path: &Path, content| {
        let path = set(path)?;
        Some(Source::File { path, content })
    };
    if !entry.secret.is_empty() {
        return Some(("secret", Source::Secret(entry.secret.clone())));
    }
    if !entry.key.is_empty() {
        return Some(("key", Source::Pem(entry.key.clone())));
    }
    if !entry.jwks_url.is_empty() {
        let url = Source::Url {
            url: entry.jwks_url.clone(),
            ca: set(&entry.jwks_ca),
            refresh: auth.jwks_refresh,
        };
        return Some(("jwks_url", url));
    }
    [
        ("secret_file", file(&entry.secret_file, Content::Secret)),
        ("key_file", file(&entry.key_file, Content::Pem)),
        ("jwks_file", file(&entry.jwks_file, Content::Jwks)),
    ]
    .into_iter()
    .find_map(|(key, source)| Some((key, source?)))
}

fn set(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

fn publisher(at: usize, entry: &config::Publisher) -> Result<KnownPublisher, NodeError> {
    let credential = if entry.token_sha256.is_empty() {
        Credential::Certificate(entry.certificate.clone())
    } else {
        let hash = TokenHash::parse(&entry.token_sha256).ok_or_else(|| NodeError::Auth {
            key: format!("auth.publishers[{at}].token_sha256"),
            problem: "is not the SHA-256 of a token".to_owned(),
        });
        Credential::Token(hash?)
    };
    Ok(KnownPublisher {
        name: entry.name.as_str().into(),
        credential,
        publish: patterns(&format!("auth.publishers[{at}].publish"), &entry.publish)?.into(),
        control: entry.control,
    })
}

fn patterns(key: &str, texts: &[String]) -> Result<Vec<Pattern>, NodeError> {
    let read = texts.iter().map(|text| Pattern::parse(text));
    read.collect::<Result<_, _>>().map_err(|error| NodeError::Auth {
        key: key.to_owned(),
        problem: error.to_string(),
    })
}
