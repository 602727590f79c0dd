//! An event's frame: the part that all share, rendered once, and what each connection's share of the work is after that.
//!
//! `cargo bench --bench frame`.

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings::{
    edge::frame::Frame,
    hub::Delivery,
    model::{Event, Seq, Topic, UnixMillis},
};

const CURSOR: &str = "1-1z141z3.21i3v9";

fn event(data: &str) -> Arc<Event> {
    let topic = Topic::parse("user:42").expect("a topic");
    Arc::new(Event::new(topic, None, data.into(), UnixMillis(0), Some(Seq(1))))
}

fn frame(event: &Arc<Event>) -> Option<Frame> {
    let cursor = Some(black_box(CURSOR));
    Frame::of(&Delivery::Event {
        event,
        cursor,
        shared: None,
    })
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for (name, data) in [
        ("256 bytes", "x".repeat(256)),
        ("64 KiB", "x".repeat(64 << 10)),
        ("64 KiB of short lines", "some text\r\n".repeat((64 << 10) / 11)),
    ] {
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(BenchmarkId::new("first", name), |bencher| {
            bencher.iter_batched(|| event(&data), |event| (frame(&event), event), BatchSize::SmallInput);
        });
    }
    let event = event(&"x".repeat(256));
    group.throughput(Throughput::Elements(1));
    group.bench_function("next", |bencher| bencher.iter(|| frame(&event)));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
