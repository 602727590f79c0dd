//! The live streams of one worker: how many, when each needs a heartbeat, and when each ends: of old age, misplaced, while draining, or
//! with what its caller was granted.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use slab::Slab;

use super::{
    Settings,
    carrier::{Carrier, Cause, Due, End},
    lease::{LOOK_AGAIN, Margin, left, look_after},
    sweep::Sweep,
    wheel::{Tick, Wheel},
};
use crate::{
    auth::{Lease, TokenFacts},
    hub::Start,
    model::{Slot, UnixMillis},
};

/// A live stream's place in the table. Given out again, with another generation, after it is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

#[cfg(test)]
impl Key {
    pub(super) const fn test(index: u32) -> Self {
        Self { index, generation: 0 }
    }
}

/// What may end a stream but the drain.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    /// The slot that it belongs with, if its client can be sent to another edge.
    pub(super) movable: Option<Slot>,
    /// Whether it is asked to come back when it is old.
    pub(super) ages: bool,
    /// For how long its caller may stay; nothing: for ever.
    pub(super) lease: Option<Arc<Lease>>,
}

struct Entry {
    carrier: Rc<dyn Carrier>,
    generation: u32,
    movable: Option<Slot>,
    lease: Option<Arc<Lease>>,
}

/// When it is: for what is this machine's own, and for what tokens say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) tick: Tick,
    pub(super) wall: UnixMillis,
}

/// What is due.
enum Timer {
    Begin(Key),
    Heartbeat(Key),
    End(Key),
    /// It is old then: one that ends before leaves nothing behind for longer than it takes to look again.
    Leave(Key, Tick),
    /// Its client is told that its lease ends.
    Notice(Key, Margin),
    /// Its lease ends.
    Expire(Key, Margin),
    /// Its lease has ended: whoever has not read to the end by now is cut off.
    Cut(Key, Cause),
    /// What was granted had been taken back before it was in the table.
    Revoke(Key),
}

impl Timer {
    /// Whose it is.
    const fn key(&self) -> Key {
        match *self {
            Self::Begin(key)
            | Self::Heartbeat(key)
            | Self::End(key)
            | Self::Leave(key, _)
            | Self::Notice(key, _)
            | Self::Expire(key, _)
            | Self::Cut(key, _)
            | Self::Revoke(key) => key,
        }
    }
}

/// How long the beginning of a stream is held back at most until its place is known.
///
/// A stream that begins now has its place when the log has said how far it is, and not when the request came. Its client is told
/// that it is open only then, so that what is published after that is never missed. Should the log not answer, it is told all the same.
const HELD: Duration = Duration::from_secs(1);

/// How long a stream whose token was taken back may take to read its end.
const PARTING: Duration = Duration::from_secs(1);

/// The same of one whose token is over, however its clock was set meanwhile.
const PARTING_AT_MOST: Duration = Duration::from_secs(5);

/// Whether a stream's place is the log's to say.
pub(super) const fn begins_now(start: &Start) -> bool {
    matches!(start, Start::Now | Start::Unknown)
}

/// The table.
pub(super) struct Streams {
    entries: Slab<Entry>,
    wheel: Wheel<Timer>,
    /// Where it is in looking for what was taken back.
    sweep: Sweep,
    generation: u32,
    heartbeat: Duration,
    retry: Duration,
    max_age: Duration,
    /// Since when, and until when, streams end; if they do.
    ending: Option<(Tick, Tick)>,
    /// The streams of all workers.
    total: Arc<AtomicUsize>,
    /// Streams that have left since their timers were last forgotten.
    left: usize,
}

/// So many may leave before their timers are forgotten, however few stay.
const LEFT: usize = 1_024;

impl Streams {
    /// An empty table that counts its streams into `total`.
    pub(super) fn new(settings: &Settings, total: Arc<AtomicUsize>) -> Self {
        Self {
            entries: Slab::new(),
            wheel: Wheel::new(),
            sweep: Sweep::default(),
            generation: 0,
            heartbeat: settings.heartbeat,
            retry: settings.retry,
            max_age: settings.max_age,
            ending: None,
            total,
            left: 0,
        }
    }

    /// The key of the stream that begins next.
    pub(super) fn next_key(&self) -> Key {
        Key {
            index: u32::try_from(self.entries.vacant_key()).unwrap_or(u32::MAX),
            generation: self.generation.wrapping_add(1),
        }
    }

    /// A stream begins.
    ///
    /// `is_revoked` is asked once the stream is in the table: what was taken back between the look at its token and now is found by that,
    /// what is taken back later by the next sweep.
    pub(super) fn enter(
        &mut self,
        carrier: Rc<dyn Carrier>,
        terms: Terms,
        now: Now,
        is_revoked: impl Fn(&TokenFacts) -> bool,
    ) -> Key {
        let key = self.next_key();
        self.generation = key.generation;
        let margin = terms.lease.as_ref().map(|lease| Margin::of(lease, now.wall));
        self.entries.insert(Entry {
            carrier,
            generation: key.generation,
            movable: terms.movable,
            lease: terms.lease,
        });
        self.total.fetch_add(1, Ordering::Relaxed);
        let tick = now.tick;
        self.wheel.add(tick.after(HELD), Timer::Begin(key));
        self.wheel.add(tick.after(self.heartbeat), Timer::Heartbeat(key));
        if terms.ages && !self.max_age.is_zero() {
            self.age(key, tick.after(aged(self.max_age)), tick);
        }
        if let Some((from, until)) = self.ending {
            self.wheel.add(moment(from.max(tick), until), Timer::End(key));
        }
        if let Some(margin) = margin {
            // With the next step, if that is due already.
            self.wheel.add(tick, Timer::Notice(key, margin));
        }
        let lease = self.entry(key).and_then(|entry| entry.lease.as_ref());
        if lease.is_some_and(|lease| is_revoked(&lease.token)) {
            self.wheel.add(tick, Timer::Revoke(key));
        }
        key
    }

    /// Something was taken back: every stream is to be looked at, a slice with each [`Self::revoked`].
    pub(super) fn look_for_revoked(&mut self) {
        self.sweep.begin(self.entries.capacity());
    }

    /// What is to be done to the next few streams, if there is something to look for.
    pub(super) fn revoked(&mut self, now: Tick, is_revoked: impl Fn(&TokenFacts) -> bool) -> Vec<Due> {
        let mut due = Vec::new();
        for place in self.sweep.slice(self.entries.capacity()) {
            let Some(entry) = self.entries.get(place) else { continue };
            if entry.lease.as_ref().is_some_and(|lease| is_revoked(&lease.token)) {
                let key = Key {
                    index: u32::try_from(place).unwrap_or(u32::MAX),
                    generation: entry.generation,
                };
                due.push(Due::End(
                    Rc::clone(&entry.carrier),
                    End::because(Cause::Revoked, self.retry),
                ));
                self.wheel.add(now.after(PARTING), Timer::Cut(key, Cause::Revoked));
            }
        }
        due
    }

    /// How many streams there are on all workers.
    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// A stream is over. It counts until its carrier, and with it its permits, is dropped, if this table was the last to hold it.
    pub(super) fn leave(&mut self, key: Key) {
        if self.carrier(key).is_some() {
            drop(self.entries.remove(key.index as usize));
            self.total.fetch_sub(1, Ordering::Relaxed);
            self.left += 1;
        }
    }

    /// Has each stream end at a time of its own from now until then.
    pub(super) fn end_all(&mut self, now: Tick, until: Tick) {
        self.ending = Some((now, until));
        for (index, entry) in &self.entries {
            let key = Key {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                generation: entry.generation,
            };
            self.wheel.add(moment(now, until), Timer::End(key));
        }
    }

    /// Those that can be sent to another edge and belong there.
    pub(super) fn misplaced(&self, is_misplaced: impl Fn(Slot) -> bool) -> Vec<Key> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.movable.is_some_and(&is_misplaced))
            .map(|(index, entry)| Key {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                generation: entry.generation,
            })
            .collect()
    }

    /// What is to be done to ask a stream to come back soon; nothing if it is over.
    pub(super) fn dismiss(&self, key: Key) -> Option<Due> {
        let carrier = self.carrier(key)?;
        Some(Due::End(Rc::clone(carrier), End::because(Cause::Leave, self.retry)))
    }

    /// Moves time on and returns what is to be done: to be done when this table is no longer borrowed, since it may change it.
    pub(super) fn advance(&mut self, now: Now) -> Vec<Due> {
        let mut due = Vec::new();
        for timer in self.wheel.advance(now.tick) {
            match timer {
                Timer::Begin(key) => due.extend(self.carrier(key).cloned().map(Due::Begin)),
                Timer::End(key) => due.extend(self.ended(key, End::later())),
                Timer::Leave(key, old) if old > now.tick => {
                    if self.entry(key).is_some() {
                        self.age(key, old, now.tick);
                    }
                }
                Timer::Leave(key, _) => due.extend(self.dismiss(key)),
                Timer::Heartbeat(key) => {
                    let Some(carrier) = self.carrier(key) else { continue };
                    let next = carrier.last_sent().after(self.heartbeat);
                    if next > now.tick {
                        self.wheel.add(next, Timer::Heartbeat(key));
                    } else {
                        due.push(Due::Heartbeat(Rc::clone(carrier)));
                        self.wheel.add(now.tick.after(self.heartbeat), Timer::Heartbeat(key));
                    }
                }
                Timer::Notice(key, margin) => due.extend(self.notice(key, margin, now)),
                Timer::Expire(key, margin) => due.extend(self.expire(key, margin, now)),
                Timer::Revoke(key) => {
                    due.extend(self.ended(key, End::because(Cause::Revoked, self.retry)));
                    self.wheel.add(now.tick.after(PARTING), Timer::Cut(key, Cause::Revoked));
                }
                Timer::Cut(key, cause) => {
                    let carrier = self.carrier(key).cloned();
                    due.extend(carrier.map(|carrier| Due::Abandon(carrier, End::because(cause, self.retry))));
                }
            }
        }
        self.forget();
        due
    }

    /// Forgets the timers of streams that have left, once these are more than those that stayed: where thousands come and go each second,
    /// they would be most of what there is in memory.
    fn forget(&mut self) {
        let entries = &self.entries;
        if self.left > entries.len().max(LEFT) {
            self.left = 0;
            self.wheel.retain(|timer| {
                let key = timer.key();
                let entry = entries.get(key.index as usize);
                entry.is_some_and(|entry| entry.generation == key.generation)
            });
        }
    }

    /// Has it looked at when a stream is old, or else after a while.
    fn age(&mut self, key: Key, old: Tick, now: Tick) {
        self.wheel.add(old.min(now.after(LOOK_AGAIN)), Timer::Leave(key, old));
    }

    /// Tells a client that its lease ends, if it is time to.
    fn notice(&mut self, key: Key, margin: Margin, now: Now) -> Option<Due> {
        let (carrier, lease) = self.leased(key)?;
        if let Some(wait) = look_after(margin.notice(&lease), now.wall) {
            self.wheel.add(now.tick.after(wait), Timer::Notice(key, margin));
            return None;
        }
        // At least a step later.
        self.wheel.add(now.tick, Timer::Expire(key, margin));
        Some(Due::Expiring(carrier, left(lease.ends, now.wall)))
    }

    /// Ends a stream whose lease ends, if it is time to.
    fn expire(&mut self, key: Key, margin: Margin, now: Now) -> Option<Due> {
        let (carrier, lease) = self.leased(key)?;
        if let Some(wait) = look_after(margin.end(&lease), now.wall) {
            self.wheel.add(now.tick.after(wait), Timer::Expire(key, margin));
            return None;
        }
        let parting = left(lease.ends, now.wall).min(PARTING_AT_MOST);
        self.wheel.add(now.tick.after(parting), Timer::Cut(key, Cause::Expired));
        Some(Due::End(carrier, End::because(Cause::Expired, self.retry)))
    }

    /// Takes out all streams that there are.
    pub(super) fn clear(&mut self) -> Vec<Rc<dyn Carrier>> {
        self.total.fetch_sub(self.entries.len(), Ordering::Relaxed);
        self.entries.drain().map(|entry| entry.carrier).collect()
    }

    fn entry(&self, key: Key) -> Option<&Entry> {
        let entry = self.entries.get(key.index as usize)?;
        (entry.generation == key.generation).then_some(entry)
    }

    /// What carries a stream, if it is not over.
    pub(super) fn carrier(&self, key: Key) -> Option<&Rc<dyn Carrier>> {
        self.entry(key).map(|entry| &entry.carrier)
    }

    fn leased(&self, key: Key) -> Option<(Rc<dyn Carrier>, Arc<Lease>)> {
        let entry = self.entry(key)?;
        Some((Rc::clone(&entry.carrier), Arc::clone(entry.lease.as_ref()?)))
    }

    fn ended(&self, key: Key, end: End) -> Option<Due> {
        Some(Due::End(Rc::clone(self.carrier(key)?), end))
    }
}

/// How old one stream gets: a fifth more or less, so that those who came together do not come back together.
pub(super) fn aged(max_age: Duration) -> Duration {
    max_age.mul_f64(rand::random_range(0.8..=1.2))
}

fn moment(from: Tick, until: Tick) -> Tick {
    Tick(rand::random_range(from.0..=until.0.max(from.0)))
}

#[cfg(test)]
mod tests;
