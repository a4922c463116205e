//! Blur and resize along one axis of an image: every output is a weighted sum of a few neighbors
//! of the input.
//!
//! A blur is such a sum and so is a resize; their product is computed once per axis and image, and
//! pixels are read once.

use std::ops::Range;

/// How an image is cut out and resized along one axis: `out` samples of the window `start..start +
/// side` of `len` elements.
#[derive(Clone, Copy, Debug)]
pub struct Resize {
    pub len: usize,
    pub out: usize,
    pub start: usize,
    pub side: usize,
    /// Whether a triangle as wide as the scale is used when shrinking, as Pillow does. Otherwise it
    /// is plain linear interpolation.
    pub antialias: bool,
    pub flip: bool,
}

/// The weighted sums along one axis: output `o` = Σ_t weight[o, t] · input[start[o] + t], with
/// `taps` terms each.
pub struct Bank<'a> {
    taps: usize,
    start: &'a [u32],
    weight: &'a [f32],
}

impl Bank<'_> {
    /// The first input element of output `o`, and the weights from there on.
    #[inline(always)]
    pub fn at(&self, o: usize) -> (usize, &[f32]) {
        (self.start[o] as usize, &self.weight[o * self.taps..][..self.taps])
    }

    /// The input elements that any output reads.
    pub fn span(&self) -> Range<usize> {
        let first = self.start.iter().min().map_or(0, |&v| v as usize);
        let last = self.start.iter().max().map_or(0, |&v| v as usize);
        first..last + self.taps
    }
}

impl Resize {
    /// The centre of output `o` in input coordinates, half the width of its triangle, and the
    /// elements below the triangle.
    ///
    /// NOTE: dropping what lies outside of the window and normalising the rest is Pillow's rule.
    /// For the narrow triangle it leaves one tap of weight 1 at a border, which is torch's clamp.
    fn reach(&self, o: usize) -> (f64, f64, Range<usize>) {
        let scale = self.side as f64 / self.out as f64;
        let half = if self.antialias { scale.max(1.0) } else { 1.0 };
        let o = if self.flip { self.out - 1 - o } else { o };
        let centre = self.start as f64 + (o as f64 + 0.5) * scale;
        let first = (centre - half - 0.5).floor() + 1.0;
        let last = (centre + half - 0.5).ceil();
        let inside = |v: f64| (v.max(0.0) as usize).clamp(self.start, self.start + self.side);
        (centre, half, inside(first)..inside(last))
    }

    /// The sums along this axis after a blur with `kernel` (from [`gaussian`]) whose edges are
    /// replicated. `weight` holds `out · len` numbers at most.
    pub fn bank<'a>(
        &self,
        kernel: &[f32],
        start: &'a mut [u32],
        weight: &'a mut [f32],
    ) -> Bank<'a> {
        let radius = kernel.len() - 1;
        let most = (0..self.out).map(|o| self.reach(o).2.len()).max().unwrap_or(0);
        let taps = (most + 2 * radius).min(self.len);
        let weight = &mut weight[..self.out * taps];
        weight.fill(0.0);
        for (o, weight) in weight.chunks_exact_mut(taps).enumerate() {
            let (centre, half, reach) = self.reach(o);
            let triangle = |i: usize| 1.0 - (i as f64 + 0.5 - centre).abs() / half;
            let total: f64 = reach.clone().map(triangle).sum();
            let first = reach.start.saturating_sub(radius).min(self.len - taps);
            start[o] = first as u32;
            for i in reach {
                let share = (triangle(i) / total) as f32;
                for j in 0..=2 * radius {
                    let at = (i + j).saturating_sub(radius).min(self.len - 1);
                    weight[at - first] += share * kernel[j.abs_diff(radius)];
                }
            }
        }
        Bank { taps, start: &start[..self.out], weight }
    }
}

/// Weights of a Gaussian at distances 0, 1, …, ⌈3σ⌉, cut at `into`'s length, that sum to 1 over
/// both sides.
pub fn gaussian(sigma: f32, into: &mut [f32]) -> &[f32] {
    // NOTE: written so that NaN blurs nothing; the cast of a float saturates.
    let radius = if sigma > 0.0 { ((3.0 * sigma).ceil() as usize).min(into.len() - 1) } else { 0 };
    let bell =
        |i: usize| if i == 0 { 1.0 } else { (-0.5 * (i as f64 / f64::from(sigma)).powi(2)).exp() };
    let total = 1.0 + 2.0 * (1..=radius).map(bell).sum::<f64>();
    for (i, w) in into[..=radius].iter_mut().enumerate() {
        *w = (bell(i) / total) as f32;
    }
    &into[..=radius]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank_of(resize: Resize, sigma: f32) -> Vec<(usize, Vec<f32>)> {
        let (mut kernel, mut start) = (vec![0.0; resize.len + 1], vec![0; resize.out]);
        let mut weight = vec![f32::NAN; resize.out * resize.len];
        let bank = resize.bank(gaussian(sigma, &mut kernel), &mut start, &mut weight);
        let span = bank.span();
        assert!(span.end <= resize.len);
        let rows: Vec<_> =
            (0..resize.out).map(|o| bank.at(o)).map(|(s, w)| (s, w.to_vec())).collect();
        assert!(rows.iter().all(|(s, w)| span.contains(s) && s + w.len() <= span.end));
        rows
    }

    #[test]
    fn the_whole_at_its_own_size_is_one_tap_of_weight_one() {
        let resize = Resize { len: 9, out: 9, start: 0, side: 9, antialias: true, flip: false };
        assert_eq!(bank_of(resize, 0.0), (0..9).map(|o| (o, vec![1.0])).collect::<Vec<_>>());
        let flipped = bank_of(Resize { flip: true, ..resize }, f32::NAN);
        assert_eq!(flipped, (0..9).map(|o| (8 - o, vec![1.0])).collect::<Vec<_>>());
    }

    #[test]
    fn halving_takes_one_three_three_one_eighths() {
        let bank = bank_of(
            Resize { len: 12, out: 6, start: 0, side: 12, antialias: true, flip: false },
            0.0,
        );
        assert_eq!(bank[2], (3, vec![0.125, 0.375, 0.375, 0.125]));
        // The outermost tap falls off the border: (3, 3, 1) / 7.
        assert_eq!(bank[0].1, [3.0 / 7.0, 3.0 / 7.0, 1.0 / 7.0, 0.0]);
    }

    #[test]
    fn weights_sum_to_one_for_any_window_and_blur() {
        for (len, out) in [(1usize, 1), (1, 7), (13, 5), (13, 13), (5, 17), (64, 3)] {
            for sigma in [0.0, 0.1, 0.9, 4.0, 1e3, f32::INFINITY] {
                for (start, side) in [(0, len), (len / 3, len.div_ceil(2)), (len - 1, 1)] {
                    for antialias in [false, true] {
                        let resize = Resize { len, out, start, side, antialias, flip: true };
                        for (_, weights) in bank_of(resize, sigma) {
                            let sum: f32 = weights.iter().sum();
                            // Up to 43·129 terms are added, each addition off by at most 2⁻²⁵ of
                            // the sum.
                            assert!((sum - 1.0).abs() <= 1.7e-4, "{resize:?} σ {sigma}: {sum}");
                        }
                    }
                }
            }
        }
    }
}
