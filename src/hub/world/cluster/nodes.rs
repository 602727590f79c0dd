//! The nodes of a cluster: who runs, who is cut off, and what they say about themselves.

use std::{collections::BTreeMap, time::Duration};

use tidings_cluster::{Beat, HeldShard, Membership, MembershipSettings, Role};

use crate::{
    hub::{Hub, HubSettings},
    log::ShardView,
    model::{Layout, Shard, Slot},
};

/// One of the nodes, by its place among those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Edge(usize),
    Ingest(usize),
}

/// What edges and ingest nodes have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    /// Counts its starts.
    pub(super) life: u32,
    /// Whether it runs.
    pub(super) up: bool,
    /// Whether it reaches NATS.
    pub(super) linked: bool,
    pub(super) draining: bool,
    /// Counts the beats of this life.
    beats: u64,
}

pub(super) struct Edge {
    pub(super) node: Running,
    pub(super) hub: Hub,
    /// What it has subscribed to.
    pub(super) slots: Vec<Slot>,
    pub(super) membership: Membership,
    /// What it knows of the shards, from those who hold them.
    pub(super) views: BTreeMap<Shard, ShardView>,
    /// It does nothing until then: whatever is for it waits.
    pub(super) stopped_until: u64,
    /// The ingest nodes that it cannot reach.
    pub(super) cut_from: Vec<usize>,
}

impl Running {
    pub(super) const fn new(life: u32) -> Self {
        Self {
            life,
            up: true,
            linked: true,
            draining: false,
            beats: 0,
        }
    }

    /// Whether others hear it, and it them.
    pub(super) const fn is_heard(&self) -> bool {
        self.up && self.linked
    }

    pub(super) fn beat(&mut self, node: Node, layout: Layout, shards: Vec<HeldShard>) -> Beat {
        self.beats += 1;
        let (name, role) = match node {
            Node::Edge(place) => (format!("edge-{place}"), Role::Edge),
            Node::Ingest(place) => (format!("ingest-{place}"), Role::Ingest),
        };
        Beat {
            node: name,
            incarnation: u64::from(self.life),
            number: self.beats,
            role,
            http: String::new(),
            grpc: String::new(),
            connections: 0,
            weight: 100,
            draining: self.draining,
            leaving: false,
            shards,
            version: String::new(),
            layout_slots: layout.slots(),
            layout_shards: u32::from(layout.shards()),
        }
    }
}

impl Edge {
    pub(super) fn new(life: u32, layout: Layout, settings: HubSettings, now: u64) -> Self {
        let mut membership = Membership::new(MembershipSettings::new(layout));
        membership.link(time(now), true);
        Self {
            node: Running::new(life),
            hub: Hub::new(layout, settings),
            slots: Vec::new(),
            membership,
            views: BTreeMap::new(),
            stopped_until: 0,
            cut_from: Vec::new(),
        }
    }

    /// Whether it takes readers.
    pub(super) const fn accepts(&self, now: u64) -> bool {
        self.node.up && !self.node.draining && self.stopped_until <= now
    }

    /// The edge that owns a slot, as it sees it.
    pub(super) fn owner(&self, slot: Slot) -> Option<usize> {
        place(&self.membership.view().owner(slot.0)?.node)
    }
}

/// A node's place among those of its kind.
pub(super) fn place(name: &str) -> Option<usize> {
    name.rsplit_once('-')?.1.parse().ok()
}

/// A time of the world's, for the membership.
pub(super) const fn time(now: u64) -> Duration {
    Duration::from_millis(now)
}
