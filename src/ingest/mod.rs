//! Ingest: where events come in. Over gRPC ([`grpc`]) and as JSON ([`json`]) alike, it is asked who calls ([`Caller`]), each draft is checked
//! ([`admit`]), whether the caller may publish it, and so much (`quota`), then it is handed to the journal, or to the bus if it is ephemeral
//! ([`Ingest`]); `pipeline` does so for a whole stream without waiting for each answer. `audit` writes down who published what.

mod admit;
mod audit;
mod begun;
mod caller;
mod connection;
pub mod control;
mod entrance;
mod error;
pub mod grpc;
pub mod json;
mod parting;
mod pipeline;
mod publisher;
mod quota;
mod server;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use admit::{Admitted, Draft, Refusal, admit};
pub use caller::Caller;
pub use error::{IngestError, Partly, Verdict};
pub use publisher::{Ingest, Landed, Pending, Published};
pub use quota::{Measure, OverQuota, Rates};
pub use server::{ServeError, ServerSettings, Services, serve};

use crate::model::Publish;

/// What ingest is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many topics one publish may name.
    pub topics: usize,
    /// How long a payload may be, in bytes.
    pub data_bytes: usize,
    /// How many events of one stream may be under way: taken and not yet answered.
    pub in_flight: usize,
    /// How many bytes they may have together, before no further one is taken.
    pub in_flight_bytes: usize,
    /// How long a JSON body may take to arrive; of one with an object per line, how long each line may.
    pub body_within: Duration,
    /// How much one publisher may publish.
    pub rates: Rates,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            topics: 1_000,
            data_bytes: 64 * 1024,
            in_flight: 1_024,
            in_flight_bytes: 8 * 1024 * 1024,
            body_within: Duration::from_secs(60),
            rates: Rates::default(),
        }
    }
}

impl Settings {
    /// The most topics one publish may ever name.
    pub const MAX_TOPICS: usize = Publish::MAX_TOPICS;
    /// The longest a payload may ever be, in bytes.
    pub const MAX_DATA_BYTES: usize = Publish::MAX_DATA_BYTES;

    /// Checks the settings.
    ///
    /// # Errors
    /// Every one that is out of its range.
    pub fn validate(&self) -> Result<(), Vec<SettingError>> {
        let ranges = [
            ("topics", self.topics, Self::MAX_TOPICS),
            ("data_bytes", self.data_bytes, Self::MAX_DATA_BYTES),
            ("in_flight", self.in_flight, 1 << 20),
            ("in_flight_bytes", self.in_flight_bytes, 1 << 30),
        ];
        let wrong: Vec<_> = ranges
            .into_iter()
            .filter(|&(_, found, most)| !(1..=most).contains(&found))
            .map(|(setting, found, most)| SettingError { setting, found, most })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The longest protobuf message that is read. It does not follow `data_bytes`, so that a payload over the setting is read and refused
    /// by name; only what no setting could accept is cut off.
    pub(crate) const MESSAGE_BYTES: usize =
        Self::MAX_DATA_BYTES + Self::MAX_TOPICS * (crate::model::Topic::MAX_BYTES + 3) + 64 * 1024;

    /// The longest JSON text of one event that is read: the largest legal one with every byte of the payload escaped as `\u00XX`.
    pub(crate) const fn json_bytes(&self) -> usize {
        6 * self.data_bytes + self.topics * (crate::model::Topic::MAX_BYTES + 3) + 8 * 1024
    }
}

/// A setting that is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` is {found}; it must be 1 to {most}")]
pub struct SettingError {
    /// Which one.
    pub setting: &'static str,
    /// What it is.
    pub found: usize,
    /// The most it may be.
    pub most: usize,
}
