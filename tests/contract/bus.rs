//! What every bus promises. Little: a bus may lose, repeat and reorder, so each check only asks for what must hold all the same, on lines
//! that are known to be carried, while nothing is wrong.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tidings::{
    bus::{Announcement, Bus, Digest, Line, Notice},
    model::{Epoch, Event, Seq, Shard, Slot, UnixMillis},
};

use crate::world::topic;

/// A deadline, never waited for in full.
const PATIENCE: Duration = Duration::from_secs(60);
/// What only finds out whether a line is carried is of this epoch, or has this payload.
const PROBE: Epoch = Epoch(u32::MAX);
const PROBING: &str = "probe";

fn event(seq: Option<u64>, data: &str) -> Arc<Event> {
    Arc::new(Event::new(topic("t"), None, data.into(), UnixMillis(1), seq.map(Seq)))
}

fn announcement(slot: u32, seq: u64) -> Announcement {
    Announcement {
        shard: Shard(0),
        epoch: Epoch(1),
        slot: Slot(slot),
        prev: Seq(seq - 1),
        seq: Seq(seq),
        event: event(Some(seq), "x"),
    }
}

fn digest(now: u64) -> Digest {
    Digest {
        shard: Shard(0),
        epoch: Epoch(1),
        before: Seq(0),
        now: Seq(now),
        changed: vec![(Slot(0), Seq(now))],
    }
}

async fn next(line: &mut dyn Line) -> Notice {
    let next = tokio::time::timeout(PATIENCE, line.next());
    next.await.expect("in time").expect("the bus is open")
}

/// Follows these slots, and waits until the line carries them and digests.
async fn carry(bus: &dyn Bus, line: &mut dyn Line, slots: &[u32]) {
    slots.iter().for_each(|&slot| line.follow(Slot(slot)));
    let mut missing: HashSet<(&str, u32)> = slots
        .iter()
        .flat_map(|&slot| [("announcement", slot), ("ephemeral", slot)])
        .chain([("digest", 0)])
        .collect();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // Only this finds out: what is sent before a line is carried is lost.
    while !missing.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "not carried: {missing:?}");
        for &slot in slots {
            bus.announce(&[Announcement {
                epoch: PROBE,
                ..announcement(slot, 1)
            }]);
            bus.ephemeral(Slot(slot), event(None, &format!("{PROBING}{slot}")));
        }
        bus.digest(&Digest {
            epoch: PROBE,
            changed: slots.iter().map(|&slot| (Slot(slot), Seq(1))).collect(),
            ..digest(1)
        });
        while let Ok(Some(notice)) = tokio::time::timeout(Duration::from_millis(20), line.next()).await {
            match notice {
                Notice::Announcement(announcement) if announcement.epoch == PROBE => {
                    missing.remove(&("announcement", announcement.slot.0));
                }
                Notice::Ephemeral(event) => {
                    if let Some(slot) = event.data.strip_prefix(PROBING) {
                        missing.remove(&("ephemeral", slot.parse().expect("a slot")));
                    }
                }
                Notice::Digest(digest) if digest.epoch == PROBE => {
                    missing.remove(&("digest", 0));
                }
                _ => {}
            }
        }
    }
}

fn is_probe(notice: &Notice) -> bool {
    match notice {
        Notice::Announcement(announcement) => announcement.epoch == PROBE,
        Notice::Digest(digest) => digest.epoch == PROBE,
        Notice::Ephemeral(event) => event.data.starts_with(PROBING),
        Notice::Unverified => false,
    }
}

/// All notices up to the digest that tells of `end`, which the caller sent last. A bus may doubt at any time, which is left out.
async fn up_to(line: &mut dyn Line, end: u64) -> Vec<Notice> {
    let mut notices = Vec::new();
    loop {
        match next(line).await {
            Notice::Digest(digest) if digest.now == Seq(end) && digest.epoch != PROBE => return notices,
            Notice::Unverified => {}
            notice if is_probe(&notice) => {}
            notice => notices.push(notice),
        }
    }
}

fn heard(notices: &[Notice], slot: u32) -> Vec<Announcement> {
    let announcement = |notice: &Notice| match notice {
        Notice::Announcement(announcement) if announcement.slot == Slot(slot) => Some(announcement.clone()),
        _ => None,
    };
    notices.iter().filter_map(announcement).collect()
}

fn seqs(notices: &[Notice]) -> Vec<u64> {
    let seq = |notice: &Notice| match notice {
        Notice::Announcement(announcement) => Some(announcement.seq.0),
        _ => None,
    };
    notices.iter().filter_map(seq).collect()
}

pub(crate) async fn a_line_hears_its_slots_in_order(bus: impl Bus) {
    let mut line = bus.open();
    carry(&bus, &mut *line, &[1, 2]).await;
    let sent: Vec<_> = (1..=10)
        .map(|seq| announcement(1 + u32::from(seq % 3 == 0), seq))
        .collect();
    bus.announce(&sent);
    bus.ephemeral(Slot(2), event(None, "x"));
    bus.digest(&digest(10));
    let notices = up_to(&mut *line, 10).await;
    for slot in [1, 2] {
        let sent: Vec<_> = sent.iter().filter(|sent| sent.slot == Slot(slot)).cloned().collect();
        assert_eq!(heard(&notices, slot), sent);
    }
    let ephemeral: Vec<_> = notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::Ephemeral(event) => Some(Arc::clone(event)),
            _ => None,
        })
        .collect();
    assert_eq!(ephemeral, [event(None, "x")]);
}

pub(crate) async fn a_line_does_not_hear_other_slots(bus: impl Bus) {
    let mut line = bus.open();
    carry(&bus, &mut *line, &[1]).await;
    bus.announce(&[announcement(1, 1), announcement(2, 2)]);
    bus.ephemeral(Slot(2), event(None, "x"));
    bus.digest(&digest(2));
    let notices = up_to(&mut *line, 2).await;
    assert_eq!((seqs(&notices), notices.len()), (vec![1], 1), "{notices:?}");

    line.unfollow(Slot(1));
    carry(&bus, &mut *line, &[2]).await;
    bus.announce(&[announcement(1, 3)]);
    bus.ephemeral(Slot(1), event(None, "x"));
    bus.announce(&[announcement(2, 4)]);
    bus.digest(&digest(4));
    let notices = up_to(&mut *line, 4).await;
    assert_eq!((seqs(&notices), notices.len()), (vec![4], 1), "{notices:?}");
}

pub(crate) async fn every_line_hears_digests(bus: impl Bus) {
    let mut lines = [bus.open(), bus.open()];
    for line in &mut lines {
        carry(&bus, &mut **line, &[]).await;
    }
    bus.digest(&digest(1));
    bus.digest(&digest(2));
    for line in &mut lines {
        let notices = up_to(&mut **line, 2).await;
        assert!(
            matches!(notices.as_slice(), [Notice::Digest(first)] if **first == digest(1)),
            "{notices:?}"
        );
    }
}

pub(crate) async fn every_line_hears_what_it_follows(bus: impl Bus) {
    let mut lines = [bus.open(), bus.open()];
    for line in &mut lines {
        carry(&bus, &mut **line, &[1]).await;
    }
    bus.announce(&[announcement(1, 1)]);
    bus.digest(&digest(1));
    for line in &mut lines {
        assert_eq!(seqs(&up_to(&mut **line, 1).await), [1]);
    }
    // One that goes, or follows no more, takes nothing from the other.
    let [mut first, second] = lines;
    drop(second);
    bus.announce(&[announcement(1, 2)]);
    bus.digest(&digest(2));
    assert_eq!(seqs(&up_to(&mut *first, 2).await), [2]);
}

pub(crate) async fn losses_are_told(bus: impl Bus) {
    const SENT: u64 = 100_000;
    let (mut slow, mut other) = (bus.open(), bus.open());
    carry(&bus, &mut *slow, &[0]).await;
    carry(&bus, &mut *other, &[7]).await;
    for seq in 1..=SENT {
        bus.announce(&[announcement(0, seq)]);
    }
    // Neither does one slow line hold up another for good, nor is it slow for ever: what is sent may be lost while the bus is full, but not
    // for long.
    let after = until_heard(&bus, &mut *other, 7, SENT + 1).await;
    // What was lost is told.
    let mut all = Vec::new();
    while let Ok(Some(notice)) = tokio::time::timeout(Duration::ZERO, slow.next()).await {
        all.push(notice);
    }
    let told = all.iter().any(|notice| matches!(notice, Notice::Unverified));
    let heard = heard(&all, 0).iter().filter(|heard| heard.epoch != PROBE).count();
    assert!(told || heard as u64 == SENT, "{heard} heard");
    until_heard(&bus, &mut *slow, 0, after + 1).await;
}

/// Announces one after the other until one is heard. The last that was sent.
async fn until_heard(bus: &dyn Bus, line: &mut dyn Line, slot: u32, first: u64) -> u64 {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut seq = first;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "nothing is heard any more");
        bus.announce(&[announcement(slot, seq)]);
        while let Ok(Some(notice)) = tokio::time::timeout(Duration::from_millis(20), line.next()).await {
            if matches!(&notice, Notice::Announcement(heard) if heard.seq >= Seq(first)) {
                return seq;
            }
        }
        seq += 1;
    }
}

pub(crate) async fn waiting_ends_with_a_notice(bus: impl Bus) {
    let mut line = bus.open();
    carry(&bus, &mut *line, &[0]).await;
    let waiting = tokio::spawn(async move {
        loop {
            // Cancelled now and then, as a select does: nothing is lost by it.
            if let Ok(notice) = tokio::time::timeout(Duration::from_millis(1), line.next()).await {
                match notice.expect("the bus is open") {
                    Notice::Unverified => {}
                    notice if is_probe(&notice) => {}
                    notice => return notice,
                }
            }
        }
    });
    bus.announce(&[announcement(0, 1)]);
    let notice = tokio::time::timeout(PATIENCE, waiting).await;
    assert_eq!(seqs(&[notice.expect("in time").expect("no panic")]), [1]);
}

pub(crate) async fn lines_end_with_the_bus(bus: impl Bus) {
    let mut line = bus.open();
    drop(bus);
    let end = async { while line.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, end).await.expect("ends");
}
