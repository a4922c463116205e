//! k-means on stored points: sums, the two centroid updates, centroids as a linear classifier. All
//! of it but the points is f32 whatever activations are.

use picie::device::Dtype;
use picie::device::ops::{
    Classifier, KMeansAccumulate, KMeansClassifier, KMeansMean, KMeansSpec, KMeansStep, Metric,
    kmeans_accumulate, kmeans_classifier, kmeans_mean, kmeans_step, plan_kmeans,
};

use crate::util::{EXACT, Number, On, OpCase, Results, Rig, added, close, equal, golden, signed};

/// Sizes of the goldens.
const D: usize = 6;
const K: usize = 5;

/// Channels that CUDA's sums of points have.
const WIDE: usize = 128;

fn classifier(k: usize, centroids: &[f32], metric: Metric) -> OpCase<'_> {
    let name = format!("kmeans_classifier of {k}×{}, {metric:?}", centroids.len() / k);
    OpCase::new(name, move |rig| {
        let (w, b) = (rig.output("w", centroids.len()), rig.output("b", k));
        let centroids = rig.input("centroids", centroids);
        let a = KMeansClassifier { classifier: Classifier { w, b, k }, centroids, metric };
        move |dev| kmeans_classifier(dev, a)
    })
}

/// Points (rows, d), and a classifier of k clusters.
struct Points {
    k: usize,
    d: usize,
    /// Clusters that the plan is made for.
    most: usize,
    points: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
}

impl Points {
    /// With the classifier that distances to `centroids` are.
    fn new(k: usize, points: Vec<f32>, centroids: Vec<f32>) -> Self {
        let d = centroids.len() / k;
        let half = |c: &[f32]| -0.5 * c.iter().map(|v| f64::from(v * v)).sum::<f64>() as f32;
        let b = centroids.chunks(d).map(half).collect();
        Points { k, d, most: k, points, b, w: centroids }
    }

    fn case(&self) -> OpCase<'_> {
        let (k, d) = (self.k, self.d);
        let name = format!("kmeans_accumulate of {}×{d}, {k} clusters", self.points.len() / d);
        OpCase::new(name, move |rig| {
            let plan = plan_kmeans(&mut *rig.dev, KMeansSpec { k: self.most, d }).unwrap();
            let a = KMeansAccumulate {
                sums: rig.adds("sums", k * d),
                counts: rig.adds("counts", k),
                score: rig.adds("score", 1),
                points: rig.acts("points", &self.points),
                classifier: Classifier {
                    w: rig.input("w", &self.w),
                    b: rig.input("b", &self.b),
                    k,
                },
            };
            move |dev| kmeans_accumulate(dev, &plan, a)
        })
    }

    /// By plain loops in f64.
    fn plain(&self) -> Results {
        let Points { k, d, .. } = *self;
        let (mut sums, mut counts, mut score) = (vec![0.0f64; k * d], vec![0u32; k], 0.0);
        for p in self.points.chunks(d) {
            let dot = |w: &[f32]| -> f64 {
                w.iter().zip(p).map(|(&w, &p)| f64::from(w) * f64::from(p)).sum()
            };
            let scores = self.w.chunks(d).zip(&self.b).map(|(w, &b)| dot(w) + f64::from(b));
            let (a, s) = scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            sums[a * d..][..d].iter_mut().zip(p).for_each(|(s, p)| *s += f64::from(*p));
            counts[a] += 1;
            score += s;
        }
        sums_of(&crate::util::to_f32(&sums), &counts, score as f32)
    }
}

/// What is left where this is added.
fn sums_of(sums: &[f32], counts: &[u32], score: f32) -> Results {
    Results::of([
        ("sums", added(sums).into()),
        ("counts", added(counts).into()),
        ("score", added(&[score]).into()),
    ])
}

fn mean<'a>(centroids: &'a [f32], counts: &'a [u32], sums: &'a [f32]) -> OpCase<'a> {
    OpCase::new(format!("kmeans_mean of {counts:?}"), move |rig| {
        let a = KMeansMean {
            centroids: rig.inout("centroids", centroids),
            counts: rig.inout("counts", counts),
            splits: rig.adds("splits", 1),
            sums: rig.input("sums", sums),
        };
        move |dev| kmeans_mean(dev, a)
    })
}

/// `times` steps on the same sums.
fn step<'a>(
    centroids: &'a [f32],
    totals: &'a [f32],
    sums: &'a [f32],
    counts: &'a [u32],
    times: usize,
) -> OpCase<'a> {
    OpCase::new(format!("kmeans_step of {counts:?}"), move |rig| {
        let a = KMeansStep {
            centroids: rig.inout("centroids", centroids),
            totals: rig.inout("totals", totals),
            sums: rig.input("sums", sums),
            counts: rig.input("counts", counts),
        };
        move |dev| (0..times).try_for_each(|_| kmeans_step(dev, a))
    })
}

fn whole(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|&v| v as u32).collect()
}

#[test]
fn assignment_is_by_distance_and_scores_give_the_objective() {
    let g = golden("kmeans");
    let c = classifier(K, &g["centroids"], Metric::L2).cpu();
    let (w, b, points) = (c["w"].clone(), c["b"].clone(), g["points"].clone());
    let given = Points { k: K, d: D, most: K, points, w, b };
    let got = given.case().cpu();
    let rows = (given.points.len() / D) as f32;
    // The squared distance of unit vectors is 1 − 2·score.
    let score = (rows - g["objective"][0]) / 2.0;
    // About ten additions of f32.
    got.close(&sums_of(&g["sums"], &whole(&g["counts"]), score), |_| 1e-6);
    close("objective", &[rows - 2.0 * got.bare("score")[0]], &g["objective"], 1e-6);
}

#[test]
fn each_metric_is_its_linear_classifier() {
    let g = golden("kmeans");
    let half = g["centroids"].chunks(D).map(|c| -0.5 * c.iter().map(|v| v * v).sum::<f32>());
    for (metric, w, b, tol) in [
        (Metric::Dot, "centroids", vec![0.0; K], [EXACT; 2]),
        (Metric::Cosine, "cosine", vec![0.0; K], [2e-7, EXACT]),
        (Metric::L2, "centroids", half.collect(), [EXACT, 5e-7]),
    ] {
        let want = Results::of([("w", g[w].clone().into()), ("b", b.into())]);
        let got = classifier(K, &g["centroids"], metric).cpu();
        got.close(&want, |what| tol[usize::from(what == "b")]);
    }
}

#[test]
fn each_metric_is_the_cpus() {
    for (k, d) in [(5, WIDE), (3, 130), (2, 6)] {
        for metric in [Metric::L2, Metric::Dot, Metric::Cosine] {
            // Sums of squares in f64, rounded once.
            classifier(k, &signed(3, k * d), metric).agree(Dtype::Bf16, |_| 1e-7);
        }
    }
}

#[test]
fn the_mean_and_the_mini_batch_updates_are_the_references() {
    let g = golden("kmeans");
    let sums = |labels: &[f32]| {
        let (mut sums, mut counts) = (vec![0.0; K * D], vec![0; K]);
        for (p, &l) in g["points"].chunks(D).zip(labels) {
            sums[l as usize * D..][..D].iter_mut().zip(p).for_each(|(s, p)| *s += p);
            counts[l as usize] += 1;
        }
        (sums, counts)
    };
    let batches = ["labels0", "labels1"].map(|labels| sums(&g[labels]));
    let (sums, counts) = &batches[0];
    let poison = vec![f32::NAN; K * D];
    let want = Results::of([
        ("centroids", g["mean"].clone().into()),
        ("counts", whole(&g["counts"]).into()),
        // No cluster was empty.
        ("splits", u32::start(1).into()),
    ]);
    mean(&poison, counts, sums).cpu().close(&want, |_| 1e-6);
    let (mut centroids, mut totals) = (g["centroids"].clone(), g["totals0"].clone());
    for (i, (sums, counts)) in batches.iter().enumerate() {
        let got = step(&centroids, &totals, sums, counts, 1).cpu();
        let want = ["centroids", "totals"].map(|n| (n, g[&format!("{n}{}", i + 1)].clone().into()));
        got.close(&Results::of(want), |what| if what == "totals" { EXACT } else { 1e-6 });
        if i == 1 {
            // This batch leaves clusters 3 and 4 without points: they stay, to the bit.
            equal("empty clusters", &got["centroids"][3 * D..], &centroids[3 * D..]);
        }
        (centroids, totals) = (got["centroids"].clone(), got["totals"].clone());
    }
}

#[test]
fn empty_clusters_take_half_of_the_largest() {
    // Clusters 1 and 2 are empty; 0 and 3 are equally large, so 0 gives first (8 → 4 + 4), then 3
    // (8 → 4 + 4).
    let sums = [8.0, 16.0, 99.0, 99.0, 99.0, 99.0, -8.0, 4.0];
    let got = mean(&[f32::NAN; 8], &[8, 0, 0, 8], &sums).cpu();
    let (up, down) = (1.0 + 1.0 / 1024.0, 1.0 - 1.0 / 1024.0);
    let want = [down, 2.0 * up, up, 2.0 * down, -up, 0.5 * down, -down, 0.5 * up];
    assert_eq!(got["centroids"], want);
    assert_eq!((got.integers("counts"), got.integers("splits")), (&[4; 4][..], &added(&[2])[..]));
}

#[test]
fn without_points_centroids_stay() {
    let got = mean(&[1.0, 2.0, 3.0, 4.0], &[0, 0], &[0.0; 4]).cpu();
    assert_eq!(got["centroids"], [1.0, 2.0, 3.0, 4.0]);
    assert_eq!((got.integers("counts"), got.integers("splits")), (&[0; 2][..], &added(&[2])[..]));
}

/// 128 channels, more points than a block and a piece, the number of clusters around a register's
/// width.
#[test]
fn stored_points_agree_with_plain_loops_for_any_number_of_threads() {
    for (rows, d, k) in [(2 * 64 * 256 + 77, 3, 2), (301, 128, 16), (255, 128, 17), (1, 128, 3)] {
        let given = Points::new(k, signed(1, rows * d), signed(2, k * d));
        // Sums of thousands of numbers of size 1 in f32, by pieces; and of scores as f32.
        let tol = |what: &str| if what == "sums" { 2e-6 } else { 1e-6 };
        given.case().cpu().close(&given.plain(), tol);
        given.case().same_bits_on_any_threads();
    }
}

/// Points of each type, below, at and above a tile of 64 and more tiles than blocks; clusters
/// around a chunk (32) and sums in shared memory (64).
#[test]
fn sums_of_stored_points_are_the_cpus() {
    for (rows, k) in [
        (63, 5),
        (64, 32),
        (65, 33),
        (200, 1),
        (130, 64),
        (131, 65),
        (129, 200),
        (529 * 64 + 3, 27),
    ] {
        let mut points = signed(1, rows * WIDE);
        for p in points.chunks_mut(WIDE) {
            let norm = p.iter().map(|v| v * v).sum::<f32>().sqrt();
            p.iter_mut().for_each(|v| *v /= norm);
        }
        let given = Points::new(k, points, signed(2, k * WIDE));
        for dtype in Dtype::ALL {
            // Sums of up to hundreds of numbers of size 0.1 in another order.
            given.case().agree(dtype, |_| 2e-6);
        }
    }
}

/// No score of such a point is a number, and the first cluster takes it; sums of the others know
/// nothing of it. Clusters that are summed in registers, in shared memory and in scratch.
#[test]
fn points_that_are_not_finite_spoil_one_cluster() {
    if !On::all().contains(&On::Cuda) {
        return;
    }
    for k in [6, 33, 65] {
        let mut given = Points::new(k, signed(1, 200 * WIDE), signed(2, k * WIDE));
        let channels = [(70, 3, f32::NAN), (131, 77, f32::INFINITY), (132, 5, f32::NEG_INFINITY)];
        for (row, _, _) in channels {
            given.points[row * WIDE..][..WIDE].fill(0.0);
        }
        let rest = Points {
            points: given.points.clone(),
            w: given.w.clone(),
            b: given.b.clone(),
            ..given
        };
        for (row, channel, value) in channels {
            given.points[row * WIDE + channel] = value;
        }
        for dtype in Dtype::ALL {
            let rig = || Rig::cuda(dtype).unwrap();
            let (got, want) = (given.case().run(rig()), rest.case().run(rig()));
            for (i, (got, want)) in got["sums"].iter().zip(&want["sums"]).enumerate() {
                let (cluster, channel) = (i / WIDE, i % WIDE);
                let spoilt = cluster == 0 && channels.iter().any(|c| c.1 == channel);
                // Sums of up to hundreds of numbers of size 1, in another order.
                let right = if spoilt { !got.is_finite() } else { (got - want).abs() <= 1e-4 };
                assert!(right, "{k} clusters: {got} and {want} in {cluster}, {channel}");
            }
            assert!(!got["score"][0].is_finite(), "{k} clusters");
        }
    }
}

#[test]
fn of_equal_centroids_the_first_takes_the_points() {
    for (on, k, d) in [(On::Cpu, 20, 1), (On::Cpu, 40, WIDE), (On::Cuda, 40, WIDE)] {
        if !On::all().contains(&on) {
            return;
        }
        let points = vec![0.5; 3 * d];
        let given = Points { k, d, most: k, points, w: vec![1.0; k * d], b: vec![0.0; k] };
        let got = given.case().run(on.rig());
        let mut want = vec![0; k];
        want[0] = 3;
        assert_eq!(got.integers("counts"), added(&want));
        assert_eq!(got["score"], added(&[1.5 * d as f32]));
    }
}

/// Lloyd's update on counts with and without empty clusters and ties, splits of more clusters than
/// a block has threads.
#[test]
fn means_and_splits_are_the_cpus_to_the_bit() {
    let many: Vec<u32> = (0..300).map(|i| if i % 3 == 0 { 0 } else { i * 37 % 101 }).collect();
    for counts in [
        vec![4, 7, 1],
        vec![8, 0, 0, 8],
        vec![0, 5, 0, 0, 1],
        vec![0, 0, 0],
        vec![1, 0, 0, 1],
        many,
    ] {
        for d in [WIDE, 6] {
            let [centroids, sums] = [5, 6].map(|seed| signed(seed, counts.len() * d));
            mean(&centroids, &counts, &sums).agree(Dtype::Bf16, |_| EXACT);
        }
    }
}

#[test]
fn mini_batch_updates_are_the_cpus_and_empty_clusters_stay() {
    let [centroids, sums] = [5, 6].map(|seed| signed(seed, 4 * WIDE));
    let case = step(&centroids, &[10.0, 0.0, 3.0, 1e7], &sums, &[4, 1, 0, 70_000], 2);
    // A few roundings, with and without fused multiply-adds.
    let tol = |what: &str| if what == "totals" { EXACT } else { 3e-7 };
    let Some([got, _]) = case.agree(Dtype::Bf16, tol) else { return };
    let empty = 2 * WIDE..3 * WIDE;
    equal("an empty cluster", &got["centroids"][empty.clone()], &centroids[empty]);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let [centroids, sums] = [5, 6].map(|seed| signed(seed, 3 * 5));
    // Sizes are those of w, of counts, and of whole points.
    classifier(3, &centroids, Metric::L2)
        .refuses_other_sizes("kmeans_classifier", &[("centroids", "w")]);
    let given = Points::new(3, signed(1, 10), centroids.clone());
    given.case().refuses_other_sizes("kmeans_accumulate", &[("points", "points")]);
    mean(&centroids, &[1, 2, 3], &sums)
        .refuses_other_sizes("kmeans_mean", &[("counts", "centroids"), ("centroids", "centroids")]);
    step(&centroids, &[0.0; 3], &sums, &[1, 2, 3], 1)
        .refuses_other_sizes("kmeans_step", &[("counts", "centroids"), ("centroids", "centroids")]);
    let many = Points { most: 2, ..given };
    let said = many.case().refusal(Rig::cpu(Dtype::F32)).to_string();
    assert_eq!(said, "kmeans_accumulate: a classifier has 3 elements, the contract wants 2");
    let Some(mut rig) = Rig::cuda(Dtype::Bf16) else { return };
    let refused = plan_kmeans(&mut *rig.dev, KMeansSpec { k: 3, d: 4 }).unwrap_err().to_string();
    assert!(refused.contains("points of 128 channels, not 4"), "{refused}");
}
