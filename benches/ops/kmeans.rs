//! One pass of Lloyd over 2¹⁶ stored points of 128 channels: 32 MiB read, 27 clusters.

use criterion::{Criterion, Throughput};
use picie::device::cpu::Cpu;
use picie::device::ops::{Classifier, KMeans, Memory, Metric};
use picie::device::{Layout, Pool};

use crate::{MEASURE, WARM_UP, signed};

pub fn bench(c: &mut Criterion) {
    let (rows, d, k) = (1 << 16, 128, 27);
    let (mut cpu, mut layout) = (Cpu::new(), Layout::default());
    let mut f32s = |name: &str, len| layout.take::<f32>(Pool::State, name, len);
    let (points, centroids) = (f32s("points", rows * d), f32s("centroids", k * d));
    let classifier = Classifier { w: f32s("w", k * d), b: f32s("b", k), k };
    let (sums, score) = (f32s("sums", k * d), f32s("score", 1));
    let counts = layout.take::<u32>(Pool::State, "counts", k);
    cpu.reserve(&layout).unwrap();
    cpu.write(points, &signed(points.len)).unwrap();
    cpu.write(centroids, &signed(centroids.len)).unwrap();
    cpu.kmeans_classifier(classifier, centroids, Metric::L2).unwrap();

    let mut group = c.benchmark_group("kmeans");
    group.throughput(Throughput::Elements(rows as u64)).sample_size(20).warm_up_time(WARM_UP).measurement_time(MEASURE);
    group.bench_function("accumulate", |b| {
        b.iter(|| cpu.kmeans_accumulate(sums, counts, score, points, classifier).unwrap())
    });
}
