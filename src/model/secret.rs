//! Text that is not to be shown.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A secret: it shows as stars wherever it is printed. Empty if it is not set.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// What is shown in place of it.
    pub const MASK: &str = "********";

    /// Hides a text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself: for whom it is meant.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it is not set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "" } else { Self::MASK })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { Self::MASK })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The usual error would show what came instead.
        String::deserialize(deserializer)
            .map(Self)
            .map_err(|_| serde::de::Error::custom("is not text: put it in quotes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Holder {
        password: Secret,
    }

    #[test]
    fn it_shows_nowhere() {
        let holder: Holder = toml::from_str("password = \"open sesame\"").expect("text");
        assert_eq!(holder.password.reveal(), "open sesame");
        for shown in [format!("{holder:?}"), toml::to_string(&holder).expect("TOML")] {
            assert!(shown.contains(Secret::MASK) && !shown.contains("sesame"), "{shown}");
        }
        let error = toml::from_str::<Holder>("password = 4711").expect_err("a number");
        assert!(!error.message().contains("4711"), "{error}");
    }
}
