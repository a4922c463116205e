//! Clusters whose borders follow the picture's edges: the guided filter of the scores (He, Sun and
//! Tang, "Guided Image Filtering", PAMI 2013, section 3.6 for guides of three colours) in its fast
//! form (He and Sun, "Fast Guided Filter", 2015).
//!
//! ```text
//! near each pixel of the map, by least squares over a window of (2 r + 1)²:
//!     scores ≈ a · colour + b
//! at each pixel of the picture, with the means of a and b over the windows that hold it:
//!     score = a · colour + b, where a and b are resampled and the colour is the picture's own
//! ```

use rayon::prelude::*;

use crate::cli::segment::fuse::{between, highest};
use crate::cli::segment::photo::Input;
use crate::data::decode::Rgb;
use crate::data::transform;

/// The part of the map's short side that a window reaches to each side. On the drawn scenes, mIoU
/// grows up to about there, and borders up to twice that.
const REACH: f64 = 1.0 / 8.0;

/// What is added to the variance of colours (0 to 1) in a window. Edges of less than its root,
/// 0.03, are not followed.
const SMOOTH: f64 = 1e-3;

/// Entries of a symmetric matrix of 3 × 3, by row and column.
const ENTRIES: [(usize, usize); 6] = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];

/// The scores as linear functions of a picture's colour, (h, w, 4, k): factors of red, green and
/// blue (0 to 255), and what is added.
pub struct Guided {
    size: Input,
    k: usize,
    factors: Vec<f32>,
}

/// The number of maps as large as the scores that [`Guided`] takes while it is made, for `k`
/// clusters: its own, once more in another order, and those that each thread works on.
pub fn maps(k: usize) -> usize {
    const PLANES: usize = 20;
    8 + (PLANES * rayon::current_num_threads()).div_ceil(k)
}

/// The mean over windows of a plane of (h, w) that reach `r` to each side, where they lie inside.
fn means(plane: &mut [f32], size: Input, r: usize) {
    let Input { h, w } = size;
    // A mean of the line of `len` entries that begins at `at` and goes on by `step`.
    let mut sums = vec![0.0f64; h.max(w) + 1];
    let mut line = |plane: &mut [f32], at: usize, step: usize, len: usize| {
        for i in 0..len {
            sums[i + 1] = sums[i] + f64::from(plane[at + i * step]);
        }
        for i in 0..len {
            let (from, to) = (i.saturating_sub(r), (i + r + 1).min(len));
            plane[at + i * step] = ((sums[to] - sums[from]) / (to - from) as f64) as f32;
        }
    };
    (0..h).for_each(|y| line(plane, y * w, 1, w));
    (0..w).for_each(|x| line(plane, x, w, h));
}

/// The product of two planes.
fn product(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}

/// The inverse of a symmetric matrix of 3 × 3, each as its [`ENTRIES`].
fn inverse([xx, xy, xz, yy, yz, zz]: [f64; 6]) -> [f64; 6] {
    let adjugate = [
        yy * zz - yz * yz,
        xz * yz - xy * zz,
        xy * yz - xz * yy,
        xx * zz - xz * xz,
        xy * xz - xx * yz,
        xx * yy - xy * xy,
    ];
    let determinant = xx * adjugate[0] + xy * adjugate[1] + xz * adjugate[2];
    adjugate.map(|entry| entry / determinant)
}

impl Guided {
    /// Fits scores (h, w, k) to the picture that they are of.
    pub fn new(scores: &[f32], size: Input, k: usize, picture: &Rgb) -> Self {
        let (pixels, r) = (size.h * size.w, (size.h.min(size.w) as f64 * REACH).round() as usize);
        let small = transform::resize(picture, size.w, size.h);
        let mean = |mut plane: Vec<f32>| {
            means(&mut plane, size, r.max(1));
            plane
        };
        let colours: [Vec<f32>; 3] = [0, 1, 2]
            .map(|c| small.chunks_exact(3).map(|pixel| f32::from(pixel[c]) / 255.0).collect());
        let middle = colours.each_ref().map(|colour| mean(colour.clone()));
        let moments = ENTRIES.map(|(i, j)| mean(product(&colours[i], &colours[j])));
        let inverses: Vec<[f64; 6]> = (0..pixels)
            .map(|at| {
                let mut entries = [0.0; 6];
                for (entry, ((i, j), moment)) in
                    entries.iter_mut().zip(ENTRIES.iter().zip(&moments))
                {
                    let diagonal = if i == j { SMOOTH } else { 0.0 };
                    let product = f64::from(middle[*i][at]) * f64::from(middle[*j][at]);
                    *entry = f64::from(moment[at]) - product + diagonal;
                }
                inverse(entries)
            })
            .collect();
        let planes: Vec<[Vec<f32>; 4]> = (0..k)
            .into_par_iter()
            .map(|id| {
                let score: Vec<f32> = scores.iter().skip(id).step_by(k).copied().collect();
                let with = colours.each_ref().map(|colour| mean(product(colour, &score)));
                let score = mean(score);
                let mut fit = [(); 4].map(|()| vec![0.0; pixels]);
                for at in 0..pixels {
                    let colour = middle.each_ref().map(|middle| f64::from(middle[at]));
                    let own = f64::from(score[at]);
                    let [x, y, z] = [0, 1, 2].map(|c| f64::from(with[c][at]) - colour[c] * own);
                    let [xx, xy, xz, yy, yz, zz] = inverses[at];
                    let a = [
                        xx * x + xy * y + xz * z,
                        xy * x + yy * y + yz * z,
                        xz * x + yz * y + zz * z,
                    ];
                    let rest: f64 = a.iter().zip(colour).map(|(a, colour)| a * colour).sum();
                    (0..3).for_each(|c| fit[c][at] = (a[c] / 255.0) as f32);
                    fit[3][at] = (own - rest) as f32;
                }
                fit.map(mean)
            })
            .collect();
        let factors = (0..pixels)
            .flat_map(|at| (0..4).map(move |part| (at, part)))
            .flat_map(|(at, part)| planes.iter().map(move |fit| fit[part][at]))
            .collect();
        Guided { size, k, factors }
    }

    /// The cluster with the highest score of each pixel of the picture (height, width).
    pub fn labels(&self, picture: &Rgb) -> Vec<u16> {
        let (k, width, line) = (self.k, picture.width, self.size.w * 4 * self.k);
        let mut labels = vec![0; picture.height * width];
        let rows =
            labels.par_chunks_exact_mut(width).zip(picture.pixels.par_chunks_exact(3 * width));
        rows.enumerate().for_each_init(
            || (vec![0.0; line], vec![0.0; k]),
            |(row, scores), (y, (labels, pixels))| {
                let (top, bottom, down) = between(y, picture.height, self.size.h);
                let [top, bottom] = [top, bottom].map(|y| &self.factors[y * line..][..line]);
                for (factor, (top, bottom)) in row.iter_mut().zip(top.iter().zip(bottom)) {
                    *factor = top + down * (bottom - top);
                }
                for (x, (label, pixel)) in labels.iter_mut().zip(pixels.chunks_exact(3)).enumerate()
                {
                    let (left, right, along) = between(x, width, self.size.w);
                    let [left, right] = [left, right].map(|x| &row[x * 4 * k..][..4 * k]);
                    let colour = [pixel[0], pixel[1], pixel[2]].map(f32::from);
                    score(scores, left, right, along, colour);
                    *label = highest(scores);
                }
            },
        );
        labels
    }
}

/// scores (k) = factors · colour + what is added, where these lie `along` between `left` and
/// `right`, (4, k) each.
fn score(scores: &mut [f32], left: &[f32], right: &[f32], along: f32, colour: [f32; 3]) {
    let k = scores.len();
    let [l, r] = [left, right].map(|side| {
        let (red, rest) = side.split_at(k);
        let (green, rest) = rest.split_at(k);
        let (blue, added) = rest.split_at(k);
        [red, green, blue, &added[..k]]
    });
    for (id, score) in scores.iter_mut().enumerate() {
        let factor = |part: usize| l[part][id] + along * (r[part][id] - l[part][id]);
        *score = factor(0) * colour[0] + factor(1) * colour[1] + factor(2) * colour[2] + factor(3);
    }
}

/// How far [`drop_small`] is with a pixel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Not,
    /// It is of the region that is looked at.
    Now,
    /// Its cluster is what it will be.
    Done,
}

/// The pixels beside one, of (len / width, width).
fn beside(at: usize, width: usize, len: usize) -> impl Iterator<Item = usize> {
    let x = at % width;
    let sides = [
        (x > 0).then(|| at - 1),
        (x + 1 < width).then(|| at + 1),
        at.checked_sub(width),
        Some(at + width).filter(|&below| below < len),
    ];
    sides.into_iter().flatten()
}

/// Gives each region of fewer than `least` pixels to the cluster that most of its border is with.
/// The labels are (h, `width`); pixels of a region are connected by their sides.
pub fn drop_small(labels: &mut [u16], width: usize, least: usize) {
    let mut seen = vec![Seen::Not; labels.len()];
    let (mut region, mut borders) = (Vec::new(), Vec::<(u16, usize)>::new());
    for start in 0..labels.len() {
        let own = labels[start];
        if seen[start] == Seen::Done {
            continue;
        }
        region.clear();
        borders.clear();
        region.push(start);
        seen[start] = Seen::Now;
        // A region is large as soon as it is known to be: most pixels are beside one of those.
        let (mut next, mut large) = (0, false);
        while next < region.len() && !large {
            for at in beside(region[next], width, labels.len()) {
                if labels[at] != own {
                    match borders.iter_mut().find(|(label, _)| *label == labels[at]) {
                        Some((_, length)) => *length += 1,
                        None => borders.push((labels[at], 1)),
                    }
                } else if seen[at] == Seen::Not {
                    seen[at] = Seen::Now;
                    region.push(at);
                } else {
                    large |= seen[at] == Seen::Done;
                }
            }
            next += 1;
            large |= region.len() >= least;
        }
        let longest = borders.iter().max_by_key(|(label, length)| (*length, u16::MAX - label));
        let label = longest.filter(|_| !large).map_or(own, |(label, _)| *label);
        for &at in &region {
            (labels[at], seen[at]) = (label, Seen::Done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::large::Alone;

    /// A picture that is dark left of the column `edge`, and light from there on.
    fn picture(width: usize, height: usize, edge: usize) -> Rgb {
        let pixels = (0..width * height)
            .flat_map(|at| [if at % width < edge { 40 } else { 200 }; 3])
            .collect();
        Rgb { width, height, pixels, alone: Alone::default() }
    }

    #[test]
    fn borders_move_to_edges_of_the_picture() {
        // Scores of two clusters that meet at column 12 of 16, a quarter of the picture's 64; its
        // edge is at 42, between columns 10 and 11 of the map.
        let size = Input { h: 16, w: 16 };
        let scores: Vec<f32> = (0..size.h * size.w)
            .flat_map(|at| {
                let right = (at % 16) as f32 - 11.5;
                [-right, right]
            })
            .collect();
        let picture = picture(64, 64, 42);
        let labels = Guided::new(&scores, size, 2, &picture).labels(&picture);
        let want: Vec<u16> = (0..64 * 64).map(|at| u16::from(at % 64 >= 42)).collect();
        assert!(labels == want);
    }

    #[test]
    fn without_edges_scores_are_what_they_were_but_for_the_mean() {
        let size = Input { h: 8, w: 16 };
        let scores: Vec<f32> = (0..size.h * size.w * 3).map(|i| (i % 3) as f32).collect();
        let picture = picture(40, 20, 0);
        assert_eq!(Guided::new(&scores, size, 3, &picture).labels(&picture), [2; 40 * 20]);
    }

    #[test]
    fn means_are_of_what_lies_inside() {
        let mut plane = vec![1.0, 2.0, 3.0, 4.0, 5.0, 9.0];
        means(&mut plane, Input { h: 2, w: 3 }, 1);
        assert_eq!(plane, [3.0, 4.0, 4.75, 3.0, 4.0, 4.75]);
    }

    #[test]
    fn small_regions_go_to_what_they_border_on_most() {
        #[rustfmt::skip]
        let mut labels = [
            1, 1, 1, 2, 2, 2,
            1, 3, 1, 2, 2, 2,
            1, 1, 1, 2, 4, 4,
            5, 1, 1, 2, 2, 4,
        ];
        let before = labels;
        drop_small(&mut labels, 6, 1);
        assert_eq!(labels, before);
        drop_small(&mut labels, 6, 3);
        #[rustfmt::skip]
        let want = [
            1, 1, 1, 2, 2, 2,
            1, 1, 1, 2, 2, 2,
            1, 1, 1, 2, 4, 4,
            1, 1, 1, 2, 2, 4,
        ];
        assert_eq!(labels, want);
        // A picture of one small region stays what it is.
        let mut labels = [7; 6];
        drop_small(&mut labels, 3, 100);
        assert_eq!(labels, [7; 6]);
    }
}
