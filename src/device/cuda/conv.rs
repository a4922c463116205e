//! Convolutions: cuDNN's engines, and `cuda/conv.cu` where these do not do all that is asked.
//!
//! A plan only asks: which way each direction is done, by which engine and with which pass behind
//! it, is decided for all plans at once (`cudnn::ways`, `cudnn::choose`).

use cudarc::cudnn::sys::cudnnDataType_t as Data;

use crate::base::{Error, Result};
use crate::device::cuda::context::{Cuda, Grid, Kernel};
use crate::device::cuda::cudnn::{Answer, Ask, Operand, Operation, Plan, Task};
use crate::device::ops::conv::Door;
use crate::device::ops::{Conv, ConvSpec, DataGrad, Epilogue, Uses, WeightGrad};
use crate::device::{Activation, Element, Slot};

/// Of `cuda/conv.cu`.
const LANES: usize = 32;
const CHANNELS: usize = 64;
/// Two to four blocks a multiprocessor on any of today's GPUs: what a memory-bound pass wants.
const BLOCKS: usize = 512;
/// Where cuDNN's workspace begins: its kernels may want a whole cache line's alignment and more.
const ALIGN: usize = 256;

/// A kernel behind a convolution of cuDNN.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    kernel: Kernel,
    /// Bytes of scratch that the convolution writes instead of its output; 0 where the pass is in
    /// place.
    temporary: usize,
}

#[derive(Clone, Copy)]
struct BiasGrad {
    partial: Kernel,
    sum: Kernel,
    blocks: usize,
}

#[derive(Clone)]
pub struct ConvPlan {
    door: Door,
    /// Numbers of what cuDNN was asked.
    forward: usize,
    backward_data: Option<usize>,
    backward_weight: Option<usize>,
    bias_grad: Option<BiasGrad>,
}

fn data_type<A: Activation>() -> Data {
    match A::NAME {
        "bf16" => Data::CUDNN_DATA_BFLOAT16,
        "f16" => Data::CUDNN_DATA_HALF,
        _ => Data::CUDNN_DATA_FLOAT,
    }
}

/// Blocks over (rows, k) for kernels that are LANES rows deep.
fn over_rows(rows: usize, k: usize) -> (usize, usize) {
    let wide = k.div_ceil(CHANNELS);
    (rows.div_ceil(LANES).min(BLOCKS.div_ceil(wide)), wide)
}

/// Blocks over `len` elements for kernels of 256 threads that take `each` at a time.
fn over(len: usize, each: usize) -> Grid {
    Grid::new(len.div_ceil(256 * each).min(BLOCKS), 256)
}

impl<A: Activation> Cuda<A> {
    /// Has cuDNN's engines chosen for all convolutions that were planned since the last time, and
    /// asks for their scratch.
    pub(super) fn decide_convolutions(&mut self) -> Result<()> {
        self.cudnn.decide()?;
        let mut at = self.passes.len();
        while let Some((ask, taken)) = self.cudnn.given(at) {
            let (spec, way, workspace) = (ask.spec, taken.way, taken.plan.workspace);
            let pass = way.pass.map(|_| self.pass(spec, way.operation)).transpose()?;
            self.ask_scratch(behind(pass) + workspace);
            self.passes.push(pass);
            at += 1;
        }
        Ok(())
    }

    /// What follows `operation` where it does not do all that is asked.
    fn pass(&mut self, spec: ConvSpec, operation: Operation) -> Result<Pass> {
        let act = size_of::<A>();
        let (kernel, temporary) = match operation {
            Operation::Forward(_) => (self.kernel("conv_epilogue")?, 0),
            Operation::BackwardData { .. } => (self.kernel("conv_add")?, act * spec.x_len()),
            Operation::BackwardWeight { wide: false, .. } => {
                (self.kernel("conv_add_weight")?, act * spec.w_len())
            }
            Operation::BackwardWeight { wide: true, .. } => {
                (self.kernel("conv_add_weight_wide")?, 4 * spec.w_len())
            }
        };
        Ok(Pass { kernel, temporary })
    }

    /// Queues what cuDNN does of ask `ask`, with its workspace behind its temporary. Returns the
    /// pass that is to follow.
    fn convolve(
        &mut self,
        op: &str,
        ask: usize,
        addresses: &[(Operand, u64)],
    ) -> Result<Option<Pass>> {
        self.flush()?;
        let (pass, workspace) = (self.pass_of(ask)?, self.plan_of(ask)?.workspace);
        let workspace = match workspace {
            0 => 0,
            bytes => self.address(self.scratch::<u8>(behind(pass), bytes)?),
        };
        let plan = self.plan_of(ask)?;
        // SAFETY: the caller's slots passed the plan's door, temporary and workspace were asked for
        // by `decide_convolutions`.
        let queued: Answer = unsafe { plan.execute(addresses, workspace) };
        queued.map_err(|refusal| Error::Device {
            op: format!("{op}, engine {}", plan.tag),
            what: refusal.text,
            remedy: "run again with --autotune off, or delete the cache of engines; the last checkpoint is whole"
                .into(),
        })?;
        Ok(pass)
    }

    /// Where a convolution writes: `output`, or its temporary.
    fn target<T: Element>(&self, ask: usize, output: Slot<T>) -> Result<u64> {
        match self.pass_of(ask)?.map_or(0, |pass| pass.temporary) {
            0 => Ok(self.address(output)),
            bytes => Ok(self.address(self.scratch::<u8>(0, bytes)?)),
        }
    }

    fn pass_of(&self, ask: usize) -> Result<Option<Pass>> {
        self.passes.get(ask).copied().ok_or_else(undecided)
    }

    fn plan_of(&self, ask: usize) -> Result<&Plan> {
        self.cudnn.given(ask).map(|(_, taken)| &*taken.plan).ok_or_else(undecided)
    }
}

/// Where the workspace begins.
fn behind(pass: Option<Pass>) -> usize {
    pass.map_or(0, |pass| pass.temporary.next_multiple_of(ALIGN))
}

fn undecided() -> Error {
    Error::Device {
        op: "convolution".into(),
        what: "it was planned after memory was reserved, so it has no engine".into(),
        remedy: "this is a mistake in picie: please report it".into(),
    }
}

impl<A: Activation> Conv for Cuda<A> {
    type ConvPlan = ConvPlan;

    fn plan_conv(&mut self, spec: ConvSpec, uses: Uses) -> Result<ConvPlan> {
        spec.check()?;
        if !spec.k.is_multiple_of(8) || !(spec.c.is_multiple_of(8) || spec.c == 4) {
            return Err(Error::input(
                format!("a convolution from {} to {} channels", spec.c, spec.k),
                "the CUDA engine takes multiples of 8, and 4 for images",
            ));
        }
        let mut ask = |task| self.cudnn.ask(Ask { spec, task, data: data_type::<A>() });
        let forward = ask(Task::Forward(uses.forward));
        let backward_data = match uses.backward_data {
            DataGrad::None => None,
            DataGrad::Overwrite => Some(ask(Task::BackwardData { accumulate: false })),
            DataGrad::Accumulate => Some(ask(Task::BackwardData { accumulate: true })),
        };
        let backward_weight = match uses.backward_weight {
            WeightGrad::None => None,
            _ => Some(ask(Task::BackwardWeight)),
        };
        let bias_grad = match uses.backward_weight {
            WeightGrad::WeightAndBias => {
                let (blocks, _) = over_rows(spec.n * spec.p() * spec.q(), spec.k);
                self.ask_scratch(4 * blocks * spec.k);
                let (partial, sum) =
                    (self.kernel("conv_bias_partial")?, self.kernel("conv_bias_sum")?);
                Some(BiasGrad { partial, sum, blocks })
            }
            _ => None,
        };
        Ok(ConvPlan {
            door: Door { spec, uses },
            forward,
            backward_data,
            backward_weight,
            bias_grad,
        })
    }

    fn conv_forward(
        &mut self,
        plan: &ConvPlan,
        y: Slot<A>,
        x: Slot<A>,
        w: Slot<A>,
        epilogue: Epilogue<A>,
    ) -> Result<()> {
        plan.door.forward(y, x, w, epilogue)?;
        let Door { spec, .. } = plan.door;
        let optional = |at: Option<u64>| at.unwrap_or(0);
        let addresses = [
            (Operand::X, self.address(x)),
            (Operand::W, self.address(w)),
            (Operand::Y, self.address(y)),
            (Operand::Bias, optional(epilogue.bias.map(|slot| self.address(slot)))),
            (Operand::Residual, optional(epilogue.residual.map(|slot| self.address(slot)))),
        ];
        let Some(pass) = self.convolve("conv_forward", plan.forward, &addresses)? else {
            return Ok(());
        };
        let rows = spec.n * spec.p() * spec.q();
        let args = [
            self.at(y),
            self.at_or_null(epilogue.bias),
            self.at_or_null(epilogue.residual),
            rows.into(),
            (spec.k as i32).into(),
            i32::from(epilogue.relu).into(),
        ];
        self.launch(pass.kernel, Grid::new(over_rows(rows, spec.k), 256), &args)
    }

    fn conv_backward_data(
        &mut self,
        plan: &ConvPlan,
        dx: Slot<A>,
        dy: Slot<A>,
        w: Slot<A>,
        accumulate: bool,
    ) -> Result<()> {
        plan.door.backward_data(dx, dy, w, accumulate)?;
        let ask = plan.backward_data.expect("the door lets in what was planned");
        let target = self.target(ask, dx)?;
        let addresses =
            [(Operand::X, target), (Operand::W, self.address(w)), (Operand::Y, self.address(dy))];
        let Some(pass) = self.convolve("conv_backward_data", ask, &addresses)? else {
            return Ok(());
        };
        let more: Slot<A> = self.scratch(0, dx.len)?;
        self.launch(pass.kernel, over(dx.len, 8), &[self.at(dx), self.at(more), dx.len.into()])
    }

    fn conv_backward_weight(
        &mut self,
        plan: &ConvPlan,
        dw: Slot<f32>,
        db: Option<Slot<f32>>,
        x: Slot<A>,
        dy: Slot<A>,
    ) -> Result<()> {
        plan.door.backward_weight(dw, db, x, dy)?;
        let ask = plan.backward_weight.expect("the door lets in what was planned");
        let target = self.target(ask, dw)?;
        let addresses =
            [(Operand::X, self.address(x)), (Operand::W, target), (Operand::Y, self.address(dy))];
        if let Some(pass) = self.convolve("conv_backward_weight", ask, &addresses)? {
            let more: Slot<u8> = self.scratch(0, pass.temporary)?;
            self.launch(
                pass.kernel,
                over(dw.len, 8),
                &[self.at(dw), self.at(more), dw.len.into()],
            )?;
        }
        let (Some(db), Some(BiasGrad { partial, sum, blocks })) = (db, plan.bias_grad) else {
            return Ok(());
        };
        let k = plan.door.spec.k;
        let sums: Slot<f32> = self.scratch(0, blocks * k)?;
        let (rows, grid) = (dy.len / k, (blocks, k.div_ceil(CHANNELS)));
        let args = [self.at(sums), self.at(dy), rows.into(), (k as i32).into()];
        self.launch(partial, Grid::new(grid, 256), &args)?;
        let args = [self.at(db), self.at(sums), (blocks as i32).into(), (k as i32).into()];
        self.launch(sum, Grid::new(k.div_ceil(32), 256), &args)
    }
}
