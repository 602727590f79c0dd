//! Those who catch up: from memory if that reaches back far enough, else from the log, until they are level.

use std::{ops::ControlFlow, sync::Arc};

use smallvec::SmallVec;

use super::{Asked, Asker, Hub};
use crate::{
    feed::{CatchUp, Joined, Session, Step},
    hub::{Delivery, Flow, FollowerId, Offer, Question},
    log::{Page, Replay},
    model::{Epoch, Event, Position, Seq, Shard, Slot},
};

impl Hub {
    /// The state of a follower that catches up.
    pub(super) fn catching_up(&mut self, id: FollowerId) -> Option<&mut CatchUp> {
        let follower = self.followers.get_mut(id)?;
        match &mut follower.session {
            Session::CatchingUp(catch_up) => Some(catch_up),
            Session::Live(_) => None,
        }
    }

    /// Takes a follower that catches up as far as it goes without waiting.
    pub(super) fn step(&mut self, id: FollowerId) {
        let slots = self.followers.slots(id);
        loop {
            if self.catch_up_from_tails(id, &slots).is_break() {
                return;
            }
            let Some(follower) = self.followers.get_mut(id) else {
                return;
            };
            if follower.blocked || follower.asking.is_some() {
                return;
            }
            let stuck = follower.stuck_shards();
            let Session::CatchingUp(catch_up) = &mut follower.session else {
                return;
            };
            match catch_up.step(&slots, &self.feed, &stuck) {
                Step::Wait(slot) => {
                    self.waiting.entry(slot).or_default().push(id);
                    return;
                }
                Step::Watch(slots) => {
                    for slot in slots {
                        self.watching.entry(slot).or_default().insert(id);
                    }
                    return;
                }
                Step::Tell(reason) => {
                    let cursor = catch_up.cursor().to_string();
                    let gap = Delivery::Gap {
                        reason,
                        cursor: &cursor,
                    };
                    let offer = follower.offer(id, &gap, Flow::More, &mut self.held);
                    if offer != Offer::Taken {
                        return self.refused(id, offer);
                    }
                    if let Some(catch_up) = self.catching_up(id) {
                        catch_up.told();
                    }
                }
                Step::Locate(shard, time) => {
                    self.ask(Asker::Follower(id, shard), Question::Locate(shard, time), 0);
                    return;
                }
                Step::Read(shard, epoch) => {
                    self.read(id, shard, epoch, 0);
                    return;
                }
                Step::Join(joined) => return self.join(id, joined),
            }
        }
    }

    pub(super) fn join(&mut self, id: FollowerId, joined: Joined) {
        let Some(follower) = self.followers.get_mut(id) else {
            return;
        };
        if !follower.told_level {
            let cursor = joined.cursor(&self.feed, None).to_string();
            let level = Delivery::Level { cursor: &cursor };
            match follower.offer(id, &level, Flow::More, &mut self.held) {
                Offer::Taken => follower.told_level = true,
                offer => return self.refused(id, offer),
            }
        }
        self.followers.set_session(id, Session::Live(joined));
    }

    pub(super) fn refused(&mut self, id: FollowerId, offer: Offer) {
        match offer {
            Offer::Taken => {}
            Offer::Gone => self.detach(id),
            Offer::Full => {
                if let Some(follower) = self.followers.get_mut(id) {
                    follower.blocked = true;
                }
            }
        }
    }

    pub(super) fn read(&mut self, id: FollowerId, shard: Shard, epoch: Epoch, attempt: u32) {
        let Some(Session::CatchingUp(catch_up)) = self.followers.get(id).map(|follower| &follower.session) else {
            return;
        };
        let position = catch_up
            .cursor()
            .get(shard)
            .cloned()
            .unwrap_or_else(|| Position::at(epoch, Seq::ZERO));
        let feed = &self.feed;
        let topics = self
            .followers
            .topics(id)
            .filter(|&(_, slot)| feed.shard_of(slot) == shard);
        let topics = topics.map(|(topic, slot)| (topic.clone(), position.of(slot))).collect();
        let question = Question::Replay(self.page_of(shard, epoch, topics));
        self.ask(Asker::Follower(id, shard), question, attempt);
    }

    pub(super) fn replayed(&mut self, id: FollowerId, shard: Shard, replay: &Replay, asked: &Asked) {
        if self.followers.get(id).is_none_or(|follower| follower.blocked) {
            // It was asked for when there was room. When there is again, it is read anew.
            return;
        }
        let Some(catch_up) = self.catching_up(id) else { return };
        if catch_up.gap().is_some() {
            // Another shard's answer came before it: nothing may pass the gap that is yet to be told of. It is read anew after that.
            return self.step(id);
        }
        match replay {
            Replay::Page(page) => {
                // Who is ahead of the log is ahead of a replica that lags, or of a log that lost what it had. Only the log can tell: until it has
                // come to there, or says that the history forked, it is asked again.
                if asked.furthest().is_some_and(|after| page.up_to < after) {
                    catch_up.rebase(shard, page.epoch);
                } else {
                    catch_up.adopt(shard, page.epoch);
                }
                let before = catch_up.cursor().clone();
                if self.offer_page(id, shard, page).is_break() {
                    return;
                }
                let idle = page.events.is_empty() && self.catching_up(id).is_some_and(|now| *now.cursor() == before);
                self.compare_epoch(shard, page.epoch);
                let attempt = asked.attempt.saturating_add(1);
                if idle && self.reads_again(id, shard, attempt) {
                    return;
                }
            }
            Replay::Gone { epoch, floor } => {
                catch_up.adopt(shard, *epoch);
                catch_up.expire(shard, *floor);
            }
            Replay::Forked { epoch, last } => {
                catch_up.fork(shard, *epoch, *last);
                self.compare_epoch(shard, *epoch);
            }
        }
        self.step(id);
    }

    /// The log has this epoch: if the feed has another, one of them is behind.
    pub(super) fn compare_epoch(&mut self, shard: Shard, epoch: Epoch) {
        if self.feed.epoch(shard).is_some_and(|known| known != epoch) {
            let mut out = Vec::new();
            self.feed.doubt(shard, &mut out);
            self.carry_out(out);
        }
    }

    /// A read brought nothing though the feed knows that there is more (the log lags): reads again, after a while. False if the next step is another.
    pub(super) fn reads_again(&mut self, id: FollowerId, shard: Shard, attempt: u32) -> bool {
        let slots = self.followers.slots(id);
        let Some(follower) = self.followers.get_mut(id) else {
            return true;
        };
        let stuck = follower.stuck_shards();
        let Session::CatchingUp(catch_up) = &mut follower.session else {
            return true;
        };
        let again = match catch_up.step(&slots, &self.feed, &stuck) {
            Step::Read(same, epoch) if same == shard => epoch,
            _ => return false,
        };
        self.read(id, shard, again, attempt);
        // The other shards do not wait for it.
        self.step(id);
        true
    }

    /// Offers a page of the log; breaks if the outlet did not take all of it.
    pub(super) fn offer_page(&mut self, id: FollowerId, shard: Shard, page: &Page) -> ControlFlow<()> {
        for event in &page.events {
            let Some(seq) = event.seq else { continue };
            self.offer_next(id, event, |catch_up| catch_up.advance(shard, seq))?;
        }
        if let Some(catch_up) = self.catching_up(id) {
            catch_up.advance(shard, page.up_to);
        }
        ControlFlow::Continue(())
    }

    /// Offers the next event of a follower that catches up; breaks, with its position as it was, if it was not taken.
    pub(super) fn offer_next(
        &mut self,
        id: FollowerId,
        event: &Arc<Event>,
        advance: impl FnOnce(&mut CatchUp),
    ) -> ControlFlow<()> {
        let Some(follower) = self.followers.get_mut(id) else {
            return ControlFlow::Break(());
        };
        let Session::CatchingUp(catch_up) = &mut follower.session else {
            return ControlFlow::Break(());
        };
        let before = catch_up.cursor().clone();
        advance(catch_up);
        let text = catch_up.cursor().to_string();
        let event = Delivery::Event {
            event,
            cursor: Some(&text),
            shared: None,
        };
        let offer = follower.offer(id, &event, Flow::More, &mut self.held);
        if offer == Offer::Taken {
            return ControlFlow::Continue(());
        }
        if let Some(catch_up) = self.catching_up(id) {
            catch_up.put_back(before);
        }
        self.refused(id, offer);
        ControlFlow::Break(())
    }

    /// Brings a follower level from memory, but for shards that are stuck, if the tails of all its slots reach back to where it is. Breaks if it can take no more now.
    pub(super) fn catch_up_from_tails(&mut self, id: FollowerId, slots: &[Slot]) -> ControlFlow<()> {
        let Some(follower) = self.followers.get(id) else {
            return ControlFlow::Break(());
        };
        let Session::CatchingUp(catch_up) = &follower.session else {
            return ControlFlow::Break(());
        };
        if follower.blocked || follower.asking.is_some() {
            return ControlFlow::Break(());
        }
        if catch_up.gap().is_some() {
            return ControlFlow::Continue(());
        }
        let stuck = follower.stuck_shards();
        let readable: SmallVec<[Slot; 8]> = slots
            .iter()
            .copied()
            .filter(|slot| !stuck.contains(&self.feed.shard_of(*slot)))
            .collect();
        let mut events = Vec::new();
        for &slot in &readable {
            let shard = self.feed.shard_of(slot);
            let at = catch_up
                .cursor()
                .get(shard)
                .filter(|position| Some(position.epoch) == self.feed.epoch(shard));
            let view = self.feed.slot(slot).filter(|view| view.settled);
            let (Some(position), Some(view), Some(tail)) = (at, view, self.tails.get(slot)) else {
                return ControlFlow::Continue(());
            };
            let from = position.of(slot);
            if from > view.passed.max(self.feed.watermark(shard)) || !tail.covers(from) {
                return ControlFlow::Continue(());
            }
            let followed = self.followers.topics(id).filter(|&(_, of)| of == slot);
            let followed: Vec<_> = followed.map(|(topic, _)| topic).collect();
            let missed = tail.after(from).filter(|(_, event)| followed.contains(&&event.topic));
            events.extend(missed.map(|(seq, event)| (shard, *seq, slot, event.clone())));
        }
        events.sort_by_key(|&(shard, seq, ..)| (shard, seq));
        // Unlike the log's pages, a tail says nothing of the other slots: an earlier event of theirs may not have been announced yet.
        for (shard, seq, slot, event) in &events {
            self.offer_next(id, event, |catch_up| catch_up.advance_slot(*shard, *slot, *seq, slots))?;
        }
        if let Some(Session::CatchingUp(catch_up)) = self.followers.get_mut(id).map(|follower| &mut follower.session) {
            for &slot in &readable {
                let shard = self.feed.shard_of(slot);
                let passed = self.feed.slot(slot).map_or(Seq::ZERO, |view| view.passed);
                catch_up.advance_slot(shard, slot, passed, slots);
                catch_up.confirm(shard);
            }
        }
        ControlFlow::Continue(())
    }
}
