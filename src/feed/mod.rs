//! The feed: makes of the bus, which may lose, repeat and reorder, a gap-free sequence per slot.
//!
//! Pure: notices and the log's answers come in, [`Output`]s go out. Per slot it holds the last sequence it passed on, `p`, and what it
//! knows to exist, `need`. An announcement (prev, seq):
//!
//! | case           | what the feed does                                          |
//! |----------------|-------------------------------------------------------------|
//! | `seq ≤ p`      | drops it: passed on before                                  |
//! | `prev ≤ p`     | passes it on                                                |
//! | `prev > p`     | something was missed: fills from the log, up to `need`      |
//!
//! The loss of a slot's *last* announcement shows in no later one: digests find it. A digest that continues what the feed has
//! verified moves the shard's **watermark** once every slot is level with it; one that does not is no digest, and the feed asks for
//! all heads. So does a notice that the bus may have lost something.

mod session;
mod shard;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use session::{CatchUp, GapReason, Joined, Session, Step};
use shard::ShardFeed;

use crate::{
    bus::{Announcement, Digest},
    log::{Heads, Page},
    model::{Epoch, Event, Layout, Seq, Shard, Slot},
};

/// What the feed wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Deliver an event to the live followers of its topic.
    Pass(Passed),
    /// Ask the log how far a shard has come, and bring the answer to [`Feed::heads`]. The slots followed so far must be carried by the
    /// bus before the question is put.
    AskHeads(Shard),
    /// Read what the live followers of this slot missed, from after this sequence, and bring it to [`Feed::filled`]; or, when they have all gone
    /// back to reading the log for themselves, call [`Feed::skip`].
    Fill {
        /// The slot.
        slot: Slot,
        /// Read after this sequence.
        after: Seq,
        /// How many reads of this fill brought nothing: wait a little before the next.
        idle: u32,
    },
    /// A slot is settled: those who wait for it may go on.
    Settled(Slot),
}

/// An event that comes gap-free after the one before it in its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The slot.
    pub slot: Slot,
    /// Everything of the slot up to here was passed on before.
    pub before: Seq,
    /// Its sequence.
    pub seq: Seq,
    /// The event.
    pub event: Arc<Event>,
}

/// Where a slot that is followed stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotView {
    /// Everything up to here has been passed on.
    pub passed: Seq,
    /// What is known to exist.
    pub need: Seq,
    /// Whether no fill is under way.
    pub settled: bool,
}

/// The slots that one edge worker follows.
#[derive(Debug)]
pub struct Feed {
    layout: Layout,
    shards: BTreeMap<Shard, ShardFeed>,
}

impl Feed {
    /// A feed that follows nothing yet.
    #[must_use]
    pub const fn new(layout: Layout) -> Self {
        Self {
            layout,
            shards: BTreeMap::new(),
        }
    }

    /// Begins to follow slots, which the bus carries from now on.
    pub fn follow(&mut self, slots: &[Slot], out: &mut Vec<Output>) {
        for &slot in slots {
            let shard = self.shard_of(slot);
            let feed = self.shards.entry(shard).or_insert_with(|| ShardFeed::new(shard));
            feed.follow(slot);
        }
        for shard in self.shards.values_mut() {
            shard.ask_for_new(out);
        }
    }

    /// Stops following a slot.
    pub fn unfollow(&mut self, slot: Slot) {
        let shard = self.shard_of(slot);
        if let Some(feed) = self.shards.get_mut(&shard) {
            feed.unfollow(slot);
            if feed.is_empty() {
                self.shards.remove(&shard);
            }
        }
    }

    /// Whether it follows a slot.
    #[must_use]
    pub fn follows(&self, slot: Slot) -> bool {
        self.shards
            .get(&self.shard_of(slot))
            .is_some_and(|shard| shard.follows(slot))
    }

    /// Something was appended, says the bus.
    pub fn announce(&mut self, announcement: &Announcement, out: &mut Vec<Output>) {
        if let Some(shard) = self.shards.get_mut(&announcement.shard) {
            shard.announce(announcement, out);
        }
    }

    /// How far a shard has come, says one that holds it.
    pub fn digest(&mut self, digest: &Digest, out: &mut Vec<Output>) {
        if let Some(shard) = self.shards.get_mut(&digest.shard) {
            shard.digest(digest, out);
        }
    }

    /// The bus may have lost something of any shard.
    pub fn unverified(&mut self, out: &mut Vec<Output>) {
        for shard in self.shards.values_mut() {
            shard.verify(out);
        }
    }

    /// The log may be in another epoch than the feed believes.
    pub fn doubt(&mut self, shard: Shard, out: &mut Vec<Output>) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.verify(out);
        }
    }

    /// Whether these heads are of another history than what the feed has passed on so far. If so, whoever is live in this shard must be brought
    /// back to catching up before [`Feed::heads`] is called.
    #[must_use]
    pub fn forks(&self, heads: &Heads) -> bool {
        self.epoch(heads.shard).is_some_and(|epoch| epoch != heads.epoch)
    }

    /// The answer to [`Output::AskHeads`].
    pub fn heads(&mut self, heads: &Heads, out: &mut Vec<Output>) {
        if let Some(shard) = self.shards.get_mut(&heads.shard) {
            shard.heads(heads, out);
        }
    }

    /// The answer to [`Output::Fill`].
    pub fn filled(&mut self, slot: Slot, page: &Page, out: &mut Vec<Output>) {
        let shard = self.shard_of(slot);
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.filled(slot, page, out);
        }
    }

    /// Instead of an answer to [`Output::Fill`]: nobody is live in this slot.
    pub fn skip(&mut self, slot: Slot, out: &mut Vec<Output>) {
        let shard = self.shard_of(slot);
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.skip(slot, out);
        }
    }

    /// Where a slot stands; `None` until the first heads have come.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> Option<SlotView> {
        self.shards.get(&self.shard_of(slot))?.view(slot)
    }

    /// A shard's incarnation, once known.
    #[must_use]
    pub fn epoch(&self, shard: Shard) -> Option<Epoch> {
        self.shards.get(&shard)?.epoch()
    }

    /// Everything of a shard up to here has been passed on, for every slot that is followed.
    #[must_use]
    pub fn watermark(&self, shard: Shard) -> Seq {
        self.shards.get(&shard).map_or(Seq::ZERO, ShardFeed::watermark)
    }

    /// The shard of a slot.
    #[must_use]
    pub fn shard_of(&self, slot: Slot) -> Shard {
        Shard(self.layout.shard(slot.0))
    }
}
