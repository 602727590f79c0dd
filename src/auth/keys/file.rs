//! Keys in a file. It is looked at again and again, by what is in it: that sees every kind of replacement, whatever links lead there, as
//! Kubernetes makes them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncReadExt as _, time::sleep};
use tracing::{info, warn};

use super::{
    Keys,
    source::{Content, Reader, SourceError},
};
use crate::model::UnixMillis;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How large it may be.
const MAX_BYTES: u64 = 1 << 20;

/// Looks at a file of keys.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    content: Content,
    reader: Reader,
    keys: Arc<Keys>,
    /// What was in it last, as far as it could be read.
    seen: Option<[u8; 32]>,
    /// What is wrong with it now, and has been told.
    trouble: Option<String>,
    every: Duration,
}

impl Watch {
    /// Reads it for the first time.
    pub(super) async fn open(
        path: PathBuf,
        content: Content,
        mut reader: Reader,
    ) -> Result<(Arc<Keys>, Self), SourceError> {
        let text = read(&path).await?;
        let keys = Arc::new(Keys::given(reader.read(content, &text)?));
        let watch = Self {
            path,
            content,
            reader,
            keys: keys.clone(),
            seen: Some(hash(&text)),
            trouble: None,
            every: EVERY,
        };
        Ok((keys, watch))
    }

    pub(super) async fn run(mut self) {
        loop {
            sleep(self.every).await;
            match self.look().await {
                Ok(()) => self.trouble = None,
                Err(error) => self.tell(&error),
            }
        }
    }

    /// Takes the keys that are in it, if it has changed.
    pub(super) async fn look(&mut self) -> Result<(), SourceError> {
        let text = match read(&self.path).await {
            Ok(text) => text,
            Err(error) => {
                self.seen = None;
                return Err(error);
            }
        };
        let hash = hash(&text);
        if self.seen == Some(hash) && self.trouble.is_none() {
            return Ok(());
        }
        self.seen = Some(hash);
        let keys = self.reader.read(self.content, &text)?;
        let (issuer, count) = (&self.reader.issuer, keys.len());
        info!(%issuer, file = %self.path.display(), keys = count, "the keys of an issuer were read anew");
        self.keys.replace(keys, UnixMillis::now());
        Ok(())
    }

    /// Once for each thing that is wrong.
    fn tell(&mut self, error: &SourceError) {
        let trouble = error.to_string();
        if self.trouble.as_ref() != Some(&trouble) {
            let (issuer, file) = (&self.reader.issuer, self.path.display());
            warn!(%issuer, %file, error = trouble, "the file of an issuer's keys is no good any more: those it had stay in use");
            self.trouble = Some(trouble);
        }
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    let read = async {
        let mut text = Vec::new();
        let mut file = File::open(path).await?.take(MAX_BYTES + 1);
        file.read_to_end(&mut text).await?;
        if text.len() as u64 > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
        }
        Ok(text)
    };
    read.await.map_err(|cause| SourceError::File {
        path: path.to_owned(),
        cause,
    })
}

fn hash(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}
