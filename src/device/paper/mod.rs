//! A GPU on paper: an engine that computes nothing and says how long an H100 or H200 would take.
//!
//! A body of an op names the kernels that the CUDA engine launches, and what each asks of the GPU:
//! instructions by the unit that runs them, bytes from memory and from the L2 cache. The clock of
//! the engine goes on by the time that follows ([`Gpu`]). So a training runs through it as through
//! every engine, and its trace is a prediction. Only what the host writes before a step is kept,
//! since draws decide what views and warps cost.

mod conv;
mod gpu;
mod head;
mod launch;
mod norm;
mod others;
mod stem;
mod view;

use std::collections::BTreeMap;
use std::ops::Range;

use bytemuck::Pod;

pub use gpu::{Gpu, H100, H200};

use crate::base::Result;
use crate::device::cuda::{EngineTimes, usable};
use crate::device::engine::Fill;
use crate::device::paper::conv::Convolutions;
use crate::device::paper::gpu::{GAP, HOST, WAIT};
use crate::device::paper::launch::Launch;
use crate::device::{Dtype, Engine, Layout, Mark, Pool, Ran, Slot, Taken, Trace};

/// The launches of one kernel, as predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Predicted {
    pub launches: usize,
    /// Seconds of all of them, without the gaps between kernels.
    pub seconds: f64,
    /// What bounds most of these seconds.
    pub bound: &'static str,
    /// Seconds of the bound that has most so far.
    most: f64,
}

/// The engine.
pub struct Paper {
    gpu: Gpu,
    dtype: Dtype,
    /// Seconds since the engine was made, and those until the last copy of images has arrived.
    now: f64,
    arrival: f64,
    /// What the host wrote to [`Pool::Staging`].
    staging: Vec<u8>,
    /// Times of convolutions that were measured before.
    times: Option<EngineTimes>,
    convolutions: Convolutions,
    kernels: BTreeMap<&'static str, Predicted>,
    /// Seconds of each kernel by bound.
    bounds: BTreeMap<(&'static str, &'static str), f64>,
    trace: Trace,
}

impl Paper {
    /// A GPU with activations of this type, on which these convolutions were measured before.
    pub fn new(gpu: Gpu, dtype: Dtype, times: Option<EngineTimes>) -> Self {
        Paper {
            gpu,
            dtype,
            now: 0.0,
            arrival: 0.0,
            staging: Vec::new(),
            times,
            convolutions: Convolutions::default(),
            kernels: BTreeMap::new(),
            bounds: BTreeMap::new(),
            trace: Trace::default(),
        }
    }

    /// The kernels that ran since the last call, by name.
    pub fn take_kernels(&mut self) -> BTreeMap<&'static str, Predicted> {
        self.bounds.clear();
        self.convolutions = Convolutions::default();
        std::mem::take(&mut self.kernels)
    }

    /// Moves the clock on by a launch.
    fn launch(&mut self, launch: Launch) -> Result<()> {
        let (seconds, bound) = self.gpu.seconds(&launch);
        self.spend(launch.kernel, seconds, bound)
    }

    /// Moves the clock on by a launch that takes so long.
    fn spend(&mut self, kernel: &'static str, seconds: f64, bound: &'static str) -> Result<()> {
        self.now += seconds + GAP;
        let of_bound = self.bounds.entry((kernel, bound)).or_default();
        *of_bound += seconds;
        let kernel = self.kernels.entry(kernel).or_default();
        kernel.launches += 1;
        kernel.seconds += seconds;
        if *of_bound > kernel.most {
            (kernel.most, kernel.bound) = (*of_bound, bound);
        }
        Ok(())
    }

    /// Bytes of an activation.
    fn act(&self) -> f64 {
        self.dtype.bytes() as f64
    }

    /// What the host wrote to a slot of [`Pool::Staging`].
    fn staged<T: Pod>(&self, slot: Slot<T>) -> Vec<T> {
        assert!(slot.pool == Pool::Staging, "draws are written before each step");
        bytemuck::pod_collect_to_vec(&self.staging[range(slot.erased())])
    }
}

/// The bytes of a slot in its pool.
fn range(slot: Slot<u8>) -> Range<usize> {
    slot.offset..slot.offset + slot.len
}

impl Engine for Paper {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn free_bytes(&self) -> Option<usize> {
        Some(usable(self.gpu.memory))
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "name": format!("{} on paper", self.gpu.name) })
    }

    fn reserve(&mut self, layout: &Layout) -> Result<()> {
        let room = usable(self.gpu.memory);
        if layout.total_bytes() > room {
            return Err(layout.too_large("GPU memory", layout.total_bytes(), room));
        }
        self.staging = vec![0; layout.bytes(Pool::Staging)];
        Ok(())
    }

    fn write_bytes(&mut self, dst: Slot<u8>, src: &[u8]) -> Result<()> {
        self.fill_bytes(dst, &mut |out| {
            out.copy_from_slice(src);
            Ok(())
        })
    }

    /// What is not staged is not asked for.
    fn fill_bytes(&mut self, dst: Slot<u8>, fill: Fill) -> Result<()> {
        match dst.pool {
            Pool::Staging => fill(&mut self.staging[range(dst)]),
            _ => {
                self.now += dst.len as f64 / HOST;
                Ok(())
            }
        }
    }

    fn prefetch_bytes(&mut self, dst: Slot<u8>, _: Fill) -> Result<()> {
        self.arrival = self.arrival.max(self.now) + dst.len as f64 / HOST;
        Ok(())
    }

    fn arrive(&mut self, _: Slot<u8>) -> Result<()> {
        self.now = self.now.max(self.arrival);
        Ok(())
    }

    fn read_bytes(&mut self, dst: &mut [u8], _: Slot<u8>) -> Result<()> {
        self.now += WAIT;
        dst.fill(0);
        Ok(())
    }

    fn zero_bytes(&mut self, dst: Slot<u8>) -> Result<()> {
        self.spend("zero", dst.len as f64 / self.gpu.copy, "memory")
    }

    fn copy_bytes(&mut self, dst: Slot<u8>, _: Slot<u8>) -> Result<()> {
        self.spend("copy", 2.0 * dst.len as f64 / self.gpu.copy, "memory")
    }

    fn replay_ops(
        &mut self,
        _: &mut Taken,
        ops: &mut dyn FnMut(&mut dyn Engine) -> Result<()>,
    ) -> Result<Ran> {
        ops(self).map(|()| Ran::Plain)
    }

    fn mark(&mut self) -> Result<Mark> {
        Ok(Mark(Box::new(self.now)))
    }

    fn seconds(&mut self, start: &Mark, end: &Mark) -> Result<f64> {
        let at = |mark: &Mark| *mark.0.downcast_ref::<f64>().expect("a mark of this engine");
        Ok(at(end) - at(start))
    }

    fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }
}
