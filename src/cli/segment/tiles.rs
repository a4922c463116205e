//! Overlapping tiles of a picture, so that the memory of the network does not grow with its input.

use std::iter::zip;

use crate::cli::segment::photo::Input;
use crate::net::STRIDE;

/// The unit of places and sizes of tiles: one pixel of the network's smallest map.
const UNIT: usize = 32;

/// The input of the network that a picture of this size is cut into, where sides have at most
/// `most` pixels.
pub fn tile(input: Input, most: usize) -> Input {
    Input { h: input.h.min(most), w: input.w.min(most) }
}

/// The size of the map of scores of an input.
pub fn map(input: Input) -> Input {
    Input { h: input.h / STRIDE, w: input.w / STRIDE }
}

/// Where tiles of `side` pixels begin in a line of `len`: as few as overlap by a quarter, or a
/// little less because of rounding.
fn starts(len: usize, side: usize) -> Vec<usize> {
    let (rest, step) = (len - side, (side * 3 / 4 / UNIT).max(1) * UNIT);
    let more = rest.div_ceil(step);
    (0..=more).map(|i| (rest * i).checked_div(more).unwrap_or(0) / UNIT * UNIT).collect()
}

/// The upper left corners, row and column, of the tiles of a picture.
pub fn corners(input: Input, tile: Input) -> Vec<(usize, usize)> {
    let (rows, columns) = (starts(input.h, tile.h), starts(input.w, tile.w));
    rows.iter().flat_map(|&y| columns.iter().map(move |&x| (y, x))).collect()
}

/// The part of a picture (h, w, 3) that a tile shows.
pub fn cut(pixels: &[u8], width: usize, tile: Input, (y, x): (usize, usize)) -> Vec<u8> {
    let rows = pixels.chunks_exact(3 * width).skip(y).take(tile.h);
    rows.flat_map(|row| &row[3 * x..][..3 * tile.w]).copied().collect()
}

/// The scores of a picture from those of its tiles. Where tiles overlap, one counts the more the
/// farther a pixel is from its sides, since there the network saw more around it.
pub struct Mosaic {
    /// The size of the map.
    size: Input,
    k: usize,
    /// (h, w, k), weighted.
    sums: Vec<f32>,
    /// (h, w), the sum of weights.
    weights: Vec<f32>,
}

impl Mosaic {
    /// For the scores of k clusters of a picture of size `input`.
    pub fn new(input: Input, k: usize) -> Self {
        let size = map(input);
        let pixels = size.h * size.w;
        Mosaic { size, k, sums: vec![0.0; pixels * k], weights: vec![0.0; pixels] }
    }

    /// Adds the scores (h, w, k) of a tile.
    pub fn add(&mut self, tile: Input, corner: (usize, usize), scores: &[f32]) {
        let (Input { h, w }, k) = (map(tile), self.k);
        let (top, left) = (corner.0 / STRIDE, corner.1 / STRIDE);
        for (i, scores) in scores.chunks_exact(w * k).take(h).enumerate() {
            let at = (top + i) * self.size.w + left;
            let sums = self.sums[at * k..][..w * k].chunks_exact_mut(k);
            let places = zip(sums, &mut self.weights[at..][..w]);
            for (j, ((sums, sum), scores)) in places.zip(scores.chunks_exact(k)).enumerate() {
                let weight = ((i + 1).min(h - i) * (j + 1).min(w - j)) as f32;
                *sum += weight;
                zip(sums, scores).for_each(|(sum, score)| *sum += weight * score);
            }
        }
    }

    /// The scores (h, w, k), once all tiles were added.
    pub fn finish(mut self) -> Vec<f32> {
        for (sums, weight) in zip(self.sums.chunks_exact_mut(self.k), &self.weights) {
            sums.iter_mut().for_each(|sum| *sum /= weight);
        }
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_picture_and_overlap() {
        assert_eq!(starts(256, 256), [0]);
        assert_eq!(starts(288, 256), [0, 32]);
        for side in [32, 64, 128, 1024] {
            for len in (side..6 * side).step_by(UNIT) {
                let starts = starts(len, side);
                assert_eq!((starts[0], starts[starts.len() - 1]), (0, len - side));
                // Rounding takes a unit at most.
                let least = (side / 4).saturating_sub(2 * UNIT - 1);
                let far = |pair: &[usize]| pair[1] <= pair[0] + side - least && pair[1] > pair[0];
                assert!(starts.windows(2).all(far), "{side} of {len}: {starts:?}");
                assert!(starts.iter().all(|start| start.is_multiple_of(UNIT)));
            }
        }
    }

    #[test]
    fn a_mosaic_of_equal_scores_is_these() {
        let (input, tile) = (Input { h: 96, w: 160 }, Input { h: 64, w: 64 });
        let (h, w, k) = (96 / STRIDE, 160 / STRIDE, 2);
        let whole: Vec<f32> = (0..h * w * k).map(|i| i as f32).collect();
        let mut mosaic = Mosaic::new(input, k);
        for (y, x) in corners(input, tile) {
            let rows = whole.chunks_exact(w * k).skip(y / STRIDE).take(64 / STRIDE);
            let scores: Vec<f32> =
                rows.flat_map(|row| &row[x / STRIDE * k..][..64 / STRIDE * k]).copied().collect();
            mosaic.add(tile, (y, x), &scores);
        }
        let got = mosaic.finish();
        // Sums of a few products, each rounded to 2^-24 of it.
        let close = |(got, want): (&f32, &f32)| (got - want).abs() <= 1e-6 * want.abs();
        assert!(got.len() == whole.len() && zip(&got, &whole).all(close));
    }

    #[test]
    fn a_tile_is_the_part_of_the_picture() {
        let pixels: Vec<u8> = (0..4 * 5 * 3).collect();
        let part = cut(&pixels, 5, Input { h: 2, w: 3 }, (1, 2));
        assert_eq!(part, [&pixels[21..30], &pixels[36..45]].concat());
    }
}
