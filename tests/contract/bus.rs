//! What every bus promises. Little: a bus may lose, repeat and reorder, so each check only asks for what must hold all the same.

use std::{sync::Arc, time::Duration};

use tidings::{
    bus::{Announcement, Bus, Digest, Line, Notice},
    model::{Epoch, Event, Seq, Shard, Slot, UnixMillis},
};

use crate::world::topic;

fn event(seq: Option<u64>) -> Arc<Event> {
    Arc::new(Event::new(topic("t"), None, "x".into(), UnixMillis(1), seq.map(Seq)))
}

fn announcement(slot: u32, seq: u64) -> Announcement {
    Announcement {
        shard: Shard(0),
        epoch: Epoch(1),
        slot: Slot(slot),
        prev: Seq(seq - 1),
        seq: Seq(seq),
        event: event(Some(seq)),
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

/// All notices up to the digest that tells of `end`, which the caller sent last.
async fn up_to(line: &mut dyn Line, end: u64) -> Vec<Notice> {
    let mut notices = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), line.next());
        match next.await.expect("in time").expect("the bus is open") {
            Notice::Digest(digest) if digest.now == Seq(end) => return notices,
            notice => notices.push(notice),
        }
    }
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
    line.follow(Slot(1));
    line.follow(Slot(2));
    let sent: Vec<_> = (1..=10)
        .map(|seq| announcement(1 + u32::from(seq % 3 == 0), seq))
        .collect();
    bus.announce(&sent);
    bus.ephemeral(Slot(2), event(None));
    bus.digest(&digest(10));
    let notices = up_to(&mut *line, 10).await;
    let heard: Vec<_> = notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::Announcement(announcement) => Some(announcement.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(heard, sent);
    assert!(matches!(notices.last(), Some(Notice::Ephemeral(_))), "{notices:?}");
}

pub(crate) async fn a_line_does_not_hear_other_slots(bus: impl Bus) {
    let mut line = bus.open();
    line.follow(Slot(1));
    bus.announce(&[announcement(1, 1), announcement(2, 2)]);
    bus.ephemeral(Slot(2), event(None));
    line.unfollow(Slot(1));
    bus.announce(&[announcement(1, 3)]);
    bus.ephemeral(Slot(1), event(None));
    line.follow(Slot(2));
    bus.announce(&[announcement(2, 4)]);
    bus.digest(&digest(4));
    let notices = up_to(&mut *line, 4).await;
    assert_eq!(seqs(&notices), [1, 4]);
    assert_eq!(notices.len(), 2, "{notices:?}");
}

pub(crate) async fn every_line_hears_digests(bus: impl Bus) {
    let mut lines = [bus.open(), bus.open()];
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

pub(crate) async fn losses_are_told(bus: impl Bus) {
    const SENT: u64 = 100_000;
    let (mut slow, mut other) = (bus.open(), bus.open());
    slow.follow(Slot(0));
    other.follow(Slot(7));
    for seq in 1..=SENT {
        bus.announce(&[announcement(0, seq)]);
    }
    bus.announce(&[announcement(7, SENT + 1)]);
    bus.digest(&digest(SENT + 1));
    // It is full, so what is sent now may be lost too. What was lost is told all the same.
    let mut heard = Vec::new();
    let mut told = false;
    while let Ok(Some(notice)) = tokio::time::timeout(Duration::ZERO, slow.next()).await {
        told |= matches!(notice, Notice::Unverified);
        heard.push(notice);
    }
    assert!(told || seqs(&heard).len() as u64 == SENT, "{} heard", heard.len());
    // Neither does one slow line hold up another, nor is it slow for ever.
    assert_eq!(seqs(&up_to(&mut *other, SENT + 1).await), [SENT + 1]);
    bus.announce(&[announcement(0, SENT + 2)]);
    bus.digest(&digest(SENT + 2));
    assert_eq!(seqs(&up_to(&mut *slow, SENT + 2).await), [SENT + 2]);
}

pub(crate) async fn waiting_ends_with_a_notice(bus: impl Bus) {
    let mut line = bus.open();
    line.follow(Slot(0));
    let waiting = tokio::spawn(async move {
        // Cancelled once, as a select does: nothing is lost by it.
        let cancelled = tokio::time::timeout(Duration::from_millis(1), line.next()).await;
        let mut notices: Vec<_> = cancelled.ok().flatten().into_iter().collect();
        if notices.is_empty() {
            notices.extend(line.next().await);
        }
        notices
    });
    bus.announce(&[announcement(0, 1)]);
    let notices = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert_eq!(seqs(&notices.expect("in time").expect("no panic")), [1]);
}
