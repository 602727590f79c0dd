//! The stream of a shard: what it is called, how it is made, and what is said of one that differs.

use std::{hash::Hasher as _, time::Duration};

use async_nats::{
    Subject,
    jetstream::{
        self, ErrorCode,
        context::{GetStreamErrorKind, RequestErrorKind},
        stream::{Config, DiscardPolicy, Info, Republish, RetentionPolicy, StorageType},
    },
};
use siphasher::sip::SipHasher24;

use super::{
    differences::{Difference, advice, differences},
    version::{self, TooOld},
};
use crate::{
    model::{Epoch, Layout, Shard, Slot},
    nats::Subjects,
};

/// In a stream's metadata: a number that begins another epoch when it is changed, for a stream that was put right by hand.
const EPOCH: &str = "tidings-epoch";
/// The key of the hash that makes an epoch of a stream's creation. It never changes: all holders agree on it.
const EPOCH_KEY: (u64, u64) = (0x7469_6469_6e67_7320, 0x6570_6f63_6820_7365);

/// What can be chosen of the streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// How many servers keep it.
    pub replicas: usize,
    /// Whether they keep it in memory rather than on disk.
    pub in_memory: bool,
    /// For how long it keeps what it holds: what a wiped disk is filled from again. It is to be no shorter than a holder may be away.
    pub max_age: Duration,
    /// How large it may become, in bytes: then it refuses what is new. 0: as large as its servers allow.
    pub max_bytes: u64,
    /// For how long it recognises a message that comes again.
    pub duplicate_window: Duration,
}

/// What a shard's stream and its subjects are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    subjects: Subjects,
    shard: Shard,
}

impl Names {
    pub(super) const fn new(subjects: Subjects, shard: Shard) -> Self {
        Self { subjects, shard }
    }

    pub(super) fn stream(&self) -> String {
        self.subjects.stream(self.shard)
    }

    /// Where an event of a slot is appended.
    pub(super) fn subject(&self, slot: Slot) -> Subject {
        self.subjects.log(self.shard, slot)
    }

    /// The slot of a subject, if it is one of the stream's.
    pub(super) fn slot(&self, subject: &str, layout: Layout) -> Option<Slot> {
        let slot = Subjects::slot_in(subject)?;
        let is_ours = slot.0 < layout.slots()
            && layout.shard(slot.0) == self.shard.0
            && self.subjects.log(self.shard, slot).as_str() == subject;
        is_ours.then_some(slot)
    }

    fn all(&self) -> String {
        self.subjects.logs(self.shard).to_string()
    }

    /// Where the stream republishes to: to each slot what is appended to it.
    fn announced(&self) -> String {
        format!("{}.slot.{{{{wildcard(1)}}}}", self.subjects.cluster())
    }

    /// The stream as it is made.
    pub(super) fn config(&self, settings: &StreamSettings) -> Config {
        Config {
            name: self.stream(),
            description: Some(format!(
                "shard {} of the tidings cluster {}",
                self.shard,
                self.subjects.cluster()
            )),
            subjects: vec![self.all()],
            retention: RetentionPolicy::Limits,
            // A full stream says so. One that dropped its oldest events could drop what a holder has yet to apply.
            discard: DiscardPolicy::New,
            max_bytes: match settings.max_bytes {
                0 => -1,
                bytes => i64::try_from(bytes).unwrap_or(i64::MAX),
            },
            max_messages: -1,
            max_messages_per_subject: -1,
            max_age: settings.max_age,
            storage: if settings.in_memory {
                StorageType::Memory
            } else {
                StorageType::File
            },
            num_replicas: settings.replicas,
            duplicate_window: settings.duplicate_window,
            republish: Some(Republish {
                source: self.all(),
                destination: self.announced(),
                headers_only: false,
            }),
            allow_atomic_publish: true,
            allow_direct: true,
            deny_delete: true,
            deny_purge: true,
            ..Config::default()
        }
    }
}

/// A stream that can be worked with.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) epoch: Epoch,
    pub(super) first: u64,
    /// What is not as the settings have it, and can be worked with.
    pub(super) differences: Vec<Difference>,
}

/// Makes the stream of a shard if there is none, and checks the one there is. It is never changed.
pub(super) async fn ensure(
    context: &jetstream::Context,
    names: &Names,
    settings: &StreamSettings,
) -> Result<Checked, StreamError> {
    version::check(&server_version(context))?;
    let wanted = names.config(settings);
    let info = match look(context, names).await {
        Err(StreamError::Missing { .. }) => create(context, names, &wanted).await?,
        found => found?,
    };
    check(&info, names, settings)
}

/// Compares a stream with the settings.
pub(super) fn check(info: &Info, names: &Names, settings: &StreamSettings) -> Result<Checked, StreamError> {
    let differences = differences(&info.config, &names.config(settings));
    let (fatal, others): (Vec<_>, Vec<_>) = differences.into_iter().partition(|difference| difference.is_fatal);
    if !fatal.is_empty() {
        return Err(StreamError::Differs {
            stream: names.stream(),
            differences: fatal,
        });
    }
    Ok(Checked {
        epoch: epoch(info),
        first: info.state.first_sequence,
        differences: others,
    })
}

/// The version of the server that the connection is to; empty before there ever was one.
pub(super) fn server_version(context: &jetstream::Context) -> String {
    context
        .client()
        .try_server_info()
        .map(|info| info.version)
        .unwrap_or_default()
}

async fn create(context: &jetstream::Context, names: &Names, wanted: &Config) -> Result<Info, StreamError> {
    match context.create_stream(wanted.clone()).await {
        Ok(stream) => {
            tracing::info!(
                stream = names.stream(),
                replicas = wanted.num_replicas,
                "stream created"
            );
            Ok(stream.cached_info().clone())
        }
        Err(error) => match error.kind() {
            // Another holder was faster, with other settings.
            jetstream::context::CreateStreamErrorKind::JetStream(said)
                if said.error_code() == ErrorCode::STREAM_NAME_EXIST =>
            {
                look(context, names).await
            }
            kind => Err(StreamError::NotMade {
                stream: names.stream(),
                cause: told(&error),
                lacks_room: matches!(kind, jetstream::context::CreateStreamErrorKind::JetStream(said)
                    if [ErrorCode::STORAGE_RESOURCES_EXCEEDED, ErrorCode::INSUFFICIENT_RESOURCES].contains(&said.error_code())),
            }),
        },
    }
}

/// Asks the stream's leader how it is.
pub(super) async fn look(context: &jetstream::Context, names: &Names) -> Result<Info, StreamError> {
    match context.get_stream(names.stream()).await {
        Ok(stream) => Ok(stream.cached_info().clone()),
        Err(error) => Err(match error.kind() {
            GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                StreamError::Missing { stream: names.stream() }
            }
            GetStreamErrorKind::JetStream(said) => StreamError::NoLeader {
                stream: names.stream(),
                cause: said.to_string(),
            },
            _ => StreamError::NoAnswer {
                cause: told(&error),
                is_without_jetstream: lacks_jetstream(&error),
            },
        }),
    }
}

/// An error of the client with all that it stands on.
pub(super) fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let more = below.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = below.source();
    }
    text
}

fn lacks_jetstream(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<jetstream::context::RequestError>())
        .any(|error| error.kind() == RequestErrorKind::NoResponders)
}

/// The epoch of a stream: the same for everybody who looks at it, and another one for a stream that was made anew.
pub(super) fn epoch(info: &Info) -> Epoch {
    let created = info.created.unix_timestamp_nanos();
    let begun = info.config.metadata.get(EPOCH).map_or("", String::as_str);
    epoch_of(created, begun)
}

fn epoch_of(created_nanos: i128, begun: &str) -> Epoch {
    let mut hasher = SipHasher24::new_with_keys(EPOCH_KEY.0, EPOCH_KEY.1);
    hasher.write(&created_nanos.to_be_bytes());
    hasher.write(begun.as_bytes());
    let number = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
    Epoch(number.max(1))
}

/// Why a stream cannot be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The server is from before what is needed of it.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// Nobody answers.
    #[error("JetStream does not answer ({cause}){}", if *is_without_jetstream { ": see that `jetstream` is enabled on the NATS servers" } else { "" })]
    NoAnswer {
        /// What failed.
        cause: String,
        /// Whether there is no JetStream at all.
        is_without_jetstream: bool,
    },
    /// It answers that it cannot.
    #[error("the stream {stream} cannot be asked ({cause}): see that most of the NATS servers that keep it run")]
    NoLeader {
        /// Which stream.
        stream: String,
        /// What the server said.
        cause: String,
    },
    /// There is none.
    #[error("there is no stream {stream}")]
    Missing {
        /// Which stream.
        stream: String,
    },
    /// It cannot be made.
    #[error("the stream {stream} cannot be made ({cause}){}", if *lacks_room {
        ": each server sets `jetstream.max_bytes` aside for each stream, so lower that, or raise `max_file_store` on the NATS servers"
    } else {
        ""
    })]
    NotMade {
        /// Which stream.
        stream: String,
        /// What the server said.
        cause: String,
        /// Whether it is for want of room.
        lacks_room: bool,
    },
    /// It is not what it has to be.
    #[error(
        "the stream {stream} is not as it has to be: {}; nothing was changed: {}",
        differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        advice(stream, differences)
    )]
    Differs {
        /// Which stream.
        stream: String,
        /// In what.
        differences: Vec<Difference>,
    },
}

impl StreamError {
    /// Whether it stays so until somebody does something about it.
    pub(super) const fn is_for_the_operator(&self) -> bool {
        match self {
            Self::NoAnswer {
                is_without_jetstream, ..
            } => *is_without_jetstream,
            Self::TooOld(_) | Self::NotMade { .. } | Self::Differs { .. } => true,
            Self::NoLeader { .. } | Self::Missing { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cluster: &str, shard: u16) -> Names {
        Names::new(Subjects::new(cluster).expect("a name"), Shard(shard))
    }

    #[test]
    fn subjects_and_slots_go_both_ways() {
        let names = names("c-1", 3);
        let layout = Layout::new(1_024, 8).expect("valid");
        assert_eq!(names.stream(), "c-1-shard-3");
        assert_eq!(names.subject(Slot(11)).as_str(), "c-1.log.3.11");
        assert_eq!(names.slot("c-1.log.3.11", layout), Some(Slot(11)));
        for other in [
            "c-1.log.3.12",
            "c-1.log.2.11",
            "c.log.3.11",
            "c-1.log.3.x",
            "c-1.log.3.1027",
            "c-1.log.3",
        ] {
            assert_eq!(names.slot(other, layout), None, "{other}");
        }
    }

    #[test]
    fn an_epoch_is_of_the_creation_and_of_what_was_begun() {
        assert_eq!(epoch_of(1_795_167_246_902_718_612, ""), Epoch(PUBLISHED));
        assert_ne!(epoch_of(1_795_167_246_902_718_612, "2"), Epoch(PUBLISHED));
        assert_ne!(epoch_of(1_795_167_246_902_718_613, ""), Epoch(PUBLISHED));
    }

    const PUBLISHED: u32 = 3_781_899_634;
}
