//! Who follows what: followers, topics, and each one's place in the other.

use std::{
    hash::{BuildHasher as _, RandomState},
    rc::Rc,
};

use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

use super::{Delivery, Flow, Offer, Outlet, Ticket};
use crate::{
    feed::Session,
    model::{Layout, Shard, Slot, Topic},
};

/// One follower of one hub. Never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FollowerId {
    index: u32,
    generation: u32,
}

/// A follower.
pub(super) struct Follower {
    generation: u32,
    pub(super) session: Session,
    outlet: Rc<dyn Outlet>,
    /// Its topics, and its place among the followers of each.
    topics: Box<[Place]>,
    /// Its outlet refused something: nothing is offered until it has room.
    pub(super) blocked: bool,
    /// The question of its that is out.
    pub(super) asking: Option<Ticket>,
    /// The shards whose log could not be read for it, each with the question that is out again: it goes on without them. Seldom any.
    stuck: Option<Box<Stuck>>,
    /// It has been told that it is level.
    pub(super) told_level: bool,
    /// Its outlet may hold something back, and is to be flushed.
    holds: bool,
}

type Stuck = Vec<(Shard, Ticket)>;

impl Follower {
    /// The shards that it goes on without.
    pub(super) fn stuck_shards(&self) -> SmallVec<[Shard; 4]> {
        self.stuck
            .iter()
            .flat_map(|stuck| &***stuck)
            .map(|&(shard, _)| shard)
            .collect()
    }

    /// A shard's log could not be read for it; the question is out again.
    pub(super) fn stick(&mut self, shard: Shard, ticket: Ticket) {
        self.stuck.get_or_insert_default().push((shard, ticket));
    }

    /// There is an answer to this question.
    pub(super) fn unstick(&mut self, ticket: Ticket) {
        if let Some(stuck) = &mut self.stuck {
            stuck.retain(|(_, out)| *out != ticket);
            self.stuck.take_if(|stuck| stuck.is_empty());
        }
    }

    /// The questions of its that are out.
    pub(super) fn questions(&self) -> impl Iterator<Item = Ticket> {
        let stuck = self.stuck.iter().flat_map(|stuck| &***stuck);
        self.asking.into_iter().chain(stuck.map(|&(_, ticket)| ticket))
    }

    /// Offers it something. If more may follow, it is noted among those who are to be flushed.
    pub(super) fn offer(&mut self, id: FollowerId, delivery: &Delivery<'_>, flow: Flow, held: &mut Held) -> Offer {
        let offer = self.outlet.offer(delivery, flow);
        if flow == Flow::More && offer == Offer::Taken {
            held.deliveries += 1;
            if !self.holds {
                self.holds = true;
                held.by.push(id);
            }
        }
        offer
    }

    /// Has it send what it holds back.
    pub(super) fn flush(&mut self) {
        self.holds = false;
        self.outlet.flush();
    }

    pub(super) const fn is_live(&self) -> bool {
        matches!(self.session, Session::Live(_))
    }
}

/// What outlets may hold back.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Whose.
    pub(super) by: Vec<FollowerId>,
    /// How many deliveries.
    pub(super) deliveries: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    topic: u32,
    at: u32,
}

/// A topic that someone follows.
struct Followed {
    topic: Topic,
    slot: Slot,
    /// Most topics are inboxes, which one or two connections follow: those are kept in place.
    followers: SmallVec<[FollowerId; 2]>,
    /// How many of them are live.
    live: u32,
}

/// The followers of one hub, by id and by topic.
#[derive(Default)]
pub(super) struct Followers {
    all: Slab<Follower>,
    topics: Slab<Followed>,
    /// Their keys, found by the topic's name, which is kept in one place alone.
    by_name: HashTable<u32>,
    hasher: RandomState,
    generation: u32,
}

impl Followers {
    pub(super) fn insert(
        &mut self,
        topics: &[Topic],
        layout: Layout,
        session: Session,
        outlet: Rc<dyn Outlet>,
    ) -> FollowerId {
        self.generation = self.generation.wrapping_add(1);
        let id = FollowerId {
            index: index(self.all.vacant_key()),
            generation: self.generation,
        };
        let mut places = Vec::with_capacity(topics.len());
        for topic in topics {
            let key = self.key(topic).unwrap_or_else(|| self.follow(topic.clone(), layout));
            let followed = &mut self.topics[key as usize];
            places.push(Place {
                topic: key,
                at: index(followed.followers.len()),
            });
            followed.followers.push(id);
        }
        self.all.insert(Follower {
            generation: self.generation,
            session,
            outlet,
            topics: places.into(),
            blocked: false,
            asking: None,
            stuck: None,
            told_level: false,
            holds: false,
        });
        id
    }

    pub(super) fn get_mut(&mut self, id: FollowerId) -> Option<&mut Follower> {
        self.all
            .get_mut(id.index as usize)
            .filter(|follower| follower.generation == id.generation)
    }

    pub(super) fn get(&self, id: FollowerId) -> Option<&Follower> {
        self.all
            .get(id.index as usize)
            .filter(|follower| follower.generation == id.generation)
    }

    /// Removes a follower and returns the slots it followed.
    pub(super) fn remove(&mut self, id: FollowerId) -> Option<Vec<Slot>> {
        self.get(id)?;
        let follower = self.all.try_remove(id.index as usize)?;
        let live = u32::from(follower.is_live());
        let mut slots = Vec::with_capacity(follower.topics.len());
        for &Place { topic, at } in &follower.topics {
            let followed = &mut self.topics[topic as usize];
            followed.live -= live;
            slots.push(followed.slot);
            followed.followers.swap_remove(at as usize);
            if let Some(&moved) = followed.followers.get(at as usize) {
                let places = &mut self.all[moved.index as usize].topics;
                if let Some(place) = places.iter_mut().find(|place| place.topic == topic) {
                    place.at = at;
                }
            } else if followed.followers.is_empty() {
                let hash = self.hasher.hash_one(&followed.topic);
                if let Ok(entry) = self.by_name.find_entry(hash, |&key| key == topic) {
                    entry.remove();
                }
                self.topics.remove(topic as usize);
            }
        }
        slots.sort_unstable();
        slots.dedup();
        Some(slots)
    }

    /// Gives a follower another session.
    pub(super) fn set_session(&mut self, id: FollowerId, session: Session) {
        let Some(follower) = self
            .all
            .get_mut(id.index as usize)
            .filter(|follower| follower.generation == id.generation)
        else {
            return;
        };
        let was_live = follower.is_live();
        follower.session = session;
        let is_live = follower.is_live();
        for place in &follower.topics {
            let live = &mut self.topics[place.topic as usize].live;
            *live = *live + u32::from(is_live) - u32::from(was_live);
        }
    }

    /// The topics of a follower, with their slots.
    pub(super) fn topics(&self, id: FollowerId) -> impl Iterator<Item = (&Topic, Slot)> {
        let places = self.get(id).map_or(&[][..], |follower| &follower.topics);
        places.iter().map(|place| {
            let followed = &self.topics[place.topic as usize];
            (&followed.topic, followed.slot)
        })
    }

    /// The slots of a follower, in ascending order, none twice.
    pub(super) fn slots(&self, id: FollowerId) -> Vec<Slot> {
        let mut slots: Vec<_> = self.topics(id).map(|(_, slot)| slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// The key of a topic that someone follows.
    pub(super) fn key(&self, topic: &Topic) -> Option<u32> {
        let is_it = |&key: &u32| self.topics[key as usize].topic == *topic;
        self.by_name.find(self.hasher.hash_one(topic), is_it).copied()
    }

    /// Adds a topic that nobody followed.
    fn follow(&mut self, topic: Topic, layout: Layout) -> u32 {
        let hash = self.hasher.hash_one(&topic);
        let slot = Slot(layout.slot(topic.as_str()));
        let key = index(self.topics.insert(Followed {
            topic,
            slot,
            followers: SmallVec::new(),
            live: 0,
        }));
        let hash_of = |&key: &u32| self.hasher.hash_one(&self.topics[key as usize].topic);
        self.by_name.insert_unique(hash, key, hash_of);
        key
    }

    /// A topic's follower at this place, for walking them all while each may change (but none be removed).
    pub(super) fn at(&self, key: u32, place: usize) -> Option<FollowerId> {
        self.topics.get(key as usize)?.followers.get(place).copied()
    }

    /// The topics of a slot that someone live follows.
    pub(super) fn live_topics(&self, slot: Slot) -> Vec<Topic> {
        let live = self
            .topics
            .iter()
            .filter(|(_, followed)| followed.slot == slot && followed.live > 0);
        live.map(|(_, followed)| followed.topic.clone()).collect()
    }

    /// Everyone who is live in one of these slots.
    pub(super) fn live_in(&self, has: impl Fn(Slot) -> bool) -> Vec<FollowerId> {
        let mut ids: Vec<FollowerId> = Vec::new();
        for (_, followed) in self
            .topics
            .iter()
            .filter(|(_, followed)| followed.live > 0 && has(followed.slot))
        {
            ids.extend(
                followed
                    .followers
                    .iter()
                    .filter(|&&id| self.get(id).is_some_and(Follower::is_live)),
            );
        }
        ids.sort_unstable_by_key(|id| id.index);
        ids.dedup();
        ids
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("one process has far fewer than 2^32 followers")
}
