//! What trains nothing: k-means of the pixels' colours, of a random network's features, of an
//! ImageNet network's.

use std::ops::Range;

use rayon::prelude::*;

use crate::base::rng::{Rng, Stream};
use crate::base::{Result, stop};
use crate::cluster::lloyd::Lloyd;
use crate::data::ImageStore;
use crate::data::lab::lab;
use crate::device::cpu::Cpu;
use crate::device::ops::{
    Backend, Classifier, Head, HeadInput, HeadSpec, KMeans, Memory, Merge, Metric,
};
use crate::device::{Activation, Layout, Pool, Slot};
use crate::method::laterals::{Components, IMAGES};
use crate::method::predict::{Frames, Predictor, each_batch};
use crate::method::{STRIDE, Tick};
use crate::net::weights::Weights;
use crate::net::{FEATURES, Network};

/// Points that k-means is fitted on, drawn from all pictures alike.
const POINTS: usize = 80_000;
/// The distance in features between the top and the bottom of a picture, beside L\* from 0 to 100.
const HEIGHT: f32 = 100.0;

/// Batches that running statistics of a random network are taken from: each moves them by a tenth.
const SETTLING: usize = 32;

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
        let rows = features
            .par_chunks_exact_mut(small * d)
            .zip(pictures.par_chunks_exact(3 * side * STRIDE));
        rows.enumerate().for_each(|(y, (row, strip))| {
            for (i, &rgb) in strip.as_chunks::<3>().0.iter().enumerate() {
                let feature = &mut row[i % side / STRIDE * d..][..d];
                feature
                    .iter_mut()
                    .zip(lab(rgb))
                    .for_each(|(f, v)| *f += v / (STRIDE * STRIDE) as f32);
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

/// The outputs of a network's last two stages (layer3 and layer4 of a ResNet), each divided by its
/// norm and enlarged bilinearly to a [`STRIDE`]th of the picture, side by side.
pub struct Stages<'a, B: Backend> {
    pub dev: &'a mut B,
    pub net: &'a Network<B>,
    /// In [`Mode::Stages`](crate::net::Mode::Stages).
    pub frames: &'a Frames<B>,
}

impl<B: Backend> Stages<'_, B> {
    /// Stages that are read, the finest first.
    fn levels(&self) -> Range<usize> {
        let levels = self.net.architecture.levels;
        levels.saturating_sub(2)..levels
    }
}

impl<B: Backend> Features for Stages<'_, B> {
    fn width(&self) -> usize {
        self.levels().map(|level| self.net.stage_channels(level)).sum()
    }

    fn of(&mut self, pictures: &[u8], side: usize) -> Result<Vec<f32>> {
        let (small, d, picture) = (side / STRIDE, self.width(), 3 * side * side);
        let mut features = vec![0.0; pictures.len() / picture * small * small * d];
        let batch = self.frames.batch();
        for (pictures, features) in
            pictures.chunks(batch * picture).zip(features.chunks_mut(batch * small * small * d))
        {
            let program = self.frames.forward(self.dev, self.net, pictures, side)?;
            let mut first = 0;
            for level in self.levels() {
                let channels = self.net.stage_channels(level);
                let output = self.dev.read(program.stages[level])?;
                let mut output: Vec<f32> = output.into_iter().map(Activation::widen).collect();
                output.par_chunks_exact_mut(channels).for_each(normalise);
                let from = small >> level;
                let rows = features.par_chunks_exact_mut(small * d).enumerate();
                rows.for_each(|(row, out)| {
                    let image =
                        &output[row / small * from * from * channels..][..from * from * channels];
                    enlarge_row(out, (first, d), image, (from, channels), row % small, small);
                });
                first += channels;
            }
        }
        Ok(features)
    }
}

/// v = v/max(‖v‖, 1e-12), as torch's `F.normalize`.
fn normalise(v: &mut [f32]) {
    let norm = v.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    v.iter_mut().for_each(|v| *v /= norm);
}

/// Row `y` of a map (`from`, `from`, `channels`) enlarged bilinearly to (`to`, `to`), as torch's
/// `interpolate` without `align_corners`: into channels `first`.. of `out` (`to`, `d`).
fn enlarge_row(
    out: &mut [f32],
    (first, d): (usize, usize),
    map: &[f32],
    (from, channels): (usize, usize),
    y: usize,
    to: usize,
) {
    // The two samples around a point of the small map, and the weight of the second.
    let tap = |i: usize| {
        let at = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).max(0.0);
        let lo = (at as usize).min(from - 1);
        (lo, (lo + 1).min(from - 1), at - lo as f32)
    };
    let (top, bottom, v) = tap(y);
    for (x, out) in out.chunks_exact_mut(d).enumerate() {
        let (left, right, u) = tap(x);
        let at = |row: usize, column: usize| &map[(row * from + column) * channels..][..channels];
        let (a, b, c, e) = (at(top, left), at(top, right), at(bottom, left), at(bottom, right));
        for (i, out) in out[first..][..channels].iter_mut().enumerate() {
            let (upper, lower) = (a[i] + u * (b[i] - a[i]), c[i] + u * (e[i] - c[i]));
            *out = upper + v * (lower - upper);
        }
    }
}

/// Sets the running statistics of a random network to those of the pictures, as training sets them:
/// without them activations would be of any size. `frames` in
/// [`Mode::Batch`](crate::net::Mode::Batch).
pub fn settle<B: Backend>(
    dev: &mut B,
    net: &Network<B>,
    frames: &Frames<B>,
    set: &ImageStore,
) -> Result<()> {
    let mut pictures = vec![0; frames.batch() * 3 * set.size() * set.size()];
    for batch in 0..SETTLING {
        stop::check()?;
        // NOTE: whole batches, whatever the number of pictures: what fills up a batch would count.
        let ids: Vec<u32> = (0..frames.batch())
            .map(|i| ((batch * frames.batch() + i) % set.len()) as u32)
            .collect();
        set.gather(&ids, &mut pictures)?;
        frames.forward(dev, net, &pictures, set.size())?;
    }
    Ok(())
}

/// Laterals of the principal components of the first pictures, as training has them. `frames` in
/// [`Mode::Stages`](crate::net::Mode::Stages).
pub fn pca<B: Backend>(
    dev: &mut B,
    net: &Network<B>,
    frames: &Frames<B>,
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

/// What [`Clustered::fit`] fits, and for which predictions.
pub struct Fitting<'a> {
    /// Clusters to find.
    pub k: usize,
    /// A clustering is made for each of these seeds.
    pub seeds: &'a [u64],
    /// Pictures of a batch.
    pub batch: usize,
    /// Sides of the pictures that predictions will be asked for.
    pub sides: &'a [usize],
}

impl<'a> Clustered<'a> {
    /// Fits clusters to the pictures of `train`. Errors: fewer points than clusters.
    pub fn fit(
        features: &'a mut dyn Features,
        train: &ImageStore,
        fitting: &Fitting,
        tick: Tick,
    ) -> Result<Self> {
        let &Fitting { k, seeds, batch, sides } = fitting;
        let d = features.width();
        let points = sample(features, train, batch, tick)?;
        let mut lloyd = Lloyd::new(&points, d, k)?;
        let centroids =
            seeds.iter().map(|&seed| Ok(lloyd.fit(seed)?.0)).collect::<Result<Vec<_>>>()?;

        let (mut cpu, mut layout) = (Cpu::new(), Layout::default());
        let mut heads = Vec::new();
        for &side in sides {
            let (h, w) = (side / STRIDE, side / STRIDE);
            let spec =
                HeadSpec { n: batch, h, w, d, k, merge: Merge::Direct, levels: 1, unit: false };
            heads.push((side, cpu.plan_head(spec)?));
        }
        let largest = sides.iter().max().copied().unwrap_or(0);
        let map = layout.take(Pool::State, "features", batch * (largest / STRIDE).pow(2) * d);
        let pred = layout.take(Pool::State, "predictions", batch * largest * largest);
        let mut state = |name: &str, len: usize| layout.take(Pool::State, name, len);
        let slots: Vec<_> = centroids
            .iter()
            .map(|_| (state("centroids", k * d), state("w", k * d), state("b", k)))
            .collect();
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
    fn predict(&mut self, pictures: &[u8], side: usize, out: usize) -> Result<Vec<Vec<u16>>> {
        let Clustered { features, cpu, batch, heads, map, pred, classifiers } = self;
        let (_, spec) = heads.iter().find(|(s, _)| *s == side).expect("every side was planned");
        let (map, pred) = (map.part(0, spec.lateral_len(0)), pred.part(0, *batch * out * out));
        let input =
            HeadInput { laterals: [map, Slot::empty(), Slot::empty(), Slot::empty()], crops: None };
        let mut maps = vec![Vec::new(); classifiers.len()];
        for pictures in pictures.chunks(*batch * 3 * side * side) {
            cpu.write(map, &features.of(pictures, side)?)?;
            for (maps, &classifier) in maps.iter_mut().zip(&*classifiers) {
                cpu.head_predict(spec, pred, (out, out), input, classifier)?;
                maps.extend_from_slice(
                    &cpu.read(pred)?[..pictures.len() / (3 * side * side) * out * out],
                );
            }
        }
        Ok(maps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_averaged_and_heights_go_down() {
        // 8 × 8 pixels: the upper half black, the lower left white, the lower right white and black
        // in turn.
        let pixel = |i: usize| i / 8 >= 4 && (i % 8 < 4 || i.is_multiple_of(2));
        let picture: Vec<u8> = (0..64).flat_map(|i| [if pixel(i) { 255 } else { 0 }; 3]).collect();
        let mut features = Lab { height: true };
        let got = features.of(&[&picture[..], &picture[..]].concat(), 8).unwrap();
        let want = [[0.0, 25.0], [0.0, 25.0], [100.0, 75.0], [50.0, 75.0]];
        assert_eq!(got.len(), 2 * 4 * 4);
        for (got, want) in got.chunks_exact(4).zip(want.iter().cycle()) {
            assert!(
                (got[0] - want[0]).abs() <= 0.01 && got[3] == want[1],
                "{got:?}, wanted {want:?}"
            );
        }
        let plain = Lab { height: false }.of(&picture, 8).unwrap();
        assert_eq!(plain.chunks_exact(3).nth(2), Some(&got[8..11]));
    }

    #[test]
    fn maps_are_enlarged_as_torch_does() {
        // F.interpolate of [[0, 1], [2, 3]] to 4 × 4, align_corners = False; beside channels that
        // stay.
        let want = [
            [0.0, 0.25, 0.75, 1.0],
            [0.5, 0.75, 1.25, 1.5],
            [1.5, 1.75, 2.25, 2.5],
            [2.0, 2.25, 2.75, 3.0],
        ];
        let map = [0.0, 0.0, 1.0, 10.0, 2.0, 20.0, 3.0, 30.0];
        for (y, want) in want.iter().enumerate() {
            let mut out = [7.0; 4 * 4];
            enlarge_row(&mut out, (1, 4), &map, (2, 2), y, 4);
            for (out, want) in out.chunks_exact(4).zip(want) {
                assert_eq!(out, [7.0, *want, 10.0 * want, 7.0]);
            }
        }
    }

    #[test]
    fn vectors_are_divided_by_their_norm_and_zero_stays() {
        let (mut v, mut zero) = ([3.0, -4.0], [0.0; 2]);
        normalise(&mut v);
        normalise(&mut zero);
        assert_eq!((v, zero), ([0.6, -0.8], [0.0; 2]));
    }
}
