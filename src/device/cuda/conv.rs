//! Convolutions: cuDNN's engines, and `cuda/conv.cu` where these do not do all that is asked.
//!
//! Each direction has a list of ways, the best first, and takes the first for which cuDNN has an engine:
//! * forward: the epilogue within the convolution (not offered everywhere), or a pass of our own after it;
//! * dx +=: β = 1 within the convolution, or a gradient in scratch that is added;
//! * dw +=: β = 1 onto f32, which takes inputs of f32, or a gradient of the activations' type in scratch that is added, or one of f32.
//!
//! NOTE: of bf16 and f16 inputs cuDNN 9.28 offers f32 gradients as a last resort, by one engine that does not split the long sum over
//! pixels: rounding dw once, after an f32 sum, is what its fast engines do.

use std::rc::Rc;

use cudarc::cudnn::sys::cudnnDataType_t as Data;

use crate::base::{Error, Result};
use crate::device::cuda::context::{Cuda, Grid, Kernel};
use crate::device::cuda::cudnn::{Answer, Operand, Operation, Plan, Problem};
use crate::device::ops::conv::Door;
use crate::device::ops::{Conv, ConvSpec, DataGrad, Epilogue, Terms, Uses, WeightGrad};
use crate::device::{Activation, Element, Slot};

/// Of `cuda/conv.cu`.
const LANES: usize = 32;
const CHANNELS: usize = 64;
/// Two to four blocks a multiprocessor on any of today's GPUs: what a memory-bound pass wants.
const BLOCKS: usize = 512;
/// Where cuDNN's workspace begins: its kernels may want a whole cache line's alignment and more.
const ALIGN: usize = 256;

/// A convolution of cuDNN, and a pass over its output.
#[derive(Clone)]
struct Way {
    plan: Rc<Plan>,
    after: Option<After>,
}

#[derive(Clone, Copy)]
struct After {
    kernel: Kernel,
    /// Bytes of scratch that the convolution writes instead of its output; 0 where the pass is in place.
    temporary: usize,
}

impl Way {
    fn temporary(&self) -> usize {
        self.after.map_or(0, |after| after.temporary)
    }

    fn scratch(&self) -> usize {
        self.temporary().next_multiple_of(ALIGN) + self.plan.workspace
    }
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
    forward: Way,
    backward_data: Option<Way>,
    backward_weight: Option<Way>,
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
    /// The first way that an engine takes.
    fn first_way(&mut self, what: &str, spec: ConvSpec, ways: Vec<(Operation, Option<After>)>) -> Result<Way> {
        let mut said = String::new();
        for (operation, after) in ways {
            match self.cudnn.plan(Problem { spec, operation, data: data_type::<A>() }) {
                Ok(plan) => {
                    let way = Way { plan, after };
                    self.ask_scratch(way.scratch());
                    return Ok(way);
                }
                Err(refusal) => said = refusal.0,
            }
        }
        Err(Error::Device {
            op: format!("{what} of {spec:?} in {}", A::NAME),
            what: format!("cuDNN {} has no engine for it: {said}", self.cudnn.version()),
            remedy: "use another cuDNN 9, another --precision, or --device cpu; without --deterministic there are more engines".into(),
        })
    }

    /// Queues `way`'s convolution with its workspace behind its temporary.
    fn convolve(&mut self, op: &str, way: &Way, addresses: &[(Operand, u64)]) -> Result<()> {
        self.flush()?;
        let workspace = match way.plan.workspace {
            0 => 0,
            bytes => {
                let start = way.temporary().next_multiple_of(ALIGN);
                self.address(self.scratch::<u8>(start, bytes)?)
            }
        };
        // SAFETY: the caller's slots passed the plan's door, temporary and workspace were asked for by `first_way`.
        let queued: Answer = unsafe { way.plan.execute(&self.cudnn, addresses, workspace) };
        queued.map_err(|refusal| Error::Device {
            op: format!("{op}, engine {}", way.plan.tag),
            what: refusal.0,
            remedy: "run again with --autotune off, or delete the cache of engines; the last checkpoint is whole"
                .into(),
        })
    }

    /// Where a convolution writes: `output`, or its temporary.
    fn target<T: Element>(&self, way: &Way, output: Slot<T>) -> Result<u64> {
        match way.temporary() {
            0 => Ok(self.address(output)),
            bytes => Ok(self.address(self.scratch::<u8>(0, bytes)?)),
        }
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
        let act = size_of::<A>();
        let mut ways = vec![(Operation::Forward(uses.forward), None)];
        if uses.forward != Terms::NONE {
            let after = After { kernel: self.kernel("conv_epilogue")?, temporary: 0 };
            ways.push((Operation::Forward(Terms::NONE), Some(after)));
        }
        let forward = self.first_way("forward", spec, ways)?;

        let add = After { kernel: self.kernel("conv_add")?, temporary: act * spec.x_len() };
        let ways = match uses.backward_data {
            DataGrad::None => Vec::new(),
            DataGrad::Overwrite => vec![(Operation::BackwardData { accumulate: false }, None)],
            DataGrad::Accumulate => vec![
                (Operation::BackwardData { accumulate: true }, None),
                (Operation::BackwardData { accumulate: false }, Some(add)),
            ],
        };
        let backward_data = if ways.is_empty() { None } else { Some(self.first_way("data gradient", spec, ways)?) };

        let wide = After { kernel: self.kernel("conv_add_weight_wide")?, temporary: 4 * spec.w_len() };
        let narrow = After { kernel: self.kernel("conv_add_weight")?, temporary: act * spec.w_len() };
        let ways = vec![
            (Operation::BackwardWeight { accumulate: true, wide: true }, None),
            (Operation::BackwardWeight { accumulate: false, wide: false }, Some(narrow)),
            (Operation::BackwardWeight { accumulate: false, wide: true }, Some(wide)),
        ];
        let backward_weight = match uses.backward_weight {
            WeightGrad::None => None,
            _ => Some(self.first_way("weight gradient", spec, ways)?),
        };
        let bias_grad = match uses.backward_weight {
            WeightGrad::WeightAndBias => {
                let (blocks, _) = over_rows(spec.n * spec.p() * spec.q(), spec.k);
                self.ask_scratch(4 * blocks * spec.k);
                let (partial, sum) = (self.kernel("conv_bias_partial")?, self.kernel("conv_bias_sum")?);
                Some(BiasGrad { partial, sum, blocks })
            }
            _ => None,
        };
        Ok(ConvPlan { door: Door { spec, uses }, forward, backward_data, backward_weight, bias_grad })
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
        let (Door { spec, .. }, way) = (plan.door, &plan.forward);
        let optional = |at: Option<u64>| at.unwrap_or(0);
        let addresses = [
            (Operand::X, self.address(x)),
            (Operand::W, self.address(w)),
            (Operand::Y, self.address(y)),
            (Operand::Bias, optional(epilogue.bias.map(|slot| self.address(slot)))),
            (Operand::Residual, optional(epilogue.residual.map(|slot| self.address(slot)))),
        ];
        self.convolve("conv_forward", way, &addresses)?;
        let Some(after) = way.after else { return Ok(()) };
        let rows = spec.n * spec.p() * spec.q();
        let args = [
            self.at(y),
            self.at_or_null(epilogue.bias),
            self.at_or_null(epilogue.residual),
            rows.into(),
            (spec.k as i32).into(),
            i32::from(epilogue.relu).into(),
        ];
        self.launch(after.kernel, Grid::new(over_rows(rows, spec.k), 256), &args)
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
        let way = plan.backward_data.as_ref().expect("the door lets in what was planned");
        let target = self.target(way, dx)?;
        let addresses = [(Operand::X, target), (Operand::W, self.address(w)), (Operand::Y, self.address(dy))];
        self.convolve("conv_backward_data", way, &addresses)?;
        let Some(after) = way.after else { return Ok(()) };
        let more: Slot<A> = self.scratch(0, dx.len)?;
        self.launch(after.kernel, over(dx.len, 8), &[self.at(dx), self.at(more), dx.len.into()])
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
        let way = plan.backward_weight.as_ref().expect("the door lets in what was planned");
        let target = self.target(way, dw)?;
        let addresses = [(Operand::X, self.address(x)), (Operand::W, target), (Operand::Y, self.address(dy))];
        self.convolve("conv_backward_weight", way, &addresses)?;
        if let Some(after) = way.after {
            let more: Slot<u8> = self.scratch(0, after.temporary)?;
            self.launch(after.kernel, over(dw.len, 8), &[self.at(dw), self.at(more), dw.len.into()])?;
        }
        let (Some(db), Some(BiasGrad { partial, sum, blocks })) = (db, plan.bias_grad) else { return Ok(()) };
        let k = plan.door.spec.k;
        let sums: Slot<f32> = self.scratch(0, blocks * k)?;
        let (rows, grid) = (dy.len / k, (blocks, k.div_ceil(CHANNELS)));
        let args = [self.at(sums), self.at(dy), rows.into(), (k as i32).into()];
        self.launch(partial, Grid::new(grid, 256), &args)?;
        let args = [self.at(db), self.at(sums), (blocks as i32).into(), (k as i32).into()];
        self.launch(sum, Grid::new(k.div_ceil(32), 256), &args)
    }
}
