//! The hub itself: notices and answers in, deliveries and effects out.

mod catch_up;
mod live;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroU64,
    rc::Rc,
};

use smallvec::SmallVec;

use super::{
    Answer, Effect, Flow, Follow, FollowerId, Outlet, Question, Start, Ticket,
    followers::{Follower, Followers, Held},
    tail::{TailBounds, Tails},
};
use crate::{
    bus::Notice,
    feed::{CatchUp, Feed, GapReason, Output, Session},
    log::ReplayRequest,
    model::{Cursor, Epoch, Layout, Seq, Shard, Slot, Topic, UnixMillis},
};

/// How much the hub holds and asks for at once.
#[derive(Debug, Clone, Copy)]
pub struct HubSettings {
    /// Events kept in memory per slot.
    pub tail_events: usize,
    /// Bytes kept in memory per slot, as [`Event::weight`] counts them.
    pub tail_bytes: usize,
    /// Bytes kept in memory of all slots together: with many slots, each has less.
    pub tail_total_bytes: usize,
    /// Events asked of the log at once.
    pub page_events: usize,
    /// Bytes of payload asked of the log at once.
    pub page_bytes: usize,
    /// The most topics that are read together when a slot missed something; with more, each follower reads its own.
    pub fill_topics: usize,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            tail_events: 4_096,
            tail_bytes: 8 << 20,
            tail_total_bytes: 64 << 20,
            page_events: 256,
            page_bytes: 128 << 10,
            fill_topics: 256,
        }
    }
}

/// So many places of those to be flushed are kept when there is nobody.
const KEPT: usize = 1_024;

/// How many deliveries may be held back at once: each takes some dozen bytes beside what is shared, and a crowd may be told of much at once.
const HELD: usize = 1 << 18;

/// Fans out to the followers of one worker. See the module's documentation.
pub struct Hub {
    layout: Layout,
    settings: HubSettings,
    feed: Feed,
    followers: Followers,
    tails: Tails,
    /// How many followers each slot has. One without any is kept until the second sweep.
    slots: HashMap<Slot, SlotUse>,
    /// Followers that wait for a slot to be settled.
    waiting: HashMap<Slot, Vec<FollowerId>>,
    /// Followers that are level but for shards whose log cannot be read: they want to know of everything that passes.
    watching: HashMap<Slot, BTreeSet<FollowerId>>,
    questions: HashMap<Ticket, Asked>,
    /// The question by which each slot is being filled. Answers to older ones are stale.
    fills: HashMap<Slot, Ticket>,
    next_ticket: NonZeroU64,
    effects: Vec<Effect>,
    /// Whether more notices follow the one that is looked at.
    flow: Flow,
    /// Those whose outlets may hold something back.
    held: Held,
}

#[derive(Debug, Default)]
struct SlotUse {
    followers: usize,
    idle: bool,
}

struct Asked {
    asker: Asker,
    question: Question,
    attempt: u32,
}

impl Asked {
    /// Of the positions after which to read, the furthest.
    fn furthest(&self) -> Option<Seq> {
        match &self.question {
            Question::Replay(request) => request.topics.iter().map(|&(_, after)| after).max(),
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Asker {
    Feed,
    Fill(Slot),
    Follower(FollowerId, Shard),
}

impl Hub {
    /// A hub without followers.
    #[must_use]
    pub fn new(layout: Layout, settings: HubSettings) -> Self {
        Self {
            layout,
            settings,
            feed: Feed::new(layout),
            followers: Followers::default(),
            tails: Tails::new(TailBounds {
                events: settings.tail_events,
                bytes: settings.tail_bytes,
                total: settings.tail_total_bytes,
            }),
            slots: HashMap::new(),
            waiting: HashMap::new(),
            watching: HashMap::new(),
            questions: HashMap::new(),
            fills: HashMap::new(),
            next_ticket: NonZeroU64::MIN,
            effects: Vec::new(),
            flow: Flow::Single,
            held: Held::default(),
        }
    }

    /// What is to be done, in this order, since this was last asked.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Takes on a follower.
    pub fn attach(&mut self, follow: Follow, outlet: Rc<dyn Outlet>) -> FollowerId {
        let catch_up = match follow.start {
            Start::Now => CatchUp::after(Cursor::new()),
            Start::After(cursor) if self.could_issue(&cursor) && self.tells_of_any(&cursor, &follow.topics) => {
                CatchUp::after(cursor)
            }
            Start::After(_) | Start::Unknown => CatchUp::with_gap(GapReason::Unknown),
            Start::Since(time) => CatchUp::since(time),
            Start::Earliest => CatchUp::since(UnixMillis(0)),
        };
        let session = Session::CatchingUp(Box::new(catch_up));
        let id = self.followers.insert(&follow.topics, self.layout, session, outlet);
        let mut new = Vec::new();
        for slot in self.followers.slots(id) {
            let uses = self.slots.entry(slot).or_default();
            uses.followers += 1;
            uses.idle = false;
            if !self.feed.follows(slot) {
                self.effects.push(Effect::Follow(slot));
                new.push(slot);
            }
        }
        if !new.is_empty() {
            let mut out = Vec::new();
            self.feed.follow(&new, &mut out);
            self.carry_out(out);
        }
        self.step(id);
        self.flush();
        id
    }

    /// Whether a cursor fits the layout. One that names other shards or slots is of another service, or made up: what it says of them would
    /// stay in it for ever, and where it says nothing of ours it would begin now without a word.
    fn could_issue(&self, cursor: &Cursor) -> bool {
        cursor.shards().all(|(shard, position)| {
            shard.0 < self.layout.shards()
                && position
                    .ahead()
                    .all(|(slot, _)| slot.0 < self.layout.slots() && self.layout.shard(slot.0) == shard.0)
        })
    }

    /// Whether a cursor tells of a shard of these topics. One issued to a follower of them does, so this one is of other topics, or of another
    /// layout: it would begin now in each shard, without a word.
    fn tells_of_any(&self, cursor: &Cursor, topics: &[Topic]) -> bool {
        topics.iter().any(|topic| {
            let shard = self.layout.shard(self.layout.slot(topic.as_str()));
            cursor.get(Shard(shard)).is_some()
        })
    }

    /// Lets a follower go. One that is gone already is no mistake.
    pub fn detach(&mut self, id: FollowerId) {
        let asked: SmallVec<[Ticket; 4]> = self
            .followers
            .get(id)
            .into_iter()
            .flat_map(Follower::questions)
            .collect();
        for ticket in asked {
            self.questions.remove(&ticket);
            self.effects.push(Effect::Forget(ticket));
        }
        for slot in self.followers.remove(id).unwrap_or_default() {
            if let Some(uses) = self.slots.get_mut(&slot) {
                uses.followers -= 1;
            }
        }
    }

    /// Lets go of the slots that nobody has followed since the last sweep (keeping them for a while spares a reconnecting crowd the log), and of
    /// those who wait and are gone.
    pub fn sweep(&mut self) {
        let mut dropped = Vec::new();
        for (&slot, uses) in self.slots.iter_mut().filter(|(_, uses)| uses.followers == 0) {
            if std::mem::replace(&mut uses.idle, true) {
                dropped.push(slot);
            }
        }
        // Not in the order of a map, which is another each time: what happens is to be the same each time.
        dropped.sort_unstable();
        for slot in dropped {
            self.slots.remove(&slot);
            self.tails.remove(slot);
            self.waiting.remove(&slot);
            self.watching.remove(&slot);
            self.fills.remove(&slot);
            self.feed.unfollow(slot);
            self.effects.push(Effect::Unfollow(slot));
        }
        for waiting in self.waiting.values_mut() {
            waiting.retain(|&id| self.followers.get(id).is_some());
        }
        for watching in self.watching.values_mut() {
            watching.retain(|&id| self.followers.get(id).is_some());
        }
    }

    /// A follower's outlet has room again.
    pub fn drained(&mut self, id: FollowerId) {
        if let Some(follower) = self.followers.get_mut(id) {
            follower.blocked = false;
            self.step(id);
            self.flush();
        }
    }

    /// The bus says something.
    pub fn notice(&mut self, notice: &Notice) {
        self.notices(std::slice::from_ref(notice));
    }

    /// The bus says several things: what an outlet gets of them it may send at once.
    pub fn notices(&mut self, notices: &[Notice]) {
        self.flow = if notices.len() > 1 { Flow::More } else { Flow::Single };
        for notice in notices {
            self.hear(notice);
        }
        self.flush();
    }

    /// Has everyone send what was held back because more was to follow.
    fn flush(&mut self) {
        // Who is flushed offers nothing, so nobody is added meanwhile; the memory is kept for the next time, unless it was for a crowd.
        let mut by = std::mem::take(&mut self.held).by;
        for id in by.drain(..) {
            if let Some(follower) = self.followers.get_mut(id) {
                follower.flush();
            }
        }
        by.shrink_to(KEPT);
        self.held.by = by;
    }

    fn hear(&mut self, notice: &Notice) {
        let mut out = Vec::new();
        match notice {
            Notice::Announcement(announcement) => self.feed.announce(announcement, &mut out),
            Notice::Digest(digest) => self.feed.digest(digest, &mut out),
            Notice::Unverified => self.feed.unverified(&mut out),
            Notice::Ephemeral(event) => self.fan_out(event, None),
        }
        self.carry_out(out);
    }

    /// The log answers. An answer that nobody waits for any more is dropped.
    pub fn answer(&mut self, ticket: Ticket, answer: &Answer) {
        self.flow = Flow::More;
        self.answered(ticket, answer);
        self.flush();
    }

    fn answered(&mut self, ticket: Ticket, answer: &Answer) {
        let Some(asked) = self.questions.remove(&ticket) else {
            return;
        };
        if let Asker::Fill(slot) = asked.asker
            && self.fills.get(&slot) != Some(&ticket)
        {
            return;
        }
        if let Asker::Follower(id, _) = asked.asker {
            let Some(follower) = self.followers.get_mut(id) else {
                return;
            };
            follower.asking.take_if(|out| *out == ticket);
            follower.unstick(ticket);
        }
        match (asked.asker, answer) {
            (asker, Answer::Failed(_)) => {
                self.ask(asker, asked.question, asked.attempt.saturating_add(1));
                if let Asker::Follower(id, _) = asker {
                    self.step(id);
                }
            }
            (Asker::Feed, Answer::Heads(heads)) => {
                let forked = if self.feed.forks(heads) {
                    self.fork(heads.shard)
                } else {
                    Vec::new()
                };
                let mut out = Vec::new();
                self.feed.heads(heads, &mut out);
                self.carry_out(out);
                self.step_all(forked);
            }
            (Asker::Fill(slot), Answer::Replay(replay)) => self.filled(slot, replay, &asked),
            (Asker::Follower(id, shard), Answer::Located(located)) => {
                if let Some(catch_up) = self.catching_up(id) {
                    catch_up.begin(shard, located.epoch, located.after);
                }
                self.step(id);
            }
            (Asker::Follower(id, shard), Answer::Replay(replay)) => self.replayed(id, shard, replay, &asked),
            _ => debug_assert!(false, "the answer is of another kind than the question"),
        }
    }

    fn ask(&mut self, asker: Asker, question: Question, attempt: u32) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.saturating_add(1);
        match asker {
            Asker::Feed => {}
            Asker::Fill(slot) => {
                self.fills.insert(slot, ticket);
            }
            Asker::Follower(id, shard) => {
                if let Some(follower) = self.followers.get_mut(id) {
                    // What was read in vain does not hold up what can be read.
                    if attempt > 0 && matches!(question, Question::Replay(_)) {
                        follower.stick(shard, ticket);
                    } else {
                        follower.asking = Some(ticket);
                    }
                }
            }
        }
        self.effects.push(Effect::Ask {
            ticket,
            question: question.clone(),
            attempt,
        });
        self.questions.insert(
            ticket,
            Asked {
                asker,
                question,
                attempt,
            },
        );
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        let mut passed_in: SmallVec<[Slot; 4]> = SmallVec::new();
        for output in outputs {
            match output {
                Output::Pass(passed) => {
                    self.pass(&passed);
                    if self.watching.contains_key(&passed.slot) && !passed_in.contains(&passed.slot) {
                        passed_in.push(passed.slot);
                    }
                }
                Output::AskHeads(shard) => {
                    self.ask(Asker::Feed, Question::Heads(shard), 0);
                }
                Output::Fill { slot, after, idle } => self.fill(slot, after, idle),
                Output::Settled(slot) => self.settled(slot),
            }
        }
        // Not before: the feed is where the last of them left it.
        for slot in passed_in {
            self.wake(slot);
        }
    }

    /// Those who want to know of everything that passes in this slot go on.
    fn wake(&mut self, slot: Slot) {
        for id in self.watching.remove(&slot).unwrap_or_default() {
            self.step(id);
        }
    }

    fn page_of(&self, shard: Shard, epoch: Epoch, topics: Vec<(Topic, Seq)>) -> ReplayRequest {
        let HubSettings {
            page_events: max_events,
            page_bytes: max_bytes,
            ..
        } = self.settings;
        ReplayRequest {
            shard,
            epoch,
            topics,
            max_events,
            max_bytes,
        }
    }
}
