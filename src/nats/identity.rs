//! How a node proves to NATS who it is.

use std::{fs, path::Path};

use async_nats::Auth as Answer;
use nkeys::{KeyPair, KeyPairType};

use super::{Auth, NatsError};

const NKEY: &str = "nats.nkey_file";
const CREDENTIALS: &str = "nats.credentials_file";

impl Auth {
    /// What to do when the server refuses.
    pub(super) const fn advice(&self) -> &'static str {
        match self {
            Self::None => {
                "this server wants to know who connects: set `nats.user` and `nats.password`, `nats.token`, `nats.nkey_file` or \
                 `nats.credentials_file`"
            }
            Self::Password { .. } => "check `nats.user` and `nats.password`",
            Self::Token(_) => "check `nats.token`",
            Self::NkeyFile(_) => "check that the server knows the public key of the seed in `nats.nkey_file`",
            Self::CredentialsFile(_) => {
                "check that `nats.credentials_file` is of an account that the server knows, neither expired nor revoked"
            }
        }
    }

    /// Answers a server's challenge. Files are read anew: what they hold may have been replaced.
    ///
    /// # Errors
    /// If a file cannot be read or does not hold what it should.
    pub(super) fn answer(&self, nonce: &[u8]) -> Result<Answer, NatsError> {
        let mut answer = Answer::new();
        match self {
            Self::None => {}
            Self::Password { user, password } => {
                answer.username = Some(user.clone());
                answer.password = Some(password.reveal().to_owned());
            }
            Self::Token(token) => answer.token = Some(token.reveal().to_owned()),
            Self::NkeyFile(path) => {
                let pair = key_pair(NKEY, path, &read(NKEY, path)?)?;
                answer.nkey = Some(pair.public_key());
                answer.signature = Some(sign(NKEY, path, &pair, nonce)?);
            }
            Self::CredentialsFile(path) => {
                let text = read(CREDENTIALS, path)?;
                let jwt = section(&text, "NATS USER JWT").ok_or_else(|| lacks(path, "NATS USER JWT"))?;
                let seed = section(&text, "USER NKEY SEED").ok_or_else(|| lacks(path, "USER NKEY SEED"))?;
                let pair = key_pair(CREDENTIALS, path, seed)?;
                answer.jwt = Some(jwt.to_owned());
                answer.signature = Some(sign(CREDENTIALS, path, &pair, nonce)?);
            }
        }
        Ok(answer)
    }
}

fn read(setting: &'static str, path: &Path) -> Result<String, NatsError> {
    fs::read_to_string(path).map_err(|cause| NatsError::File {
        setting,
        path: path.to_owned(),
        cause,
    })
}

fn lacks(path: &Path, section: &str) -> NatsError {
    NatsError::Content {
        setting: CREDENTIALS,
        path: path.to_owned(),
        problem: format!("has no section {section:?}: it is no credentials file"),
    }
}

/// The text between `-----BEGIN <name>-----` and the next line of dashes.
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.trim_matches('-').trim() == format!("BEGIN {name}"))?;
    lines
        .find(|line| !line.is_empty())
        .filter(|line| !line.starts_with("---"))
}

/// The key of a seed. What is wrong with it is told without showing any of it.
fn key_pair(setting: &'static str, path: &Path, seed: &str) -> Result<KeyPair, NatsError> {
    let wrong = |problem: &str| NatsError::Content {
        setting,
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let pair =
        KeyPair::from_seed(seed.trim()).map_err(|_| wrong("does not hold an NKEY seed, which begins with SU"))?;
    if pair.key_pair_type() == KeyPairType::User {
        Ok(pair)
    } else {
        Err(wrong(
            "holds an NKEY seed of something else than a user: a user's begins with SU",
        ))
    }
}

fn sign(setting: &'static str, path: &Path, pair: &KeyPair, nonce: &[u8]) -> Result<Vec<u8>, NatsError> {
    pair.sign(nonce).map_err(|_| NatsError::Content {
        setting,
        path: path.to_owned(),
        problem: "holds a key that cannot sign".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), text).expect("written");
        file
    }

    #[test]
    fn credentials_are_a_jwt_and_a_seed() {
        let seed = KeyPair::new_user().seed().expect("a seed");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.abc.def\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let whole = file(&text);
        let answer = Auth::CredentialsFile(whole.path().to_owned())
            .answer(b"nonce")
            .expect("answered");
        assert_eq!(answer.jwt.as_deref(), Some("eyJ0.abc.def"));
        assert_eq!(answer.signature.expect("signed").len(), 64);

        let half = file(&text[..60]);
        let error = Auth::CredentialsFile(half.path().to_owned())
            .answer(b"nonce")
            .err()
            .expect("no seed");
        assert!(error.to_string().contains("USER NKEY SEED"), "{error}");
    }

    #[test]
    fn a_wrong_seed_is_named_and_not_shown() {
        let account = KeyPair::new_account().seed().expect("a seed");
        for (text, problem) in [
            ("SUNONSENSE", "does not hold"),
            (account.as_str(), "something else than a user"),
        ] {
            let file = file(text);
            let error = Auth::NkeyFile(file.path().to_owned())
                .answer(b"")
                .err()
                .expect("wrong")
                .to_string();
            assert!(error.contains("nats.nkey_file") && error.contains(problem), "{error}");
            assert!(!error.contains(text), "{error}");
        }
        let missing = Auth::NkeyFile("/nowhere/seed".into())
            .answer(b"")
            .err()
            .expect("missing")
            .to_string();
        assert!(
            missing.contains("nats.nkey_file") && missing.contains("/nowhere/seed"),
            "{missing}"
        );
    }
}
