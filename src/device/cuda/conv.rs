//! Bodies of convolutions: cuDNN's engines, and `cuda/conv.cu` where these do not do all that is
//! asked; of images in 16 bits, the kernels of `cuda/conv_image.cu`.
//!
//! A plan only asks: which way each direction is done, by which engine and with which pass behind
//! it, is decided for all plans at once (`cudnn::ways`, `cudnn::choose`).

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::cudnn::{Answer, Ask, Operand, Operation, Plan, Task};
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::conv::{CHANNELS, FOUR, LANES, SUMMED, THREADS, VECTOR};
use crate::device::cuda::kernels::consts::conv_image::{BAND, COLUMNS, STRIP};
use crate::device::ops::conv::ConvOps;
use crate::device::ops::{
    ConvBackwardData, ConvBackwardWeight, ConvForward, ConvSpec, ConvUse, DataGrad, Passed,
    WeightGrad,
};
use crate::device::{Dtype, Slot};

/// The most images of a launch that has them as a grid's third dimension.
const MOST_IMAGES: usize = u16::MAX as usize;
/// Two to four blocks a multiprocessor on any of today's GPUs: what a memory-bound pass wants.
const BLOCKS: usize = 512;
/// Three on each multiprocessor of an H100, rounded to what its strips of a batch divide into.
const MOST_PARTS: usize = 384;
/// Where cuDNN's workspace begins: its kernels may want a whole cache line's alignment and more.
const ALIGN: usize = 256;

/// A kernel behind a convolution of cuDNN.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    /// Bytes of scratch that the convolution writes instead of its output; 0 where the pass is in
    /// place.
    temporary: usize,
    /// Whether the temporary holds f32 and not activations.
    wide: bool,
}

/// Who computes a part of a convolution.
#[derive(Clone, Copy)]
enum By {
    /// cuDNN, by this number of what it was asked.
    Cudnn(usize),
    /// A kernel for images, `cuda/conv_image.cu`.
    Picie,
}

#[derive(Clone, Copy)]
pub(super) struct ConvPlan {
    forward: By,
    backward_data: Option<usize>,
    backward_weight: Option<By>,
}

/// Rows of y.
fn rows(spec: &ConvSpec) -> usize {
    spec.n * spec.p() * spec.q()
}

/// Blocks over (rows, k) for kernels that are LANES rows deep.
fn over_rows(rows: usize, k: usize) -> (usize, usize) {
    let wide = k.div_ceil(CHANNELS);
    (rows.div_ceil(LANES).min(BLOCKS.div_ceil(wide)), wide)
}

/// Blocks of conv_image_weight, each with sums of its own: three on each multiprocessor, and no
/// more than there are parts.
fn parts(spec: &ConvSpec) -> usize {
    (spec.n * spec.p().div_ceil(STRIP) * spec.q().div_ceil(BAND)).min(MOST_PARTS)
}

/// Blocks over `len` elements for kernels whose threads take `each` at a time.
fn over(len: usize, each: usize) -> usize {
    len.div_ceil(THREADS * each).min(BLOCKS)
}

impl Cuda {
    /// Has cuDNN's engines chosen for all convolutions that were planned since the last time, and
    /// asks for their scratch.
    pub(super) fn decide_convolutions(&mut self) -> Result<()> {
        self.cudnn.decide()?;
        let (mut at, act) = (self.passes.len(), self.dtype.bytes());
        while let Some((ask, taken)) = self.cudnn.given(at) {
            let (spec, way, workspace) = (ask.spec, taken.way, taken.plan.workspace);
            let pass = way.pass.map(|_| match way.operation {
                Operation::Forward(_) => Pass { temporary: 0, wide: false },
                Operation::BackwardData { .. } => {
                    Pass { temporary: act * spec.x_len(), wide: false }
                }
                Operation::BackwardWeight { wide, .. } => {
                    Pass { temporary: if wide { 4 } else { act } * spec.w_len(), wide }
                }
            });
            self.ask_scratch(behind(pass) + workspace);
            self.passes.push(pass);
            at += 1;
        }
        Ok(())
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
        // SAFETY: the caller's slots passed the op's door, temporary and workspace were asked for
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
    fn target<T>(&self, ask: usize, output: Slot<T>) -> Result<u64> {
        match self.pass_of(ask)?.map_or(0, |pass| pass.temporary) {
            0 => Ok(self.address(output)),
            bytes => Ok(self.address(self.scratch::<u8>(0, bytes)?)),
        }
    }

    fn gradient_by_cudnn(&mut self, ask: usize, a: ConvBackwardWeight) -> Result<()> {
        let ConvBackwardWeight { dw, x, dy, .. } = a;
        let target = self.target(ask, dw)?;
        let addresses =
            [(Operand::X, self.address(x)), (Operand::W, target), (Operand::Y, self.address(dy))];
        let len = dw.len;
        match self.convolve("conv_backward_weight", ask, &addresses)? {
            Some(Pass { wide: true, .. }) => {
                let more = self.scratch(0, len)?;
                self.launch(over(len, VECTOR), 0, kernels::ConvAddWeightWide { dw, more, len })
            }
            Some(Pass { wide: false, .. }) => {
                let more = self.scratch_acts(0, len)?;
                self.launch(over(len, FOUR), 0, kernels::ConvAddWeight { dw, more, len })
            }
            None => Ok(()),
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

impl ConvOps for Cuda {
    fn plan_conv(&mut self, ConvUse { spec, uses }: ConvUse) -> Result<usize> {
        if !spec.k.is_multiple_of(VECTOR) || !(spec.c.is_multiple_of(VECTOR) || spec.c == 4) {
            return Err(Error::input(
                format!("a convolution from {} to {} channels", spec.c, spec.k),
                format!("the CUDA engine takes multiples of {VECTOR}, and 4 for images"),
            ));
        }
        let data = self.dtype.into();
        let mut ask = |task| self.cudnn.ask(Ask { spec, task, data });
        let images = self.dtype != Dtype::F32 && spec.reads_images() && spec.n <= MOST_IMAGES;
        let forward = match images && !uses.forward.residual {
            true => By::Picie,
            false => By::Cudnn(ask(Task::Forward(uses.forward))),
        };
        let backward_data = match uses.backward_data {
            DataGrad::None => None,
            DataGrad::Overwrite => Some(ask(Task::BackwardData { accumulate: false })),
            DataGrad::Accumulate => Some(ask(Task::BackwardData { accumulate: true })),
        };
        let backward_weight = match uses.backward_weight {
            WeightGrad::None => None,
            _ if images => Some(By::Picie),
            _ => Some(By::Cudnn(ask(Task::BackwardWeight))),
        };
        if let Some(By::Picie) = backward_weight {
            self.ask_scratch(4 * parts(&spec) * spec.w_len());
        }
        if uses.backward_weight == WeightGrad::WeightAndBias {
            let (blocks, _) = over_rows(rows(&spec), spec.k);
            self.ask_scratch(4 * blocks * spec.k);
        }
        self.convolutions.push(ConvPlan { forward, backward_data, backward_weight });
        Ok(self.convolutions.len() - 1)
    }

    fn conv_forward(&mut self, a: Passed<ConvForward>) -> Result<()> {
        let (spec, plan) = (a.spec().spec, self.convolutions[a.number()]);
        let ConvForward { y, x, w, epilogue } = *a;
        let By::Cudnn(ask) = plan.forward else {
            let blocks = (spec.q().div_ceil(COLUMNS), spec.p().div_ceil(STRIP), spec.n);
            let (bias, relu) = (epilogue.bias, epilogue.relu);
            let (height, width) = (spec.h, spec.w);
            let kernel = kernels::ConvImage { y, x, weights: w, bias, height, width, relu };
            return self.launch(blocks, 0, kernel);
        };
        let optional = |slot: Option<_>| slot.map_or(0, |slot| self.address(slot));
        let addresses = [
            (Operand::X, self.address(x)),
            (Operand::W, self.address(w)),
            (Operand::Y, self.address(y)),
            (Operand::Bias, optional(epilogue.bias)),
            (Operand::Residual, optional(epilogue.residual)),
        ];
        if self.convolve("conv_forward", ask, &addresses)?.is_none() {
            return Ok(());
        }
        let (rows, k) = (rows(&spec), spec.k);
        let kernel = kernels::ConvEpilogue {
            y,
            bias: epilogue.bias,
            residual: epilogue.residual,
            rows,
            k,
            relu: epilogue.relu,
        };
        self.launch(over_rows(rows, k), 0, kernel)
    }

    fn conv_backward_data(&mut self, a: Passed<ConvBackwardData>) -> Result<()> {
        let ConvBackwardData { dx, dy, w, .. } = *a;
        let ask = self.convolutions[a.number()].backward_data.ok_or_else(undecided)?;
        let target = self.target(ask, dx)?;
        let addresses =
            [(Operand::X, target), (Operand::W, self.address(w)), (Operand::Y, self.address(dy))];
        if self.convolve("conv_backward_data", ask, &addresses)?.is_none() {
            return Ok(());
        }
        let (len, more) = (dx.len, self.scratch_acts(0, dx.len)?);
        self.launch(over(len, VECTOR), 0, kernels::ConvAdd { dx, more, len })
    }

    fn conv_backward_weight(&mut self, a: Passed<ConvBackwardWeight>) -> Result<()> {
        let ConvBackwardWeight { dw, db, x, dy } = *a;
        let spec = a.spec().spec;
        match self.convolutions[a.number()].backward_weight.ok_or_else(undecided)? {
            By::Cudnn(ask) => self.gradient_by_cudnn(ask, *a)?,
            By::Picie => {
                let (blocks, k) = (parts(&spec), dw.len);
                let partial = self.scratch(0, blocks * k)?;
                let ConvSpec { n, h: height, w: width, .. } = spec;
                let kernel = kernels::ConvImageWeight { partial, x, dy, n, height, width };
                self.launch(blocks, 0, kernel)?;
                self.launch(
                    k.div_ceil(SUMMED),
                    0,
                    kernels::ConvSum { sums: dw, partial, blocks, k },
                )?;
            }
        }
        let Some(db) = db else { return Ok(()) };
        let (rows, k) = (rows(&spec), spec.k);
        let (blocks, wide) = over_rows(rows, k);
        let partial = self.scratch(0, blocks * k)?;
        self.launch((blocks, wide), 0, kernels::ConvBiasPartial { partial, dy, rows, k })?;
        self.launch(k.div_ceil(SUMMED), 0, kernels::ConvSum { sums: db, partial, blocks, k })
    }
}
