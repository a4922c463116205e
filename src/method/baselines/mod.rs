//! Baselines that train nothing: k-means of the pixels' colours, of a random network's features,
//! and of the features of a network trained on ImageNet.

mod features;

pub use features::{Features, Lab, Pyramid, Stages};

use crate::base::rng::{Rng, Stream};
use crate::base::{BySize, Result, stop};
use crate::cluster::lloyd::Lloyd;
use crate::data::ImageStore;
use crate::device::cpu::Cpu;
use crate::device::ops::{
    Classifier, HeadInput, HeadPredict, HeadSpec, KMeansClassifier, Merge, Metric, Plan,
    head_predict, kmeans_classifier, plan_head,
};
use crate::device::{Act, Dtype, Engine, Layout, Pool, Slot};
use crate::method::Tick;
use crate::method::laterals::{Components, IMAGES};
use crate::method::predict::{Frames, FramesShape, Predictor, each_batch};
use crate::net::weights::Weights;
use crate::net::{Network, STRIDE};

/// Approximate number of points that k-means is fitted on, as many from each picture.
const POINTS: usize = 80_000;
/// Number of batches from which the running statistics of a random network are taken. Each moves
/// them by a tenth.
const SETTLING: usize = 32;

/// Sets the running statistics of a random network to those of the pictures, as training would.
/// Without this its activations could have any magnitude. `frames` are in
/// [`Mode::Batch`](crate::net::Mode::Batch).
pub fn settle(
    dev: &mut dyn Engine,
    net: &Network,
    frames: &Frames,
    set: &ImageStore,
) -> Result<()> {
    let mut pictures = vec![0; frames.batch() * 3 * set.size() * set.size()];
    for batch in 0..SETTLING {
        stop::check()?;
        // NOTE: every batch is full, even with few pictures, because the rest of a batch that is
        // not would count in the statistics.
        let ids: Vec<u32> = (0..frames.batch())
            .map(|i| ((batch * frames.batch() + i) % set.len()) as u32)
            .collect();
        set.gather(&ids, &mut pictures)?;
        frames.forward(dev, net, &pictures, set.size())?;
    }
    Ok(())
}

/// Computes laterals by principal components of the first pictures, as for training. `frames` are
/// in [`Mode::Stages`](crate::net::Mode::Stages).
pub fn pca(
    dev: &mut dyn Engine,
    net: &Network,
    frames: &Frames,
    set: &ImageStore,
) -> Result<Weights> {
    let mut components = Components::default();
    let mut seen = 0;
    each_batch(set, frames.batch(), |ids, pictures, side| {
        if seen < IMAGES {
            let program = frames.forward(dev, net, pictures, side)?;
            components.add(dev, net, program, ids.len())?;
        }
        seen += ids.len();
        stop::check()
    })?;
    Ok(components.laterals(net))
}

/// A predictor that assigns pixels to the nearest centroid of their features, with one clustering
/// for each seed.
pub struct Clustered<'a> {
    features: &'a mut dyn Features,
    cpu: Box<dyn Engine>,
    batch: usize,
    /// The plan of the head, by side of the pictures.
    heads: BySize<Plan<HeadSpec>>,
    /// (batch, side/4, side/4, d), features.
    map: Slot<Act>,
    /// (batch, side, side), predicted clusters.
    pred: Slot<u16>,
    /// The centroids of each seed's clustering as a classifier.
    classifiers: Vec<Classifier>,
}

impl<'a> Clustered<'a> {
    /// Fits `k` clusters to the pictures of `train`, once for each of `seeds`, and plans
    /// predictions for pictures of `shape`. Fails if there are fewer points than clusters.
    pub fn fit(
        features: &'a mut dyn Features,
        train: &ImageStore,
        k: usize,
        seeds: &[u64],
        shape: FramesShape,
        tick: Tick,
    ) -> Result<Self> {
        let (d, n) = (features.width(), shape.batch);
        let points = sample(features, train, n, tick)?;
        let mut lloyd = Lloyd::new(&points, d, k)?;
        let centroids =
            seeds.iter().map(|&seed| Ok(lloyd.fit(seed)?.centroids)).collect::<Result<Vec<_>>>()?;

        let mut cpu: Box<dyn Engine> = Box::new(Cpu::new());
        let mut layout = Layout::new(Dtype::F32);
        let heads = BySize::plan(shape.sides.iter().copied(), |side| {
            let (h, w, merge) = (side / STRIDE, side / STRIDE, Merge::Direct);
            plan_head(&mut *cpu, HeadSpec { n, h, w, d, k, merge, levels: 1, unit: false })
        })?;
        let largest = shape.largest();
        let map = n * (largest / STRIDE).pow(2) * d;
        let map = layout.acts(Pool::State, "features", map);
        let pred = layout.take(Pool::State, "predictions", n * largest * largest);
        let mut state = |name: &str, len: usize| layout.take(Pool::State, name, len);
        let slots: Vec<_> = centroids
            .iter()
            .map(|_| (state("centroids", k * d), state("w", k * d), state("b", k)))
            .collect();
        cpu.reserve(&layout)?;
        let mut classifiers = Vec::new();
        for (values, (centroids, w, b)) in centroids.iter().zip(slots) {
            cpu.write(centroids, values)?;
            let (classifier, metric) = (Classifier { w, b, k }, Metric::L2);
            kmeans_classifier(&mut *cpu, KMeansClassifier { classifier, centroids, metric })?;
            classifiers.push(classifier);
        }
        Ok(Clustered { features, cpu, batch: n, heads, map, pred, classifiers })
    }
}

/// The features (.., d) of about [`POINTS`] pixels, as many from each picture. They are the same in
/// every run.
fn sample(
    features: &mut dyn Features,
    set: &ImageStore,
    batch: usize,
    tick: Tick,
) -> Result<Vec<f32>> {
    let (d, pixels) = (features.width(), (set.size() / STRIDE).pow(2));
    let each = POINTS.div_ceil(set.len()).min(pixels);
    let mut points = Vec::with_capacity(set.len() * each * d);
    each_batch(set, batch, |ids, pictures, side| {
        let map = features.of(pictures, side)?;
        for (&id, map) in ids.iter().zip(map.chunks_exact(pixels * d)) {
            let mut rng = Rng::new(1, Stream::Other, id, 0);
            let chosen =
                if each < pixels { rng.choose(pixels, each) } else { (0..pixels as u32).collect() };
            chosen.iter().for_each(|&at| points.extend_from_slice(&map[at as usize * d..][..d]));
        }
        tick(ids.len())
    })?;
    Ok(points)
}

impl Predictor for Clustered<'_> {
    fn clusters(&self) -> usize {
        self.classifiers[0].k
    }

    fn predict(&mut self, pictures: &[u8], side: usize, out: usize) -> Result<Vec<Vec<u16>>> {
        let Clustered { features, cpu, batch, heads, map, pred, classifiers } = self;
        let head = heads.of(side);
        let map = map.part(0, head.spec.lateral_len(0));
        let pred = pred.part(0, *batch * out * out);
        let laterals = [map, Slot::empty(), Slot::empty(), Slot::empty()];
        let input = HeadInput { laterals, crops: None };
        let mut maps = vec![Vec::new(); classifiers.len()];
        for pictures in pictures.chunks(*batch * 3 * side * side) {
            cpu.write_acts(map, &features.of(pictures, side)?)?;
            for (maps, &classifier) in maps.iter_mut().zip(&*classifiers) {
                let (height, width) = (out, out);
                let args = HeadPredict { pred, height, width, input, classifier };
                head_predict(&mut **cpu, head, args)?;
                let n = pictures.len() / (3 * side * side);
                maps.extend_from_slice(&cpu.read(pred)?[..n * out * out]);
            }
        }
        Ok(maps)
    }
}
