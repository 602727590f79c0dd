//! What is said of a stream that is not as the settings have it.

use std::fmt;

use async_nats::jetstream::stream::Config;

/// One thing in which a stream is not as the settings have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub what: &'static str,
    /// How the stream has it.
    pub found: String,
    /// How the settings have it.
    pub wanted: String,
    /// What sets it right: `nats stream edit` with these options; `None` if nothing can.
    pub edit: Option<String>,
    /// Whether nothing may be appended to such a stream, or read from it.
    pub is_fatal: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what, found, wanted, ..
        } = self;
        write!(f, "{what} is {found} and not {wanted}")
    }
}

/// In what a stream is not as the settings have it.
pub(super) fn differences(found: &Config, wanted: &Config) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut compare = |what, found: String, wanted: String, edit: Option<String>, is_fatal| {
        if found != wanted {
            all.push(Difference {
                what,
                found,
                wanted,
                edit,
                is_fatal,
            });
        }
    };
    let republish = |config: &Config| match &config.republish {
        None => "none".to_owned(),
        Some(republish) if republish.headers_only => format!("{} headers only", republish.destination),
        Some(republish) => format!("{} to {}", republish.source, republish.destination),
    };
    let subjects = wanted.subjects.join(",");
    compare(
        "`subjects`",
        found.subjects.join(","),
        subjects.clone(),
        Some(format!("--subjects={subjects}")),
        true,
    );
    let edit = wanted.republish.as_ref().map(|to| {
        format!(
            "--republish-source='{}' --republish-destination='{}'",
            to.source, to.destination
        )
    });
    compare("`republish`", republish(found), republish(wanted), edit, true);
    compare(
        "`retention`",
        format!("{:?}", found.retention),
        format!("{:?}", wanted.retention),
        None,
        true,
    );
    compare(
        "`discard`",
        format!("{:?}", found.discard),
        format!("{:?}", wanted.discard),
        Some("--discard=new".to_owned()),
        true,
    );
    compare(
        "`max_msgs_per_subject`",
        found.max_messages_per_subject.max(-1).to_string(),
        "-1".to_owned(),
        Some("--max-msgs-per-subject=-1".to_owned()),
        true,
    );
    compare(
        "`no_ack`",
        found.no_ack.to_string(),
        "false".to_owned(),
        Some("--ack".to_owned()),
        true,
    );
    compare("`sealed`", found.sealed.to_string(), "false".to_owned(), None, true);
    let has_other_sources = found.mirror.is_some() || found.sources.as_ref().is_some_and(|all| !all.is_empty());
    compare(
        "being a mirror or having sources",
        has_other_sources.to_string(),
        "false".to_owned(),
        None,
        true,
    );
    let transforms = found.subject_transform.is_some();
    compare(
        "having a subject transform",
        transforms.to_string(),
        "false".to_owned(),
        None,
        true,
    );
    compare(
        "`allow_atomic`",
        found.allow_atomic_publish.to_string(),
        "true".to_owned(),
        Some("--allow-batch".to_owned()),
        true,
    );
    compare(
        "`num_replicas`",
        found.num_replicas.to_string(),
        wanted.num_replicas.to_string(),
        Some(format!("--replicas={}", wanted.num_replicas)),
        false,
    );
    compare(
        "`storage`",
        format!("{:?}", found.storage),
        format!("{:?}", wanted.storage),
        None,
        false,
    );
    compare(
        "`max_age`",
        format!("{:?}", found.max_age),
        format!("{:?}", wanted.max_age),
        Some(format!("--max-age={}s", wanted.max_age.as_secs())),
        false,
    );
    compare(
        "`max_bytes`",
        found.max_bytes.to_string(),
        wanted.max_bytes.to_string(),
        Some(format!("--max-bytes={}", wanted.max_bytes)),
        false,
    );
    compare(
        "`max_msgs`",
        found.max_messages.max(-1).to_string(),
        "-1".to_owned(),
        Some("--max-msgs=-1".to_owned()),
        false,
    );
    compare(
        "`duplicate_window`",
        format!("{:?}", found.duplicate_window),
        format!("{:?}", wanted.duplicate_window),
        Some(format!("--dupe-window={}s", wanted.duplicate_window.as_secs())),
        // Shorter, and a publish that is tried again may be appended twice.
        found.duplicate_window < wanted.duplicate_window,
    );
    compare(
        "`deny_delete`",
        found.deny_delete.to_string(),
        "true".to_owned(),
        None,
        false,
    );
    compare(
        "`deny_purge`",
        found.deny_purge.to_string(),
        "true".to_owned(),
        None,
        false,
    );
    all
}

/// What to do about differences.
pub(super) fn advice(stream: &str, differences: &[Difference]) -> String {
    let edits: Option<Vec<_>> = differences
        .iter()
        .map(|difference| difference.edit.as_deref())
        .collect();
    match edits {
        Some(edits) => format!("`nats stream edit {stream} {}` sets it right", edits.join(" ")),
        None => {
            "not all of that can be edited: set the settings to what it is, or have the stream made anew".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::jetstream::stream::DiscardPolicy;

    use super::*;
    use crate::{
        journal::jetstream::stream::{Names, StreamSettings},
        model::Shard,
        nats::Subjects,
    };

    const SETTINGS: StreamSettings = StreamSettings {
        replicas: 3,
        in_memory: false,
        max_age: Duration::from_secs(3_600),
        max_bytes: 1 << 30,
        duplicate_window: Duration::from_secs(120),
    };

    fn names(cluster: &str, shard: u16) -> Names {
        Names::new(Subjects::new(cluster).expect("a name"), Shard(shard))
    }

    #[test]
    fn a_stream_as_it_was_made_has_no_differences() {
        let names = names("c", 0);
        let made = names.config(&SETTINGS);
        assert_eq!(differences(&made, &made), []);
    }

    #[test]
    fn what_differs_is_named_with_what_to_do() {
        let names = names("c", 0);
        let wanted = names.config(&SETTINGS);
        let found = Config {
            num_replicas: 1,
            max_age: Duration::from_secs(60),
            discard: DiscardPolicy::Old,
            ..wanted.clone()
        };
        let found = differences(&found, &wanted);
        let named: Vec<_> = found
            .iter()
            .map(|difference| (difference.what, difference.is_fatal))
            .collect();
        assert_eq!(
            named,
            [("`discard`", true), ("`num_replicas`", false), ("`max_age`", false)]
        );
        assert_eq!(
            advice("c-shard-0", &found),
            "`nats stream edit c-shard-0 --discard=new --replicas=3 --max-age=3600s` sets it right"
        );
    }
}
