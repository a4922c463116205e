use picie::device::Slot;
use picie::device::ops::{Classifier, KMeans, KMeansSpec, Metric};

use crate::util::{Rig, close, error, golden, signed};

const D: usize = 6;
const K: usize = 5;

fn floats(counts: &[u32]) -> Vec<f32> {
    counts.iter().map(|&c| c as f32).collect()
}

fn classifier(rig: &mut Rig, k: usize, d: usize) -> Classifier {
    Classifier { w: rig.output(k * d), b: rig.output(k), k }
}

#[test]
fn assignment_is_by_distance_and_scores_give_the_objective() {
    let g = golden("kmeans");
    let mut rig = Rig::new();
    let c = classifier(&mut rig, K, D);
    let plan = rig.dev.plan_kmeans(KMeansSpec { k: K, d: D }).unwrap();
    let (centroids, points) = (rig.input(&g["centroids"]), rig.input(&g["points"]));
    let (sums, counts, score) =
        (rig.input(&[2.0f32; K * D]), rig.input(&[9u32; K]), rig.input(&[0.5f32]));
    rig.ready();
    rig.dev.kmeans_classifier(c, centroids, Metric::L2).unwrap();
    rig.dev.kmeans_accumulate(&plan, sums, counts, score, points, c).unwrap();
    let want: Vec<f32> = g["sums"].iter().map(|s| s + 2.0).collect();
    // About ten additions of f32.
    close("sums", &rig.read(sums), &want, 1e-6);
    let want: Vec<f32> = g["counts"].iter().map(|c| c + 9.0).collect();
    assert_eq!(floats(&rig.read(counts)), want);
    let rows = (g["points"].len() / D) as f32;
    close("objective", &[rows - 2.0 * (rig.read(score)[0] - 0.5)], &g["objective"], 1e-6);
}

#[test]
fn each_metric_is_its_linear_classifier() {
    let g = golden("kmeans");
    let mut rig = Rig::new();
    let centroids = rig.input(&g["centroids"]);
    let c = classifier(&mut rig, K, D);
    rig.ready();
    rig.dev.kmeans_classifier(c, centroids, Metric::Dot).unwrap();
    assert_eq!((rig.read(c.w), rig.read(c.b)), (g["centroids"].clone(), vec![0.0; K]));
    rig.dev.kmeans_classifier(c, centroids, Metric::Cosine).unwrap();
    close("cosine", &rig.read(c.w), &g["cosine"], 2e-7);
    assert_eq!(rig.read(c.b), [0.0; K]);
    rig.dev.kmeans_classifier(c, centroids, Metric::L2).unwrap();
    let half: Vec<f32> =
        g["centroids"].chunks(D).map(|c| -0.5 * c.iter().map(|v| v * v).sum::<f32>()).collect();
    assert_eq!(rig.read(c.w), g["centroids"]);
    close("bias", &rig.read(c.b), &half, 5e-7);
}

#[test]
fn the_mean_and_the_mini_batch_updates_are_the_references() {
    let g = golden("kmeans");
    let mut rig = Rig::new();
    let counts_of = |labels: &[f32]| {
        (0..K).map(|k| labels.iter().filter(|&&l| l == k as f32).count() as u32).collect()
    };
    let sums_of = |labels: &[f32]| {
        let mut sums = vec![0.0; K * D];
        for (p, &l) in g["points"].chunks(D).zip(labels) {
            sums[l as usize * D..][..D].iter_mut().zip(p).for_each(|(s, p)| *s += p);
        }
        sums
    };
    let mean = rig.output::<f32>(K * D);
    let (centroids, totals, splits) =
        (rig.input(&g["centroids"]), rig.input(&g["totals0"]), rig.input(&[3u32]));
    let batches: Vec<(Slot<f32>, Slot<u32>)> = [&g["labels0"], &g["labels1"]]
        .map(|l| (sums_of(l), counts_of(l)))
        .map(|(s, c): (Vec<f32>, Vec<u32>)| (rig.input(&s), rig.input(&c)))
        .to_vec();
    rig.ready();
    rig.dev.kmeans_mean(mean, batches[0].1, splits, batches[0].0).unwrap();
    close("mean", &rig.read(mean), &g["mean"], 1e-6);
    assert_eq!(rig.read(splits), [3], "no cluster was empty");
    assert_eq!(floats(&rig.read(batches[0].1)), g["counts"]);
    let mut before = Vec::new();
    for (step, (sums, counts)) in batches.into_iter().enumerate() {
        before = rig.read(centroids);
        rig.dev.kmeans_step(centroids, totals, sums, counts).unwrap();
        close("centroids", &rig.read(centroids), &g[&format!("centroids{}", step + 1)], 1e-6);
        assert_eq!(rig.read(totals), g[&format!("totals{}", step + 1)]);
    }
    // The second batch leaves clusters 3 and 4 without points: they stay, to the bit.
    assert_eq!(rig.read(centroids)[3 * D..], before[3 * D..]);
}

#[test]
fn empty_clusters_take_half_of_the_largest() {
    // Clusters 1 and 2 are empty; 0 and 3 are equally large, so 0 gives first (8 → 4 + 4), then 3
    // (8 → 4 + 4).
    let mut rig = Rig::new();
    let centroids = rig.output::<f32>(4 * 2);
    let (counts, splits) = (rig.input(&[8u32, 0, 0, 8]), rig.zeros::<u32>(1));
    let sums = rig.input(&[8.0f32, 16.0, 99.0, 99.0, 99.0, 99.0, -8.0, 4.0]);
    rig.ready();
    rig.dev.kmeans_mean(centroids, counts, splits, sums).unwrap();
    let (up, down) = (1.0 + 1.0 / 1024.0, 1.0 - 1.0 / 1024.0);
    let want = [down, 2.0 * up, up, 2.0 * down, -up, 0.5 * down, -down, 0.5 * up];
    assert_eq!(rig.read(centroids), want);
    assert_eq!((rig.read(counts), rig.read(splits)), (vec![4, 4, 4, 4], vec![2]));
}

#[test]
fn without_points_centroids_stay() {
    let mut rig = Rig::new();
    let (centroids, sums) = (rig.input(&[1.0f32, 2.0, 3.0, 4.0]), rig.zeros::<f32>(4));
    let (counts, splits) = (rig.zeros::<u32>(2), rig.zeros::<u32>(1));
    rig.ready();
    rig.dev.kmeans_mean(centroids, counts, splits, sums).unwrap();
    assert_eq!((rig.read(centroids), rig.read(splits)), (vec![1.0, 2.0, 3.0, 4.0], vec![2]));
    assert_eq!(rig.read(counts), [0, 0]);
}

/// 128 channels, more points than a block and a piece, the number of clusters around a register's
/// width.
#[test]
fn stored_points_agree_with_plain_loops_for_any_number_of_threads() {
    let (rows, d) = (2 * 64 * 256 + 77, 3);
    for (rows, d, k) in [(rows, d, 2), (301, 128, 16), (255, 128, 17), (1, 128, 3)] {
        let (points, centroids) = (signed(1, rows * d), signed(2, k * d));
        let (mut sums, mut counts, mut score) = (vec![0.0f64; k * d], vec![0u32; k], 0.0);
        for p in points.chunks(d) {
            let dots = centroids.chunks(d).map(|c| {
                c.iter()
                    .zip(p)
                    .map(|(c, p)| f64::from(*c) * (f64::from(*p) - 0.5 * f64::from(*c)))
                    .sum::<f64>()
            });
            let (a, s) = dots.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            sums[a * d..][..d].iter_mut().zip(p).for_each(|(s, p)| *s += f64::from(*p));
            counts[a] += 1;
            score += s;
        }
        let run = |threads: usize| {
            let mut rig = Rig::new();
            let c = classifier(&mut rig, k, d);
            let plan = rig.dev.plan_kmeans(KMeansSpec { k, d }).unwrap();
            let (points, centroids) = (rig.input(&points), rig.input(&centroids));
            let (sums, counts, score) =
                (rig.zeros::<f32>(k * d), rig.zeros::<u32>(k), rig.zeros::<f32>(1));
            rig.ready();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            rig.dev.kmeans_classifier(c, centroids, Metric::L2).unwrap();
            pool.install(|| rig.dev.kmeans_accumulate(&plan, sums, counts, score, points, c))
                .unwrap();
            (rig.read(sums), rig.read(counts), rig.read(score))
        };
        let got = run(1);
        assert_eq!(got, run(3), "{rows} rows: threads change the result");
        assert_eq!(got.1, counts, "{rows}×{d}, {k} clusters");
        // Sums of thousands of numbers of size 1 in f32, by pieces; and of scores as f32.
        assert!(error(&got.0, &sums.iter().map(|&s| s as f32).collect::<Vec<_>>()) <= 2e-6);
        close("score", &got.2, &[score as f32], 1e-6);
    }
}

#[test]
fn of_equal_centroids_the_first_takes_the_points() {
    let mut rig = Rig::new();
    let c = Classifier { w: rig.input(&[1.0f32; 20]), b: rig.zeros(20), k: 20 };
    let plan = rig.dev.plan_kmeans(KMeansSpec { k: 20, d: 1 }).unwrap();
    let points = rig.input(&[1.0f32; 4]);
    let (sums, counts, score) = (rig.zeros::<f32>(20), rig.zeros::<u32>(20), rig.zeros::<f32>(1));
    rig.ready();
    rig.dev.kmeans_accumulate(&plan, sums, counts, score, points, c).unwrap();
    let mut want = [0; 20];
    want[0] = 4;
    assert_eq!((rig.read(counts), rig.read(score)), (want.to_vec(), vec![4.0]));
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let mut rig = Rig::new();
    let c = classifier(&mut rig, 3, 4);
    let plan = rig.dev.plan_kmeans(KMeansSpec { k: 3, d: 4 }).unwrap();
    let (centroids, points) = (rig.zeros::<f32>(13), rig.zeros::<f32>(10));
    let (sums, counts, score) = (rig.zeros::<f32>(12), rig.zeros::<u32>(3), rig.zeros::<f32>(1));
    rig.ready();
    assert!(rig.dev.kmeans_classifier(c, centroids, Metric::L2).is_err());
    let refused = rig.dev.kmeans_accumulate(&plan, sums, counts, score, points, c).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "kmeans_accumulate: points has 10 elements, the contract wants 8"
    );
}
