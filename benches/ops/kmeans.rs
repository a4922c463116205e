//! One pass of Lloyd over 2¹⁶ stored points of 128 channels: 32 MiB read, 27 clusters.

use criterion::{Criterion, Throughput};
use picie::device::ops::{Classifier, KMeansSpec, Metric};
use picie::device::{Backend, Layout, Pool};

use crate::{Place, signed, time};

pub fn bench<B: Backend>(c: &mut Criterion, place: &Place<B>) {
    let (rows, d, k) = (1 << 16, 128, 27);
    let (mut dev, mut layout) = ((place.engine)(), Layout::default());
    let plan = dev.plan_kmeans(KMeansSpec { k, d }).unwrap();
    let mut f32s = |name: &str, len| layout.take::<f32>(Pool::State, name, len);
    let (points, centroids) = (f32s("points", rows * d), f32s("centroids", k * d));
    let classifier = Classifier { w: f32s("w", k * d), b: f32s("b", k), k };
    let (sums, score) = (f32s("sums", k * d), f32s("score", 1));
    let counts = layout.take::<u32>(Pool::State, "counts", k);
    dev.reserve(&layout).unwrap();
    dev.write(points, &signed(points.len)).unwrap();
    dev.write(centroids, &signed(centroids.len)).unwrap();
    dev.kmeans_classifier(classifier, centroids, Metric::L2).unwrap();

    let mut group = place.group(c, "kmeans");
    group.throughput(Throughput::Elements(rows as u64));
    group.bench_function("accumulate", |b| {
        time(b, &mut dev, |dev| {
            dev.kmeans_accumulate(&plan, sums, counts, score, points, classifier)
        })
    });
}
