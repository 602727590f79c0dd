use std::cell::{Cell, RefCell};

use super::*;
use crate::{auth::Digest, edge::carrier::Cause};

#[derive(Default)]
struct Recorder {
    now: Cell<Tick>,
    sent: Cell<Tick>,
    heartbeats: RefCell<Vec<u32>>,
    begun: Cell<Option<u32>>,
    told: Cell<Option<(u32, Duration)>>,
    ended: Cell<Option<u32>>,
    cause: Cell<Option<Cause>>,
    cut: Cell<Option<u32>>,
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

    fn expiring(&self, left: Duration) {
        if self.ended.get().is_some() {
            return;
        }
        assert_eq!(self.told.replace(Some((self.now.get().0, left))), None, "told twice");
    }

    fn end(&self, end: End) {
        assert!((1..=15).contains(&end.come_back_after.as_secs()));
        if self.ended.get().is_none() {
            self.cause.set(Some(end.cause));
            self.ended.set(Some(self.now.get().0));
        }
    }

    fn abandon(&self, _: End) {
        self.cut.set(Some(self.now.get().0));
    }
}

/// When the wall clock of these tests stands at tick 0.
const BEGIN: u64 = 1_000_000;

fn at(tick: u32) -> Now {
    Now {
        tick: Tick(tick),
        wall: UnixMillis(BEGIN + u64::from(tick) * 50),
    }
}

/// Has a stream begin whose token was not taken back.
fn enter(streams: &mut Streams, recorder: &Rc<Recorder>, terms: Terms, now: Now) -> Key {
    streams.enter(Rc::clone(recorder) as Rc<dyn Carrier>, terms, now, |_| false)
}

fn table() -> (Streams, Arc<AtomicUsize>) {
    let total = Arc::new(AtomicUsize::new(0));
    (Streams::new(&Settings::default(), Arc::clone(&total)), total)
}

fn pass(streams: &mut Streams, recorders: &[Rc<Recorder>], ticks: std::ops::RangeInclusive<u32>) {
    for now in ticks.map(Tick) {
        recorders.iter().for_each(|recorder| recorder.now.set(now));
        streams.advance(at(now.0)).into_iter().for_each(Due::carry_out);
    }
}

#[test]
fn heartbeats_come_only_when_nothing_else_did() {
    let (mut streams, _) = table();
    let recorder = Rc::new(Recorder::default());
    enter(&mut streams, &recorder, Terms::default(), at(0));
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
    let key = enter(&mut streams, &gone, Terms::default(), at(0));
    streams.leave(key);
    streams.leave(key);
    enter(&mut streams, &next, Terms::default(), at(100));
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
        enter(&mut streams, recorder, Terms::default(), at(0));
    }
    streams.end_all(Tick(0), Tick(100));
    for recorder in &recorders[900..] {
        enter(&mut streams, recorder, Terms::default(), at(0));
    }
    pass(&mut streams, &recorders, 1..=100);
    let ends: Vec<u32> = recorders
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
        enter(&mut streams, recorder, terms, at(0));
    }
    for recorder in &recorders[100..] {
        enter(&mut streams, recorder, Terms::default(), at(0));
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
        enter(&mut streams, &Rc::new(Recorder::default()), terms, at(0))
    });
    assert_eq!(streams.misplaced(|slot| slot.0 > 1), [keys[2], keys[3], keys[5]]);
    streams.leave(keys[3]);
    assert_eq!(streams.misplaced(|slot| slot.0 > 1), [keys[2], keys[5]]);
    assert!(streams.dismiss(keys[5]).is_some() && streams.dismiss(keys[3]).is_none());
}

/// A lease whose notice and end are so many ticks after the beginning.
fn lease(notice: u32, ends: u32, token: &str) -> Terms {
    Terms {
        lease: Some(Arc::new(Lease {
            notice: at(notice).wall,
            ends: at(ends).wall,
            token: TokenFacts {
                id: Some(token.into()),
                ..TokenFacts::default()
            },
        })),
        ..Terms::default()
    }
}

#[test]
fn a_lease_is_told_of_once_and_ends_in_time() {
    let (mut streams, _) = table();
    // Long; opened after its notice; short; a notice after the end; over already.
    let leases = [(2_000, 2_600), (0, 600), (10, 40), (2_600, 2_600), (0, 0)];
    let recorders = leases.map(|(notice, ends)| {
        let recorder = Rc::new(Recorder::default());
        enter(&mut streams, &recorder, lease(notice, ends, "t"), at(0));
        recorder
    });
    pass(&mut streams, &recorders, 1..=2_700);
    for ((notice, ends), recorder) in leases.into_iter().zip(&recorders) {
        let (told, left) = recorder.told.get().expect("told");
        let ended = recorder.ended.get().expect("ended");
        assert_eq!(left, 50 * Duration::from_millis(1) * ends.saturating_sub(told));
        assert!(
            told < ended && told >= notice.min(ended - 1),
            "{told} {ended} of {notice} {ends}"
        );
        assert_eq!(recorder.cause.get(), Some(Cause::Expired));
        let margin = 100.min(ends / 4);
        assert!(
            (ends.saturating_sub(margin)..=ends.max(2) + 1).contains(&ended),
            "{ended} of {ends}"
        );
        // Nobody has taken these out of the table: they are cut off when they must be.
        assert!(
            recorder
                .cut
                .get()
                .is_some_and(|cut| cut >= ended && cut <= ends.max(ended) + 2)
        );
    }
}

#[test]
fn a_lease_of_years_is_not_lost() {
    const DAY: u32 = 24 * 60 * 60 * 20;
    let (mut streams, _) = table();
    let recorders = [Rc::new(Recorder::default())];
    let year = 365 * DAY;
    enter(&mut streams, &recorders[0], lease(year, year + 1_000, "t"), at(0));
    // Time in steps longer than a turn of the wheel.
    let mut now = 0;
    while recorders[0].ended.get().is_none() {
        now += 1_193;
        assert!(now < year + 10_000, "it does not end");
        pass(&mut streams, &recorders, now..=now);
    }
    assert!(now >= year);
    assert!(recorders[0].told.get().is_some_and(|(told, _)| told >= year));
}

/// The wall clock is set forward and back while a stream is open: the end is where the clock that tokens go by has it.
#[test]
fn a_clock_that_is_set_is_followed_within_a_minute() {
    for jump in [-40_000_i64, 40_000] {
        let (mut streams, _) = table();
        let recorder = Rc::new(Recorder::default());
        enter(&mut streams, &recorder, lease(50_000, 51_000, "t"), at(0));
        for tick in 1..=100_000 {
            recorder.now.set(Tick(tick));
            let wall = if tick < 5_000 {
                at(tick).wall.0
            } else {
                at(tick).wall.0.saturating_add_signed(jump * 50)
            };
            let now = Now {
                tick: Tick(tick),
                wall: UnixMillis(wall),
            };
            streams.advance(now).into_iter().for_each(Due::carry_out);
        }
        let ended = i64::from(recorder.ended.get().expect("ended"));
        let wanted = 51_000 - jump;
        assert!(
            (wanted - 100..=wanted + 1_200).contains(&ended),
            "{ended} instead of {wanted}"
        );
    }
}

#[test]
fn the_revoked_end_within_a_second_and_the_others_stay() {
    let (mut streams, _) = table();
    let recorders: Vec<_> = (0..10_000).map(|_| Rc::new(Recorder::default())).collect();
    for (number, recorder) in recorders.iter().enumerate() {
        let terms = match number % 5 {
            0 => lease(100_000, 100_000, "bad"),
            1 => Terms::default(),
            _ => lease(100_000, 100_000, "good"),
        };
        enter(&mut streams, recorder, terms, at(0));
    }
    let is_revoked = |token: &TokenFacts| token.id == Some(Digest::of("bad"));
    assert!(
        streams.revoked(Tick(0), is_revoked).is_empty(),
        "nothing was taken back"
    );
    streams.look_for_revoked();
    let mut most = 0;
    for tick in 1..=50 {
        let due = streams.revoked(Tick(tick), is_revoked);
        most = most.max(due.len());
        recorders.iter().for_each(|recorder| recorder.now.set(Tick(tick)));
        due.into_iter().for_each(Due::carry_out);
        streams.advance(at(tick)).into_iter().for_each(Due::carry_out);
    }
    assert!(most <= 500, "{most} in one step");
    for (number, recorder) in recorders.iter().enumerate() {
        let want = (number % 5 == 0).then_some(Cause::Revoked);
        assert_eq!(recorder.cause.get(), want);
        assert_eq!(recorder.cut.get().is_some(), want.is_some());
        assert!(recorder.ended.get().is_none_or(|ended| ended <= 20));
    }
}

#[test]
fn one_that_was_revoked_on_its_way_ends_with_the_next_step() {
    let (mut streams, _) = table();
    let recorders = [Rc::new(Recorder::default())];
    let carrier = || Rc::clone(&recorders[0]) as Rc<dyn Carrier>;
    streams.enter(carrier(), lease(100, 200, "t"), at(7), |token| {
        token.id == Some(Digest::of("t"))
    });
    // Whoever has no token is not asked about.
    streams.enter(Rc::new(Recorder::default()), Terms::default(), at(7), |_| {
        panic!("asked")
    });
    pass(&mut streams, &recorders, 8..=8);
    assert_eq!(
        (recorders[0].ended.get(), recorders[0].cause.get()),
        (Some(8), Some(Cause::Revoked))
    );
}

#[test]
fn those_that_have_ended_leave_nothing_in_the_wheel_for_long() {
    let settings = Settings {
        max_age: Duration::from_secs(60 * 60),
        ..Settings::default()
    };
    let mut streams = Streams::new(&settings, Arc::default());
    let recorder = Rc::new(Recorder::default());
    for tick in 0..10_000 {
        let terms = Terms {
            ages: true,
            ..lease(1_000_000, 1_000_000, "t")
        };
        let key = enter(&mut streams, &recorder, terms, at(tick));
        streams.leave(key);
        assert!(streams.advance(at(tick)).is_empty());
    }
    // A minute's, with a few entries each.
    let most = 4 * LOOK_AGAIN.as_millis() / Tick::STEP.as_millis();
    assert!(streams.wheel.len() as u128 <= most, "{} of {most}", streams.wheel.len());
    assert!(size_of::<(Tick, Timer)>() <= 20, "there are many of them");
}

#[test]
fn a_crowd_that_comes_and_goes_leaves_no_more_than_it_was() {
    let (mut streams, _) = table();
    let stays: Vec<_> = (0..10).map(|_| Rc::<Recorder>::default()).collect();
    for recorder in &stays {
        enter(&mut streams, recorder, Terms::default(), at(1));
    }
    for tick in 1..=50 {
        for _ in 0..1_000 {
            let key = enter(&mut streams, &Rc::default(), lease(1_000_000, 2_000_000, "t"), at(tick));
            streams.leave(key);
        }
        streams.advance(at(tick));
        // Three timers each, at most, of those who stay and those who may leave before it is looked.
        assert!(streams.wheel.len() <= 3 * (10 + 2 * LEFT), "{}", streams.wheel.len());
    }
    // Who stays has a heartbeat as ever.
    let mut heartbeats = 0;
    for tick in 51..=700 {
        heartbeats += streams.advance(at(tick)).len();
    }
    assert!(heartbeats >= 20, "{heartbeats}");
}
