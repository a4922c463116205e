//! Launchers of `cuda/iic.cu`: correlations, mixed to joint matrices; their gradients, mixed back;
//! the maps' gradients.

use super::context::{Arg, Cuda, Grid, Kernel};
use crate::base::{Error, Result};
use crate::device::ops::iic::{Axis, CLASSES};
use crate::device::ops::{Iic, IicSpec};
use crate::device::{Activation, Slot};

/// Sides of the kernels' tiles: classes, pixels; outputs of a thread that mixes.
const TILE: usize = 48;
const PIXELS: usize = 64;
const OUTS: usize = 8;

/// Enough blocks of correlations for a large GPU.
const BLOCKS: usize = 2048;

/// f64 of shared memory that a joint matrix takes for each of its rows, and the rows that 48 KiB
/// hold.
const ROW: usize = 5;
const MOST: usize = (48 << 10) / (ROW * size_of::<f64>());

#[derive(Clone)]
pub struct IicPlan {
    spec: IicSpec,
    y: Axis,
    x: Axis,
    /// Pairs of images of a partial sum.
    each: usize,
    /// Byte offsets in scratch.
    places: Places,
    table: Kernel,
    lags: Kernel,
    add: Kernel,
    mix: Kernel,
    mutual: Kernel,
    loss: Kernel,
    grad: Kernel,
}

/// Where scratch holds the tables of rows and columns, the correlations (later their gradients),
/// the partial ones of the inner class, those mixed by columns (later their gradients), Q, the loss
/// of each shift; and what it holds of them all.
#[derive(Clone, Copy, Default)]
struct Places {
    ky: usize,
    kx: usize,
    lags: usize,
    part: usize,
    mixed: usize,
    joint: usize,
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

    fn place(&self) -> Places {
        let mut end = 0;
        let mut take = |bytes: usize| {
            let start = end;
            end += bytes.next_multiple_of(64);
            start
        };
        let mut places = Places {
            ky: take(4 * Self::table_len(self.y)),
            kx: take(4 * Self::table_len(self.x)),
            lags: take(4 * self.lags_len()),
            part: take(4 * self.part_len()),
            mixed: take(4 * self.mixed_len()),
            joint: take(4 * self.joints() * self.square()),
            losses: take(8 * self.joints()),
            end: 0,
        };
        places.end = end;
        places
    }
}

/// A launch of `iic_mix`: (batch, ins, len) to (batch, outs, len), by a table with these strides.
struct Mix {
    out: Slot<f32>,
    input: Slot<f32>,
    table: Slot<f32>,
    batch: usize,
    len: usize,
    outs: (usize, usize),
    ins: (usize, usize),
}

impl<A: Activation> Cuda<A> {
    fn iic_mix(&mut self, kernel: Kernel, mix: Mix) -> Result<()> {
        let Mix { out, input, table, batch, len, outs: (outs, by_out), ins: (ins, by_in) } = mix;
        let grid = Grid::new((len.div_ceil(256), outs.div_ceil(OUTS), batch), 256);
        let sizes = [len, outs, ins, by_out, by_in].map(Arg::from);
        self.launch(
            kernel,
            grid,
            &[&[self.at(out), self.at(input), self.at(table)], &sizes[..]].concat(),
        )
    }
}

impl<A: Activation> Iic for Cuda<A> {
    type IicPlan = IicPlan;

    fn plan_iic(&mut self, spec: IicSpec) -> Result<IicPlan> {
        let [y, x] = spec.axes()?;
        if spec.k > MOST || spec.maps() > i32::MAX as usize {
            let what = format!(
                "IIC's loss on CUDA has up to {MOST} classes and 2³¹ numbers, not {} of {spec:?}",
                spec.maps()
            );
            return Err(Error::input(what, "lower the batch"));
        }
        let matrices = y.lags() * x.lags() * spec.k.div_ceil(TILE).pow(2);
        let mut plan = IicPlan {
            spec,
            y,
            x,
            each: spec.n.div_ceil(BLOCKS.div_ceil(matrices).min(spec.n)),
            places: Places::default(),
            table: self.kernel("iic_table")?,
            lags: self.kernel("iic_lags")?,
            add: self.kernel("iic_add")?,
            mix: self.kernel("iic_mix")?,
            mutual: self.kernel("iic_mutual")?,
            loss: self.kernel("iic_loss")?,
            grad: self.kernel("iic_grad")?,
        };
        plan.places = plan.place();
        self.ask_scratch(plan.places.end);
        Ok(plan)
    }

    fn iic_loss(
        &mut self,
        plan: &IicPlan,
        loss: Slot<f32>,
        dmaps: Slot<f32>,
        maps: Slot<f32>,
        scale: f32,
    ) -> Result<()> {
        plan.spec.check(loss, dmaps, maps)?;
        let IicSpec { n, h, w, k, up, t, collapsed, lambda } = plan.spec;
        let (y, x, square, places) = (plan.y, plan.x, plan.square(), plan.places);
        let (ly, lx) = (y.lags(), x.lags());
        let ky: Slot<f32> = self.scratch(places.ky, IicPlan::table_len(y))?;
        let kx: Slot<f32> = self.scratch(places.kx, IicPlan::table_len(x))?;
        let lags: Slot<f32> = self.scratch(places.lags, plan.lags_len())?;
        let part: Slot<f32> = self.scratch(places.part, plan.part_len())?;
        let mixed: Slot<f32> = self.scratch(places.mixed, plan.mixed_len())?;
        let joint: Slot<f32> = self.scratch(places.joint, plan.joints() * square)?;
        let losses: Slot<f64> = self.scratch(places.losses, plan.joints())?;

        for (table, axis) in [(ky, y), (kx, x)] {
            let sizes = [axis.len, up, t, axis.radius, axis.shifts].map(Arg::from);
            let grid = Grid::new(table.len.div_ceil(64), 64);
            self.launch(plan.table, grid, &[&[self.at(table)], &sizes[..]].concat())?;
        }
        let sizes = [n, h, w, k, y.radius, x.radius].map(Arg::from);
        let grid = Grid::new(
            (ly * lx * k.div_ceil(TILE).pow(2), CLASSES * CLASSES - 1 + plan.chunks()),
            64,
        );
        let args =
            [&[self.at(lags), self.at(part), self.at(maps)], &sizes[..], &[plan.each.into()]]
                .concat();
        self.launch(plan.lags, grid, &args)?;
        let counts = [plan.chunks(), ly * lx, lx, square].map(Arg::from);
        let grid = Grid::new((square.div_ceil(256), ly * lx), 256);
        self.launch(plan.add, grid, &[&[self.at(lags), self.at(part)], &counts[..]].concat())?;

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
        self.iic_mix(plan.mix, columns(mixed, lags, shifts(x), classes(x)))?;
        self.iic_mix(plan.mix, lines(joint, mixed, shifts(y), classes(y)))?;
        let share = plan.spec.share() as f32;
        let args = [
            self.at(joint),
            self.at(losses),
            k.into(),
            lambda.into(),
            (scale * share).into(),
            i32::from(collapsed).into(),
        ];
        let grid = Grid::new(plan.joints(), 256).shared(ROW * size_of::<f64>() * k);
        self.launch(plan.mutual, grid, &args)?;
        let args = [self.at(loss), self.at(losses), plan.joints().into(), share.into()];
        self.launch(plan.loss, Grid::new(1, 256), &args)?;
        self.iic_mix(plan.mix, lines(mixed, joint, classes(y), shifts(y)))?;
        self.iic_mix(plan.mix, columns(lags, mixed, classes(x), shifts(x)))?;

        // First what pairs of inner columns give; then, added, what those with a border column do.
        let border = w.min(2 * (x.radius + 1));
        let tiles = 2 * k.div_ceil(TILE);
        for (blocks, border) in [((n * w).div_ceil(PIXELS), 0), (n.div_ceil(PIXELS), border)] {
            let grid = Grid::new((blocks, h * border.max(1), tiles), 128);
            let args =
                [&[self.at(dmaps), self.at(maps), self.at(lags)], &sizes[..], &[border.into()]]
                    .concat();
            self.launch(plan.grad, grid, &args)?;
        }
        Ok(())
    }
}
