//! CUDA against the CPU: 128 channels, edges of maps and classes.

use super::*;
use crate::util::{plus, rounding};

const D: usize = 128;
const OUT: (usize, usize) = (21, 19);

/// f32: CUDA multiplies features, weights and slopes as bf16 halves, which leaves out 5e-6 of
/// |f|·|w| on average, and shares of classes change by as much. Else a stored gradient is rounded
/// to half a unit of its last place, that of a warped image twice.
pub(super) fn gradient_tolerance(dtype: Dtype) -> f32 {
    (1.5 * rounding(dtype)).max(5e-5)
}

impl Given {
    /// All but learned classifiers. Everything but features and gradients is f32 inside and out:
    /// taps, a norm and sums of 128 products of f32.
    pub(super) fn agree(&self, dtype: Dtype) {
        let features = self.features().agree(dtype, |_| rounding(dtype).max(1e-6));
        let Some([_, features]) = features else { return };
        let [mut got, mut want] = self.assign().both(dtype).unwrap();
        self.same_labels(&features["features"], got.integers("labels"), want.integers("labels"));
        got.take("labels");
        want.take("labels");
        got.close(&want, |_| EXACT);
        // Of tens of features, each within 1e-6.
        self.accumulate(1).agree(dtype, |what| if what == "sums" { 3e-6 } else { 1e-6 });
        // Interpolated scores may tie within a few roundings; the seeds have no such pixel.
        self.predict(OUT, self.spec.n).agree(dtype, |_| EXACT);
        self.scaled().loss().agree(dtype, |what| match what {
            "losses" => 2e-6,
            _ => gradient_tolerance(dtype),
        });
    }

    /// A mean over hundreds of pixels is brought back to where f16 has all its bits; another one
    /// for each target.
    fn scaled(&self) -> Self {
        let mut given = self.clone();
        for (c, target) in given.learned.iter_mut().enumerate() {
            target.scale = 256.0 / (c + 1) as f32;
        }
        given
    }

    /// Labels are equal, or a tie within the error of two scores: 128 products of size 0.05 (0.5
    /// without unit features), each within 3·2⁻¹⁶ of it, 5e-6 of it on average.
    fn same_labels(&self, features: &[f32], got: &[u32], want: &[u32]) {
        let (pixels, Learned { w, b, .. }) = (self.spec.pixels(), &self.learned[0]);
        let wide = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let tie = if self.spec.unit { 2e-5 } else { 2e-4 };
        for (image, &row) in self.index.iter().enumerate() {
            for p in 0..pixels {
                let [got, want] = [got, want].map(|l| l[row as usize * pixels + p] as usize);
                assert!(got < b.len(), "image {image}, pixel {p}: label {got}");
                let f = &features[(image * pixels + p) * D..][..D];
                let score = |k: usize| wide(f, &w[k * D..][..D]) + f64::from(b[k]);
                let gap = if got == want { 0.0 } else { score(want) - score(got) };
                assert!(gap.abs() <= tie, "image {image}, pixel {p}: {got}, not {want}: {gap}");
            }
        }
        assert!(got[pixels..2 * pixels].iter().all(|&l| l == 65_535), "a row of no image stays");
    }
}

/// Maps below, at and above a tile of 64 pixels; classes below, at and above a chunk of 32 and sums
/// in shared memory (64).
#[test]
fn every_type_agrees_with_the_cpu() {
    for (n, (h, w), k, view, crops) in [
        (3, (9, 7), [5, 27], 3, vec![crop(1, 2, 4, 1), crop(0, 0, 7, 0), crop(2, 3, 3, 0)]),
        (2, (8, 8), [32, 1], 1, vec![Crop::whole(8), crop(0, 0, 8, 1)]),
        (1, (17, 17), [33, 70], 1, vec![crop(3, 5, 11, 1)]),
        (
            4,
            (5, 13),
            [70, 5],
            2,
            vec![crop(0, 8, 5, 1), crop(4, 12, 1, 0), crop(0, 0, 5, 0), crop(1, 3, 4, 0)],
        ),
    ] {
        for merge in [Merge::Direct, Merge::Cascade] {
            for crops in [None, Some(crops.clone())] {
                let spec = HeadSpec { n, h, w, d: D, k: 70, merge, ..SPEC };
                let given = Given::new(spec, &k, crops, view);
                Dtype::ALL.into_iter().for_each(|dtype| given.agree(dtype));
            }
        }
    }
}

#[test]
fn edges_of_the_loss_are_the_cpus() {
    let spec = HeadSpec { n: 2, h: 3, w: 2, d: D, k: 3, ..SPEC };
    let new = || Given::new(spec, &[3, 2], None, 1).scaled();
    let agree = |given: &Given| {
        // Losses are means of six pixels, each within what scores leave out.
        let tol = |what: &str| if what == "losses" { 5e-6 } else { gradient_tolerance(Dtype::F32) };
        given.loss().agree(Dtype::F32, tol)
    };
    // A view without weight has no loss; here the first classifier's.
    let mut given = new();
    given.learned[0].weights.fill(0.0);
    agree(&given);
    given.learned[1].weights.fill(0.0);
    let Some([got, _]) = given.loss().both(Dtype::F32) else { return };
    let gradients = (0..4).flat_map(|level| got[&*gradient(level)].clone());
    assert!(got["losses"].iter().copied().chain(gradients).all(|v| v == 0.0));

    // Norms of 0 and below 1e-12 are the constant 1e-12.
    let mut given = new();
    given.laterals.iter_mut().for_each(|p| p.fill(0.0));
    agree(&given);
    given.laterals[0] = signed(7, spec.lateral_len(0)).iter().map(|v| v * 2e-14).collect();
    agree(&given);

    let mut given = new();
    given.laterals[0][5] = f32::NAN;
    let nan = &given.loss().run(On::Cuda.rig())["losses"];
    let (first, second) = nan.split_at(2);
    assert!(first.iter().all(|l| l.is_nan()) && second.iter().all(|l| l.is_finite()), "{nan:?}");
}

#[test]
fn sums_are_added_to_and_of_equal_scores_the_first_wins() {
    let spec = HeadSpec { n: 2, h: 9, w: 8, d: D, k: 70, ..SPEC };
    let mut given = Given::new(spec, &[70], None, 2);
    // Clusters 3, 36 and 69 are the same, and the best.
    for k in [3, 36, 69] {
        given.learned[0].w[k * D..][..D].fill(0.0);
        given.learned[0].b[k] = 50.0;
    }
    for on in On::all() {
        let (features, got) = (given.features().run(on.rig()), given.accumulate(2).run(on.rig()));
        let mut want = [0; 70];
        want[3] = 2 * 2 * 72;
        equal("counts", got.integers("counts"), &added(&want));
        let mut total = vec![0.0; D];
        for f in features["features"].chunks(D) {
            total = plus(&total, &f.iter().map(|f| 2.0 * f).collect::<Vec<_>>());
        }
        let mut sums = vec![0.0; 70 * D];
        sums[3 * D..4 * D].copy_from_slice(&total);
        // Sums of 144 numbers.
        close("sums", &got.bare("sums"), &sums, 2e-6);
        close("score", &got["score"], &added(&[50.0 * 288.0]), 1e-7);
    }
}

/// Walks along rows that are longer than a tile, that end within it, and of one pixel; in windows
/// and mirrored; with any number of levels, of which the coarsest has a NaN.
#[test]
fn walks_agree_with_the_cpu() {
    for (h, w, crop) in [
        (3, 150, crop(0, 77, 3, 1)),
        (20, 20, crop(1, 2, 17, 1)),
        (21, 13, crop(7, 3, 9, 0)),
        (1, 1, crop(0, 0, 1, 1)),
    ] {
        for (merge, levels) in (1..=4).map(|l| (Merge::Direct, l)).chain([(Merge::Cascade, 4)]) {
            for crops in [None, Some(vec![crop])] {
                let unit = levels != 2;
                let spec = HeadSpec { n: 1, h, w, d: D, k: 3, merge, levels, unit };
                let mut given = Given::new(spec, &[3], crops, 1);
                // Sums in another order; the root of a norm is the GPU's, good to two units.
                let tol = if unit { 2e-6 } else { 4e-6 };
                for dtype in [Dtype::F32, Dtype::Bf16] {
                    if given.features().agree(dtype, |_| rounding(dtype).max(tol)).is_none() {
                        return;
                    }
                }
                let coarsest = &mut given.laterals[levels - 1];
                let middle = coarsest.len() / 2;
                coarsest[middle] = f32::NAN;
                let nans = |on: On| -> Vec<bool> {
                    given.features().run(on.rig())["features"].iter().map(|f| f.is_nan()).collect()
                };
                let want = nans(On::Cpu);
                assert!(want.contains(&true) || given.crops.is_some());
                equal(&given.named("NaN of head_features"), &nans(On::Cuda), &want);
            }
        }
    }
}

/// 796 tiles: some blocks go on to a second one, of another image. Where features are products two
/// scores of a pixel in ten thousand may tie within their error, and the pixel counts elsewhere.
#[test]
fn more_tiles_than_blocks_are_summed() {
    for k in [3, 65] {
        let spec = HeadSpec { n: 398, h: 9, w: 8, d: D, k, ..SPEC };
        let given = Given::new(spec, &[k], None, 1);
        // Of thousands of features in another order.
        let tol = |what: &str| if what == "sums" { 5e-6 } else { 1e-6 };
        given.accumulate(1).agree(Dtype::F16, tol);
        let Some([mut got, mut want]) = given.accumulate(1).both(Dtype::Bf16) else { return };
        let counts = got.integers("counts").iter().zip(want.integers("counts"));
        let moved: Vec<u32> = counts.map(|(a, b)| a.abs_diff(*b)).collect();
        assert!(moved.iter().sum::<u32>() <= 6, "{moved:?} of {} pixels", 398 * 72);
        got.take("counts");
        want.take("counts");
        // Of clusters that a pixel came to or left, its features are in the sums, of size 0.3.
        let [sums, wanted] = [&got, &want].map(|results| results["sums"].clone());
        got.take("sums");
        want.take("sums");
        let largest = wanted.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
        for ((moved, sums), wanted) in moved.iter().zip(sums.chunks(D)).zip(wanted.chunks(D)) {
            let tol = if *moved > 0 { 3e-2 } else { tol("sums") };
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tol * largest;
            let all = sums.iter().zip(wanted).all(near);
            assert!(all, "sums of a cluster that {moved} pixels left");
        }
        got.close(&want, tol);
    }
}
