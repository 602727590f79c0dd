//! The bus: the hint that something was appended. It may lose, repeat and reorder; whoever must be sure reads the log.

mod local;
pub mod nats;
mod queue;

use std::sync::Arc;

pub use self::{local::LocalBus, nats::NatsBus};
use crate::model::{Epoch, Event, Seq, Shard, Slot};

/// Carries announcements and digests from those who hold a shard to those who follow its slots.
///
/// One suite (`tests/contract/bus.rs`) holds every implementation to this.
///
/// **Never authoritative:** each notice may be lost, repeated, late or out of order. What the bus does promise: a notice is what was
/// sent, whole; it never blocks the sender; and when it knows of losses it says so with [`Notice::Unverified`].
pub trait Bus: Send + Sync + 'static {
    /// Tells the followers of these slots what was appended, in this order.
    fn announce(&self, announcements: &[Announcement]);

    /// Tells everyone how far a shard has come.
    fn digest(&self, digest: &Digest);

    /// Sends an event that is not kept to whoever follows its slot now.
    fn ephemeral(&self, slot: Slot, event: Arc<Event>);

    /// Opens a line for one follower, which at first carries digests alone.
    fn open(&self) -> Box<dyn Line>;
}

/// What one follower hears.
pub trait Line: Send {
    /// Begins to carry a slot. Notices from before it took hold may be missing.
    fn follow(&mut self, slot: Slot);

    /// Stops carrying a slot.
    fn unfollow(&mut self, slot: Slot);

    /// The next notice; `None` when the bus is closed. Cancelling loses nothing.
    fn next(&mut self) -> futures::future::BoxFuture<'_, Option<Notice>>;
}

/// What goes over the bus.
#[derive(Debug, Clone)]
pub enum Notice {
    /// Something was appended.
    Announcement(Announcement),
    /// How far a shard has come.
    Digest(Arc<Digest>),
    /// An event that is not kept.
    Ephemeral(Arc<Event>),
    /// Notices may have been lost, of any shard: ask the log.
    Unverified,
}

/// An event was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The shard.
    pub shard: Shard,
    /// Its incarnation.
    pub epoch: Epoch,
    /// The slot.
    pub slot: Slot,
    /// The last sequence before it in the same slot; 0 if it is the slot's first.
    pub prev: Seq,
    /// Its sequence.
    pub seq: Seq,
    /// The event.
    pub event: Arc<Event>,
}

/// How far a shard has come, told about twice a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The shard.
    pub shard: Shard,
    /// Its incarnation.
    pub epoch: Epoch,
    /// How far it had come at the last digest of this sender.
    pub before: Seq,
    /// How far it has come.
    pub now: Seq,
    /// The slots that changed since `before`, with their last sequence.
    pub changed: Vec<(Slot, Seq)>,
}
