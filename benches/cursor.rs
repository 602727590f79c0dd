//! A cursor's text, written and read: embedded (an epoch and a number), and of a cluster in the middle of things.
//!
//! `cargo bench --bench cursor`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidings::model::{Cursor, Epoch, Position, Seq, Shard, Slot};

fn embedded() -> Cursor {
    let mut cursor = Cursor::new();
    cursor.set(Shard(0), Position::at(Epoch(0x6123_4567), Seq(123_456_789)));
    cursor
}

/// Four shards, one slot ahead in each of two.
fn cluster() -> Cursor {
    let mut cursor = Cursor::new();
    for shard in 0..4 {
        let mut position = Position::at(Epoch(0x6123_4567), Seq(123_456_789));
        if shard < 2 {
            position.advance_slot(Slot(17 * u32::from(shard) + 3), Seq(123_456_799));
        }
        cursor.set(Shard(shard), position);
    }
    cursor
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cursor");
    for (name, cursor) in [("embedded", embedded()), ("four shards", cluster())] {
        let text = cursor.to_string();
        assert_eq!(Cursor::parse(&text).as_ref(), Ok(&cursor));
        group.bench_function(BenchmarkId::new("write", name), |bencher| {
            bencher.iter(|| black_box(&cursor).to_string());
        });
        group.bench_function(BenchmarkId::new("read", name), |bencher| {
            bencher.iter(|| Cursor::parse(black_box(&text)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
