//! The dense mutual-information loss of IIC segmentation (Ji, Henriques & Vedaldi 2019, section
//! 3.4), with its gradient.
//!
//! Both maps of a pair are upsampled, X = U·x, and every class of one is correlated with every
//! class of the other under every shift s of at most t pixels: `Q_s[a,b] = Σ
//! X1[n,a,y+s]·X2[n,b,y]`, zero outside. Each Q_s is normalised to a joint distribution P, made
//! symmetric, and L = −mean_s Σ P·(log P − λ·log p_a − λ·log p_b) with its marginals p.
//!
//! Nothing need be upsampled. U is separable, so `Q_s = x1ᵀ·(M_sy ⊗ M_sx)·x2` with M_s = Uᵀ·S_s·U
//! of the size of the coarse map. Bilinear tents of pixels that are not at a border lie inside of
//! the picture, hence M_s\[p,q\] depends on p − q alone unless p or q is at a border: all (2t+1)²
//! matrices Q are sums of correlations of the *coarse* maps, `Q_s = Σ_(δ,class)
//! K_sy·K_sx·C_(δ,class)`, `C_(δ,class)[a,b] = Σ x1[n,a,p]·x2[n,b,p−δ]` over the pairs of a class:
//! the first of its row or column, the last, and those between. 441 shifts of 4-fold upsampled maps
//! take 81 lags δ: 100 times fewer multiply-adds than the definition, exactly. The gradient is
//! their adjoint. All terms are products of non-negative numbers: no entry of Q, however small,
//! loses digits.

use std::fmt;

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, door, want};
use crate::device::trace::bytes;
use crate::device::{Engine, Slot, Work};

/// Pairs of probability maps (h, w, k), each upsampled bilinearly (`align_corners = false`) by `up`
/// before they are compared under all shifts of −t..=t pixels.
///
/// NOTE: there is no mask. The reference's comes from the ground truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IicSpec {
    /// Pairs.
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub k: usize,
    /// Upsampling factor: 4 from feature maps to the network's input.
    pub up: usize,
    /// Shifts reach from −t to t in rows and in columns: (2t + 1)² of them (T = 10 in IIC).
    pub t: usize,
    /// One matrix summed over all shifts, its normaliser a constant to the gradient (IIC's
    /// default), instead of one matrix a shift (every published segmentation run).
    pub collapsed: bool,
    /// Weight of the marginals' entropies.
    pub lambda: f32,
}

/// Entries of P and its marginals below this count as this, without a gradient (the reference's).
pub(crate) const EPS: f64 = f64::EPSILON;

/// Of the pairs (p, p − δ) along an axis.
pub(crate) const FIRST: usize = 0;
pub(crate) const INNER: usize = 1;
pub(crate) const LAST: usize = 2;
/// How many classes that makes.
pub(crate) const CLASSES: usize = 3;

/// One axis of the maps: `len` pixels, upsampled by `up`, shifted by at most `t`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub len: usize,
    pub up: usize,
    pub t: usize,
    /// The largest lag of two pixels that some shift makes meet.
    pub radius: usize,
    /// Matrices along this axis: one a shift, or one for all.
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
        // Lags come in order, the largest first.
        axis.radius -= (0..reach).find(met).unwrap_or(axis.radius);
        axis
    }

    /// Lags from `radius` down to −`radius`.
    pub fn lags(&self) -> usize {
        2 * self.radius + 1
    }

    /// δ of the j-th lag. Descending, so that the j-th of a window of pixels around p is p − δ.
    pub fn lag(&self, j: usize) -> isize {
        self.radius as isize - j as isize
    }

    /// The pairs (p + i, q + i), i < count, of a class of the j-th lag: (p, q, count). None where
    /// it is empty.
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

    /// All pairs of all lags.
    fn count(&self) -> usize {
        (0..self.lags()).map(|j| self.len - self.lag(j).unsigned_abs()).sum()
    }

    /// Row y of U: what pixel p gives it, a tent cut at the borders.
    fn tent(&self, y: usize, p: usize) -> f64 {
        let at = ((y as f64 + 0.5) / self.up as f64 - 0.5).clamp(0.0, (self.len - 1) as f64);
        (1.0 - (at - p as f64).abs()).max(0.0)
    }

    /// M_s of a pair of the j-th lag and a class, straight from the definition: Σ_y U\[y + s,
    /// p\]·U\[y, q\].
    fn meeting(&self, s: isize, j: usize, class: usize) -> f64 {
        let Some((p, q, _)) = self.pairs(j, class) else { return 0.0 };
        let side = self.len * self.up;
        // Beyond these rows the tent of q is zero.
        let rows = self.up * q.saturating_sub(1)..side.min(self.up * (q + 2));
        rows.filter_map(|y| {
            let there = y.checked_add_signed(s).filter(|&there| there < side)?;
            Some(self.tent(there, p) * self.tent(y, q))
        })
        .sum()
    }

    /// K (shifts, lags, classes).
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
    /// Floats of both views' maps.
    pub fn maps(&self) -> usize {
        2 * self.n * self.h * self.w * self.k
    }

    /// Rows and columns. Refuses what has none.
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

    /// Of the loss and its gradient: three passes over all pairs of pixels.
    pub fn flops(&self) -> f64 {
        let pairs = self.axes().map_or(0, |[y, x]| y.count() * x.count());
        6.0 * (self.n * self.k * self.k * pairs) as f64
    }

    /// What a matrix counts in the loss.
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
    /// = (1)
    pub loss: Slot<f32>,
    /// = (2n, h, w, k)
    pub dmaps: Slot<f32>,
    /// (2n, h, w, k) probabilities: images 0..n are view 1, n..2n view 2 of the same pictures,
    /// aligned (a mirrored view mirrored back).
    pub maps: Slot<f32>,
    pub scale: f32,
}

impl Op for IicLoss {
    type Spec = IicSpec;
    const NAME: &'static str = "iic_loss";

    fn check(&self, spec: &IicSpec) -> Result<()> {
        want(Self::NAME, "loss", self.loss, 1)?;
        want(Self::NAME, "dmaps", self.dmaps, spec.maps())?;
        want(Self::NAME, "maps", self.maps, spec.maps())
    }

    fn work(&self, spec: &IicSpec) -> Work {
        Work::moved(bytes![self.dmaps, self.maps, self.maps]).flops(spec.flops())
    }
}

/// What an engine does of the family.
pub trait Iic {
    /// Asks for scratch; refuses sizes that the engine cannot run. Returns its number for the plan.
    fn plan_iic(&mut self, spec: IicSpec) -> Result<usize>;
    fn iic_loss(&mut self, a: Passed<IicLoss>) -> Result<()>;
}

pub fn plan_iic(dev: &mut dyn Engine, spec: IicSpec) -> Result<Plan<IicSpec>> {
    spec.axes()?;
    Ok(Plan { spec, number: dev.plan_iic(spec)? })
}

/// loss = the objective; dmaps = `scale` · its gradient.
pub fn iic_loss(dev: &mut dyn Engine, plan: &Plan<IicSpec>, a: IicLoss) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.iic_loss(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole of M_s from its few numbers, for every shift, against Uᵀ·S·U.
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
