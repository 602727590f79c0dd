//! The layout: how many slots and shards there are, and which topic belongs where.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// The key of the slot hash. Part of the layout: it never changes.
const KEY: (u64, u64) = (0x7469_6469_6e67_7320, 0x736c_6f74_2068_6173);

/// The slot of a topic among `slots` of them: SipHash-2-4 of the topic's bytes under a fixed key, modulo `slots`.
///
/// Test vectors are beside the code: any language can compute the same.
///
/// # Panics
/// If `slots` is 0.
#[must_use]
pub fn slot_of(topic: &[u8], slots: u32) -> u32 {
    let mut hasher = SipHasher24::new_with_keys(KEY.0, KEY.1);
    hasher.write(topic);
    let slot = hasher.finish() % u64::from(slots);
    u32::try_from(slot).expect("a remainder of a u32 fits a u32")
}

/// How a deployment divides its topics. Fixed for its life: changing it makes every cursor and every stored position meaningless,
/// so it is stored beside the data and compared at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    slots: u32,
    shards: u16,
}

impl Layout {
    /// One process: a single log, and nothing to route.
    pub const EMBEDDED: Self = Self { slots: 1, shards: 1 };

    /// A layout of `slots` slots over `shards` shards.
    ///
    /// # Errors
    /// Unless 1 ≤ `shards` ≤ `slots` ≤ 65,536.
    pub const fn new(slots: u32, shards: u16) -> Result<Self, LayoutError> {
        if shards == 0 || slots < shards as u32 || slots > 65_536 {
            return Err(LayoutError { slots, shards });
        }
        Ok(Self { slots, shards })
    }

    /// How many slots there are.
    #[must_use]
    pub const fn slots(self) -> u32 {
        self.slots
    }

    /// How many shards there are.
    #[must_use]
    pub const fn shards(self) -> u16 {
        self.shards
    }

    /// The slot of a topic.
    #[must_use]
    pub fn slot(self, topic: &str) -> u32 {
        if self.slots == 1 {
            0
        } else {
            slot_of(topic.as_bytes(), self.slots)
        }
    }

    /// The shard that holds a slot: slots are dealt out to the shards in turn.
    #[must_use]
    pub fn shard(self, slot: u32) -> u16 {
        u16::try_from(slot % u32::from(self.shards)).expect("a remainder of a u16 fits a u16")
    }
}

/// A layout that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutError {
    slots: u32,
    shards: u16,
}

impl std::fmt::Display for LayoutError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { slots, shards } = self;
        write!(
            f,
            "{slots} slots over {shards} shards: there must be 1 to 65,536 slots, and 1 to as many shards"
        )
    }
}

impl std::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        for (topic, of_1024, of_65536) in [
            ("user:42", 971, 35_787),
            ("orders", 571, 34_363),
            ("quakes/ak", 564, 28_212),
            ("a", 801, 35_617),
            ("room/7@eu-west.example~1", 445, 64_957),
        ] {
            assert_eq!(
                (slot_of(topic.as_bytes(), 1024), slot_of(topic.as_bytes(), 65_536)),
                (of_1024, of_65536),
                "{topic}"
            );
        }
    }

    #[test]
    fn every_slot_has_a_shard_and_the_shards_share_evenly() {
        let layout = Layout::new(1024, 3).expect("valid");
        let mut slots = [0_u32; 3];
        for slot in 0..layout.slots() {
            slots[usize::from(layout.shard(slot))] += 1;
        }
        assert_eq!(slots, [342, 341, 341]);
    }

    #[test]
    fn impossible_layouts_are_refused() {
        for (slots, shards) in [(0, 0), (1, 0), (1, 2), (65_537, 1)] {
            assert!(Layout::new(slots, shards).is_err(), "{slots} slots, {shards} shards");
        }
    }
}
