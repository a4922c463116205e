//! The loss of IIC segmentation, with its gradient: the mutual information between the class maps
//! of two views of an image (Invariant Information Clustering; Ji, Henriques & Vedaldi 2019,
//! section 3.4).
//!
//! Both maps of a pair are upsampled, X = U·x, and every class of one is correlated with every
//! class of the other under every shift s of at most t pixels: `Q_s[a,b] = Σ
//! X1[n,a,y+s]·X2[n,b,y]`, with zeros outside of the maps. Each Q_s is normalised to a joint
//! distribution P and made symmetric. The loss is L = −mean_s Σ P·(log P − λ·log p_a − λ·log p_b),
//! where p are the marginals of P.
//!
//! The upsampled maps are never made. U acts on rows and columns separately, so `Q_s = x1ᵀ·(M_sy ⊗
//! M_sx)·x2`, where M_s = Uᵀ·S_s·U has the size of the coarse map and S_s is the shift by s. The
//! bilinear weights (tents) of a pixel that is not at a border lie inside of the picture, hence
//! M_s\[p,q\] depends on p − q alone unless p or q is at a border. So all (2t+1)² matrices Q are
//! sums of correlations of the *coarse* maps: `Q_s = Σ_(δ,class) K_sy·K_sx·C_(δ,class)`, where
//! `C_(δ,class)[a,b] = Σ x1[n,a,p]·x2[n,b,p−δ]` over the pairs of a class. A pair's class says
//! whether it is the first of its row or column, the last, or in between; K are the coefficients.
//!
//! 441 shifts of 4-fold upsampled maps take 81 lags δ: 100 times fewer multiply-adds than the
//! definition, with exactly the same result. The gradient is the adjoint of these sums. All terms
//! are products of non-negative numbers, so that no entry of Q, however small, loses digits.

use std::fmt;

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, door, want};
use crate::device::trace::bytes;
use crate::device::{Engine, Slot, Work};

/// The sizes and options of the loss of n pairs of probability maps (h, w, k), each upsampled
/// bilinearly (`align_corners = false`) by `up` before they are compared under all shifts of −t..=t
/// pixels.
///
/// NOTE: no pixels are masked. The reference code masks by the ground truth, which an unsupervised
/// method may not see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IicSpec {
    /// Number of pairs.
    pub n: usize,
    /// Height of a map. `w`: its width.
    pub h: usize,
    pub w: usize,
    /// Number of classes.
    pub k: usize,
    /// Upsampling factor: 4 from feature maps to the network's input.
    pub up: usize,
    /// The largest shift in pixels. There are (2t + 1)² shifts, from −t to t in rows and in columns
    /// (T = 10 in IIC).
    pub t: usize,
    /// Whether all shifts are summed into one matrix, whose normaliser is a constant for the
    /// gradient (the default of IIC's code), instead of one matrix a shift (all published
    /// segmentation runs).
    pub collapsed: bool,
    /// Weight λ of the marginals' entropies.
    pub lambda: f32,
}

/// Entries of P and of its marginals below this number count as this number, and have no gradient
/// (as in the reference code).
pub(crate) const EPS: f64 = f64::EPSILON;

/// The class of a pair of pixels (p, p − δ) along an axis that is the first one for its lag δ.
/// `INNER`: pairs in between. `LAST`: the last one.
pub(crate) const FIRST: usize = 0;
pub(crate) const INNER: usize = 1;
pub(crate) const LAST: usize = 2;
/// Number of classes of pairs along an axis.
pub(crate) const CLASSES: usize = 3;

/// One axis of the maps, rows or columns: `len` pixels, upsampled by `up` and shifted by at most
/// `t`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub len: usize,
    pub up: usize,
    pub t: usize,
    /// The largest lag, in pixels of the coarse map, between two pixels that overlap under some
    /// shift.
    pub radius: usize,
    /// Number of matrices along this axis: one a shift, or one for all shifts.
    pub shifts: usize,
}

impl Axis {
    fn new(len: usize, up: usize, t: usize, collapsed: bool) -> Self {
        let mut axis =
            Axis { len, up, t, radius: len - 1, shifts: if collapsed { 1 } else { 2 * t + 1 } };
        let reach = 2 * axis.radius + 1;
        let met = |j: &usize| {
            let mut shifts = -(t as isize)..=t as isize;
            shifts.any(|s| (0..CLASSES).any(|class| axis.meeting(s, *j, class) > 0.0))
        };
        // Lags come in order, the largest first: those before the first that occurs are cut off.
        axis.radius -= (0..reach).find(met).unwrap_or(axis.radius);
        axis
    }

    /// Number of lags, from `radius` down to −`radius`.
    pub fn lags(&self) -> usize {
        2 * self.radius + 1
    }

    /// The j-th lag δ. Lags descend, so that the j-th pixel of a window around p is p − δ.
    pub fn lag(&self, j: usize) -> isize {
        self.radius as isize - j as isize
    }

    /// The pairs of a class at the j-th lag, as (p, q, count): they are (p + i, q + i) for i <
    /// count. `None` if there are none.
    pub fn pairs(&self, j: usize, class: usize) -> Option<(usize, usize, usize)> {
        let lag = self.lag(j);
        let (p, q) = (lag.max(0) as usize, (-lag).max(0) as usize);
        let all = self.len.checked_sub(lag.unsigned_abs())?;
        match class {
            FIRST if all > 0 => Some((p, q, 1)),
            INNER if all > 2 => Some((p + 1, q + 1, all - 2)),
            LAST if all > 1 => Some((p + all - 1, q + all - 1, 1)),
            _ => None,
        }
    }

    /// Number of pairs at all lags.
    pub fn count(&self) -> usize {
        (0..self.lags()).map(|j| self.len - self.lag(j).unsigned_abs()).sum()
    }

    /// Entry (y, p) of U: the weight of coarse pixel p in upsampled pixel y, a tent that is cut at
    /// the borders.
    fn tent(&self, y: usize, p: usize) -> f64 {
        let at = ((y as f64 + 0.5) / self.up as f64 - 0.5).clamp(0.0, (self.len - 1) as f64);
        (1.0 - (at - p as f64).abs()).max(0.0)
    }

    /// The entry of M_s for the pairs of a class at the j-th lag, straight from the definition: Σ_y
    /// U\[y + s, p\]·U\[y, q\].
    fn meeting(&self, s: isize, j: usize, class: usize) -> f64 {
        let Some((p, q, _)) = self.pairs(j, class) else { return 0.0 };
        let side = self.len * self.up;
        // Outside of these rows the tent of q is zero.
        let rows = self.up * q.saturating_sub(1)..side.min(self.up * (q + 2));
        rows.filter_map(|y| {
            let there = y.checked_add_signed(s).filter(|&there| there < side)?;
            Some(self.tent(there, p) * self.tent(y, q))
        })
        .sum()
    }

    /// The coefficients K of this axis: (shifts, lags, classes).
    pub fn coefficients(&self) -> Vec<f32> {
        let t = self.t as isize;
        let shifts: Vec<_> =
            if self.shifts == 1 { vec![-t..=t] } else { (-t..=t).map(|s| s..=s).collect() };
        let mut table = Vec::with_capacity(self.shifts * self.lags() * CLASSES);
        for shift in shifts {
            for j in 0..self.lags() {
                for class in 0..CLASSES {
                    table
                        .push(shift.clone().map(|s| self.meeting(s, j, class)).sum::<f64>() as f32);
                }
            }
        }
        table
    }
}

impl IicSpec {
    /// Elements of the maps of both views.
    pub fn maps_len(&self) -> usize {
        2 * self.n * self.h * self.w * self.k
    }

    /// The axes of rows and of columns. Fails on empty sizes, on shifts as large as the maps, and
    /// on a λ that is not finite.
    pub(crate) fn axes(&self) -> Result<[Axis; 2]> {
        let IicSpec { n, h, w, k, up, t, lambda, .. } = *self;
        if [n, h, w, k, up].contains(&0) {
            let what = format!(
                "IIC's loss of {n} pairs of {h}×{w} maps of {k} classes, upsampled by {up}"
            );
            return Err(Error::input(what, "none of these may be 0"));
        }
        let side = h.min(w) * up;
        if t >= side {
            let what =
                format!("IIC's loss shifts maps by up to {t} pixels, but they have only {side}");
            return Err(Error::input(what, "lower the shift: maps must overlap"));
        }
        if !lambda.is_finite() {
            return Err(Error::input(format!("IIC's λ is {lambda}"), "give a number"));
        }
        Ok([h, w].map(|len| Axis::new(len, up, t, self.collapsed)))
    }

    /// FLOPs of the loss and its gradient: three passes over all pairs of pixels.
    pub fn flops(&self) -> f64 {
        let pairs = self.axes().map_or(0, |[y, x]| y.count() * x.count());
        6.0 * (self.n * self.k * self.k * pairs) as f64
    }

    /// The weight of one matrix's term in the mean: 1/(2t + 1)², or 1 when all shifts share one
    /// matrix.
    pub(crate) fn share(&self) -> f64 {
        let side = 2 * self.t + 1;
        if self.collapsed { 1.0 } else { 1.0 / (side * side) as f64 }
    }
}

impl fmt::Display for IicSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let IicSpec { n, h, w, k, t, .. } = self;
        write!(f, "{n}×{h}×{w}, {k} clusters, {t} pixels")
    }
}

/// Arguments of [`iic_loss`].
#[derive(Clone, Copy, Debug)]
pub struct IicLoss {
    /// = (1), the loss.
    pub loss: Slot<f32>,
    /// = (2n, h, w, k), the gradient of the maps.
    pub dmaps: Slot<f32>,
    /// (2n, h, w, k), probabilities. Images 0..n are view 1, and n..2n view 2 of the same pictures,
    /// aligned with view 1 (a mirrored view is mirrored back).
    pub maps: Slot<f32>,
    /// Factor on the gradient, but not on `loss`.
    pub scale: f32,
}

impl Op for IicLoss {
    type Spec = IicSpec;
    const NAME: &'static str = "iic_loss";

    fn check(&self, spec: &IicSpec) -> Result<()> {
        want(Self::NAME, "loss", self.loss, 1)?;
        want(Self::NAME, "dmaps", self.dmaps, spec.maps_len())?;
        want(Self::NAME, "maps", self.maps, spec.maps_len())
    }

    fn work(&self, spec: &IicSpec) -> Work {
        Work::moved(bytes![self.dmaps, self.maps, self.maps]).flops(spec.flops())
    }
}

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait IicOps {
    /// Prepares the ops for this spec: asks for scratch, and fails on sizes that the engine cannot
    /// run. Returns the engine's own number for the plan.
    fn plan_iic(&mut self, spec: IicSpec) -> Result<usize>;
    fn iic_loss(&mut self, a: Passed<IicLoss>) -> Result<()>;
}

/// Plans the ops of this family for `spec`. Fails on sizes that this engine cannot run.
pub fn plan_iic(dev: &mut dyn Engine, spec: IicSpec) -> Result<Plan<IicSpec>> {
    spec.axes()?;
    Ok(Plan { spec, number: dev.plan_iic(spec)? })
}

/// loss = L as the head of this file defines it; dmaps = `scale` · its gradient.
pub fn iic_loss(dev: &mut dyn Engine, plan: &Plan<IicSpec>, a: IicLoss) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.iic_loss(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds all of M_s from its few coefficients, for every shift, and compares it with Uᵀ·S·U.
    #[test]
    fn classes_of_lags_hold_the_whole_matrix() {
        for (len, up, t) in
            [(1, 4, 3), (2, 4, 7), (3, 2, 5), (7, 4, 10), (9, 1, 4), (6, 3, 17), (8, 5, 0)]
        {
            let axis = Axis::new(len, up, t, false);
            let side = len * up;
            for (i, s) in (-(t as isize)..=t as isize).enumerate() {
                let mut want = vec![0.0; len * len];
                for y in 0..side {
                    let Some(there) = y.checked_add_signed(s).filter(|&there| there < side) else {
                        continue;
                    };
                    for (at, want) in want.iter_mut().enumerate() {
                        *want += axis.tent(there, at / len) * axis.tent(y, at % len);
                    }
                }
                let table = &axis.coefficients()[i * axis.lags() * CLASSES..];
                let mut got = vec![0.0f32; len * len];
                for j in 0..axis.lags() {
                    for class in 0..CLASSES {
                        let (p, q, count) = axis.pairs(j, class).unwrap_or_default();
                        (0..count)
                            .for_each(|i| got[(p + i) * len + q + i] += table[j * CLASSES + class]);
                    }
                }
                // Numbers up to 2·up, rounded once.
                let off = got
                    .iter()
                    .zip(&want)
                    .map(|(&g, w)| (f64::from(g) - w).abs())
                    .fold(0.0, f64::max);
                assert!(off <= 1e-6, "{len} pixels ×{up}, shift {s} of {t}: {off}");
            }
        }
    }

    #[test]
    fn ten_pixels_of_a_fourfold_upsampled_map_reach_four_of_the_coarse_one() {
        assert_eq!(Axis::new(32, 4, 10, false).radius, 4);
        assert_eq!(Axis::new(32, 1, 10, false).radius, 10);
        assert_eq!(Axis::new(3, 4, 10, true).radius, 2);
    }
}
