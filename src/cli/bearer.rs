//! The token that a client brings: from a file or the environment, since what stands on a command line others can see.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
};

use crate::{auth::may_be_token, model::Secret};

/// The token, where no file has it.
const VARIABLE: &str = "TIDINGS_TOKEN";

/// Where the token is.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct Bearer {
    /// The file that the token is in, read again for every connection; without it, the variable TIDINGS_TOKEN, if it is set.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Why there is no token. Nothing of what should be one is repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum BearerError {
    #[error("--token-file: {} cannot be read: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{place} holds no token: `A-Z a-z 0-9 - . _ ~ + / =` and nothing else")]
    Form { place: String },
}

impl Bearer {
    /// The token in this file.
    #[cfg(test)]
    pub(super) fn in_file(path: &Path) -> Self {
        Self {
            token_file: Some(path.to_owned()),
        }
    }

    /// The token as it is now; nothing if nobody named one.
    pub(super) fn token(&self) -> Result<Option<Secret>, BearerError> {
        match &self.token_file {
            Some(path) => read(path).map(Some),
            None => match env::var_os(VARIABLE) {
                None => Ok(None),
                Some(text) => checked(&text.to_string_lossy(), || format!("the variable {VARIABLE}")).map(Some),
            },
        }
    }

    /// Whether another token has taken the place of this one, so that it makes sense to try again.
    pub(super) fn has_another(&self, than: Option<&Secret>) -> bool {
        let path = self.token_file.as_deref();
        path.is_some_and(|path| read(path).is_ok_and(|token| Some(&token) != than))
    }
}

fn read(path: &Path) -> Result<Secret, BearerError> {
    let text = fs::read_to_string(path).map_err(|cause| BearerError::File {
        path: path.to_owned(),
        cause,
    })?;
    checked(&text, || format!("--token-file: {}", path.display()))
}

fn checked(text: &str, place: impl FnOnce() -> String) -> Result<Secret, BearerError> {
    let token = text.trim();
    if !may_be_token(token) {
        return Err(BearerError::Form { place: place() });
    }
    Ok(token.into())
}

/// The value of the `authorization` header.
pub(super) fn authorization(token: &Secret) -> String {
    format!("Bearer {}", token.reveal())
}

/// A gRPC request that brings the token.
pub(super) fn with_token<T>(message: T, token: Option<&Secret>) -> Request<T> {
    let mut request = Request::new(message);
    let value = token.and_then(|token| MetadataValue::<Ascii>::try_from(authorization(token)).ok());
    if let Some(mut value) = value {
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_from_a_file_that_may_change() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let bearer = Bearer::in_file(&path);
        assert!(matches!(bearer.token(), Err(BearerError::File { .. })));
        fs::write(&path, "a.b.c\r\n").expect("written");
        let token = bearer.token().expect("a token");
        assert_eq!(token.as_ref().map(Secret::reveal), Some("a.b.c"));
        assert!(!bearer.has_another(token.as_ref()));
        let request = with_token((), token.as_ref());
        assert_eq!(request.metadata().get("authorization").expect("there"), "Bearer a.b.c");
        assert!(!format!("{request:?}").contains("a.b.c"));
        fs::write(&path, "d.e.f").expect("written");
        assert!(bearer.has_another(token.as_ref()));
        for wrong in ["", "\n", "geheim geheim", "a\nb", "\u{e4}"] {
            fs::write(&path, wrong).expect("written");
            let error = bearer.token().expect_err(wrong).to_string();
            assert!(error.contains("holds no token") && !error.contains("geheim"), "{error}");
            assert!(!bearer.has_another(token.as_ref()), "it may be half written");
        }
    }
}
