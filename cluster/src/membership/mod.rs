//! The membership: who is there, from the beats that are heard.

mod beat;
mod progress;
mod view;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use progress::Progress;
use view::Outdone;

pub use self::{
    beat::{Beat, HeldShard, Role},
    view::{Held, Holder, Member, Stranger, View},
};
use crate::Layout;

/// How a membership is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembershipSettings {
    /// Our layout: nodes that have another are kept out.
    pub layout: Layout,
    /// Who has not been heard for so long is gone.
    pub silence: Duration,
    /// A holder that lacks what another had so long ago (or up to twice as long) is behind: others are asked first.
    pub behind: Duration,
}

impl MembershipSettings {
    /// The usual times: gone after 5 seconds, behind after 5.
    #[must_use]
    pub const fn new(layout: Layout) -> Self {
        Self {
            layout,
            silence: Duration::from_secs(5),
            behind: Duration::from_secs(5),
        }
    }
}

/// Who is there: a state machine over the beats that are heard, one's own among them.
///
/// - Who is silent for [`MembershipSettings::silence`] is gone. **Not while our own link is down:** then nobody is heard, and the view
///   stays as it is. When the link is back everyone has a full silence to be heard again. It is down in the beginning. That time passed
///   without a call, half a silence or more, means that we were not running ourselves: it counts as a broken link.
/// - Beats may be lost, repeated and late. Of a node the beat with the highest incarnation and number counts; whoever says that it is
///   leaving is gone at once, and what was sent before and comes later does not bring it back.
/// - A node with another layout is a stranger; a name that an older incarnation goes on using is a conflict. Both are told, not solved.
///
/// `now` is the time since any fixed moment, and does not go back. The methods that take it answer whether the view was replaced.
#[derive(Debug)]
pub struct Membership {
    settings: MembershipSettings,
    /// Since when our link is up.
    up: Option<Duration>,
    /// When we were last called.
    last: Duration,
    nodes: BTreeMap<Arc<str>, Node>,
    progress: Progress,
    view: Arc<View>,
}

/// What is known about a name.
#[derive(Debug)]
struct Node {
    /// The latest beat.
    beat: Beat,
    heard: Duration,
    /// When its incarnation was first heard.
    since: Duration,
    /// When another incarnation than the latest was last heard that should have been gone for long.
    contested: Option<Duration>,
    /// As the view has it; none if it is a stranger, or has left.
    member: Option<Arc<Member>>,
}

impl Membership {
    /// Knows of nobody yet; the link is down.
    #[must_use]
    pub fn new(settings: MembershipSettings) -> Self {
        Self {
            settings,
            up: None,
            last: Duration::ZERO,
            nodes: BTreeMap::new(),
            progress: Progress::default(),
            view: Arc::new(View::empty(settings.layout)),
        }
    }

    /// Who is there. Replaced as a whole whenever something in it changes.
    #[must_use]
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The latest beat of everyone who is there, by name: with how many connections they have and how far their shards are.
    pub fn beats(&self) -> impl Iterator<Item = &Beat> {
        self.nodes
            .values()
            .filter(|node| node.member.is_some())
            .map(|node| &node.beat)
    }

    /// A beat was heard. While the link is down it is not: what the view is frozen against may not come in through the back door.
    pub fn beat(&mut self, now: Duration, beat: Beat) -> bool {
        self.pass_to(now);
        if self.up.is_none() {
            return false;
        }
        let silence = self.settings.silence;
        let changed = match self.nodes.entry(beat.node.as_str().into()) {
            Entry::Vacant(vacant) => {
                let node = vacant.insert(Node::new(now, beat));
                node.renew(&self.settings, &self.progress)
            }
            Entry::Occupied(mut occupied) => {
                let node = occupied.get_mut();
                if beat.incarnation < node.beat.incarnation {
                    node.contest(now, silence)
                } else if (beat.incarnation, beat.number) > (node.beat.incarnation, node.beat.number) {
                    node.take(now, beat);
                    node.renew(&self.settings, &self.progress)
                } else {
                    false
                }
            }
        };
        changed && self.replace()
    }

    /// Our link to the others is up, or down.
    pub fn link(&mut self, now: Duration, up: bool) -> bool {
        match (self.up, up) {
            (None, true) => self.up = Some(now),
            (Some(_), false) => self.up = None,
            (None, false) | (Some(_), true) => {}
        }
        self.tick(now)
    }

    /// Time has passed. To be called about once a second.
    pub fn tick(&mut self, now: Duration) -> bool {
        self.pass_to(now);
        let Some(up) = self.up else { return false };
        let silence = self.settings.silence;
        let before = self.nodes.len();
        self.nodes
            .retain(|_, node| now.saturating_sub(node.heard.max(up)) < silence);
        let mut changed = self.nodes.len() < before;
        for node in self.nodes.values_mut() {
            let is_over = |contested: &mut Duration| now.saturating_sub(up.max(*contested)) >= silence;
            changed |= node.contested.take_if(is_over).is_some();
        }
        let members = self.nodes.values().filter(|node| node.member.is_some());
        if self
            .progress
            .mark(now, self.settings.behind, members.map(|node| &node.beat))
        {
            for node in self.nodes.values_mut() {
                changed |= node.renew(&self.settings, &self.progress);
            }
        }
        changed |= outdone(&self.nodes) != self.view.outdone;
        let settles = !self.view.settled && now.saturating_sub(up) >= silence;
        (changed || settles) && self.replace_settled(self.view.settled || settles)
    }

    /// Time has passed. If much of it did at once, nobody could be heard in it.
    fn pass_to(&mut self, now: Duration) {
        let passed = now.saturating_sub(std::mem::replace(&mut self.last, now));
        if self.up.is_some() && passed * 2 >= self.settings.silence {
            self.up = Some(now);
        }
    }

    fn replace(&mut self) -> bool {
        self.replace_settled(self.view.settled)
    }

    /// Puts the view as it is now in the place of the former, if it differs.
    fn replace_settled(&mut self, settled: bool) -> bool {
        let layout = self.settings.layout;
        let members = self
            .nodes
            .iter()
            .filter_map(|(name, node)| Some((name.clone(), node.member.clone()?)));
        let present = || self.nodes.values().filter(|node| !node.beat.leaving);
        let strangers = present().filter(|node| !node.beat.has(layout)).map(|node| Stranger {
            node: node.beat.node.clone(),
            slots: node.beat.layout_slots,
            shards: node.beat.layout_shards,
        });
        let conflicts = present().filter(|node| node.contested.is_some());
        let next = self.view.next(
            members.collect(),
            strangers.collect(),
            conflicts.map(|node| node.beat.node.clone()).collect(),
            settled,
            outdone(&self.nodes),
        );
        let differs = next != *self.view;
        if differs {
            self.view = Arc::new(next);
        }
        differs
    }
}

impl Node {
    const fn new(now: Duration, beat: Beat) -> Self {
        Self {
            beat,
            heard: now,
            since: now,
            contested: None,
            member: None,
        }
    }

    /// Takes a later beat.
    fn take(&mut self, now: Duration, beat: Beat) {
        if beat.incarnation > self.beat.incarnation {
            self.since = now;
        }
        self.beat = beat;
        self.heard = now;
    }

    /// Another incarnation was heard that is older than the present one. If it had the time to notice that it was replaced, it was not: two
    /// have the name. Answers whether that is new.
    fn contest(&mut self, now: Duration, silence: Duration) -> bool {
        now.saturating_sub(self.since) >= silence && self.contested.replace(now).is_none()
    }

    /// Brings what the view has of it up to date. Answers whether that changed, or may have.
    fn renew(&mut self, settings: &MembershipSettings, progress: &Progress) -> bool {
        let Beat { leaving, .. } = self.beat;
        if leaving || !self.beat.has(settings.layout) {
            // A stranger's layout may be another than before.
            return self.member.take().is_some() || !leaving;
        }
        let member = self.as_member(progress);
        let differs = self.member.as_deref() != Some(&member);
        if differs {
            self.member = Some(Arc::new(member));
        }
        differs
    }

    fn as_member(&self, progress: &Progress) -> Member {
        let Beat { shards, .. } = &self.beat;
        let mut shards: Vec<_> = shards
            .iter()
            .map(|held| Held::new(held, progress.is_behind(held)))
            .collect();
        shards.sort_unstable_by_key(|held| held.shard);
        Member {
            node: self.beat.node.as_str().into(),
            incarnation: self.beat.incarnation,
            role: self.beat.role,
            http: self.beat.http.clone(),
            grpc: self.beat.grpc.clone(),
            weight: self.beat.weight,
            draining: self.beat.draining,
            version: self.beat.version.clone(),
            shards,
        }
    }
}

/// Who has less of a shard than another one who claims the same place with another epoch. How far they are changes all the time, who is ahead
/// hardly ever. If neither has more, the later one has to do without.
fn outdone(nodes: &BTreeMap<Arc<str>, Node>) -> Outdone {
    let mut best: BTreeMap<(u16, u32), (&Arc<str>, &Beat, &HeldShard)> = BTreeMap::new();
    let claims = || {
        let there = nodes
            .iter()
            .filter(|(_, node)| node.member.is_some() && node.beat.role == Role::Ingest);
        there.flat_map(|(name, node)| node.beat.shards.iter().map(move |held| (name, &node.beat, held)))
    };
    let merit = |(name, beat, held): (&Arc<str>, &Beat, &HeldShard)| {
        (held.last, Reverse(beat.incarnation), Reverse(name.clone()))
    };
    for claim in claims() {
        let place = (claim.2.shard, claim.2.rank);
        best.entry(place)
            .and_modify(|best| {
                if merit(*best) < merit(claim) {
                    *best = claim;
                }
            })
            .or_insert(claim);
    }
    let is_outdone = |held: &HeldShard| {
        let best = best.get(&(held.shard, held.rank));
        best.is_some_and(|(.., best)| best.epoch != held.epoch)
    };
    let outdone = claims().filter(|(.., held)| is_outdone(held));
    outdone.map(|(name, _, held)| (held.shard, name.clone())).collect()
}

#[cfg(test)]
mod tests;
