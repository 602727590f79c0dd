//! What an event costs on its way from the bus to its followers: the feed's step, and the hub's fan-out to outlets in memory.
//!
//! `cargo bench --bench fan_out`. No socket is written: what the kernel takes comes on top.

use std::{collections::HashMap, hint::black_box, rc::Rc, sync::Arc};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings::{
    bus::{Announcement, Notice},
    feed::Feed,
    hub::{Answer, Delivery, Effect, Flow, Follow, Hub, HubSettings, Offer, Outlet, Question, Start},
    log::Heads,
    model::{Epoch, Event, Layout, Seq, Shard, Slot, Topic, UnixMillis},
};

const SHARD: Shard = Shard(0);
const EPOCH: Epoch = Epoch(1);
const SLOT: Slot = Slot(0);
const PAYLOAD_BYTES: usize = 256;

fn topic(number: usize) -> Topic {
    Topic::parse(&format!("room:{number}")).expect("a topic")
}

fn announcement(seq: u64, topic: Topic) -> Announcement {
    let data = "x".repeat(PAYLOAD_BYTES).into();
    Announcement {
        shard: SHARD,
        epoch: EPOCH,
        slot: SLOT,
        prev: Seq(seq - 1),
        seq: Seq(seq),
        event: Arc::new(Event::new(topic, None, data, UnixMillis(0), Some(Seq(seq)))),
    }
}

/// A shard to which nothing was appended yet.
fn heads() -> Heads {
    Heads {
        shard: SHARD,
        epoch: EPOCH,
        last: Seq::ZERO,
        floor: Seq(1),
        slots: Arc::new(HashMap::new()),
    }
}

/// Takes everything and keeps nothing.
struct Memory;

impl Outlet for Memory {
    fn offer(&self, delivery: &Delivery<'_>, _: Flow) -> Offer {
        black_box(delivery);
        Offer::Taken
    }

    fn flush(&self) {}
}

/// A hub whose followers are live, so many on each topic.
fn hub(topics: usize, followers: usize) -> Hub {
    let mut hub = Hub::new(Layout::EMBEDDED, HubSettings::default());
    for number in 0..topics * followers {
        let follow = Follow {
            topics: vec![topic(number % topics)],
            start: Start::Now,
        };
        hub.attach(follow, Rc::new(Memory));
    }
    loop {
        let effects = hub.take_effects();
        if effects.is_empty() {
            return hub;
        }
        for effect in effects {
            if let Effect::Ask { ticket, question, .. } = effect {
                assert_eq!(question, Question::Heads(SHARD), "nobody is behind");
                hub.answer(ticket, &Answer::Heads(heads()));
            }
        }
    }
}

fn feed_step(criterion: &mut Criterion) {
    let mut feed = Feed::new(Layout::EMBEDDED);
    let mut out = Vec::new();
    feed.follow(&[SLOT], &mut out);
    feed.heads(&heads(), &mut out);
    let mut announcement = announcement(1, topic(0));
    let mut group = criterion.benchmark_group("feed");
    group.throughput(Throughput::Elements(1));
    group.bench_function("step", |bencher| {
        bencher.iter(|| {
            out.clear();
            feed.announce(&announcement, &mut out);
            assert_eq!(out.len(), 1, "passed on");
            (announcement.prev, announcement.seq) = (announcement.seq, announcement.seq.next());
        });
    });
    group.finish();
}

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan-out");
    for (topics, followers) in [(1, 1), (10_000, 1), (1, 100), (1, 10_000)] {
        let mut hub = hub(topics, followers);
        let mut seq = 0;
        group.throughput(Throughput::Elements(followers as u64));
        let name = format!("{topics} topics, followers of each");
        group.bench_function(BenchmarkId::new(name, followers), |bencher| {
            bencher.iter_batched(
                || {
                    seq += 1;
                    let topic = topic(usize::try_from(seq).expect("few") % topics);
                    Notice::Announcement(announcement(seq, topic))
                },
                |notice| hub.notice(&notice),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, feed_step, fan_out);
criterion_main!(benches);
