//! The head: features of a tile of pixels from the laterals, and products with classifiers.

use crate::base::Result;
use crate::device::ops::head::HeadOps;
use crate::device::ops::{
    Crop, HeadAccumulate, HeadAssign, HeadFeatures, HeadInput, HeadLoss, HeadPredict, HeadScores,
    HeadScoresBackward, HeadSpec, Merge, Op, Passed,
};
use crate::device::paper::Paper;
use crate::device::paper::launch::{Launch, Warps};
use crate::device::paper::norm::warps;
use crate::device::{Act, Dtype, Slot};

// Instructions a pixel: its features, as half a warp walks along a row, by the merge and whether
// they are warped.
const DIRECT: Warps = warps(123.0, 43.0, 55.0, 12.2);
const CASCADE: Warps = warps(71.0, 25.0, 32.0, 11.9);
const DIRECT_WARPED: Warps = warps(188.0, 66.0, 85.0, 17.1);
const CASCADE_WARPED: Warps = warps(136.0, 48.0, 61.0, 16.7);
// Instructions of a warp and 16 pixels, whose features are products: what stands before and behind,
// p2 of an image that is not warped, a level's taps, and a step of it with weights of one part or
// two.
const ROUND: Warps = warps(330.0, 85.0, 160.0, 75.0);
const FINEST: Warps = warps(100.0, 58.0, 31.0, 32.0);
const LEVEL: Warps = warps(82.0, 40.0, 20.0, 8.0);
const STEP: Warps = Warps { mma: 16.0, ..warps(99.0, 44.0, 26.0, 33.0) };
const FINE_STEP: Warps = Warps { mma: 32.0, ..warps(124.0, 51.0, 26.0, 33.0) };
/// The scores of 32 classes, as products of two halves each.
const SCORES: Warps = Warps { mma: 6.0, ..warps(26.0, 9.0, 4.0, 12.0) };
/// The rest of an assignment, and of sums by cluster.
const ASSIGN: Warps = warps(15.0, 8.0, 3.0, 2.0);
const SUM: Warps = Warps { mma: 6.0, ..warps(80.0, 32.0, 12.0, 15.0) };
/// A target of 32 classes, forward and backward; the gradient of 32 scores, and that of weights.
const LOSS: Warps = Warps { mma: 10.0, ..warps(56.0, 18.0, 24.0, 12.0) };
const BACKWARD: Warps = Warps { mma: 4.0, ..warps(46.0, 16.0, 20.0, 12.0) };
const WEIGHT: Warps = Warps { mma: 6.0, ..warps(79.0, 28.0, 16.0, 16.0) };
/// The adjoint of the merge of three levels, of a pixel of the finest map, and of one level: of ten
/// warps five have pixels then, and each sums four samples where others sum eight and sixteen; that
/// of a warp before it.
const MERGE: Warps = warps(112.5, 39.0, 45.0, 13.0);
const MERGE_ONE: Warps = warps(48.0, 16.0, 22.0, 7.0);
const UNWARP: Warps = warps(92.5, 33.0, 37.0, 11.0);

/// A pass over the pixels of a batch.
struct Pass {
    kernel: &'static str,
    /// Instructions a pixel, beside those for its features.
    pixel: Warps,
    /// Bytes beside the laterals.
    more: f64,
    /// Bytes from the L2 cache over those from memory: less where tiles of a block are neighbors.
    again: f64,
    factor: f64,
}

/// The features of 16 pixels as products, of an image whose window has the share `side` of a side
/// of the map; `None`: it is not warped.
///
/// A step has two rows of eight columns of a map, or four of four. Two rows of F lie between two or
/// three of the merged map (three: with the probability `side`), those between two or three of p3,
/// half the time two if they are two, and so on. Maps are taken as large and even.
fn features(merge: Merge, side: Option<f64>) -> Warps {
    let Some(side) = side else {
        let (steps, fine) = if merge == Merge::Direct { (4.0, 0.0) } else { (4.0, 1.0) };
        return ROUND + FINEST + LEVEL * 3.0 + STEP * steps + FINE_STEP * fine;
    };
    // Eight columns of F between nine of the merged map, of which eight are multiplied at once.
    let finest = (1.0 + side) * (1.0 + (7.0 * side - 6.0).max(0.0));
    let coarser = 1.5 + 0.5 * side;
    let steps = match merge {
        Merge::Direct => finest + coarser + 2.0,
        Merge::Cascade => finest + 2.0 * coarser + 1.0,
    };
    ROUND + LEVEL * 4.0 + FINE_STEP * steps
}

impl Paper {
    /// Of each image the share of a side of the map that its warp takes, if it is warped.
    fn crop_sides(&self, spec: &HeadSpec, crops: Option<Slot<Crop>>) -> Vec<Option<f64>> {
        let window = |crop: &Crop| {
            let warps = spec.h != spec.w || *crop != Crop::whole(spec.h);
            warps.then(|| f64::from(crop.side) / spec.h as f64)
        };
        match crops {
            Some(crops) => self.staged(crops).iter().map(window).collect(),
            None => vec![None; spec.n],
        }
    }

    /// The images that are warped, as a share of the batch.
    fn warped(&self, spec: &HeadSpec, crops: Option<Slot<Crop>>) -> f64 {
        self.crop_sides(spec, crops).iter().flatten().count() as f64 / spec.n as f64
    }

    /// A pass whose features are products, as they are in bf16.
    fn pass(&mut self, spec: &HeadSpec, input: &HeadInput, pass: Pass) -> Result<()> {
        if self.dtype != Dtype::Bf16 {
            return self.walk(spec, input, pass);
        }
        let Pass { kernel, pixel, more, again, factor } = pass;
        self.launch(Launch::waits("head_taps", 12e-6))?;
        let sides = self.crop_sides(spec, input.crops);
        let sum =
            sides.iter().fold(Warps::default(), |sum, side| sum + features(spec.merge, *side));
        let features = sum * (1.0 / 16.0 / spec.n as f64);
        let pixels = (spec.n * spec.pixels()) as f64;
        let bytes = input.laterals.iter().map(|p| p.bytes() as f64).sum::<f64>() + more;
        let launch = Launch::streams(kernel, (features + pixel) * pixels, bytes);
        self.launch(Launch { l2: again * bytes, factor, latency: 0.0, ..launch })
    }

    /// A pass that walks along rows.
    fn walk(&mut self, spec: &HeadSpec, input: &HeadInput, pass: Pass) -> Result<()> {
        let Pass { kernel, pixel, more, again, factor } = pass;
        let warped = self.warped(spec, input.crops);
        let (plain, warping) = match spec.merge {
            Merge::Direct => (DIRECT, DIRECT_WARPED),
            Merge::Cascade => (CASCADE, CASCADE_WARPED),
        };
        let [p2, p3, p4, p5] = input.laterals.map(|p| p.bytes() as f64);
        let mut read = p2 + p3 + p4 + p5;
        if spec.merge == Merge::Cascade {
            // One map of p3's size, in f32, stands for the others.
            let o3 = 4.0 / self.act() * p3;
            let instructions = warps(106.0, 37.0, 48.0, 12.0) * (p3 / self.act() / spec.d as f64);
            let launch = Launch::streams("head_cascade", instructions, p3 + p4 + p5 + o3);
            self.launch(Launch { latency: 0.0, ..launch })?;
            read = p2 + o3;
        }
        let features = plain * (1.0 - warped) + warping * warped;
        let pixels = (spec.n * spec.pixels()) as f64;
        let bytes = read + more;
        let launch = Launch::streams(kernel, (features + pixel) * pixels, bytes);
        self.launch(Launch { l2: again * bytes, factor, latency: 0.0, ..launch })
    }

    /// The gradients of the laterals from that of the features, of which the share `warped` goes
    /// through the adjoint of a warp first. A cascade goes down level by level.
    fn gradients(&mut self, spec: &HeadSpec, d: [Slot<Act>; 4], warped: f64) -> Result<()> {
        let [d2, d3, d4, d5] = d.map(|d| d.bytes() as f64);
        let (merge, passes) = match spec.merge {
            Merge::Direct => (MERGE, vec![(d2, d3 + d4 + d5)]),
            Merge::Cascade => (MERGE_ONE, vec![(d2, d3), (d3, d4), (d4, d5)]),
        };
        for (i, (fine, coarse)) in passes.into_iter().enumerate() {
            let warped = if i == 0 { warped } else { 0.0 };
            let pixels = fine / self.act() / spec.d as f64;
            let instructions = (merge + UNWARP * warped) * pixels;
            let bytes = fine * (1.0 + warped) + coarse;
            let launch = Launch::streams("head_adjoint", instructions, bytes);
            self.launch(Launch { l2: 0.0, factor: 1.22, latency: 0.0, ..launch })?;
        }
        Ok(())
    }

    /// Products with 32 classes, for as many as there are.
    fn chunks(k: usize) -> f64 {
        k.div_ceil(32) as f64
    }
}

impl HeadOps for Paper {
    fn plan_head(&mut self, _: HeadSpec) -> Result<usize> {
        Ok(0)
    }

    fn head_features(&mut self, a: Passed<HeadFeatures>) -> Result<()> {
        let (pixel, more) = (warps(20.0, 9.0, 4.0, 4.0), a.features.bytes() as f64);
        let pass = Pass { kernel: "head_features", pixel, more, again: 1.5, factor: 1.2 };
        self.walk(a.spec(), &a.input, pass)
    }

    fn head_assign(&mut self, a: Passed<HeadAssign>) -> Result<()> {
        let pixel = ASSIGN + SCORES * Self::chunks(a.classifier.k);
        let pass = Pass { kernel: "head_assign", pixel, more: 0.0, again: 1.5, factor: 1.2 };
        self.pass(a.spec(), &a.input, pass)
    }

    fn head_accumulate(&mut self, a: Passed<HeadAccumulate>) -> Result<()> {
        let pixel = SUM + SCORES * Self::chunks(a.classifier.k);
        let pass = Pass { kernel: "head_accumulate", pixel, more: 0.0, again: 1.8, factor: 1.3 };
        self.pass(a.spec(), &a.input, pass)?;
        self.launch(Launch::waits("head_sums", 6e-6))
    }

    fn head_loss(&mut self, a: Passed<HeadLoss>) -> Result<()> {
        self.launch(Launch::waits("head_weigh", 9e-6))?;
        self.launch(Launch::waits("head_shares", 5e-6))?;
        let chunks: f64 = a.targets.iter().map(|t| Self::chunks(t.classifier.k)).sum();
        let pixel = LOSS * chunks;
        let more = a.dlaterals[0].bytes() as f64;
        let pass = Pass { kernel: "head_loss", pixel, more, again: 1.5, factor: 1.12 };
        self.pass(a.spec(), &a.input, pass)?;
        self.launch(Launch::waits("head_losses", 4e-6))?;
        let warped = self.warped(a.spec(), a.input.crops);
        self.gradients(a.spec(), a.dlaterals, warped)
    }

    fn head_scores(&mut self, a: Passed<HeadScores>) -> Result<()> {
        let pixel = ASSIGN + SCORES * Self::chunks(a.classifier.k);
        let more = a.scores.bytes() as f64;
        let pass = Pass { kernel: "head_scores", pixel, more, again: 1.8, factor: 1.2 };
        self.pass(a.spec(), &a.input, pass)
    }

    fn head_scores_backward(&mut self, a: Passed<HeadScoresBackward>) -> Result<()> {
        let (chunks, dscores) = (Self::chunks(a.classifier.k), a.dscores.bytes() as f64);
        let pixel = WEIGHT * chunks;
        let pass =
            Pass { kernel: "head_scores_weight", pixel, more: dscores, again: 1.8, factor: 1.35 };
        self.pass(a.spec(), &a.input, pass)?;
        let Some(d) = a.dlaterals else { return Ok(()) };
        let pixel = BACKWARD * chunks;
        let more = dscores + d[0].bytes() as f64;
        let pass = Pass { kernel: "head_scores_backward", pixel, more, again: 1.8, factor: 1.2 };
        self.pass(a.spec(), &a.input, pass)?;
        let warped = self.warped(a.spec(), a.input.crops);
        self.gradients(a.spec(), d, warped)
    }

    fn head_predict(&mut self, a: Passed<HeadPredict>) -> Result<()> {
        let bytes = HeadPredict::work(&a, a.spec()).bytes;
        self.spend("head_predict", bytes / self.gpu.copy, "memory")
    }
}
