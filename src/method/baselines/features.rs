//! Features of pictures that nothing was trained for here: colours, and a network's.

use std::ops::Range;

use rayon::prelude::*;

use crate::base::Result;
use crate::data::lab::lab;
use crate::device::ops::{HeadFeatures, head_features};
use crate::device::{Act, Engine, Slot};
use crate::method::predict::Frames;
use crate::net::{FEATURES, Network, STRIDE};

/// The difference of the height feature between the top and the bottom of a picture; the lightness
/// L\* goes from 0 to 100.
const HEIGHT: f32 = 100.0;

/// A way to compute a feature vector for each pixel of a picture reduced by [`STRIDE`].
pub trait Features {
    /// The number d of features of a pixel.
    fn width(&self) -> usize;

    /// Features (n, `side`/4, `side`/4, d) of square pictures u8 (n, `side`, `side`, 3).
    fn of(&mut self, pictures: &[u8], side: usize) -> Result<Vec<f32>>;
}

/// Colours in CIE L\*a\*b\*, averaged over squares of [`STRIDE`]² pixels.
pub struct Lab {
    /// Whether a pixel's height in the picture is a fourth feature.
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

/// The features of a network's pyramid, normalised to length 1.
pub struct Pyramid<'a> {
    pub dev: &'a mut dyn Engine,
    pub net: &'a Network,
    /// Its programs, with batch norm folded.
    pub frames: &'a Frames,
    /// Memory for the features of a batch at the largest size that is asked for.
    pub room: Slot<Act>,
}

impl Features for Pyramid<'_> {
    fn width(&self) -> usize {
        FEATURES
    }

    fn of(&mut self, pictures: &[u8], side: usize) -> Result<Vec<f32>> {
        let (pixels, batch) = ((side / STRIDE).pow(2), self.frames.batch());
        let room = self.room.part(0, batch * pixels * FEATURES);
        let mut features = Vec::new();
        for pictures in pictures.chunks(batch * 3 * side * side) {
            let program = self.frames.forward(&mut *self.dev, self.net, pictures, side)?;
            let args = HeadFeatures { features: room, input: program.plain() };
            head_features(&mut *self.dev, &program.head, args)?;
            let n = pictures.len() / (3 * side * side);
            features.extend_from_slice(&self.dev.read_acts(room)?[..n * pixels * FEATURES]);
        }
        Ok(features)
    }
}

/// The outputs of a network's last two stages (layer3 and layer4 of a ResNet), side by side. Each
/// is normalised to length 1 and enlarged bilinearly to the size of a picture reduced by
/// [`STRIDE`].
pub struct Stages<'a> {
    pub dev: &'a mut dyn Engine,
    pub net: &'a Network,
    /// Its programs in [`Mode::Stages`](crate::net::Mode::Stages).
    pub frames: &'a Frames,
}

impl Stages<'_> {
    /// The numbers of the stages that are read, the finest first.
    fn levels(&self) -> Range<usize> {
        let levels = self.net.architecture.levels;
        levels.saturating_sub(2)..levels
    }
}

impl Features for Stages<'_> {
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
            let program = self.frames.forward(&mut *self.dev, self.net, pictures, side)?;
            let mut first = 0;
            for level in self.levels() {
                let channels = self.net.stage_channels(level);
                let mut output = self.dev.read_acts(program.stages[level])?;
                output.par_chunks_exact_mut(channels).for_each(normalise);
                let from = small >> level;
                let rows = features.par_chunks_exact_mut(small * d).enumerate();
                rows.for_each(|(row, out)| {
                    let len = from * from * channels;
                    let map = &output[row / small * len..][..len];
                    Enlarged { map, from, channels, to: small }.row(row % small, out, first);
                });
                first += channels;
            }
        }
        Ok(features)
    }
}

/// v = v/max(‖v‖, 1e-12), as in torch's `F.normalize`.
fn normalise(v: &mut [f32]) {
    let norm = v.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    v.iter_mut().for_each(|v| *v /= norm);
}

/// A square map that is enlarged bilinearly, as torch's `interpolate` does without `align_corners`.
struct Enlarged<'a> {
    /// (from, from, channels), the values.
    map: &'a [f32],
    /// Side of the map.
    from: usize,
    channels: usize,
    /// Side of the enlarged map.
    to: usize,
}

impl Enlarged<'_> {
    /// The two samples around pixel `i` of the enlarged map, along one axis of the map, and the
    /// weight of the second.
    fn tap(&self, i: usize) -> (usize, usize, f32) {
        let at = ((i as f32 + 0.5) * self.from as f32 / self.to as f32 - 0.5).max(0.0);
        let lo = (at as usize).min(self.from - 1);
        (lo, (lo + 1).min(self.from - 1), at - lo as f32)
    }

    /// Computes row `y` of the enlarged map. Writes it to the channels from `first` on of `out`
    /// (to, d).
    fn row(&self, y: usize, out: &mut [f32], first: usize) {
        let Enlarged { map, from, channels, to } = *self;
        let (top, bottom, v) = self.tap(y);
        let at = |row: usize, column: usize| &map[(row * from + column) * channels..][..channels];
        let d = out.len() / to;
        for (x, out) in out.chunks_exact_mut(d).enumerate() {
            let (left, right, u) = self.tap(x);
            let (a, b, c, e) = (at(top, left), at(top, right), at(bottom, left), at(bottom, right));
            for (i, out) in out[first..][..channels].iter_mut().enumerate() {
                let (upper, lower) = (a[i] + u * (b[i] - a[i]), c[i] + u * (e[i] - c[i]));
                *out = upper + v * (lower - upper);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_averaged_and_heights_go_down() {
        // 8 × 8 pixels: the upper half is black, the lower left white, and the lower right white
        // and black in turn.
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
        // The values of F.interpolate of [[0, 1], [2, 3]] to 4 × 4 with align_corners = False.
        // Other channels stay.
        let want = [
            [0.0, 0.25, 0.75, 1.0],
            [0.5, 0.75, 1.25, 1.5],
            [1.5, 1.75, 2.25, 2.5],
            [2.0, 2.25, 2.75, 3.0],
        ];
        let map = &[0.0, 0.0, 1.0, 10.0, 2.0, 20.0, 3.0, 30.0];
        let enlarged = Enlarged { map, from: 2, channels: 2, to: 4 };
        for (y, want) in want.iter().enumerate() {
            let mut out = [7.0; 4 * 4];
            enlarged.row(y, &mut out, 1);
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
