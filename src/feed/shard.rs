//! One shard of the feed: its slots, its watermark, its epoch.

use std::collections::BTreeMap;

use super::{Output, Passed, SlotView};
use crate::{
    bus::{Announcement, Digest},
    log::{Heads, Page},
    model::{Epoch, Seq, Shard, Slot},
};

/// The followed slots of one shard.
#[derive(Debug)]
pub(super) struct ShardFeed {
    shard: Shard,
    epoch: Option<Epoch>,
    /// The epoch of what the bus says while the log's is not known yet.
    heard: Option<Epoch>,
    watermark: Seq,
    slots: BTreeMap<Slot, SlotFeed>,
    /// A question for the heads is out. Slots followed and doubts that came up since it was put wait for the next.
    asked: bool,
    /// Put another question when this one is answered: something in it may be stale.
    again: bool,
}

#[derive(Debug)]
enum SlotFeed {
    /// Followed, but not yet covered by a question for the heads.
    New { need: Seq },
    /// The heads have been asked for since the bus carries it.
    Starting { need: Seq },
    /// Passing on.
    Running { passed: Seq, need: Seq, fill: Option<Fill> },
}

#[derive(Debug, Clone, Copy)]
struct Fill {
    idle: u32,
}

impl ShardFeed {
    pub(super) const fn new(shard: Shard) -> Self {
        Self {
            shard,
            epoch: None,
            heard: None,
            watermark: Seq::ZERO,
            slots: BTreeMap::new(),
            asked: false,
            again: false,
        }
    }

    /// Follows a slot; it starts with the answer to the next question.
    pub(super) fn follow(&mut self, slot: Slot) {
        self.slots.entry(slot).or_insert(SlotFeed::New { need: Seq::ZERO });
    }

    /// Asks for the heads if some slot has yet to start.
    pub(super) fn ask_for_new(&mut self, out: &mut Vec<Output>) {
        if !self.asked && self.slots.values().any(|state| matches!(state, SlotFeed::New { .. })) {
            self.verify(out);
        }
    }

    pub(super) fn unfollow(&mut self, slot: Slot) {
        self.slots.remove(&slot);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn follows(&self, slot: Slot) -> bool {
        self.slots.contains_key(&slot)
    }

    /// Asks for the heads, once more if a question is out already: its answer may be older than the doubt.
    pub(super) fn verify(&mut self, out: &mut Vec<Output>) {
        if self.asked {
            self.again = true;
            return;
        }
        self.asked = true;
        for state in self.slots.values_mut() {
            if let SlotFeed::New { need } = *state {
                *state = SlotFeed::Starting { need };
            }
        }
        out.push(Output::AskHeads(self.shard));
    }

    pub(super) fn announce(&mut self, announcement: &Announcement, out: &mut Vec<Output>) {
        let &Announcement {
            epoch, slot, prev, seq, ..
        } = announcement;
        if self.epoch.is_some_and(|known| known != epoch) {
            return self.verify(out);
        }
        if self.heard.replace(epoch).is_some_and(|heard| heard != epoch) && self.epoch.is_none() {
            // Two histories are talked of: what was heard of either may be of the wrong one, so ask again.
            self.forget_needs();
            self.again = self.asked;
        }
        match self.slots.get_mut(&slot) {
            None => {}
            Some(
                SlotFeed::New { need }
                | SlotFeed::Starting { need }
                | SlotFeed::Running {
                    need, fill: Some(_), ..
                },
            ) => {
                *need = seq.max(*need);
            }
            Some(SlotFeed::Running { passed, .. }) if seq <= *passed => {}
            Some(SlotFeed::Running {
                passed,
                need,
                fill: None,
            }) if prev <= *passed => {
                let before = std::mem::replace(passed, seq);
                *need = seq.max(*need);
                out.push(Output::Pass(Passed {
                    slot,
                    before,
                    seq,
                    event: announcement.event.clone(),
                }));
            }
            Some(SlotFeed::Running { .. }) => self.need(slot, seq, out),
        }
    }

    pub(super) fn digest(&mut self, digest: &Digest, out: &mut Vec<Output>) {
        let continues = self.epoch == Some(digest.epoch) && digest.before <= self.watermark;
        if !continues {
            // Also the answer to a node that starts, or falls back: what it says is compared with all heads.
            self.verify(out);
        } else if digest.now > self.watermark {
            self.check(digest.now, digest.changed.iter().copied(), out);
        }
    }

    pub(super) fn heads(&mut self, heads: &Heads, out: &mut Vec<Output>) {
        self.asked = false;
        if self.epoch != Some(heads.epoch) {
            self.begin_epoch(heads.epoch);
        }
        let mut others = false;
        let mut started = Vec::new();
        for (&slot, state) in &mut self.slots {
            match *state {
                SlotFeed::New { .. } => {}
                SlotFeed::Running { .. } => others = true,
                SlotFeed::Starting { need } => {
                    let passed = heads.slots.get(&slot).copied().unwrap_or_default();
                    *state = SlotFeed::Running {
                        passed,
                        need: need.max(passed),
                        fill: None,
                    };
                    started.push(slot);
                }
            }
        }
        if !started.is_empty() {
            // A new slot is verified only as far as this answer goes.
            self.watermark = if others {
                self.watermark.min(heads.last)
            } else {
                heads.last
            };
        }
        for slot in started {
            let behind = matches!(self.slots.get(&slot), Some(SlotFeed::Running { passed, need, .. }) if need > passed);
            if behind {
                self.need(slot, Seq::ZERO, out);
            } else {
                out.push(Output::Settled(slot));
            }
        }
        if heads.last >= self.watermark {
            let last: Vec<_> = self
                .slots
                .keys()
                .filter_map(|slot| Some((*slot, *heads.slots.get(slot)?)))
                .collect();
            self.check(heads.last, last, out);
        }
        if std::mem::take(&mut self.again) {
            self.verify(out);
        }
        self.ask_for_new(out);
    }

    /// Holds every slot against the last sequences that one who holds the shard has at `now`; moves the watermark if all are level.
    fn check(&mut self, now: Seq, last: impl IntoIterator<Item = (Slot, Seq)>, out: &mut Vec<Output>) {
        for (slot, last) in last {
            match self.slots.get_mut(&slot) {
                Some(SlotFeed::New { need } | SlotFeed::Starting { need }) => *need = last.max(*need),
                Some(SlotFeed::Running { passed, .. }) if last > *passed => self.need(slot, last, out),
                _ => {}
            }
        }
        let level = self
            .slots
            .values()
            .all(|state| matches!(state, SlotFeed::Running { fill: None, .. }));
        if level {
            self.watermark = self.watermark.max(now);
        }
    }

    /// Notes that a slot has come to `seq`, and fills it if it is not being filled.
    fn need(&mut self, slot: Slot, seq: Seq, out: &mut Vec<Output>) {
        if let Some(SlotFeed::Running { passed, need, fill }) = self.slots.get_mut(&slot) {
            *need = seq.max(*need);
            if fill.is_none() {
                *fill = Some(Fill { idle: 0 });
                out.push(Output::Fill {
                    slot,
                    after: *passed,
                    idle: 0,
                });
            }
        }
    }

    pub(super) fn filled(&mut self, slot: Slot, page: &Page, out: &mut Vec<Output>) {
        let Some(SlotFeed::Running { passed, need, fill }) = self.slots.get_mut(&slot) else {
            return;
        };
        let Some(Fill { idle }) = *fill else { return };
        let began = *passed;
        for event in &page.events {
            let Some(seq) = event.seq.filter(|seq| seq > passed) else {
                continue;
            };
            let before = std::mem::replace(passed, seq);
            out.push(Output::Pass(Passed {
                slot,
                before,
                seq,
                event: event.clone(),
            }));
        }
        if page.up_to >= *need {
            *passed = (*passed).max(*need);
            *fill = None;
            out.push(Output::Settled(slot));
        } else {
            let idle = if *passed > began { 0 } else { idle.saturating_add(1) };
            *fill = Some(Fill { idle });
            out.push(Output::Fill {
                slot,
                after: *passed,
                idle,
            });
        }
    }

    pub(super) fn skip(&mut self, slot: Slot, out: &mut Vec<Output>) {
        if let Some(SlotFeed::Running { passed, need, fill }) = self.slots.get_mut(&slot) {
            *passed = (*passed).max(*need);
            *fill = None;
            out.push(Output::Settled(slot));
        }
    }

    /// The shard has a new history: nothing that was known of another one holds.
    fn begin_epoch(&mut self, epoch: Epoch) {
        if self.epoch.is_some() || self.heard != Some(epoch) {
            self.forget_needs();
        }
        self.epoch = Some(epoch);
        self.watermark = Seq::ZERO;
        for state in self.slots.values_mut() {
            if let SlotFeed::Running { .. } = state {
                *state = SlotFeed::Starting { need: Seq::ZERO };
            }
        }
    }

    fn forget_needs(&mut self) {
        for state in self.slots.values_mut() {
            if let SlotFeed::New { need } | SlotFeed::Starting { need } = state {
                *need = Seq::ZERO;
            }
        }
    }

    pub(super) fn view(&self, slot: Slot) -> Option<SlotView> {
        match *self.slots.get(&slot)? {
            SlotFeed::Running { passed, need, ref fill } => Some(SlotView {
                passed,
                need,
                settled: fill.is_none(),
            }),
            SlotFeed::New { .. } | SlotFeed::Starting { .. } => None,
        }
    }

    pub(super) const fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    pub(super) const fn watermark(&self) -> Seq {
        self.watermark
    }
}
