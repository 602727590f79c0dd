//! Whether the shards that a node owns are its own alone.
//!
//! With the `rocksdb` journal a shard is on the disk of one node. Should another node say that it has it too (two with one ordinal, a copied
//! disk, two with one name), whatever either of them took would be missing at the other: so neither takes anything until one of them is gone.
//!
//! With either journal a node that hears others, and all of them have another layout than it has, takes nothing: they would not find it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::BoxFuture;
use tokio::sync::watch;
use tracing::{error, info};

use crate::{
    journal::{AppendError, Attempt, Journal, Ticket, Unavailable},
    members::View,
    model::{Publish, Shard},
};

/// Which shards of this node are not to be written, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claims(BTreeMap<Shard, String>);

impl Claims {
    /// Those that a view shows against the shards of `me`, which are to be its own alone.
    pub(super) fn of_owner(view: &View, me: &str, owned: &BTreeSet<Shard>) -> Self {
        let stray = Self::of_holder(view, me, owned);
        if !stray.0.is_empty() {
            return stray;
        }
        let name_taken = view.conflicts().iter().any(|node| node == me);
        let claimed = |shard: &Shard| {
            let node = if name_taken {
                format!("{me} (another node of this name)")
            } else {
                let other = view.holders(shard.0).iter().find(|holder| &*holder.member.node != me)?;
                other.member.node.to_string()
            };
            Some((
                *shard,
                format!(
                    "node {node} says that it owns it too: give each ingest node its own `cluster.ordinal` and `cluster.node`, and stop the one that should not be there"
                ),
            ))
        };
        Self(owned.iter().filter_map(claimed).collect())
    }

    /// Those that a view shows against the shards of `me`, which others may hold as well: `me` is the one that does not belong.
    pub(super) fn of_holder(view: &View, me: &str, held: &BTreeSet<Shard>) -> Self {
        let is_alone = view.members().all(|member| &*member.node == me);
        let Some(other) = view.strangers().first().filter(|_| is_alone) else {
            return Self::default();
        };
        let why = format!(
            "all other nodes have another layout, node {} has {} slots and {} shards: what was taken here nobody would find there; give all nodes of a cluster the same `cluster.slots` and `cluster.shards`, or another `cluster.name`",
            other.node, other.slots, other.shards
        );
        Self(held.iter().map(|shard| (*shard, why.clone())).collect())
    }

    /// Why a shard is not to be written, if so.
    pub(super) fn of(&self, shard: Shard) -> Option<String> {
        self.0.get(&shard).cloned()
    }

    /// Whether a shard is claimed.
    pub(super) fn has(&self, shard: Shard) -> bool {
        self.0.contains_key(&shard)
    }
}

/// Watches who is there, and tells of claims as they come and go; calls `changed` then. Ends with the membership.
pub(super) async fn watch_claims(
    of_view: fn(&View, &str, &BTreeSet<Shard>) -> Claims,
    mut view: watch::Receiver<Arc<View>>,
    me: String,
    owned: BTreeSet<Shard>,
    claims: watch::Sender<Claims>,
    changed: impl Fn() + Send,
) {
    loop {
        let next = of_view(&view.borrow_and_update(), &me, &owned);
        let before = claims.borrow().clone();
        if next != before {
            for shard in &owned {
                match (before.of(*shard), next.of(*shard)) {
                    (None, Some(why)) => error!(%shard, why, "a shard takes no events here"),
                    (Some(_), None) => info!(%shard, "a shard takes events again"),
                    _ => {}
                }
            }
            claims.send_replace(next);
            changed();
        }
        if view.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// A journal of a shard that takes nothing while there is a claim against it.
pub(super) struct Claimable {
    pub(super) shard: Shard,
    pub(super) node: String,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) claims: watch::Receiver<Claims>,
}

impl Journal for Claimable {
    fn append(&self, publish: Publish) -> BoxFuture<'_, Result<Ticket, AppendError>> {
        match self.check() {
            Ok(()) => self.journal.append(publish),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn try_append(&self, publish: Publish) -> Attempt {
        match self.check() {
            Ok(()) => self.journal.try_append(publish),
            Err(error) => Attempt::Done(Err(error)),
        }
    }
}

impl Claimable {
    fn check(&self) -> Result<(), AppendError> {
        if !self.claims.borrow().has(self.shard) {
            return Ok(());
        }
        Err(AppendError::Unavailable {
            shard: self.shard,
            cause: Unavailable::NotHeld {
                node: self.node.clone(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_cluster::{Beat, HeldShard, Layout, Membership, MembershipSettings, Role};

    use super::*;

    fn beat(node: &str, incarnation: u64, number: u64, shards: &[u16]) -> Beat {
        let held = |&shard: &u16| HeldShard {
            shard,
            epoch: 1,
            last: 0,
            writable: true,
            rank: 0,
        };
        Beat {
            node: node.to_owned(),
            incarnation,
            number,
            role: Role::Ingest,
            http: String::new(),
            grpc: format!("http://{node}"),
            connections: 0,
            weight: 100,
            draining: false,
            leaving: false,
            shards: shards.iter().map(held).collect(),
            version: String::new(),
            layout_slots: 4,
            layout_shards: 4,
        }
    }

    #[test]
    fn what_another_holds_is_claimed_until_it_is_gone() {
        let layout = Layout::new(4, 4).expect("valid");
        let mut membership = Membership::new(MembershipSettings::new(layout));
        let at = Duration::from_secs;
        let owned = BTreeSet::from([Shard(0), Shard(1)]);
        let claims = |membership: &Membership| Claims::of_owner(membership.view(), "a", &owned);
        membership.link(at(0), true);
        membership.beat(at(1), beat("a", 1, 1, &[0, 1]));
        membership.beat(at(1), beat("b", 1, 1, &[2, 3]));
        assert_eq!(claims(&membership), Claims::default());
        membership.beat(at(2), beat("c", 1, 1, &[1, 2]));
        let claimed = claims(&membership);
        assert!(claimed.has(Shard(1)) && !claimed.has(Shard(0)));
        assert!(claimed.of(Shard(1)).expect("claimed").contains("node c"));
        let gone = Beat {
            leaving: true,
            ..beat("c", 1, 2, &[])
        };
        membership.beat(at(3), gone);
        assert_eq!(claims(&membership), Claims::default());
        // A second one of the same name, which the first does not give way to.
        membership.beat(at(4), beat("a", 2, 1, &[0, 1]));
        for second in 5..12 {
            membership.beat(at(second), beat("a", 1, second, &[0, 1]));
            membership.beat(at(second), beat("a", 2, second, &[0, 1]));
        }
        assert!(claims(&membership).has(Shard(0)) && claims(&membership).has(Shard(1)));
    }

    #[test]
    fn one_that_hears_only_nodes_of_another_layout_takes_nothing() {
        let mut membership = Membership::new(MembershipSettings::new(Layout::new(4, 4).expect("valid")));
        let at = Duration::from_secs;
        let held = BTreeSet::from([Shard(0), Shard(1)]);
        let has = |membership: &Membership| {
            let claims = [Claims::of_holder, Claims::of_owner].map(|of_view| of_view(membership.view(), "a", &held));
            claims.map(|claims| held.iter().all(|shard| claims.has(*shard)))
        };
        membership.link(at(0), true);
        membership.beat(at(1), beat("a", 1, 1, &[0, 1]));
        assert_eq!(has(&membership), [false, false]);
        let stranger = |node| Beat {
            layout_shards: 2,
            ..beat(node, 1, 1, &[0, 1])
        };
        membership.beat(at(1), stranger("b"));
        assert_eq!(has(&membership), [true, true]);
        // Where others agree with it, it is the stranger that does not belong.
        membership.beat(at(2), beat("c", 1, 1, &[2, 3]));
        assert_eq!(has(&membership), [false, false]);
    }
}
