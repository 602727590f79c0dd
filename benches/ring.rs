//! The ring of a cluster, computed anew, as it is whenever an edge comes or goes.
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
}

criterion_group!(benches, bench);
criterion_main!(benches);
