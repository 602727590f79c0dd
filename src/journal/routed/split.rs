//! A publish taken apart by shard, and what came of the parts put together again. Pure.

use crate::{
    journal::{AppendError, Placed, Receipt},
    model::{Layout, Publish, Shard, Topic},
};

/// The part of a publish that is of one shard.
#[derive(Debug)]
pub(super) struct OfShard {
    pub(super) shard: Shard,
    pub(super) publish: Publish,
    /// Where each of its topics is in the whole.
    pub(super) positions: Vec<usize>,
}

/// The parts of a publish, in the order of their first topics.
pub(super) fn split(layout: Layout, publish: Publish) -> Vec<OfShard> {
    let mut parts: Vec<(Shard, Vec<Topic>, Vec<usize>)> = Vec::with_capacity(1);
    let Publish {
        topics,
        event_type,
        data,
        key,
        deadline,
    } = publish;
    for (position, topic) in topics.into_iter().enumerate() {
        let shard = Shard(layout.shard(layout.slot(topic.as_str())));
        match parts.iter_mut().find(|(of, ..)| *of == shard) {
            Some((_, topics, positions)) => {
                topics.push(topic);
                positions.push(position);
            }
            None => parts.push((shard, vec![topic], vec![position])),
        }
    }
    let of_shard = |(shard, topics, positions)| OfShard {
        shard,
        publish: Publish {
            topics,
            event_type: event_type.clone(),
            data: data.clone(),
            key: key.clone(),
            deadline,
        },
        positions,
    };
    parts.into_iter().map(of_shard).collect()
}

/// What came of the whole, from what came of each part at its positions.
///
/// If every part failed, one error stands for all: that the outcome is unknown, if it is for any of them, since that is what must not be missed.
pub(super) fn join(parts: Vec<(Vec<usize>, Result<Receipt, AppendError>)>) -> Result<Receipt, AppendError> {
    let (mut placed, mut failed) = (false, None);
    let mut outcomes: Vec<(usize, Result<Placed, AppendError>)> = Vec::new();
    for (positions, outcome) in parts {
        match outcome {
            Ok(receipt) if receipt.placed.len() == positions.len() => {
                placed = true;
                outcomes.extend(positions.into_iter().zip(receipt.placed.into_iter().map(Ok)));
            }
            other => {
                let error = other.err().unwrap_or_else(|| AppendError::Unknown {
                    cause: "the answer is not of as many topics as were published to".to_owned(),
                });
                if failed.is_none() || error.may_be_appended() {
                    failed = Some(error.clone());
                }
                outcomes.extend(positions.into_iter().map(|position| (position, Err(error.clone()))));
            }
        }
    }
    match failed {
        Some(error) if !placed => Err(error),
        failed => {
            outcomes.sort_unstable_by_key(|(position, _)| *position);
            let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome);
            if failed.is_some() {
                Err(AppendError::Partly {
                    outcomes: outcomes.collect(),
                })
            } else {
                Ok(Receipt {
                    placed: outcomes.collect::<Result<_, _>>()?,
                })
            }
        }
    }
}
