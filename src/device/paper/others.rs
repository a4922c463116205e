//! Ops that take little of an epoch, or none of PiCIE's: their bytes, or what was counted of their
//! loops.

use crate::base::Result;
use crate::device::ops::adam::AdamOps;
use crate::device::ops::confusion::ConfusionOps;
use crate::device::ops::iic::IicOps;
use crate::device::ops::kmeans::KMeansOps;
use crate::device::ops::softmax::SoftmaxOps;
use crate::device::ops::top::TopOps;
use crate::device::ops::{
    AdamStep, AdamSync, ConfusionCount, IicLoss, IicSpec, KMeansAccumulate, KMeansClassifier,
    KMeansMean, KMeansSpec, KMeansStep, Op, Passed, SoftmaxBackward, SoftmaxForward, SoftmaxLoss,
    SoftmaxSpec, TopSpec, TopUpdate,
};
use crate::device::paper::Paper;
use crate::device::paper::launch::{Launch, Warps};
use crate::device::paper::norm::warps;

/// FLOP/s of multiply-adds in f32, outside of tensor cores.
const F32: f64 = 60e12;

impl Paper {
    /// An op whose kernels were not looked at: the larger of its bytes and its products in f32.
    fn rough<O: Op>(&mut self, a: &Passed<O>) -> Result<()> {
        let work = O::work(a, a.spec());
        let (memory, products) = (work.bytes / self.gpu.copy, work.flops / F32);
        let bound = if memory > products { "memory" } else { "FMA" };
        self.spend(O::NAME, memory.max(products), bound)
    }
}

impl AdamOps for Paper {
    fn adam_step(&mut self, a: Passed<AdamStep>) -> Result<()> {
        let bytes = AdamStep::work(&a, a.spec()).bytes;
        let instructions = warps(262.0, 99.7, 63.0, 18.4) * (a.blocks.weights.len as f64 / 128.0);
        self.launch(Launch { l2: 0.0, ..Launch::streams("adam_step", instructions, bytes) })
    }

    fn adam_sync(&mut self, a: Passed<AdamSync>) -> Result<()> {
        self.rough(&a)
    }
}

impl KMeansOps for Paper {
    fn plan_kmeans(&mut self, _: KMeansSpec) -> Result<usize> {
        Ok(0)
    }

    fn kmeans_classifier(&mut self, _: Passed<KMeansClassifier>) -> Result<()> {
        self.launch(Launch::waits("kmeans_classifier", 4e-6))
    }

    fn kmeans_accumulate(&mut self, a: Passed<KMeansAccumulate>) -> Result<()> {
        let chunks = a.classifier.k.div_ceil(32) as f64;
        let tiles = (a.points.len / a.spec().d).div_ceil(64) as f64;
        let tile = TILE + SCORES * chunks;
        let launch = Launch::streams("kmeans_accumulate", tile * tiles, a.points.bytes() as f64);
        self.launch(Launch { l2: 0.0, factor: 1.15, latency: 0.0, ..launch })?;
        self.launch(Launch::waits("head_sums", 6e-6))
    }

    fn kmeans_mean(&mut self, _: Passed<KMeansMean>) -> Result<()> {
        self.launch(Launch::waits("kmeans_mean", 4e-6))?;
        self.launch(Launch::waits("kmeans_split", 6e-6))
    }

    fn kmeans_step(&mut self, _: Passed<KMeansStep>) -> Result<()> {
        self.launch(Launch::waits("kmeans_step", 4e-6))
    }
}

impl ConfusionOps for Paper {
    fn confusion_count(&mut self, a: Passed<ConfusionCount>) -> Result<()> {
        self.rough(&a)
    }
}

impl IicOps for Paper {
    fn plan_iic(&mut self, _: IicSpec) -> Result<usize> {
        Ok(0)
    }

    /// Warps of `iic_lags` and `iic_grad` take a lag of a pair of rows of 32 columns at once; pairs
    /// with a column at the border go to the f32 units, a few warps a multiprocessor. The times of
    /// mixing and of the joint matrices are guesses.
    fn iic_loss(&mut self, a: Passed<IicLoss>) -> Result<()> {
        let IicSpec { n, w, k, .. } = *a.spec();
        let [y, x] = a.spec().axes()?;
        let at_once = (n * y.count() * w.div_ceil(32) * x.lags()) as f64;
        // Tiles of 16 classes.
        let t = k.div_ceil(16) as f64;
        let lags = IIC_STEP + IIC_LAGS * t + IIC_TILES * (t * t);
        let grad = IIC_MATRIX + IIC_GRAD * t + IIC_BOTH * (t * t);
        let busy =
            |kernel, warps, bytes| Launch { factor: 1.3, ..Launch::streams(kernel, warps, bytes) };
        let maps = a.maps.bytes() as f64;
        self.launch(busy("iic_lags", lags * at_once, maps))?;
        let border = 2.0 * x.lags() as f64 / x.count() as f64 * a.spec().flops() / F32;
        self.launch(Launch::waits("iic_lags_edge", 2.0 * border / 3.0))?;
        self.launch(Launch::waits("iic_mix", 30e-6))?;
        self.launch(Launch::waits("iic_mutual", 15e-6))?;
        self.launch(busy("iic_grad", grad * (2.0 * at_once), 2.0 * maps))?;
        self.launch(Launch::waits("iic_grad_edge", 4.0 * border / 3.0))
    }
}

impl SoftmaxOps for Paper {
    fn plan_softmax(&mut self, _: SoftmaxSpec) -> Result<usize> {
        Ok(0)
    }

    fn softmax_forward(&mut self, a: Passed<SoftmaxForward>) -> Result<()> {
        self.rough(&a)
    }

    fn softmax_backward(&mut self, a: Passed<SoftmaxBackward>) -> Result<()> {
        self.rough(&a)
    }

    fn softmax_loss(&mut self, a: Passed<SoftmaxLoss>) -> Result<()> {
        self.rough(&a)
    }
}

impl TopOps for Paper {
    fn plan_top(&mut self, _: TopSpec) -> Result<usize> {
        Ok(0)
    }

    fn top_update(&mut self, a: Passed<TopUpdate>) -> Result<()> {
        self.rough(&a)
    }
}

/// What a step of IIC's correlations costs: loading, and then by tiles of 16 classes and by pairs
/// of them.
const IIC_STEP: Warps = warps(170.0, 80.0, 10.0, 40.0);
const IIC_LAGS: Warps = warps(8.0, 2.0, 0.0, 16.0);
const IIC_TILES: Warps = Warps { mma: 12.0, ..warps(24.0, 0.0, 8.0, 16.0) };
/// The same of their gradient: a matrix, and its products with two tiles of pixels.
const IIC_MATRIX: Warps = warps(150.0, 70.0, 10.0, 43.0);
const IIC_GRAD: Warps = warps(20.0, 0.0, 16.0, 16.0);
const IIC_BOTH: Warps = Warps { mma: 12.0, ..warps(14.0, 0.0, 0.0, 8.0) };

/// What a tile of 64 points costs, and the scores of 32 classes of it.
const TILE: Warps = Warps { mma: 128.0, ..warps(1400.0, 480.0, 340.0, 300.0) };
const SCORES: Warps = Warps { mma: 256.0, ..warps(1070.0, 450.0, 90.0, 660.0) };
