//! Settings are one JSON object, in the order in which they were noted.

use std::{borrow::Cow, fmt};

use serde::{Deserializer, Serializer, de};
use serde_json::Value;

type Settings = Vec<(Cow<'static, str>, Value)>;

pub(super) fn serialize<S: Serializer>(settings: &[(Cow<'static, str>, Value)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(settings.iter().map(|(name, value)| (name, value)))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Settings, D::Error> {
    from.deserialize_map(Visitor)
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Settings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings by their names")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Settings, A::Error> {
        let mut settings = Settings::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            settings.push((name.into(), value));
        }
        Ok(settings)
    }
}
