//! How far the shards were a while ago: by that one sees who is behind.

use std::{collections::BTreeMap, time::Duration};

use super::beat::{Beat, HeldShard};

/// How far the holders of each shard had come, at two earlier moments.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// By shard and epoch.
    old: BTreeMap<(u16, u32), u64>,
    recent: BTreeMap<(u16, u32), u64>,
    marked: Option<Duration>,
}

impl Progress {
    /// Notes how far they are now, if it is time again: at least `every` after the last time. Answers whether it did.
    pub(super) fn mark<'a>(&mut self, now: Duration, every: Duration, beats: impl Iterator<Item = &'a Beat>) -> bool {
        if self.marked.is_some_and(|marked| now.saturating_sub(marked) < every) {
            return false;
        }
        self.marked = Some(now);
        let mut present = BTreeMap::new();
        for held in beats.flat_map(|beat| &beat.shards) {
            let last = present.entry((held.shard, held.epoch)).or_default();
            *last = held.last.max(*last);
        }
        self.old = std::mem::replace(&mut self.recent, present);
        // What nobody has any more, nobody is short of.
        for (of, last) in &mut self.old {
            *last = (*last).min(self.recent.get(of).copied().unwrap_or_default());
        }
        true
    }

    /// Whether a holder has less than another had between one and two marks ago.
    pub(super) fn is_behind(&self, held: &HeldShard) -> bool {
        self.old
            .get(&(held.shard, held.epoch))
            .is_some_and(|&last| held.last < last)
    }
}
