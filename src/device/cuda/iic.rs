//! The body of IIC's loss: correlations, mixed to joint matrices; their gradients, mixed back; the
//! maps' gradients.

use crate::base::{Error, Result};
use crate::device::Slot;
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::common::{MOST_SHARED, WARP};
use crate::device::cuda::kernels::consts::iic::{
    self, MOST, OUTS, PITCH, ROW, TABLE_THREADS, THREADS, TILE,
};
use crate::device::cuda::kernels::consts::iic_gradient::{GRAD_THREADS, MATRIX, PIXELS, SEGMENT};
use crate::device::cuda::kernels::consts::iic_lags::LAGS;
use crate::device::ops::iic::{Axis, CLASSES, FIRST, INNER, IicOps, LAST};
use crate::device::ops::{IicLoss, IicSpec, Passed};

/// Enough blocks of correlations for a large GPU, of which one has two at a time.
const BLOCKS: usize = 264;
/// Shared memory of `iic_grad` that is not a warp's: two matrices in two parts.
const MATRICES: usize = 2 * 2 * MATRIX * size_of::<u32>();

const _: () = assert!(
    iic::FIRST == FIRST && iic::INNER == INNER && iic::LAST == LAST && iic::CLASSES == CLASSES,
    "classes of pairs are the kernels'"
);

/// What is worked out once for a spec.
#[derive(Clone)]
pub(super) struct IicPlan {
    spec: IicSpec,
    y: Axis,
    x: Axis,
    /// Lags of columns of a block of correlations.
    group: usize,
    /// Pairs of rows of a partial sum.
    each: usize,
    /// Warps of a block of gradients that have room for pixels.
    active: usize,
}

/// Byte offsets into the scratch.
#[derive(Clone, Copy)]
struct Places {
    /// Coefficients for rows (shifts, lags, classes).
    ky: usize,
    /// The same for columns.
    kx: usize,
    /// Correlations, later their gradients (lags of rows, classes, lags of columns, classes, k, k).
    lags: usize,
    /// Partial correlations of the inner class (chunks, lags of rows, lags of columns, k, k).
    part: usize,
    /// Correlations mixed by columns, later their gradients (lags of rows, classes, shifts of
    /// columns, k, k).
    mixed: usize,
    /// Q of each shift, later its gradient.
    joint: usize,
    /// The loss of each shift.
    losses: usize,
    end: usize,
}

impl IicPlan {
    fn square(&self) -> usize {
        self.spec.k * self.spec.k
    }

    fn table_len(axis: Axis) -> usize {
        axis.shifts * axis.lags() * CLASSES
    }

    fn lags_len(&self) -> usize {
        self.y.lags() * CLASSES * self.x.lags() * CLASSES * self.square()
    }

    /// Inner rows of all pairs of images, under the lag 0, which has most.
    fn rows(spec: &IicSpec) -> usize {
        spec.n * spec.h.saturating_sub(2)
    }

    fn chunks(&self) -> usize {
        Self::rows(&self.spec).div_ceil(self.each)
    }

    /// Bytes of a warp of gradients: pixels in two parts.
    fn warp_bytes(x: Axis) -> usize {
        2 * (SEGMENT + 2 * x.radius) * PITCH * size_of::<u32>()
    }

    fn part_len(&self) -> usize {
        self.chunks() * self.y.lags() * self.x.lags() * self.square()
    }

    fn mixed_len(&self) -> usize {
        self.y.lags() * CLASSES * self.x.shifts * self.square()
    }

    fn joints(&self) -> usize {
        self.y.shifts * self.x.shifts
    }

    fn places(&self) -> Places {
        let mut end = 0;
        let mut take = |bytes: usize| {
            let start = end;
            end += bytes.next_multiple_of(64);
            start
        };
        Places {
            ky: take(4 * Self::table_len(self.y)),
            kx: take(4 * Self::table_len(self.x)),
            lags: take(4 * self.lags_len()),
            part: take(4 * self.part_len()),
            mixed: take(4 * self.mixed_len()),
            joint: take(4 * self.joints() * self.square()),
            losses: take(8 * self.joints()),
            end: take(0),
        }
    }
}

/// A step of mixing: (batch, ins, len) to (batch, outs, len), by a table with these strides.
struct Mix {
    out: Slot<f32>,
    input: Slot<f32>,
    table: Slot<f32>,
    batch: usize,
    len: usize,
    outs: (usize, usize),
    ins: (usize, usize),
}

impl Cuda {
    fn mix(&mut self, mix: Mix) -> Result<()> {
        let Mix { out, input, table, batch, len, outs: (outs, by_out), ins: (ins, by_in) } = mix;
        let kernel = kernels::IicMix { out, input, table, len, outs, ins, by_out, by_in };
        self.launch((len.div_ceil(THREADS), outs.div_ceil(OUTS), batch), 0, kernel)
    }
}

impl IicOps for Cuda {
    fn plan_iic(&mut self, spec: IicSpec) -> Result<usize> {
        let [y, x] = spec.axes()?;
        if spec.k > MOST || spec.maps_len() > i32::MAX as usize {
            let what = format!(
                "IIC's loss on CUDA has up to {MOST} classes and 2³¹ numbers, not {} of {spec:?}",
                spec.maps_len()
            );
            return Err(Error::input(what, "lower the batch"));
        }
        let group = x.lags().div_ceil(x.lags().div_ceil(LAGS));
        let blocks = y.lags() * x.lags().div_ceil(group) * spec.k.div_ceil(TILE).pow(2);
        let each = IicPlan::rows(&spec).div_ceil(BLOCKS.div_ceil(blocks)).max(1);
        let active = (MOST_SHARED - MATRICES) / IicPlan::warp_bytes(x);
        let active = active.min(GRAD_THREADS / WARP);
        if active == 0 {
            let what = format!("IIC's loss shifts maps by up to {} pixels", spec.t);
            return Err(Error::input(what, "lower the shift"));
        }
        self.allow_shared::<kernels::IicGrad>(active * IicPlan::warp_bytes(x))?;
        let plan = IicPlan { spec, y, x, group, each, active };
        self.ask_scratch(plan.places().end);
        self.losses.push(plan);
        Ok(self.losses.len() - 1)
    }

    fn iic_loss(&mut self, a: Passed<IicLoss>) -> Result<()> {
        let IicLoss { loss, dmaps, maps, scale } = *a;
        let plan = self.losses[a.number()].clone();
        let IicSpec { n, h, w, k, up, t, collapsed, lambda } = plan.spec;
        let (y, x, square, places) = (plan.y, plan.x, plan.square(), plan.places());
        let (ly, lx, ry, rx) = (y.lags(), x.lags(), y.radius, x.radius);
        let ky: Slot<f32> = self.scratch(places.ky, IicPlan::table_len(y))?;
        let kx: Slot<f32> = self.scratch(places.kx, IicPlan::table_len(x))?;
        let c = self.scratch(places.lags, plan.lags_len())?;
        let part = self.scratch(places.part, plan.part_len())?;
        let mixed = self.scratch(places.mixed, plan.mixed_len())?;
        let joint = self.scratch(places.joint, plan.joints() * square)?;
        let losses = self.scratch(places.losses, plan.joints())?;

        for (table, Axis { len, radius, shifts, .. }) in [(ky, y), (kx, x)] {
            let kernel = kernels::IicTable { table, len, up, t, radius, shifts };
            self.launch(table.len.div_ceil(TABLE_THREADS), 0, kernel)?;
        }
        let IicPlan { group, each, active, .. } = plan;
        let (tiles, chunks) = (k.div_ceil(TILE).pow(2), plan.chunks());
        let kernel = kernels::IicLags { c, part, maps, n, h, w, k, ry, rx, each, group };
        self.launch((ly * lx.div_ceil(group) * tiles, CLASSES - 1 + chunks), 0, kernel)?;
        let kernel = kernels::IicLagsEdge { c, maps, n, h, w, k, ry, rx };
        self.launch((ly * lx * tiles, CLASSES * (CLASSES - 1)), 0, kernel)?;
        let kernel = kernels::IicAdd { c, part, chunks, lags: ly * lx, lx, square };
        self.launch((square.div_ceil(THREADS), ly * lx), 0, kernel)?;

        // Shifts and classes of lags along an axis, with their strides in its table.
        let shifts = |axis: Axis| (axis.shifts, axis.lags() * CLASSES);
        let classes = |axis: Axis| (axis.lags() * CLASSES, 1);
        let (rows, line) = (ly * CLASSES, x.shifts * square);
        let columns = |out, input, outs, ins| Mix {
            out,
            input,
            table: kx,
            batch: rows,
            len: square,
            outs,
            ins,
        };
        let lines =
            |out, input, outs, ins| Mix { out, input, table: ky, batch: 1, len: line, outs, ins };
        self.mix(columns(mixed, c, shifts(x), classes(x)))?;
        self.mix(lines(joint, mixed, shifts(y), classes(y)))?;
        let share = plan.spec.share() as f32;
        let kernel =
            kernels::IicMutual { joint, losses, k, lambda, rate: scale * share, collapsed };
        self.launch(plan.joints(), ROW * size_of::<f64>() * k, kernel)?;
        self.launch(1, 0, kernels::IicLoss { loss, losses, shifts: plan.joints(), share })?;
        self.mix(lines(mixed, joint, classes(y), shifts(y)))?;
        self.mix(columns(c, mixed, classes(x), shifts(x)))?;

        // First what pairs of inner columns give; then, added, what those with a border column do.
        let (border, tiles) = (w.min(2 * (x.radius + 1)), 2 * k.div_ceil(TILE));
        let kernel = kernels::IicGrad { dmaps, maps, c, n, h, w, k, ry, rx, active };
        let across = (n * w.div_ceil(SEGMENT)).div_ceil(active);
        self.launch((across, h, tiles), active * IicPlan::warp_bytes(x), kernel)?;
        let kernel = kernels::IicGradEdge { dmaps, maps, c, n, h, w, k, ry, rx, border };
        self.launch((n.div_ceil(PIXELS), h * border, tiles), 0, kernel)?;
        Ok(())
    }
}
