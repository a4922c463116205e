//! What trains nothing: k-means of the pixels' colours, of a random network's features, of an ImageNet network's.

use rayon::prelude::*;

use crate::base::Result;
use crate::base::rng::{Rng, Stream};
use crate::cluster::lloyd::Lloyd;
use crate::data::ImageStore;
use crate::data::lab::lab;
use crate::device::cpu::Cpu;
use crate::device::ops::{Backend, Classifier, Head, HeadInput, HeadSpec, KMeans, Memory, Merge, Metric};
use crate::device::{Activation, Layout, Pool, Slot};
use crate::method::predict::{Frames, Predictor, each_batch};
use crate::method::{STRIDE, Tick};
use crate::net::{FEATURES, Network};

/// Points that k-means is fitted on, drawn from all pictures alike.
const POINTS: usize = 80_000;
/// The distance in features between the top and the bottom of a picture, beside L\* from 0 to 100.
const HEIGHT: f32 = 100.0;

/// A feature vector for each pixel of a picture a [`STRIDE`]th as large.
pub trait Features {
    /// d, the length of a vector.
    fn width(&self) -> usize;

    /// Features (n, `side`/4, `side`/4, d) of square pictures u8 (n, `side`, `side`, 3).
    fn of(&mut self, pictures: &[u8], side: usize) -> Result<Vec<f32>>;
}

/// Colours, averaged over squares of [`STRIDE`]² pixels.
pub struct Lab {
    /// Whether how far down a pixel is counts too.
    pub height: bool,
}

impl Features for Lab {
    fn width(&self) -> usize {
        if self.height { 4 } else { 3 }
    }

    fn of(&mut self, pictures: &[u8], side: usize) -> Result<Vec<f32>> {
        let (d, small) = (self.width(), side / STRIDE);
        let mut features = vec![0.0; pictures.len() / (3 * STRIDE * STRIDE) * d];
        let rows = features.par_chunks_exact_mut(small * d).zip(pictures.par_chunks_exact(3 * side * STRIDE));
        rows.enumerate().for_each(|(y, (row, strip))| {
            for (i, &rgb) in strip.as_chunks::<3>().0.iter().enumerate() {
                let feature = &mut row[i % side / STRIDE * d..][..d];
                feature.iter_mut().zip(lab(rgb)).for_each(|(f, v)| *f += v / (STRIDE * STRIDE) as f32);
            }
            if self.height {
                let height = HEIGHT * ((y % small) as f32 + 0.5) / small as f32;
                row.chunks_exact_mut(d).for_each(|feature| feature[3] = height);
            }
        });
        Ok(features)
    }
}

/// The unit features of a network's pyramid.
pub struct Pyramid<'a, B: Backend> {
    pub dev: &'a mut B,
    pub net: &'a Network<B>,
    pub frames: &'a Frames<B>,
    /// Room for a batch of the largest size that is asked for.
    pub room: Slot<f32>,
}

impl<B: Backend> Features for Pyramid<'_, B> {
    fn width(&self) -> usize {
        FEATURES
    }

    fn of(&mut self, pictures: &[u8], side: usize) -> Result<Vec<f32>> {
        let (pixels, batch) = ((side / STRIDE).pow(2), self.frames.batch());
        let room = self.room.part(0, batch * pixels * FEATURES);
        let mut features = Vec::new();
        for pictures in pictures.chunks(batch * 3 * side * side) {
            let program = self.frames.forward(self.dev, self.net, pictures, side)?;
            self.dev.head_features(&program.head, room, program.plain())?;
            let n = pictures.len() / (3 * side * side);
            features.extend_from_slice(&self.dev.read(room)?[..n * pixels * FEATURES]);
        }
        Ok(features)
    }
}

/// Clusters by k-means of features, one clustering for each seed.
pub struct Clustered<'a> {
    features: &'a mut dyn Features,
    cpu: Cpu,
    batch: usize,
    /// By side of the pictures.
    heads: Vec<(usize, HeadSpec)>,
    map: Slot<f32>,
    pred: Slot<u16>,
    classifiers: Vec<Classifier>,
}

impl<'a> Clustered<'a> {
    /// Fits `k` clusters to the pictures of `train`, for predictions of pictures of `sides` in batches of `batch`. Errors: fewer points
    /// than clusters.
    pub fn fit(
        features: &'a mut dyn Features,
        train: &ImageStore,
        (k, seeds): (usize, &[u64]),
        (batch, sides): (usize, &[usize]),
        tick: Tick,
    ) -> Result<Self> {
        let d = features.width();
        let points = sample(features, train, batch, tick)?;
        let mut lloyd = Lloyd::new(&points, d, k)?;
        let centroids = seeds.iter().map(|&seed| Ok(lloyd.fit(seed)?.0)).collect::<Result<Vec<_>>>()?;

        let (mut cpu, mut layout) = (Cpu::new(), Layout::default());
        let mut heads = Vec::new();
        for &side in sides {
            let (h, w) = (side / STRIDE, side / STRIDE);
            let spec = HeadSpec { n: batch, h, w, d, k, merge: Merge::Direct, levels: 1, unit: false };
            heads.push((side, cpu.plan_head(spec)?));
        }
        let largest = sides.iter().max().copied().unwrap_or(0);
        let map = layout.take(Pool::State, "features", batch * (largest / STRIDE).pow(2) * d);
        let pred = layout.take(Pool::State, "predictions", batch * largest * largest);
        let mut state = |name: &str, len: usize| layout.take(Pool::State, name, len);
        let slots: Vec<_> =
            centroids.iter().map(|_| (state("centroids", k * d), state("w", k * d), state("b", k))).collect();
        cpu.reserve(&layout)?;
        let mut classifiers = Vec::new();
        for (values, (centroids, w, b)) in centroids.iter().zip(slots) {
            cpu.write(centroids, values)?;
            let classifier = Classifier { w, b, k };
            cpu.kmeans_classifier(classifier, centroids, Metric::L2)?;
            classifiers.push(classifier);
        }
        Ok(Clustered { features, cpu, batch, heads, map, pred, classifiers })
    }
}

/// Features of about [`POINTS`] pixels, as many of each picture, the same in every run.
fn sample(features: &mut dyn Features, set: &ImageStore, batch: usize, tick: Tick) -> Result<Vec<f32>> {
    let (d, pixels) = (features.width(), (set.size() / STRIDE).pow(2));
    let each = POINTS.div_ceil(set.len()).min(pixels);
    let mut points = Vec::with_capacity(set.len() * each * d);
    each_batch(set, batch, |ids, pictures, side| {
        let map = features.of(pictures, side)?;
        for (&id, map) in ids.iter().zip(map.chunks_exact(pixels * d)) {
            let mut rng = Rng::new(1, Stream::Other, id, 0);
            let chosen = if each < pixels { rng.choose(pixels, each) } else { (0..pixels as u32).collect() };
            chosen.iter().for_each(|&at| points.extend_from_slice(&map[at as usize * d..][..d]));
        }
        tick(ids.len())
    })?;
    Ok(points)
}

impl Predictor for Clustered<'_> {
    fn predict(&mut self, pictures: &[u8], side: usize, out: usize) -> Result<Vec<Vec<u16>>> {
        let Clustered { features, cpu, batch, heads, map, pred, classifiers } = self;
        let (_, spec) = heads.iter().find(|(s, _)| *s == side).expect("every side was planned");
        let (map, pred) = (map.part(0, spec.lateral_len(0)), pred.part(0, *batch * out * out));
        let input = HeadInput { laterals: [map, Slot::empty(), Slot::empty(), Slot::empty()], crops: None };
        let mut maps = vec![Vec::new(); classifiers.len()];
        for pictures in pictures.chunks(*batch * 3 * side * side) {
            cpu.write(map, &features.of(pictures, side)?)?;
            for (maps, &classifier) in maps.iter_mut().zip(&*classifiers) {
                cpu.head_predict(spec, pred, (out, out), input, classifier)?;
                maps.extend_from_slice(&cpu.read(pred)?[..pictures.len() / (3 * side * side) * out * out]);
            }
        }
        Ok(maps)
    }
}
