//! The body of IIC's loss: correlations, mixed to joint matrices; their gradients, mixed back; the
//! maps' gradients.

use crate::base::{Error, Result};
use crate::device::Slot;
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::iic::{
    self, MOST, OUTS, ROW, TABLE_THREADS, THREADS, TILE,
};
use crate::device::cuda::kernels::consts::iic_gradient::PIXELS;
use crate::device::ops::iic::{Axis, CLASSES, FIRST, INNER, IicOps, LAST};
use crate::device::ops::{IicLoss, IicSpec, Passed};

/// Enough blocks of correlations for a large GPU.
const BLOCKS: usize = 2048;

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
    /// Pairs of images of a partial sum.
    each: usize,
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

    fn chunks(&self) -> usize {
        self.spec.n.div_ceil(self.each)
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
        let matrices = y.lags() * x.lags() * spec.k.div_ceil(TILE).pow(2);
        let each = spec.n.div_ceil(BLOCKS.div_ceil(matrices).min(spec.n));
        let plan = IicPlan { spec, y, x, each };
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
        let (tiles, chunks, each) = (k.div_ceil(TILE).pow(2), plan.chunks(), plan.each);
        let blocks = (ly * lx * tiles, CLASSES * CLASSES - 1 + chunks);
        self.launch(blocks, 0, kernels::IicLags { c, part, maps, n, h, w, k, ry, rx, each })?;
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
        let border = w.min(2 * (x.radius + 1));
        let tiles = 2 * k.div_ceil(TILE);
        for (across, border) in [((n * w).div_ceil(PIXELS), 0), (n.div_ceil(PIXELS), border)] {
            let kernel = kernels::IicGrad { dmaps, maps, c, n, h, w, k, ry, rx, border };
            self.launch((across, h * border.max(1), tiles), 0, kernel)?;
        }
        Ok(())
    }
}
