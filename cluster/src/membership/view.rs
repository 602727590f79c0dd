//! Who is there, as everybody should see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use crate::{HeldShard, Layout, Ring, Role};

/// The nodes of a cluster at one moment. Nodes that have heard the same latest beats have equal views.
///
/// It has what matters to others: who is there, where, and for what. Numbers that change all the time are not in it: for those there is
/// [`Membership::beats`](crate::Membership::beats).
#[derive(Debug, Clone)]
pub struct View {
    pub(super) members: BTreeMap<Arc<str>, Arc<Member>>,
    pub(super) strangers: Vec<Stranger>,
    pub(super) conflicts: Vec<String>,
    pub(super) settled: bool,
    /// Who has less of a shard, in another epoch, than somebody else who claims the same place.
    pub(super) outdone: Outdone,
    holders: Vec<Vec<Holder>>,
    ring: Arc<Edges>,
}

/// A node that belongs to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub node: Arc<str>,
    /// Which of its starts this is.
    pub incarnation: u64,
    /// What it does.
    pub role: Role,
    /// Where its streams are reached from outside, as a URL; empty if it has none.
    pub http: String,
    /// Where its gRPC port is, as a URL; empty if it has none.
    pub grpc: String,
    /// Its share of the load, relative to the others'.
    pub weight: u32,
    /// It is going away: nothing new is sent there.
    pub draining: bool,
    /// Its version.
    pub version: String,
    /// The shards that it holds.
    pub shards: Vec<Held>,
}

/// A shard that a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub shard: u16,
    /// The epoch of what it has.
    pub epoch: u32,
    /// It takes appends for the shard.
    pub writable: bool,
    /// Its place among those who are to hold the shard: 0 is the first.
    pub rank: u32,
    /// It lacks what another holder had a while ago.
    pub behind: bool,
}

/// A node that holds a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub member: Arc<Member>,
    /// What it has of the shard.
    pub held: Held,
}

/// A node that has another layout: it is kept out of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its name.
    pub node: String,
    /// How many slots it believes there are.
    pub slots: u32,
    /// How many shards it believes there are.
    pub shards: u32,
}

/// Shards, and nodes that do not decide which is the present epoch of them.
pub(super) type Outdone = BTreeSet<(u16, Arc<str>)>;

/// Those who take part in the ring, and the ring when somebody has asked for it.
#[derive(Debug)]
struct Edges {
    slots: u32,
    edges: Vec<(Arc<str>, u32)>,
    ring: OnceLock<Ring>,
}

impl View {
    /// Nobody that we know of.
    pub(super) fn empty(layout: Layout) -> Self {
        Self {
            members: BTreeMap::new(),
            strangers: Vec::new(),
            conflicts: Vec::new(),
            settled: false,
            outdone: Outdone::new(),
            holders: vec![Vec::new(); usize::from(layout.shards())],
            ring: Arc::new(Edges {
                slots: layout.slots(),
                edges: Vec::new(),
                ring: OnceLock::new(),
            }),
        }
    }

    /// The view after this one. What has not changed is kept.
    pub(super) fn next(
        &self,
        members: BTreeMap<Arc<str>, Arc<Member>>,
        strangers: Vec<Stranger>,
        conflicts: Vec<String>,
        settled: bool,
        outdone: Outdone,
    ) -> Self {
        let edges = members.values().filter(|member| member.is_on_the_ring());
        let edges: Vec<_> = edges.map(|member| (member.node.clone(), member.weight)).collect();
        let ring = if edges == self.ring.edges {
            self.ring.clone()
        } else {
            Arc::new(Edges {
                slots: self.ring.slots,
                edges,
                ring: OnceLock::new(),
            })
        };
        Self {
            holders: holders(self.holders.len(), &members, &outdone),
            outdone,
            members,
            strangers,
            conflicts,
            settled,
            ring,
        }
    }

    /// All who belong to the cluster, by name.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values()
    }

    /// The node of this name.
    #[must_use]
    pub fn member(&self, node: &str) -> Option<&Arc<Member>> {
        self.members.get(node)
    }

    /// The edges, by name; those that drain among them.
    pub fn edges(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members().filter(|member| member.role == Role::Edge)
    }

    /// The ingest nodes, by name; those that drain among them.
    pub fn ingest(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members().filter(|member| member.role == Role::Ingest)
    }

    /// The ring of the edges that do not drain. The first call after a change of them computes it.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        self.ring.ring.get_or_init(|| {
            let edges: Vec<_> = self
                .ring
                .edges
                .iter()
                .map(|(node, weight)| (&**node, *weight))
                .collect();
            Ring::compute(self.ring.slots, &edges)
        })
    }

    /// The edge that owns a slot; none if there are no edges.
    #[must_use]
    pub fn owner(&self, slot: u32) -> Option<&Arc<Member>> {
        self.member(self.ring().owner(slot)?)
    }

    /// Who holds a shard, the best to ask first: those of the shard's present epoch, that stay, that are not behind, that take appends, in
    /// this order; then by rank and name. The present epoch is that of the first who takes appends; of several who claim the same place, only
    /// the one that has most of the shard is asked for it.
    #[must_use]
    pub fn holders(&self, shard: u16) -> &[Holder] {
        self.holders.get(usize::from(shard)).map_or(&[], Vec::as_slice)
    }

    /// Nodes that are heard but have another layout, by name: somebody set them up wrongly.
    #[must_use]
    pub fn strangers(&self) -> &[Stranger] {
        &self.strangers
    }

    /// Names that two nodes at once claim to have, sorted: somebody set them up wrongly. The one that started later is a member.
    #[must_use]
    pub fn conflicts(&self) -> &[String] {
        &self.conflicts
    }

    /// Whether everybody there has had the time to be heard since we started. Until then somebody may be missing: sending connections
    /// elsewhere because of the ring should wait.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled
    }
}

impl PartialEq for View {
    /// The ring and the holders follow from the members and who is outdone.
    fn eq(&self, other: &Self) -> bool {
        self.members == other.members
            && self.outdone == other.outdone
            && self.strangers == other.strangers
            && self.conflicts == other.conflicts
            && self.settled == other.settled
    }
}

impl Eq for View {}

impl Member {
    /// Whether it owns slots.
    #[must_use]
    pub fn is_on_the_ring(&self) -> bool {
        self.role == Role::Edge && !self.draining && self.weight > 0
    }
}

impl Held {
    pub(super) const fn new(held: &HeldShard, behind: bool) -> Self {
        Self {
            shard: held.shard,
            epoch: held.epoch,
            writable: held.writable,
            rank: held.rank,
            behind,
        }
    }
}

/// By shard, who holds it, the best to ask first.
fn holders(shards: usize, members: &BTreeMap<Arc<str>, Arc<Member>>, outdone: &Outdone) -> Vec<Vec<Holder>> {
    let mut holders = vec![Vec::new(); shards];
    for member in members.values().filter(|member| member.role == Role::Ingest) {
        for &held in &member.shards {
            if let Some(of) = holders.get_mut(usize::from(held.shard)) {
                of.push(Holder {
                    member: member.clone(),
                    held,
                });
            }
        }
    }
    for of in &mut holders {
        // Epochs have no order: the shard's is that of whoever takes appends, as a rule of all. Should two claim one place, whoever has more of
        // the shard was there first: a second one that was set up by mistake begins with nothing, and may take appends before the first one
        // has told that it takes none any more.
        of.sort_by_key(|Holder { member, held }| {
            let outdone = outdone.contains(&(held.shard, member.node.clone()));
            (outdone, !held.writable, held.rank)
        });
        let epoch = of.first().map(|holder| holder.held.epoch);
        of.sort_by_key(|Holder { member, held }| {
            let foreign = Some(held.epoch) != epoch;
            (foreign, member.draining, held.behind, !held.writable, held.rank)
        });
    }
    holders
}
