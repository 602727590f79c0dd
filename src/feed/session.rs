//! A session: how far one follower has come, and whether it is catching up from the log or following live.
//!
//! Pure. While it catches up, its [`Cursor`] is all there is: positions in the log. Once it is level with the feed in every slot it follows it
//! joins, and from then on only where it joined is kept: its cursor follows from that and from the feed.

use super::Feed;
use crate::model::{Cursor, Epoch, Position, Seq, Shard, Slot, UnixMillis};

/// Why events may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The cursor is older than what the log keeps; what is left follows.
    Expired,
    /// The cursor belongs to another history of the log.
    Forked,
    /// The cursor was never issued by this service.
    Unknown,
}

impl GapReason {
    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Forked => "forked",
            Self::Unknown => "unknown",
        }
    }
}

/// One follower's state.
#[derive(Debug)]
pub enum Session {
    /// Behind, or not known to be level: it reads the log.
    CatchingUp(Box<CatchUp>),
    /// Level: it gets what the feed passes on.
    Live(Joined),
}

/// A follower that reads the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUp {
    cursor: Cursor,
    /// The shards in which the log has confirmed the position: it is of this history, and nothing after it was dropped.
    confirmed: Vec<Shard>,
    /// Where to begin in a shard that the cursor does not name: at this time, or with what comes from now on.
    since: Option<UnixMillis>,
    gap: Option<GapReason>,
}

/// What a follower that catches up does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait until this slot is settled.
    Wait(Slot),
    /// Wait until any of these slots is settled, or passes something on: either it has yet to begin in them, or it is level but for shards whose
    /// log cannot be read.
    Watch(Vec<Slot>),
    /// Tell the follower of a gap, then call [`CatchUp::told`].
    Tell(GapReason),
    /// Ask the log where a time stands, then call [`CatchUp::begin`].
    Locate(Shard, UnixMillis),
    /// Read the log after the follower's positions in this shard.
    Read(Shard, Epoch),
    /// Level: join the live followers.
    Join(Joined),
}

impl CatchUp {
    /// A follower that goes on after a cursor, and begins with what comes from now on in the shards that the cursor does not name.
    #[must_use]
    pub const fn after(cursor: Cursor) -> Self {
        Self {
            cursor,
            confirmed: Vec::new(),
            since: None,
            gap: None,
        }
    }

    /// A follower that begins at a time; at the oldest event kept if that is later.
    #[must_use]
    pub const fn since(time: UnixMillis) -> Self {
        Self {
            cursor: Cursor::new(),
            confirmed: Vec::new(),
            since: Some(time),
            gap: None,
        }
    }

    /// A follower that is told of a gap and then begins with what comes from now on.
    #[must_use]
    pub const fn with_gap(reason: GapReason) -> Self {
        Self {
            cursor: Cursor::new(),
            confirmed: Vec::new(),
            since: None,
            gap: Some(reason),
        }
    }

    /// How far it has come.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The gap it has yet to be told of.
    #[must_use]
    pub const fn gap(&self) -> Option<GapReason> {
        self.gap
    }

    /// How far it has come in a slot, where that is known.
    #[must_use]
    pub fn position(&self, shard: Shard, slot: Slot) -> Option<Seq> {
        self.cursor.get(shard).map(|position| position.of(slot))
    }

    /// What to do next, for one that follows `slots` (in ascending order, none twice). The log of the `stuck` shards cannot be read, and is being
    /// asked: they are left out until it answers. Only once it has begun in every shard does it go on in some: a cursor says nothing of
    /// where to begin in a shard that it does not name.
    pub fn step(&mut self, slots: &[Slot], feed: &Feed, stuck: &[Shard]) -> Step {
        let mut unsettled = Vec::new();
        for &slot in slots {
            let shard = feed.shard_of(slot);
            if self.cursor.get(shard).is_some() {
                continue;
            }
            match self.since {
                Some(time) => return Step::Locate(shard, time),
                None => match start_now(shard, slots, feed) {
                    Ok(position) => {
                        self.cursor.set(shard, position);
                        self.confirmed.push(shard);
                    }
                    // Where it begins in the others is settled now, and not when the last of them is there.
                    Err(slot) => unsettled.push(slot),
                },
            }
        }
        if !unsettled.is_empty() {
            return Step::Watch(unsettled);
        }
        if let Some(reason) = self.gap {
            return Step::Tell(reason);
        }
        let mut unsettled = None;
        let is_stuck = |slot: &Slot| stuck.contains(&feed.shard_of(*slot));
        for &slot in slots.iter().filter(|slot| !is_stuck(slot)) {
            let shard = feed.shard_of(slot);
            let Some(position) = self.cursor.get(shard) else {
                continue;
            };
            let view = feed.slot(slot);
            let short = view.is_some_and(|view| position.of(slot) < view.passed.max(view.need));
            // Of two histories, the log knows which is the present one.
            let same_history = feed.epoch(shard) == Some(position.epoch);
            if short || !same_history || !self.confirmed.contains(&shard) {
                return Step::Read(shard, position.epoch);
            }
            if !view.is_some_and(|view| view.settled) {
                unsettled = Some(slot);
            }
        }
        match unsettled {
            Some(slot) if stuck.is_empty() => Step::Wait(slot),
            None if stuck.is_empty() => Step::Join(self.join(slots, feed)),
            _ => Step::Watch(slots.iter().copied().filter(|slot| !is_stuck(slot)).collect()),
        }
    }

    fn join(&self, slots: &[Slot], feed: &Feed) -> Joined {
        let at = |slot| (slot, self.position(feed.shard_of(slot), slot).unwrap_or_default());
        Joined(match *slots {
            [one] => At::One(at(one)),
            _ => At::Many(slots.iter().copied().map(at).collect()),
        })
    }

    /// It begins in this shard after this sequence.
    pub fn begin(&mut self, shard: Shard, epoch: Epoch, after: Seq) {
        self.cursor.set(shard, Position::at(epoch, after));
    }

    /// It has seen everything of its topics in this shard up to `seq`, which the log had.
    pub fn advance(&mut self, shard: Shard, seq: Seq) {
        if let Some(position) = self.cursor.get_mut(shard) {
            position.advance(seq);
        }
    }

    /// It has seen everything of one of its `slots` up to `seq`; of the others nothing is said.
    pub fn advance_slot(&mut self, shard: Shard, slot: Slot, seq: Seq, slots: &[Slot]) {
        match self.cursor.get_mut(shard) {
            Some(position) if slots == [slot] => position.advance(seq),
            Some(position) => position.advance_slot(slot, seq),
            None => {}
        }
    }

    /// The log knows its position in this shard.
    pub fn confirm(&mut self, shard: Shard) {
        if !self.confirmed.contains(&shard) {
            self.confirmed.push(shard);
        }
    }

    /// Everything below `floor` is gone: it goes on with what is left, and is told.
    pub fn expire(&mut self, shard: Shard, floor: Seq) {
        self.advance(shard, Seq(floor.0.saturating_sub(1)));
        self.gap = Some(GapReason::Expired);
    }

    /// The log knows its position in this shard as one of an earlier epoch that led up to this one.
    pub fn adopt(&mut self, shard: Shard, epoch: Epoch) {
        self.rebase(shard, epoch);
        self.confirm(shard);
    }

    /// Its position in this shard is as good in this epoch, which the earlier one led up to; the log has yet to come to it.
    pub fn rebase(&mut self, shard: Shard, epoch: Epoch) {
        if let Some(position) = self.cursor.get_mut(shard) {
            position.epoch = epoch;
        }
    }

    /// Its position belongs to another history than the log's, which has come to `last`: it goes on from there, and is told. Where the feed
    /// stands says nothing: it may be of the other history too.
    pub fn fork(&mut self, shard: Shard, epoch: Epoch, last: Seq) {
        self.begin(shard, epoch, last);
        self.confirm(shard);
        self.gap = Some(GapReason::Forked);
    }

    /// It has been told of its gap.
    pub fn told(&mut self) {
        self.gap = None;
    }

    /// Puts it back to where it was: what it was offered since was not taken.
    pub fn put_back(&mut self, cursor: Cursor) {
        self.cursor = cursor;
    }
}

/// Where "now" is in a shard, for one that follows `slots`; or a slot for which that is not known yet.
///
/// It is what is known to exist, whether or not it has been passed on: a place that waited for a fill to end would move on for as long as
/// that takes, past events that were published after the follower came.
fn start_now(shard: Shard, slots: &[Slot], feed: &Feed) -> Result<Position, Slot> {
    let mut known = Vec::new();
    for &slot in slots.iter().filter(|&&slot| feed.shard_of(slot) == shard) {
        let view = feed.slot(slot).ok_or(slot)?;
        known.push((slot, view.passed.max(view.need)));
    }
    let epoch = feed.epoch(shard).ok_or(slots[0])?;
    Ok(position(epoch, feed.watermark(shard), known))
}

/// The position of one who has seen everything up to `watermark`, and each of these slots up to its sequence.
fn position(epoch: Epoch, watermark: Seq, passed: impl IntoIterator<Item = (Slot, Seq)> + Clone) -> Position {
    let lowest = passed.clone().into_iter().map(|(_, seq)| seq).min().unwrap_or_default();
    let mut position = Position::at(epoch, watermark.max(lowest));
    for (slot, seq) in passed {
        position.advance_slot(slot, seq);
    }
    position
}

/// A follower that is live: for each slot it follows, in ascending order, how far it had come when it joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined(At);

/// Most follow one slot alone where there are few slots: those need no memory of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    One((Slot, Seq)),
    Many(Box<[(Slot, Seq)]>),
}

impl Joined {
    fn slots(&self) -> &[(Slot, Seq)] {
        match &self.0 {
            At::One(one) => std::slice::from_ref(one),
            At::Many(all) => all,
        }
    }

    /// How far it had come in a slot when it joined; 0 if it does not follow it.
    #[must_use]
    pub fn at(&self, slot: Slot) -> Seq {
        let slots = self.slots();
        slots
            .binary_search_by_key(&slot, |&(slot, _)| slot)
            .map_or(Seq::ZERO, |at| slots[at].1)
    }

    /// Whether it follows only one slot: all such have the same cursor after an event.
    #[must_use]
    pub const fn is_single(&self) -> bool {
        matches!(self.0, At::One(_))
    }

    /// Its cursor when everything up to `at` has been delivered in one slot, and in the others everything that the feed has passed on.
    #[must_use]
    pub fn cursor(&self, feed: &Feed, at: Option<(Slot, Seq)>) -> Cursor {
        let mut shards: Vec<(Shard, Vec<(Slot, Seq)>)> = Vec::new();
        for &(slot, joined) in self.slots() {
            let passed = match at {
                Some((this, seq)) if this == slot => seq,
                _ => feed.slot(slot).map_or(Seq::ZERO, |view| view.passed),
            };
            let shard = feed.shard_of(slot);
            match shards.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, slots)) => slots.push((slot, joined.max(passed))),
                None => shards.push((shard, vec![(slot, joined.max(passed))])),
            }
        }
        let mut cursor = Cursor::new();
        for (shard, passed) in shards {
            if let Some(epoch) = feed.epoch(shard) {
                cursor.set(shard, position(epoch, feed.watermark(shard), passed));
            }
        }
        cursor
    }
}
