//! Where an issuer's keys come from, and who keeps them up to date.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tracing::warn;

use super::{
    Algorithm, Jwks, JwksError, Key, KeyError, Keys, Skipped,
    endpoint::{Endpoint, EndpointError, FetchError},
    file::Watch,
    refresh::{Pace, Refresh},
};
use crate::model::Secret;

/// Where an issuer's keys come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A secret that is shared with it.
    Secret(Secret),
    /// Its public key, or several (PEM).
    Pem(String),
    /// A file, which is looked at again and again.
    File {
        /// Which.
        path: PathBuf,
        /// What is in it.
        content: Content,
    },
    /// A URL that its key set is at, which is asked again and again.
    Url {
        /// The URL.
        url: String,
        /// The certificates (PEM) of those who may vouch for its server, instead of the system's.
        ca: Option<PathBuf>,
        /// How often it is asked.
        refresh: Duration,
    },
}

/// What a text that has keys in it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A secret. What breaks the line at the end is not part of it.
    Secret,
    /// Public keys (PEM).
    Pem,
    /// A key set (JWKS).
    Jwks,
    /// A key set that everybody can read: there are no secrets in it.
    PublicJwks,
}

/// Why keys cannot be had from where they should come from.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be read.
    #[error("{} cannot be read: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// What there is makes no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What there is is no key set.
    #[error("what is there {0}")]
    Jwks(#[from] JwksError),
    /// The keys there are are for other algorithms than those that the issuer is said to sign with.
    #[error("there is no key for the algorithms that the issuer is said to sign with (`algorithms`)")]
    Algorithms,
    /// The URL cannot be asked, ever.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The URL could not be asked this time.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// Keeps an issuer's keys up to date.
#[derive(Debug)]
pub struct Keeper(Kept);

#[derive(Debug)]
enum Kept {
    File(Watch),
    Url(Refresh),
}

impl Source {
    /// The keys, and who keeps them up to date, if they can change. A file must be good by now. A URL need not be: until it is, tokens are told to
    /// come back.
    ///
    /// `issuer` names it in the log; `algorithms` are those that it signs with.
    ///
    /// # Errors
    /// If there are no keys, or never will be.
    pub async fn open(
        self,
        issuer: &str,
        algorithms: &[Algorithm],
    ) -> Result<(Arc<Keys>, Option<Keeper>), SourceError> {
        let mut reader = Reader::new(issuer, algorithms);
        match self {
            Self::Secret(secret) => {
                let keys = reader.read(Content::Secret, secret.reveal().as_bytes())?;
                Ok((Arc::new(Keys::given(keys)), None))
            }
            Self::Pem(text) => {
                let keys = reader.read(Content::Pem, text.as_bytes())?;
                Ok((Arc::new(Keys::given(keys)), None))
            }
            Self::File { path, content } => {
                let (keys, watch) = Watch::open(path, content, reader).await?;
                Ok((keys, Some(Keeper(Kept::File(watch)))))
            }
            Self::Url { url, ca, refresh } => {
                let endpoint = Endpoint::new(&url, ca)?;
                let keys = Arc::new(Keys::asked_for());
                let refresh = Refresh::new(endpoint, Pace::every(refresh), keys.clone(), reader);
                Ok((keys, Some(Keeper(Kept::Url(refresh)))))
            }
        }
    }
}

impl Keeper {
    /// Keeps them up to date. It does not end.
    pub async fn run(self) {
        match self.0 {
            Kept::File(watch) => watch.run().await,
            Kept::Url(refresh) => refresh.run().await,
        }
    }
}

/// Makes keys of what there is for one issuer.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) issuer: Box<str>,
    algorithms: Box<[Algorithm]>,
    /// What was left out last: it is told once.
    skipped: Vec<Skipped>,
}

impl Reader {
    pub(super) fn new(issuer: &str, algorithms: &[Algorithm]) -> Self {
        Self {
            issuer: issuer.into(),
            algorithms: algorithms.into(),
            skipped: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, content: Content, text: &[u8]) -> Result<Vec<Key>, SourceError> {
        let keys = match content {
            Content::Secret => vec![Key::secret(without_line_end(text))?],
            Content::Pem => Key::from_pem(text)?,
            Content::Jwks | Content::PublicJwks => {
                let set = Jwks::parse(text, content == Content::PublicJwks)?;
                if set.skipped != self.skipped {
                    for Skipped { id, problem } in &set.skipped {
                        warn!(issuer = %self.issuer, key = ?id, %problem, "a key of a key set is left out");
                    }
                    self.skipped = set.skipped;
                }
                set.keys
            }
        };
        let is_meant = |key: &Key| self.algorithms.contains(&key.algorithm());
        let keys: Vec<_> = keys.into_iter().filter(is_meant).collect();
        if keys.is_empty() {
            return Err(SourceError::Algorithms);
        }
        Ok(keys)
    }
}

fn without_line_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    &text[..end.map_or(0, |end| end + 1)]
}
