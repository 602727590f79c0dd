//! The log's answers as `tidings.v1.Log` carries them.

use std::{collections::HashMap, sync::Arc};

use tidings_proto::v1::{
    Event as WireEvent, HeadsResponse, LocateResponse, ReplayRequest as WireRequest, ReplayResponse, TopicPosition,
    replay_response::{Fork, Gone, Page as WirePage, Result as WireResult},
};

use super::{Heads, Located, Page, Replay, ReplayRequest};
use crate::model::{Epoch, Event, EventType, Seq, Shard, Slot, Topic, UnixMillis};

pub(super) fn from_heads(heads: &Heads) -> HeadsResponse {
    HeadsResponse {
        epoch: heads.epoch.0,
        last: heads.last.0,
        floor: heads.floor.0,
        slots: heads.slots.iter().map(|(slot, seq)| (slot.0, seq.0)).collect(),
    }
}

pub(super) fn to_heads(shard: Shard, heads: HeadsResponse) -> Heads {
    let slots = heads.slots.into_iter().map(|(slot, seq)| (Slot(slot), Seq(seq)));
    Heads {
        shard,
        epoch: Epoch(heads.epoch),
        last: Seq(heads.last),
        floor: Seq(heads.floor),
        slots: Arc::new(slots.collect()),
    }
}

pub(super) fn to_located(located: LocateResponse) -> Located {
    Located {
        epoch: Epoch(located.epoch),
        after: Seq(located.after),
    }
}

pub(super) fn from_request(request: &ReplayRequest, live: bool) -> WireRequest {
    WireRequest {
        shard: request.shard.0.into(),
        epoch: request.epoch.0,
        topics: request
            .topics
            .iter()
            .map(|(topic, after)| TopicPosition {
                topic: topic.as_str().to_owned(),
                after: after.0,
            })
            .collect(),
        max_events: u32::try_from(request.max_events).unwrap_or(u32::MAX),
        max_bytes: u64::try_from(request.max_bytes).unwrap_or(u64::MAX),
        live,
    }
}

pub(super) fn from_replay(replay: &Replay) -> ReplayResponse {
    let result = match replay {
        Replay::Page(page) => WireResult::Page(WirePage {
            events: page.events.iter().map(|event| from_event(event)).collect(),
            up_to: page.up_to.0,
            epoch: page.epoch.0,
        }),
        Replay::Gone { epoch, floor } => WireResult::Gone(Gone {
            epoch: epoch.0,
            floor: floor.0,
        }),
        Replay::Forked { epoch, last } => WireResult::Forked(Fork {
            epoch: epoch.0,
            last: last.0,
        }),
    };
    ReplayResponse { result: Some(result) }
}

fn from_event(event: &Event) -> WireEvent {
    WireEvent {
        topic: event.topic.as_str().to_owned(),
        r#type: event.event_type.as_ref().map_or_else(String::new, ToString::to_string),
        data: (*event.data).to_owned(),
        time_ms: event.time.0,
        sequence: event.seq.map_or(0, |seq| seq.0),
    }
}

/// The answer to a request.
///
/// # Errors
/// If it cannot be one: it is empty, or has events that were not asked for, out of order or unreadable.
pub(super) fn to_replay(request: &ReplayRequest, response: ReplayResponse) -> Result<Replay, BadAnswer> {
    Ok(match response.result.ok_or(BadAnswer("is empty"))? {
        WireResult::Gone(gone) => Replay::Gone {
            epoch: Epoch(gone.epoch),
            floor: Seq(gone.floor),
        },
        WireResult::Forked(fork) => Replay::Forked {
            epoch: Epoch(fork.epoch),
            last: Seq(fork.last),
        },
        WireResult::Page(page) => {
            let asked: HashMap<&str, &(Topic, Seq)> =
                request.topics.iter().map(|asked| (asked.0.as_str(), asked)).collect();
            let mut last = Seq::ZERO;
            let mut events = Vec::with_capacity(page.events.len());
            for event in page.events {
                let (topic, after) = asked
                    .get(&*event.topic)
                    .ok_or(BadAnswer("has an event of a topic that was not asked for"))?;
                let seq = Seq(event.sequence);
                if seq <= last || seq <= *after || seq.0 > page.up_to {
                    return Err(BadAnswer("has an event out of order"));
                }
                last = seq;
                let event_type = match &*event.r#type {
                    "" => None,
                    name => {
                        Some(EventType::parse(name).map_err(|_| BadAnswer("has an event with a type that is none"))?)
                    }
                };
                events.push(Arc::new(Event::new(
                    topic.clone(),
                    event_type,
                    event.data.into(),
                    UnixMillis(event.time_ms),
                    Some(seq),
                )));
            }
            Replay::Page(Page {
                epoch: Epoch(page.epoch),
                events,
                up_to: Seq(page.up_to),
            })
        }
    })
}

/// An answer that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its answer {0}")]
pub(super) struct BadAnswer(&'static str);
