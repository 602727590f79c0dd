//! The ring of a cluster: looked up, as it is for every stream, and computed anew, as it is whenever an edge comes or goes.
//!
//! `cargo bench --bench ring`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidings_cluster::Ring;

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.sample_size(10);
    for slots in [1_024, 65_536] {
        for edges in [3, 100, 1_000] {
            let names: Vec<_> = (0..edges).map(|n| format!("edge-{n}")).collect();
            for (weights, heavy) in [("equal", 100), ("different", 200)] {
                // Every other edge is heavy.
                let weight = |n| if n % 2 == 0 { heavy } else { 100 };
                let nodes: Vec<_> = (0..).zip(&names).map(|(n, name)| (name.as_str(), weight(n))).collect();
                let id = BenchmarkId::new(format!("{slots} slots, {weights} weights"), edges);
                group.bench_function(id, |bencher| bencher.iter(|| Ring::compute(slots, black_box(&nodes))));
            }
        }
    }
    group.finish();

    let names: Vec<_> = (0..1_000).map(|n| format!("edge-{n}")).collect();
    let nodes: Vec<_> = names.iter().map(|name| (name.as_str(), 100)).collect();
    let mut group = criterion.benchmark_group("ring");
    for slots in [1_024, 65_536] {
        let ring = Ring::compute(slots, &nodes);
        let mut slot = 0;
        group.bench_function(
            BenchmarkId::new(format!("{slots} slots, looked up"), nodes.len()),
            |bencher| {
                bencher.iter(|| {
                    slot = (slot + 7_919) % slots;
                    black_box(ring.owner(slot)).is_some()
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
