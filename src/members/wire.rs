//! Beats as they go over NATS: `proto/tidings/v1/member.proto`.

use bytes::Bytes;
use prost::Message as _;
use tidings_cluster::{Beat, HeldShard, Role};
use tidings_proto::v1;

/// A message that is no beat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(&'static str);

/// A beat as it is sent.
pub(super) fn encode(beat: &Beat) -> Bytes {
    let role = match beat.role {
        Role::Edge => v1::beat::Role::Edge,
        Role::Ingest => v1::beat::Role::Ingest,
    };
    let shards = beat.shards.iter().map(|held| v1::beat::HeldShard {
        shard: held.shard.into(),
        epoch: held.epoch,
        last: held.last,
        writable: held.writable,
        rank: held.rank,
    });
    let message = v1::Beat {
        node: beat.node.clone(),
        incarnation: beat.incarnation,
        number: beat.number,
        role: role.into(),
        http: beat.http.clone(),
        grpc: beat.grpc.clone(),
        connections: beat.connections,
        weight: beat.weight,
        draining: beat.draining,
        shards: shards.collect(),
        version: beat.version.clone(),
        layout_slots: beat.layout_slots,
        layout_shards: beat.layout_shards,
        leaving: beat.leaving,
    };
    message.encode_to_vec().into()
}

/// Reads a beat.
pub(super) fn decode(payload: &[u8]) -> Result<Beat, Malformed> {
    let message = v1::Beat::decode(payload).map_err(|_| Malformed("no beat"))?;
    let role = match message.role() {
        v1::beat::Role::Edge => Role::Edge,
        v1::beat::Role::Ingest => Role::Ingest,
        v1::beat::Role::Unspecified => return Err(Malformed("a beat of a node with an unknown role")),
    };
    if message.node.is_empty() {
        return Err(Malformed("a beat without a name"));
    }
    let shards: Result<_, Malformed> = message.shards.iter().map(held).collect();
    Ok(Beat {
        role,
        shards: shards?,
        node: message.node,
        incarnation: message.incarnation,
        number: message.number,
        http: message.http,
        grpc: message.grpc,
        connections: message.connections,
        weight: message.weight,
        draining: message.draining,
        leaving: message.leaving,
        version: message.version,
        layout_slots: message.layout_slots,
        layout_shards: message.layout_shards,
    })
}

fn held(held: &v1::beat::HeldShard) -> Result<HeldShard, Malformed> {
    Ok(HeldShard {
        shard: u16::try_from(held.shard).map_err(|_| Malformed("a beat with a shard that cannot be"))?,
        epoch: held.epoch,
        last: held.last,
        writable: held.writable,
        rank: held.rank,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn beats()(
            texts in prop::array::uniform4("[a-z.:/]{1,10}"),
            numbers in any::<(u64, u64, u64, u32, u32, u32)>(),
            flags in any::<(bool, bool, bool)>(),
            shards in prop::collection::vec(any::<(u16, u32, u64, bool, u32)>(), 0..5),
        ) -> Beat {
            let [node, http, grpc, version] = texts;
            let (incarnation, number, connections, weight, layout_slots, layout_shards) = numbers;
            let (is_edge, draining, leaving) = flags;
            let shards = shards.into_iter().map(|(shard, epoch, last, writable, rank)| HeldShard {
                shard, epoch, last, writable, rank,
            });
            Beat {
                node, incarnation, number, http, grpc, connections, weight, draining, leaving, version, layout_slots, layout_shards,
                role: if is_edge { Role::Edge } else { Role::Ingest },
                shards: shards.collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn beats_round_trip(beat in beats()) {
            prop_assert_eq!(decode(&encode(&beat)), Ok(beat));
        }

        #[test]
        fn anything_is_read_or_refused(payload in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&payload);
        }
    }
}
