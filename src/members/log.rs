//! What is told of a change of the view.

use tidings_cluster::View;
use tracing::{error, info, warn};

/// Tells who came, who went, who drains, and what is wrong.
pub(super) fn changes(me: &str, before: &View, after: &View) {
    for member in after.members() {
        let known = before.member(&member.node);
        let (node, role, version) = (&*member.node, member.role, &*member.version);
        match known {
            None => info!(node, ?role, version, "a node joined"),
            Some(known) if known.incarnation != member.incarnation => {
                info!(node, ?role, version, "a node started anew");
            }
            Some(known) if member.draining && !known.draining => info!(node, ?role, "a node drains"),
            Some(_) => {}
        }
    }
    for member in before.members().filter(|member| after.member(&member.node).is_none()) {
        info!(node = &*member.node, role = ?member.role, "a node is gone");
    }
    for stranger in after
        .strangers()
        .iter()
        .filter(|stranger| !before.strangers().contains(stranger))
    {
        warn!(
            node = stranger.node,
            slots = stranger.slots,
            shards = stranger.shards,
            "a node has another layout and is kept out: give all nodes of a cluster the same `cluster.slots` and `cluster.shards`, or \
             another `cluster.name`"
        );
    }
    for node in after
        .conflicts()
        .iter()
        .filter(|node| !before.conflicts().contains(node))
    {
        if node == me {
            error!(
                node,
                "another node has this node's name: give each its own `cluster.node`"
            );
        } else {
            error!(node, "two nodes have the same name: give each its own `cluster.node`");
        }
    }
}
