//! Digests: what a holder of a shard tells the bus about twice a second, so that nobody misses a slot's last announcement for long.

use std::{sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;

use crate::{
    bus::{Bus, Digest},
    log::{Heads, Log},
    model::Shard,
};

/// What to tell when the last digest told of `previous`, and the shard has come to `heads`.
#[must_use]
pub fn digest(previous: &Heads, heads: &Heads) -> Digest {
    let mut changed: Vec<_> = heads
        .slots
        .iter()
        .map(|(&slot, &last)| (slot, last))
        .filter(|&(_, last)| last > previous.last || heads.epoch != previous.epoch)
        .collect();
    changed.sort_unstable();
    Digest {
        shard: heads.shard,
        epoch: heads.epoch,
        before: if heads.epoch == previous.epoch {
            previous.last
        } else {
            crate::model::Seq::ZERO
        },
        now: heads.last,
        changed,
    }
}

/// Sends a digest of a shard at every interval, until it is dropped. One that cannot be made is left out: the next covers it.
///
/// Each tells how far the shard had come an interval ago: readers see an event a moment before the bus is told of it, and a digest that
/// overtook the announcement would send every follower to the log.
pub async fn send_digests(log: Arc<dyn Log>, bus: Arc<dyn Bus>, shard: Shard, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: Option<Heads> = None;
    let mut told: Option<Heads> = None;
    loop {
        ticks.tick().await;
        match log.heads(shard).await {
            Ok(heads) => {
                if let Some(seen) = seen.replace(heads) {
                    bus.digest(&digest(told.as_ref().unwrap_or(&seen), &seen));
                    told = Some(seen);
                }
            }
            Err(error) => tracing::debug!(%error, %shard, "no digest"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Epoch, Seq, Slot};

    fn heads(epoch: u32, slots: &[(u32, u64)]) -> Heads {
        Heads {
            shard: Shard(3),
            epoch: Epoch(epoch),
            last: Seq(slots.iter().map(|&(_, seq)| seq).max().unwrap_or_default()),
            floor: Seq(1),
            slots: Arc::new(slots.iter().map(|&(slot, seq)| (Slot(slot), Seq(seq))).collect()),
        }
    }

    #[test]
    fn names_the_slots_that_changed_and_no_others() {
        let digest = digest(&heads(1, &[(0, 4), (1, 7)]), &heads(1, &[(0, 9), (1, 7), (2, 8)]));
        assert_eq!((digest.before, digest.now), (Seq(7), Seq(9)));
        assert_eq!(digest.changed, [(Slot(0), Seq(9)), (Slot(2), Seq(8))]);
    }

    #[test]
    fn the_first_of_a_sender_claims_no_change() {
        let heads = heads(1, &[(0, 9)]);
        let digest = digest(&heads, &heads);
        assert_eq!((digest.before, digest.now), (Seq(9), Seq(9)));
        assert_eq!(digest.changed, []);
    }

    #[test]
    fn another_epoch_begins_at_zero() {
        let digest = digest(&heads(1, &[(0, 9)]), &heads(2, &[(0, 4)]));
        assert_eq!((digest.epoch, digest.before, digest.now), (Epoch(2), Seq(0), Seq(4)));
        assert_eq!(digest.changed, [(Slot(0), Seq(4))]);
    }

    proptest! {
        #[test]
        fn one_after_the_other_they_tell_every_head(
            appended in prop::collection::vec(prop::collection::vec(0..8_u32, 0..6), 1..8),
        ) {
            let (mut slots, mut told, mut seq) = (Vec::<(u32, u64)>::new(), std::collections::HashMap::new(), 0);
            let mut previous = heads(1, &[]);
            for slots_of_interval in appended {
                for slot in slots_of_interval {
                    seq += 1;
                    slots.retain(|&(known, _)| known != slot);
                    slots.push((slot, seq));
                }
                let now = heads(1, &slots);
                let digest = digest(&previous, &now);
                prop_assert_eq!(digest.before, previous.last);
                told.extend(digest.changed);
                prop_assert_eq!(&told, &*now.slots);
                previous = now;
            }
        }
    }
}
