//! Which versions of nats-server can be worked with, and which may lose what they acknowledged.

use std::sync::Once;

/// The first version whose atomic batches know message ids.
const OLDEST: Version = Version(2, 12, 1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u64, u64, u64);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let numbers = text.split(['-', '+']).next()?;
        let mut numbers = numbers.split('.').map(|number| number.parse().ok());
        Some(Self(
            numbers.next()??,
            numbers.next()??,
            numbers.next().unwrap_or(Some(0))?,
        ))
    }
}

/// The server is too old.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "nats-server {found} is too old for `journal.kind = \"jetstream\"`, which needs 2.12.1 or newer (2.15 is advised): update the NATS servers, or use `journal.kind = \"rocksdb\"`, which works with any"
)]
pub struct TooOld {
    /// Its version.
    pub found: String,
}

/// Refuses servers that lack what is needed. A version that cannot be read counts as new: a build of one's own.
pub(super) fn check(version: &str) -> Result<(), TooOld> {
    match Version::parse(version) {
        Some(found) if found < OLDEST => Err(TooOld {
            found: version.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Says what there is to say of the servers, once for the whole process: all shards have the same ones.
pub(super) fn advise(version: &str) {
    static ADVISED: Once = Once::new();
    ADVISED.call_once(|| {
        if let Some(warning) = warning(version) {
            tracing::warn!(version, "{warning}");
        }
    });
}

/// What there is to say about a version that works.
fn warning(version: &str) -> Option<&'static str> {
    let version = Version::parse(version)?;
    let races = version < Version(2, 12, 9) || (Version(2, 13, 0) <= version && version < Version(2, 14, 1));
    if races {
        Some(
            "this version of nats-server may acknowledge after a change of leader what it never stored: update to 2.15, or to 2.12.9 or 2.14.1 at least",
        )
    } else if version < Version(2, 15, 0) {
        Some(
            "this version of nats-server is slow with `sync_interval: always`, and is not safe without it: update to 2.15",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused_with_what_to_do() {
        for (version, is_refused) in [
            ("2.9.10", true),
            ("2.11.99", true),
            ("2.12.0", true),
            ("2.12.1", false),
            ("2.15.1", false),
            ("3.0.0-beta.1", false),
            ("dev", false),
        ] {
            assert_eq!(check(version).is_err(), is_refused, "{version}");
        }
        let text = check("2.9.10").expect_err("old").to_string();
        assert!(text.contains("2.9.10") && text.contains("rocksdb"), "{text}");
    }

    #[test]
    fn versions_that_lose_are_told_from_those_that_are_slow() {
        let said = |version, words: &str| warning(version).is_some_and(|text| text.contains(words));
        for version in ["2.12.8", "2.13.4", "2.14.0"] {
            assert!(said(version, "never stored"), "{version}");
        }
        for version in ["2.12.9", "2.14.1", "2.14.6-RC.1"] {
            assert!(said(version, "slow"), "{version}");
        }
        assert_eq!(warning("2.15.1"), None);
    }
}
