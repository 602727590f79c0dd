//! How durations, sizes and ordinals are written.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written as `"64KiB"`, `"1MiB"`, `"10GiB"` or `"512B"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// From the largest, so that the first that divides is the shortest to write.
const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl Size {
    /// No bytes; as a bound as a rule: none.
    pub const NOTHING: Self = Self(0);

    /// So many KiB.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many MiB.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many GiB.
    #[must_use]
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// In bytes, for what is held in memory; as much as can be addressed if that is less.
    #[must_use]
    pub fn in_memory(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: a whole number with B, KiB, MiB, GiB or TiB is")]
pub struct SizeError {
    text: String,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError { text: text.to_owned() };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let count: u64 = count.parse().map_err(|_| error())?;
        let unit = unit.trim_start();
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        count.checked_mul(factor).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Durations as text: `"15s"`, `"10m"`, `"1h 30m"`, `"7days"`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|cause| serde::de::Error::custom(format_args!("{text:?} is not a duration: {cause}")))
    }
}

/// Which of several like nodes one is: a number, or `"auto"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordinal {
    /// The number that its name ends with.
    Auto,
    /// This one.
    Number(u16),
}

impl Serialize for Ordinal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Number(number) => serializer.serialize_u16(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Ordinal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A variable of the environment has a number as text.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let other = |written: &dyn fmt::Display| {
            serde::de::Error::custom(format_args!(
                "{written} is neither a number from 0 to 65535 nor \"auto\""
            ))
        };
        match Written::deserialize(deserializer).map_err(|_| other(&"this"))? {
            Written::Number(number) => u16::try_from(number).map(Self::Number).map_err(|_| other(&number)),
            Written::Text(text) if text == "auto" => Ok(Self::Auto),
            Written::Text(text) => text
                .parse()
                .map(Self::Number)
                .map_err(|_| other(&format_args!("{text:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sizes_round_trip(bytes in prop_oneof![any::<u64>(), (0_u64..1 << 20).prop_map(|kib| kib << 10)]) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
    }

    #[test]
    fn sizes_are_written_in_the_largest_unit_that_divides_them() {
        for (size, text) in [
            (Size(0), "0B"),
            (Size(1_023), "1023B"),
            (Size::kib(64), "64KiB"),
            (Size::mib(1), "1MiB"),
            (Size::gib(10), "10GiB"),
        ] {
            assert_eq!(size.to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "64", "KiB", "64kb", "-1B", "1.5MiB", "16777216TiB", "64 KB"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }
}
