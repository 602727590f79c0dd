//! The live streams of one worker: how many, when each needs a heartbeat, and when each ends: of old age, misplaced, or while draining.

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
    limits::{come_back_after, stay_away},
    wheel::{Tick, Wheel},
};
use crate::{hub::Start, model::Slot};

/// A live stream, whatever carries it.
pub(super) trait Carrier {
    /// When anything was last sent.
    fn last_sent(&self) -> Tick;

    /// Sends the beginning of the stream if it is still held back.
    fn begin(&self);

    /// Sends something that means nothing, unless other things are waiting to be sent anyway.
    fn heartbeat(&self);

    /// Ends the stream after what is waiting, asking the client to come back after a while.
    fn end(&self, come_back_after: Duration);

    /// Drops whatever is waiting: the stream is over now.
    fn abandon(&self);
}

/// A live stream's place in the table. Given out again, with another generation, after it is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

#[cfg(test)]
impl Key {
    pub(super) const fn test(index: u32) -> Self {
        Self { index, generation: 0 }
    }
}

/// What may end a stream but the drain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Terms {
    /// The slot that it belongs with, if its client can be sent to another edge.
    pub(super) movable: Option<Slot>,
    /// Whether it is asked to come back when it is old.
    pub(super) ages: bool,
}

struct Entry {
    carrier: Rc<dyn Carrier>,
    generation: u32,
    movable: Option<Slot>,
}

/// What is due.
enum Timer {
    Begin(Key),
    Heartbeat(Key),
    End(Key),
    /// It is old.
    Leave(Key),
}

/// How long the beginning of a stream is held back at most until its place is known.
///
/// A stream that begins now has its place when the log has said how far it is, and not when the request came. Its client is told
/// that it is open only then, so that what is published after that is never missed. Should the log not answer, it is told all the same.
const HELD: Duration = Duration::from_secs(1);

/// Whether a stream's place is the log's to say.
pub(super) const fn begins_now(start: &Start) -> bool {
    matches!(start, Start::Now | Start::Unknown)
}

/// The table.
pub(super) struct Streams {
    entries: Slab<Entry>,
    wheel: Wheel<Timer>,
    generation: u32,
    heartbeat: Duration,
    retry: Duration,
    max_age: Duration,
    /// Since when, and until when, streams end; if they do.
    ending: Option<(Tick, Tick)>,
    /// The streams of all workers.
    total: Arc<AtomicUsize>,
}

impl Streams {
    /// An empty table that counts its streams into `total`.
    pub(super) fn new(settings: &Settings, total: Arc<AtomicUsize>) -> Self {
        Self {
            entries: Slab::new(),
            wheel: Wheel::new(),
            generation: 0,
            heartbeat: settings.heartbeat,
            retry: settings.retry,
            max_age: settings.max_age,
            ending: None,
            total,
        }
    }

    /// A stream begins.
    pub(super) fn enter(&mut self, carrier: Rc<dyn Carrier>, terms: Terms, now: Tick) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.entries.insert(Entry {
            carrier,
            generation,
            movable: terms.movable,
        });
        let key = Key {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            generation,
        };
        self.total.fetch_add(1, Ordering::Relaxed);
        self.wheel.add(now.after(HELD), Timer::Begin(key));
        self.wheel.add(now.after(self.heartbeat), Timer::Heartbeat(key));
        if terms.ages && !self.max_age.is_zero() {
            self.wheel.add(now.after(aged(self.max_age)), Timer::Leave(key));
        }
        if let Some((from, until)) = self.ending {
            self.wheel.add(moment(from.max(now), until), Timer::End(key));
        }
        key
    }

    /// How many streams there are on all workers.
    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// A stream is over. It counts until its carrier, and with it its permits, is dropped, if this table was the last to hold it.
    pub(super) fn leave(&mut self, key: Key) {
        if self.get(key).is_some() {
            drop(self.entries.remove(key.index as usize));
            self.total.fetch_sub(1, Ordering::Relaxed);
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
        let carrier = self.get(key)?;
        Some(Due::End(Rc::clone(carrier), come_back_after(self.retry)))
    }

    /// Moves time on and returns what is to be done: to be done when this table is no longer borrowed, since it may change it.
    pub(super) fn advance(&mut self, now: Tick) -> Vec<Due> {
        let mut due = Vec::new();
        for timer in self.wheel.advance(now) {
            match timer {
                Timer::Begin(key) => due.extend(self.get(key).cloned().map(Due::Begin)),
                Timer::End(key) => due.extend(self.get(key).cloned().map(|carrier| Due::End(carrier, stay_away()))),
                Timer::Leave(key) => due.extend(self.dismiss(key)),
                Timer::Heartbeat(key) => {
                    let Some(carrier) = self.get(key) else { continue };
                    let next = carrier.last_sent().after(self.heartbeat);
                    if next > now {
                        self.wheel.add(next, Timer::Heartbeat(key));
                    } else {
                        due.push(Due::Heartbeat(Rc::clone(carrier)));
                        self.wheel.add(now.after(self.heartbeat), Timer::Heartbeat(key));
                    }
                }
            }
        }
        due
    }

    /// Takes out all streams that there are.
    pub(super) fn clear(&mut self) -> Vec<Rc<dyn Carrier>> {
        self.total.fetch_sub(self.entries.len(), Ordering::Relaxed);
        self.entries.drain().map(|entry| entry.carrier).collect()
    }

    fn get(&self, key: Key) -> Option<&Rc<dyn Carrier>> {
        let entry = self.entries.get(key.index as usize)?;
        (entry.generation == key.generation).then_some(&entry.carrier)
    }
}

/// Something to be done to a stream.
pub(super) enum Due {
    Begin(Rc<dyn Carrier>),
    Heartbeat(Rc<dyn Carrier>),
    /// The client is to come back after so long.
    End(Rc<dyn Carrier>, Duration),
}

impl Due {
    /// Does it.
    pub(super) fn carry_out(self) {
        match self {
            Self::Begin(carrier) => carrier.begin(),
            Self::Heartbeat(carrier) => carrier.heartbeat(),
            Self::End(carrier, come_back_after) => carrier.end(come_back_after),
        }
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
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[derive(Default)]
    struct Recorder {
        now: Cell<Tick>,
        sent: Cell<Tick>,
        heartbeats: RefCell<Vec<u64>>,
        begun: Cell<Option<u64>>,
        ended: Cell<Option<u64>>,
    }

    impl Carrier for Recorder {
        fn last_sent(&self) -> Tick {
            self.sent.get()
        }

        fn begin(&self) {
            assert_eq!(self.begun.replace(Some(self.now.get().0)), None);
        }

        fn heartbeat(&self) {
            self.sent.set(self.now.get());
            self.heartbeats.borrow_mut().push(self.now.get().0);
        }

        fn end(&self, come_back_after: Duration) {
            assert!((1..=15).contains(&come_back_after.as_secs()));
            assert_eq!(self.ended.replace(Some(self.now.get().0)), None);
        }

        fn abandon(&self) {}
    }

    fn table() -> (Streams, Arc<AtomicUsize>) {
        let total = Arc::new(AtomicUsize::new(0));
        (Streams::new(&Settings::default(), Arc::clone(&total)), total)
    }

    fn pass(streams: &mut Streams, recorders: &[Rc<Recorder>], ticks: std::ops::RangeInclusive<u64>) {
        for now in ticks.map(Tick) {
            recorders.iter().for_each(|recorder| recorder.now.set(now));
            streams.advance(now).into_iter().for_each(Due::carry_out);
        }
    }

    #[test]
    fn heartbeats_come_only_when_nothing_else_did() {
        let (mut streams, _) = table();
        let recorder = Rc::new(Recorder::default());
        streams.enter(Rc::clone(&recorder) as Rc<dyn Carrier>, Terms::default(), Tick(0));
        let recorders = [recorder];
        pass(&mut streams, &recorders, 1..=299);
        assert_eq!(recorders[0].begun.get(), Some(20));
        assert!(recorders[0].heartbeats.borrow().is_empty());
        pass(&mut streams, &recorders, 300..=400);
        assert_eq!(*recorders[0].heartbeats.borrow(), [300]);
        recorders[0].sent.set(Tick(400));
        pass(&mut streams, &recorders, 401..=1_100);
        assert_eq!(*recorders[0].heartbeats.borrow(), [300, 700, 1_000]);
    }

    #[test]
    fn one_who_left_is_left_alone() {
        let (mut streams, total) = table();
        let (gone, next) = (Rc::new(Recorder::default()), Rc::new(Recorder::default()));
        let key = streams.enter(Rc::clone(&gone) as Rc<dyn Carrier>, Terms::default(), Tick(0));
        streams.leave(key);
        streams.leave(key);
        streams.enter(Rc::clone(&next) as Rc<dyn Carrier>, Terms::default(), Tick(100));
        assert_eq!(total.load(Ordering::Relaxed), 1);
        let recorders = [gone, next];
        pass(&mut streams, &recorders, 101..=420);
        assert!(recorders[0].heartbeats.borrow().is_empty());
        assert_eq!(*recorders[1].heartbeats.borrow(), [400]);
    }

    #[test]
    fn each_ends_once_at_its_own_time() {
        let (mut streams, _) = table();
        let recorders: Vec<_> = (0..1_000).map(|_| Rc::new(Recorder::default())).collect();
        for recorder in &recorders[..900] {
            streams.enter(Rc::clone(recorder) as Rc<dyn Carrier>, Terms::default(), Tick(0));
        }
        streams.end_all(Tick(0), Tick(100));
        for recorder in &recorders[900..] {
            streams.enter(Rc::clone(recorder) as Rc<dyn Carrier>, Terms::default(), Tick(0));
        }
        pass(&mut streams, &recorders, 1..=100);
        let ends: Vec<u64> = recorders
            .iter()
            .map(|r| r.ended.get().expect("ended in time"))
            .collect();
        let early = ends.iter().filter(|&&end| end <= 50).count();
        assert!((350..=650).contains(&early), "{early} of 1000 ended in the first half");
    }

    #[test]
    fn the_old_come_back_at_different_times() {
        let total = Arc::new(AtomicUsize::new(0));
        let settings = Settings {
            max_age: Duration::from_secs(100),
            ..Settings::default()
        };
        let mut streams = Streams::new(&settings, total);
        let recorders: Vec<_> = (0..200).map(|_| Rc::new(Recorder::default())).collect();
        for recorder in &recorders[..100] {
            let terms = Terms {
                ages: true,
                ..Terms::default()
            };
            streams.enter(Rc::clone(recorder) as Rc<dyn Carrier>, terms, Tick(0));
        }
        for recorder in &recorders[100..] {
            streams.enter(Rc::clone(recorder) as Rc<dyn Carrier>, Terms::default(), Tick(0));
        }
        pass(&mut streams, &recorders, 1..=2_401);
        let ends: std::collections::HashSet<_> = recorders.iter().filter_map(|r| r.ended.get()).collect();
        assert!(
            ends.len() > 30 && ends.iter().all(|end| (1_600..=2_400).contains(end)),
            "{ends:?}"
        );
        assert_eq!(recorders.iter().filter(|r| r.ended.get().is_some()).count(), 100);
        assert!(recorders[100..].iter().all(|r| r.ended.get().is_none()));
    }

    #[test]
    fn the_misplaced_are_found() {
        let (mut streams, _) = table();
        let slots = [None, Some(1), Some(2), Some(3), None, Some(3)];
        let keys = slots.map(|slot| {
            let terms = Terms {
                movable: slot.map(Slot),
                ..Terms::default()
            };
            streams.enter(Rc::new(Recorder::default()), terms, Tick(0))
        });
        assert_eq!(streams.misplaced(|slot| slot.0 > 1), [keys[2], keys[3], keys[5]]);
        streams.leave(keys[3]);
        assert_eq!(streams.misplaced(|slot| slot.0 > 1), [keys[2], keys[5]]);
        assert!(streams.dismiss(keys[5]).is_some() && streams.dismiss(keys[3]).is_none());
    }
}
