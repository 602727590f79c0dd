//! Names of which only matters whether they are the same, in 16 bytes each, however long they are: every stream keeps two.
//!
//! A digest is a hash of 128 bits under a key that this process has drawn: no two names have the same, and nobody can find two that would.
//! It means nothing to another process, and is never written down.

use std::{num::NonZeroU64, sync::LazyLock};

use siphasher::sip128::SipHasher13;

/// A name's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(NonZeroU64, u64);

impl Digest {
    /// The digest of a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        static KEYED: LazyLock<SipHasher13> = LazyLock::new(|| SipHasher13::new_with_key(&rand::random()));
        let hash = KEYED.hash(name.as_bytes());
        Self(NonZeroU64::new(hash.h1).unwrap_or(NonZeroU64::MIN), hash.h2)
    }
}

impl From<&str> for Digest {
    fn from(name: &str) -> Self {
        Self::of(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_the_same_if_their_digests_are(one: String, other: String) {
            prop_assert_eq!(Digest::of(&one) == Digest::of(&other), one == other);
            prop_assert_eq!(Digest::of(&one), Digest::from(&*one));
        }
    }
}
