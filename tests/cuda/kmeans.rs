use picie::device::cpu::Cpu;
use picie::device::cuda::Cuda;
use picie::device::ops::{Classifier, KMeans, KMeansSpec, Metric};

use crate::util::{Rig, close, signed};

const D: usize = 128;

fn cuda() -> Option<Rig<Cuda<half::bf16>>> {
    Rig::cuda::<half::bf16>()
}

fn classifier<B: KMeans>(rig: &mut Rig<B>, k: usize, d: usize) -> Classifier {
    Classifier { w: rig.output(k * d), b: rig.output(k), k }
}

#[test]
fn each_metric_is_the_cpus() {
    fn run<B: KMeans>(mut rig: Rig<B>, k: usize, d: usize, metric: Metric) -> (Vec<f32>, Vec<f32>) {
        let c = classifier(&mut rig, k, d);
        let centroids = rig.input(&signed(3, k * d));
        rig.ready();
        rig.dev.kmeans_classifier(c, centroids, metric).unwrap();
        (rig.read(c.w), rig.read(c.b))
    }
    for (k, d) in [(5, D), (3, 130), (2, 6)] {
        for metric in [Metric::L2, Metric::Dot, Metric::Cosine] {
            let Some(rig) = cuda() else { return };
            let (got, want) = (run(rig, k, d, metric), run::<Cpu>(Rig::new(), k, d, metric));
            // Sums of squares in f64, rounded once.
            close("w", &got.0, &want.0, 1e-7);
            close("b", &got.1, &want.1, 1e-7);
        }
    }
}

/// Points below, at and above a tile of 64 and more tiles than blocks; clusters around a chunk (32)
/// and sums in shared memory (64).
#[test]
fn sums_of_stored_points_are_the_cpus() {
    fn run<B: KMeans>(mut rig: Rig<B>, rows: usize, k: usize) -> (Vec<f32>, Vec<u32>, Vec<f32>) {
        let mut points = signed(1, rows * D);
        for p in points.chunks_mut(D) {
            let norm = p.iter().map(|v| v * v).sum::<f32>().sqrt();
            p.iter_mut().for_each(|v| *v /= norm);
        }
        let c = classifier(&mut rig, k, D);
        let plan = rig.dev.plan_kmeans(KMeansSpec { k, d: D }).unwrap();
        let (points, centroids) = (rig.input(&points), rig.input(&signed(2, k * D)));
        let (sums, counts, score) =
            (rig.input(&vec![2.0f32; k * D]), rig.input(&vec![9u32; k]), rig.input(&[0.5f32]));
        rig.ready();
        rig.dev.kmeans_classifier(c, centroids, Metric::L2).unwrap();
        rig.dev.kmeans_accumulate(&plan, sums, counts, score, points, c).unwrap();
        (rig.read(sums), rig.read(counts), rig.read(score))
    }
    for (rows, k) in [
        (63, 5),
        (64, 32),
        (65, 33),
        (200, 1),
        (130, 64),
        (131, 65),
        (129, 200),
        (265 * 64 + 3, 27),
    ] {
        let Some(rig) = cuda() else { return };
        let (got, want) = (run(rig, rows, k), run::<Cpu>(Rig::new(), rows, k));
        let name = format!("{rows} points, {k} clusters");
        assert_eq!(got.1, want.1, "{name}");
        // Sums of up to hundreds of numbers of size 0.1 in another order.
        close(&name, &got.0, &want.0, 2e-6);
        close(&name, &got.2, &want.2, 2e-6);
    }
}

#[test]
fn of_equal_centroids_the_first_takes_the_points() {
    let Some(mut rig) = cuda() else { return };
    let c = Classifier { w: rig.input(&[1.0f32; 40 * D]), b: rig.zeros(40), k: 40 };
    let plan = rig.dev.plan_kmeans(KMeansSpec { k: 40, d: D }).unwrap();
    let points = rig.input(&[0.5f32; 3 * D]);
    let (sums, counts, score) =
        (rig.zeros::<f32>(40 * D), rig.zeros::<u32>(40), rig.zeros::<f32>(1));
    rig.ready();
    rig.dev.kmeans_accumulate(&plan, sums, counts, score, points, c).unwrap();
    let mut want = [0; 40];
    want[0] = 3;
    assert_eq!((rig.read(counts), rig.read(score)), (want.to_vec(), vec![192.0]));
}

/// Lloyd's update on counts with and without empty clusters and ties, splits of more clusters than
/// a block has threads.
#[test]
fn means_and_splits_are_the_cpus_to_the_bit() {
    fn run<B: KMeans>(mut rig: Rig<B>, counts: &[u32], d: usize) -> (Vec<f32>, Vec<u32>, Vec<u32>) {
        let len = counts.len() * d;
        let (centroids, sums) = (rig.input(&signed(5, len)), rig.input(&signed(6, len)));
        let (counts, splits) = (rig.input(counts), rig.input(&[3u32]));
        rig.ready();
        rig.dev.kmeans_mean(centroids, counts, splits, sums).unwrap();
        (rig.read(centroids), rig.read(counts), rig.read(splits))
    }
    let many: Vec<u32> = (0..300).map(|i| if i % 3 == 0 { 0 } else { i * 37 % 101 }).collect();
    for counts in [
        vec![4, 7, 1],
        vec![8, 0, 0, 8],
        vec![0, 5, 0, 0, 1],
        vec![0, 0, 0],
        vec![1, 0, 0, 1],
        many,
    ] {
        for d in [D, 6] {
            let Some(rig) = cuda() else { return };
            assert_eq!(run(rig, &counts, d), run::<Cpu>(Rig::new(), &counts, d), "{counts:?}");
        }
    }
}

#[test]
fn mini_batch_updates_are_the_cpus_and_empty_clusters_stay() {
    fn run<B: KMeans>(mut rig: Rig<B>) -> (Vec<f32>, Vec<f32>) {
        let (centroids, sums) = (rig.input(&signed(5, 4 * D)), rig.input(&signed(6, 4 * D)));
        let (totals, counts) =
            (rig.input(&[10.0f32, 0.0, 3.0, 1e7]), rig.input(&[4u32, 1, 0, 70_000]));
        rig.ready();
        for _ in 0..2 {
            rig.dev.kmeans_step(centroids, totals, sums, counts).unwrap();
        }
        (rig.read(centroids), rig.read(totals))
    }
    let Some(rig) = cuda() else { return };
    let (got, want) = (run(rig), run::<Cpu>(Rig::new()));
    // A few roundings, with and without fused multiply-adds.
    close("centroids", &got.0, &want.0, 3e-7);
    assert_eq!(got.1, want.1);
    assert_eq!(got.0[2 * D..3 * D], signed(5, 4 * D)[2 * D..3 * D]);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let Some(mut rig) = cuda() else { return };
    let refused = rig.dev.plan_kmeans(KMeansSpec { k: 3, d: 4 }).err().unwrap();
    assert!(refused.to_string().contains("points of 128 channels, not 4"), "{refused}");
    let plan = rig.dev.plan_kmeans(KMeansSpec { k: 3, d: D }).unwrap();
    let (c, narrow, many) =
        (classifier(&mut rig, 3, D), classifier(&mut rig, 3, 4), classifier(&mut rig, 300, D));
    let (centroids, points, odd) =
        (rig.zeros::<f32>(13), rig.zeros::<f32>(D), rig.zeros::<f32>(D + 1));
    let (sums, counts, score) = (rig.zeros::<f32>(3 * D), rig.zeros::<u32>(3), rig.zeros::<f32>(1));
    let (many_sums, many_counts) = (rig.zeros(300 * D), rig.zeros(300));
    rig.ready();
    assert!(rig.dev.kmeans_classifier(narrow, centroids, Metric::L2).is_err());
    let refused =
        rig.dev.kmeans_accumulate(&plan, sums, counts, score, points, narrow).unwrap_err();
    assert_eq!(refused.to_string(), "kmeans_accumulate: w has 12 elements, the contract wants 384");
    let refused = rig.dev.kmeans_accumulate(&plan, sums, counts, score, odd, c).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "kmeans_accumulate: points has 129 elements, the contract wants 128"
    );
    let refused =
        rig.dev.kmeans_accumulate(&plan, many_sums, many_counts, score, points, many).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "kmeans_accumulate: a classifier has 300 elements, the contract wants 3"
    );
}
