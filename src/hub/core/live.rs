//! Those who are live: fan-out of what the feed passes on, and filling what it missed.

use std::sync::Arc;

use super::{Asked, Asker, HELD, Hub};
use crate::{
    feed::{CatchUp, Passed, Session},
    hub::{Delivery, FollowerId, Offer, Question, Shared},
    log::Replay,
    model::{Cursor, Event, Seq, Shard, Slot},
};

impl Hub {
    /// Delivers an event that the feed passes on, and keeps it in the tail.
    pub(super) fn pass(&mut self, passed: &Passed) {
        self.fan_out(&passed.event, Some(passed));
        self.tails.push(passed.slot, passed.seq, passed.event.clone());
    }

    /// Offers an event to the live followers of its topic; without `passed` it is ephemeral. Whoever has no room catches up later.
    pub(super) fn fan_out(&mut self, event: &Arc<Event>, passed: Option<&Passed>) {
        let Some(key) = self.followers.key(&event.topic) else {
            return;
        };
        // Of those who follow one slot alone all have the same cursor after the event, and so the same frame.
        let (mut text_of_all, shared) = (None, Shared::default());
        let mut gone = Vec::new();
        let mut place = 0;
        while let Some(id) = self.followers.at(key, place) {
            place += 1;
            let Some(follower) = self.followers.get_mut(id) else {
                continue;
            };
            let Session::Live(joined) = &follower.session else {
                continue;
            };
            let offer = match passed {
                None => {
                    let event = Delivery::Event {
                        event,
                        cursor: None,
                        shared: Some(&shared),
                    };
                    follower.offer(id, &event, self.flow, &mut self.held)
                }
                Some(passed) if passed.seq <= joined.at(passed.slot) => continue,
                Some(passed) => {
                    let cursor = || joined.cursor(&self.feed, Some((passed.slot, passed.seq))).to_string();
                    let own;
                    let (text, shared) = if joined.is_single() {
                        (&*text_of_all.get_or_insert_with(cursor), Some(&shared))
                    } else {
                        own = cursor();
                        (&own, None)
                    };
                    let event = Delivery::Event {
                        event,
                        cursor: Some(text),
                        shared,
                    };
                    follower.offer(id, &event, self.flow, &mut self.held)
                }
            };
            match offer {
                Offer::Taken => {}
                Offer::Gone => gone.push(id),
                Offer::Full => {
                    follower.blocked = true;
                    if let Session::Live(joined) = &follower.session {
                        let cursor = joined.cursor(&self.feed, passed.map(|passed| (passed.slot, passed.before)));
                        self.fall_back(id, cursor);
                    }
                }
            }
        }
        for id in gone {
            self.detach(id);
        }
        if self.held.deliveries >= HELD {
            self.flush();
        }
    }

    /// A live follower goes back to catching up.
    pub(super) fn fall_back(&mut self, id: FollowerId, cursor: Cursor) {
        self.followers
            .set_session(id, Session::CatchingUp(Box::new(CatchUp::after(cursor))));
    }

    /// A shard has another history than what was passed on: all who are live in it go back to catching up, where the log will tell them so.
    pub(super) fn fork(&mut self, shard: Shard) -> Vec<FollowerId> {
        let layout = self.layout;
        let in_shard = |slot: Slot| layout.shard(slot.0) == shard.0;
        self.tails.retain(|slot| !in_shard(slot));
        self.fills.retain(|&slot, _| !in_shard(slot));
        self.all_fall_back(in_shard)
    }

    /// Everyone who is live in one of these slots goes back to catching up, and is to be stepped.
    pub(super) fn all_fall_back(&mut self, has: impl Fn(Slot) -> bool) -> Vec<FollowerId> {
        let ids = self.followers.live_in(has);
        for &id in &ids {
            if let Some(Session::Live(joined)) = self.followers.get(id).map(|follower| &follower.session) {
                let cursor = joined.cursor(&self.feed, None);
                self.fall_back(id, cursor);
            }
        }
        ids
    }

    pub(super) fn step_all(&mut self, ids: Vec<FollowerId>) {
        for id in ids {
            self.step(id);
        }
    }

    pub(super) fn fill(&mut self, slot: Slot, after: Seq, idle: u32) {
        self.tails.remove(slot);
        let topics = self.followers.live_topics(slot);
        let shard = self.feed.shard_of(slot);
        match self.feed.epoch(shard) {
            Some(epoch) if (1..=self.settings.fill_topics).contains(&topics.len()) => {
                let topics = topics.into_iter().map(|topic| (topic, after)).collect();
                let question = Question::Fill(self.page_of(shard, epoch, topics));
                self.ask(Asker::Fill(slot), question, idle);
            }
            _ => self.skip(slot),
        }
    }

    /// Instead of filling a slot, has each of its live followers, if there are any, read the log for itself.
    pub(super) fn skip(&mut self, slot: Slot) {
        self.fills.remove(&slot);
        let behind = self.all_fall_back(|of| of == slot);
        let mut out = Vec::new();
        self.feed.skip(slot, &mut out);
        self.carry_out(out);
        self.step_all(behind);
    }

    pub(super) fn filled(&mut self, slot: Slot, replay: &Replay, asked: &Asked) {
        match replay {
            Replay::Page(page) if Some(page.epoch) == self.feed.epoch(self.feed.shard_of(slot)) => {
                self.fills.remove(&slot);
                let mut out = Vec::new();
                self.feed.filled(slot, page, &mut out);
                self.carry_out(out);
            }
            // What the live followers missed is no longer kept: each reads the log for itself and is told.
            Replay::Gone { .. } => self.skip(slot),
            Replay::Page(_) | Replay::Forked { .. } => {
                // The heads will say which epoch it is now. Until then the slot stays as it is.
                let mut out = Vec::new();
                self.feed.doubt(self.feed.shard_of(slot), &mut out);
                self.carry_out(out);
                self.ask(
                    Asker::Fill(slot),
                    asked.question.clone(),
                    asked.attempt.saturating_add(1),
                );
            }
        }
    }

    /// A slot is level with what is known to exist: its tail begins anew, and those who waited go on.
    pub(super) fn settled(&mut self, slot: Slot) {
        if let Some(view) = self.feed.slot(slot) {
            self.tails.begin(slot, view.passed);
        }
        for id in self.waiting.remove(&slot).unwrap_or_default() {
            self.step(id);
        }
        self.wake(slot);
    }
}
