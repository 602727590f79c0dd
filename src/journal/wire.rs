//! What goes over the wire between a node and one that holds a shard.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tidings_proto::v1::{AppendFailure, AppendRequest, Appended, append_failure::Disk, appended::Placed as WirePlaced};

use super::{AppendError, DiskFull, Placed, Receipt, Unavailable};
use crate::model::{EventType, Layout, Publish, PublishKey, Seq, Shard, Topic};

/// The largest request that is read: what no publisher may publish is cut off.
pub(super) const MAX_REQUEST: usize =
    Publish::MAX_DATA_BYTES + Publish::MAX_TOPICS * (Topic::MAX_BYTES + 3) + 64 * 1024;

/// A part of a publish, all of whose topics belong to the shard.
pub(super) fn request(shard: Shard, publish: &Publish, now: Instant) -> AppendRequest {
    let patience = publish.deadline.map(|at| at.saturating_duration_since(now));
    AppendRequest {
        shard: shard.0.into(),
        topics: publish.topics.iter().map(|topic| topic.as_str().to_owned()).collect(),
        r#type: publish
            .event_type
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        data: publish.data.to_string(),
        key: publish
            .key
            .as_ref()
            .map_or_else(String::new, |key| key.as_str().to_owned()),
        // 0 would be for ever.
        patience_ms: patience.map_or(0, |patience| millis(patience).max(1)),
    }
}

/// The publish of a request.
pub(super) fn publish(request: AppendRequest, layout: Layout, now: Instant) -> Result<Publish, Misfit> {
    let misfit = |field: &str, error: &dyn std::fmt::Display| Misfit(format!("{field}: {error}"));
    // What publishers may not send, nodes may not hand on: a node's own limits may be lower, but not higher.
    if request.topics.len() > Publish::MAX_TOPICS {
        return Err(Misfit(format!("there are {} topics", request.topics.len())));
    }
    if request.data.len() > Publish::MAX_DATA_BYTES {
        return Err(Misfit(format!("the data has {} bytes", request.data.len())));
    }
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let topic = Topic::parse(&topic).map_err(|error| misfit("topic", &error))?;
        let shard = layout.shard(layout.slot(topic.as_str()));
        if u32::from(shard) != request.shard {
            return Err(Misfit(format!(
                "topic {topic} is of shard {shard} here and of shard {} there: `cluster.slots` and `cluster.shards` must be the same on every node",
                request.shard
            )));
        }
        topics.push(topic);
    }
    if topics.is_empty() {
        return Err(Misfit("there is no topic".to_owned()));
    }
    // Whoever reads a shard relies on what its publishers' node has checked: what it would leave out may not be acknowledged.
    if topics.iter().collect::<HashSet<_>>().len() < topics.len() {
        return Err(Misfit("a topic is there twice".to_owned()));
    }
    if request.data.contains('\0') {
        return Err(Misfit("the data holds a NUL".to_owned()));
    }
    let event_type = some(&request.r#type).map(EventType::parse).transpose();
    let key = some(&request.key).map(PublishKey::parse).transpose();
    Ok(Publish {
        topics,
        event_type: event_type.map_err(|error| misfit("type", &error))?,
        data: request.data.into(),
        key: key.map_err(|error| misfit("key", &error))?,
        deadline: match request.patience_ms {
            0 => None,
            millis => now.checked_add(Duration::from_millis(millis)),
        },
    })
}

/// A request that no node of the same cluster would send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the nodes do not fit together: {0}")]
pub(super) struct Misfit(String);

pub(super) fn appended(receipt: &Receipt) -> Appended {
    let placed = receipt.placed.iter().map(|placed| WirePlaced {
        sequence: placed.seq.0,
        repeated: placed.repeated,
    });
    Appended {
        placed: placed.collect(),
    }
}

pub(super) fn receipt(appended: &Appended) -> Receipt {
    let placed = appended.placed.iter().map(|placed| Placed {
        seq: Seq(placed.sequence),
        repeated: placed.repeated,
    });
    Receipt {
        placed: placed.collect(),
    }
}

/// An error as another node is told it; `node` is who says it.
pub(super) fn failure(error: &AppendError, node: &str) -> AppendFailure {
    let failed = |reason: &str, cause: &str| AppendFailure {
        reason: reason.to_owned(),
        cause: cause.to_owned(),
        node: node.to_owned(),
        ..AppendFailure::default()
    };
    match error {
        AppendError::DiskFull(full) => AppendFailure {
            disk: Some(Disk {
                used_percent: full.used_percent.into(),
                high_water_percent: full.high_water_percent.into(),
                available: full.available,
                reserve: full.reserve,
            }),
            ..failed("disk_full", "")
        },
        AppendError::ReadOnly { cause } => failed("read_only", cause),
        // Not the node that is asked first is shutting down, but this one.
        AppendError::Closed => failed("leaving", ""),
        AppendError::Unavailable { cause, .. } => match cause {
            Unavailable::NoHolder => failed("no_holder", ""),
            Unavailable::Unreachable { node, cause } => AppendFailure {
                node: node.clone(),
                ..failed("unreachable", cause)
            },
            Unavailable::Leaving { node } => AppendFailure {
                node: node.clone(),
                ..failed("leaving", "")
            },
            Unavailable::NotHeld { node } => AppendFailure {
                node: node.clone(),
                ..failed("not_held", "")
            },
            Unavailable::CatchingUp { cause } => failed("catching_up", cause),
            Unavailable::Diverged { cause } => failed("diverged", cause),
            Unavailable::NoNats { cause } => failed("no_nats", cause),
            Unavailable::Unusable { cause } => failed("unusable_stream", cause),
            Unavailable::NoQuorum { cause } => failed("no_quorum", cause),
        },
        AppendError::StreamFull { cause, .. } => failed("stream_full", cause),
        AppendError::StreamRefused { cause, .. } => failed("stream_refused", cause),
        AppendError::TooSlow { waited, .. } => AppendFailure {
            waited_ms: millis(*waited),
            ..failed("too_slow", "")
        },
        AppendError::Unknown { cause } => failed("unknown_outcome", cause),
        // Of one shard there are no parts.
        AppendError::Partly { .. } => failed("unknown_outcome", &error.to_string()),
    }
}

/// What another node said of a shard.
pub(super) fn error(failure: AppendFailure, shard: Shard) -> AppendError {
    let AppendFailure {
        reason,
        cause,
        node,
        waited_ms,
        disk,
    } = failure;
    let unavailable = |cause| AppendError::Unavailable { shard, cause };
    let at_node = |cause: String| format!("node {node}: {cause}");
    match (reason.as_str(), disk) {
        ("disk_full", Some(disk)) => AppendError::DiskFull(DiskFull {
            used_percent: percent(disk.used_percent),
            high_water_percent: percent(disk.high_water_percent),
            available: disk.available,
            reserve: disk.reserve,
        }),
        ("read_only", _) => AppendError::ReadOnly { cause: at_node(cause) },
        ("no_holder", _) => unavailable(Unavailable::NoHolder),
        ("unreachable", _) => unavailable(Unavailable::Unreachable { node, cause }),
        ("leaving", _) => unavailable(Unavailable::Leaving { node }),
        ("not_held", _) => unavailable(Unavailable::NotHeld { node }),
        ("catching_up", _) => unavailable(Unavailable::CatchingUp { cause: at_node(cause) }),
        ("diverged", _) => unavailable(Unavailable::Diverged { cause: at_node(cause) }),
        ("no_nats", _) => unavailable(Unavailable::NoNats { cause: at_node(cause) }),
        ("unusable_stream", _) => unavailable(Unavailable::Unusable { cause }),
        ("no_quorum", _) => unavailable(Unavailable::NoQuorum { cause }),
        ("stream_full", _) => AppendError::StreamFull { shard, cause },
        ("stream_refused", _) => AppendError::StreamRefused { shard, cause },
        ("too_slow", _) => AppendError::TooSlow {
            shard,
            waited: Duration::from_millis(waited_ms),
        },
        ("unknown_outcome", _) => AppendError::Unknown { cause: at_node(cause) },
        _ => AppendError::Unknown {
            cause: format!("node {node} failed with {reason:?}, which this version does not know: {cause}"),
        },
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn percent(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard(5);

    #[test]
    fn what_no_node_would_send_is_not_taken() {
        let sent = |topics: &[&str], data: &str| {
            let request = AppendRequest {
                shard: 0,
                topics: topics.iter().map(ToString::to_string).collect(),
                data: data.to_owned(),
                ..AppendRequest::default()
            };
            publish(request, Layout::EMBEDDED, Instant::now()).is_ok()
        };
        assert!(sent(&["a", "b"], "x"));
        assert!(!sent(&[], "x"));
        assert!(!sent(&["a", "b", "a"], "x"));
        assert!(!sent(&["a b"], "x"));
        assert!(!sent(&["a"], "x\0"));
        let long = "x".repeat(Publish::MAX_DATA_BYTES + 1);
        assert!(sent(&["a"], &long[1..]));
        assert!(!sent(&["a"], &long), "more than any publisher may send");
        let names: Vec<_> = (0..=Publish::MAX_TOPICS).map(|n| n.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert!(sent(&names[1..], "x"));
        assert!(!sent(&names, "x"));
    }

    #[test]
    fn every_error_is_the_same_on_the_other_node() {
        let cause = || "cause".to_owned();
        let node = || "ingest-1".to_owned();
        let unavailable = |cause| AppendError::Unavailable { shard: SHARD, cause };
        for sent in [
            AppendError::DiskFull(DiskFull {
                used_percent: 96,
                high_water_percent: 95,
                available: 1 << 30,
                reserve: 1 << 28,
            }),
            unavailable(Unavailable::NoHolder),
            unavailable(Unavailable::Unreachable {
                node: "ingest-2".to_owned(),
                cause: cause(),
            }),
            unavailable(Unavailable::Leaving { node: node() }),
            unavailable(Unavailable::NotHeld { node: node() }),
            unavailable(Unavailable::Unusable { cause: cause() }),
            unavailable(Unavailable::NoQuorum { cause: cause() }),
            AppendError::StreamFull {
                shard: SHARD,
                cause: cause(),
            },
            AppendError::StreamRefused {
                shard: SHARD,
                cause: cause(),
            },
            AppendError::TooSlow {
                shard: SHARD,
                waited: Duration::from_millis(1_500),
            },
        ] {
            assert_eq!(error(failure(&sent, "ingest-1"), SHARD), sent);
        }
        // These say at which node.
        let told = || "node ingest-1: cause".to_owned();
        for (sent, received) in [
            (
                AppendError::ReadOnly { cause: cause() },
                AppendError::ReadOnly { cause: told() },
            ),
            (AppendError::Closed, unavailable(Unavailable::Leaving { node: node() })),
            (
                unavailable(Unavailable::CatchingUp { cause: cause() }),
                unavailable(Unavailable::CatchingUp { cause: told() }),
            ),
            (
                unavailable(Unavailable::Diverged { cause: cause() }),
                unavailable(Unavailable::Diverged { cause: told() }),
            ),
            (
                unavailable(Unavailable::NoNats { cause: cause() }),
                unavailable(Unavailable::NoNats { cause: told() }),
            ),
            (
                AppendError::Unknown { cause: cause() },
                AppendError::Unknown { cause: told() },
            ),
        ] {
            assert_eq!(error(failure(&sent, "ingest-1"), SHARD), received);
        }
    }

    #[test]
    fn an_error_of_a_later_version_leaves_the_outcome_open() {
        let failure = AppendFailure {
            reason: "struck_by_lightning".to_owned(),
            ..AppendFailure::default()
        };
        assert!(error(failure, SHARD).may_be_appended());
    }

    #[test]
    fn a_publish_is_the_same_on_the_other_node() {
        let layout = Layout::new(1_024, 8).expect("valid");
        let topic = Topic::parse("user:42").expect("a topic");
        let shard = Shard(layout.shard(layout.slot(topic.as_str())));
        let now = Instant::now();
        let sent = Publish {
            topics: vec![topic],
            event_type: Some(EventType::parse("order").expect("a type")),
            data: "some data".into(),
            key: Some(PublishKey::parse("k").expect("a key")),
            deadline: Some(now + Duration::from_millis(250)),
        };
        let wire = request(shard, &sent, now);
        let received = publish(wire.clone(), layout, now).expect("fits");
        assert_eq!(format!("{received:?}"), format!("{sent:?}"));

        let other = Layout::new(1_024, 7).expect("valid");
        let error = publish(wire, other, now).expect_err("another layout");
        assert!(error.to_string().contains("cluster.shards"), "{error}");
    }
}
