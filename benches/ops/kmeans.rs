//! One pass of Lloyd over 2¹⁶ stored points of 128 channels: 32 MiB of f32 read, 27 clusters.

use criterion::Criterion;
use picie::device::ops::{
    Classifier, KMeansAccumulate, KMeansClassifier, KMeansSpec, Metric, kmeans_accumulate,
    kmeans_classifier, plan_kmeans,
};
use picie::device::{Layout, Pool};

use crate::{Place, signed, time};

pub fn bench(c: &mut Criterion, place: &Place) {
    let (rows, d, k) = (1 << 16, 128, 27);
    let dev = &mut *(place.engine)();
    let mut layout = Layout::new(dev.dtype());
    let plan = plan_kmeans(dev, KMeansSpec { k, d }).unwrap();
    let points = layout.acts(Pool::State, "points", rows * d);
    let mut f32s = |name: &str, len| layout.take::<f32>(Pool::State, name, len);
    let centroids = f32s("centroids", k * d);
    let classifier = Classifier { w: f32s("w", k * d), b: f32s("b", k), k };
    let (sums, score) = (f32s("sums", k * d), f32s("score", 1));
    let counts = layout.take(Pool::State, "counts", k);
    dev.reserve(&layout).unwrap();
    dev.write_acts(points, &signed(points.len)).unwrap();
    dev.write(centroids, &signed(centroids.len)).unwrap();
    kmeans_classifier(dev, KMeansClassifier { classifier, centroids, metric: Metric::L2 }).unwrap();

    let mut group = place.group(c, "kmeans");
    let accumulate = KMeansAccumulate { sums, counts, score, points, classifier };
    time(&mut group, dev, "accumulate", &plan.spec, accumulate, |dev, a| {
        kmeans_accumulate(dev, &plan, a)
    });
}
