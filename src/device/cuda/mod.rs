//! The product: hand-written kernels (`cuda/*.cu`, compiled by `build.rs`, embedded), convolutions
//! through cuDNN, one stream.
//!
//! * here: device, stream, modules and the kernels in them; `kernels`: their arguments, which
//!   build.rs writes, and launches; `error`: what the driver says.
//! * `memory`: pools, and what is done to slots; `staging`: how host data comes there; `recording`:
//!   replayed graphs; `event`: waits.
//! * one file an op family: its bodies. A plan refuses what only this engine cannot run and asks
//!   for scratch; an op only launches, with sizes that follow from its spec.
//!
//! All libraries are opened when the engine is, so one binary serves machines with and without a
//! GPU.

mod adam;
mod confusion;
mod conv;
mod cudnn;
mod error;
mod event;
mod head;
mod iic;
mod images;
mod kernels;
mod kmeans;
mod memory;
mod norm;
mod nvml;
mod nvtx;
mod options;
mod recording;
mod sheet;
mod softmax;
mod staging;
mod stem;
mod top;
mod view;

pub use cudnn::{Choice, EngineTimes, Task};
pub(super) use memory::usable;
pub use options::{Autotune, Choosing, Options, Watcher};
pub use sheet::{Sheet, devices, find, has_driver, missing_kernels, ready};

use std::ffi::CString;

use cudarc::driver::{result, sys};

use crate::base::{Error, Result};
use crate::device::{Act, Dtype, Element, POOLS, Pool, Slot, Trace};
use conv::{ConvPlan, Pass};
use error::driver_error;
use iic::IicPlan;
use images::IMAGES;
use kernels::KERNELS;
use memory::Reserved;
use nvtx::Nvtx;
use staging::Staged;

/// The CUDA engine. Every op is queued on one stream; only reading waits.
pub struct Cuda {
    pub sheet: Sheet,
    dtype: Dtype,
    options: Options,
    stream: sys::CUstream,
    /// For copies that go on beside the stream.
    aside: sys::CUstream,
    modules: Vec<sys::CUmodule>,
    /// The kernels of this dtype, in the order of [`KERNELS`].
    functions: [sys::CUfunction; KERNELS.len()],
    /// Device address of each pool once reserved.
    pools: [sys::CUdeviceptr; POOLS.len()],
    reserved: Reserved,
    /// Bytes of scratch that the plans asked for.
    scratch: usize,
    staged: Staged,
    /// Whether a step is being recorded, which marks become part of.
    recording: bool,
    /// Whether it was said that a step cannot be recorded.
    said_plain: bool,
    nvtx: Option<Nvtx>,
    cudnn: cudnn::Handle,
    /// Plans of convolutions, by their number.
    convolutions: Vec<ConvPlan>,
    /// Passes behind cuDNN's convolutions, by the number of the ask.
    passes: Vec<Option<Pass>>,
    /// Plans of IIC's loss, by their number.
    losses: Vec<IicPlan>,
    trace: Trace,
    device: sys::CUdevice,
}

impl Cuda {
    /// Opens the driver and GPU `options.ordinal`, and loads the kernels for activations of
    /// `dtype`. Errors: no driver, one that is too old, no such GPU, kernels that are not in this
    /// binary or not for this GPU, no cuDNN.
    pub fn new(options: Options, dtype: Dtype) -> Result<Self> {
        let doing = "starting the GPU";
        let e = |e| driver_error(doing, e);
        let device = sheet::open(options.ordinal)?;
        // SAFETY: `device` is a device of the driver that is open; the context stays retained for
        // the life of the process.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(e)?;
        // SAFETY: the context was retained above.
        unsafe { result::ctx::set_current(context) }.map_err(e)?;
        let sheet = Sheet::read(device).map_err(e)?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(e)?;
        let aside = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(e)?;
        let cudnn = cudnn::Handle::new(stream, &sheet, &options)?;
        let (modules, functions) = load(dtype)?;
        Ok(Cuda {
            sheet,
            dtype,
            options,
            stream,
            aside,
            modules,
            functions,
            pools: [0; POOLS.len()],
            reserved: Reserved::default(),
            scratch: 0,
            staged: Staged::default(),
            recording: false,
            said_plain: false,
            nvtx: Nvtx::open(),
            cudnn,
            convolutions: Vec::new(),
            passes: Vec::new(),
            losses: Vec::new(),
            trace: Trace::default(),
            device,
        })
    }

    /// The device address of a slot.
    pub fn address<T>(&self, slot: Slot<T>) -> u64 {
        self.pools[slot.pool as usize] + slot.offset as u64
    }

    /// Asks for at least `bytes` of scratch; called by plans.
    fn ask_scratch(&mut self, bytes: usize) {
        self.scratch = self.scratch.max(bytes);
    }

    /// `len` elements of the scratch of one op from byte `offset` on. What lies there from before
    /// is garbage. Errors: more than `reserve` took, as for an op that was planned after it.
    fn scratch<T: Element>(&self, offset: usize, len: usize) -> Result<Slot<T>> {
        self.in_scratch(offset + len * size_of::<T>())?;
        Ok(Slot::new(Pool::Scratch, offset, len))
    }

    /// As [`Cuda::scratch`], for activations.
    fn scratch_acts(&self, offset: usize, len: usize) -> Result<Slot<Act>> {
        let width = self.dtype.bytes();
        self.in_scratch(offset + len * width)?;
        Ok(Slot::of_width(Pool::Scratch, offset, len, width))
    }

    fn in_scratch(&self, want: usize) -> Result<()> {
        let got = self.reserved.scratch;
        if want <= got {
            Ok(())
        } else {
            Err(Error::Shape { op: "scratch", what: "the reserved pool", got, want })
        }
    }

    /// The engines of cuDNN that were chosen so far, in the order of planning.
    pub fn chosen_engines(&self) -> Vec<cudnn::Choice> {
        self.cudnn.choices().cloned().collect()
    }

    /// Waits for everything queued.
    fn synchronize(&mut self, doing: &str) -> Result<()> {
        // SAFETY: the stream lives as long as the engine.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| driver_error(doing, e))
    }
}

/// The modules of `dtype`, and the kernels in them in the order of [`KERNELS`].
fn load(dtype: Dtype) -> Result<(Vec<sys::CUmodule>, [sys::CUfunction; KERNELS.len()])> {
    let mut modules = Vec::new();
    let mut functions = [std::ptr::null_mut(); KERNELS.len()];
    for image in IMAGES.iter().filter(|image| image.act == dtype.name()) {
        let doing = format!("loading the kernels {} for {}", image.stem, image.act);
        // SAFETY: the image is a fatbin or a zero-terminated text, complete and 'static.
        let module = unsafe { result::module::load_data(image.data.as_ptr().cast()) }
            .map_err(|e| driver_error(&doing, e))?;
        modules.push(module);
        for (function, (stem, name)) in functions.iter_mut().zip(KERNELS) {
            if stem != image.stem {
                continue;
            }
            let entry = CString::new(format!("{name}_{}", image.act)).expect("no zero byte");
            // SAFETY: the module was loaded above, and is unloaded with the engine only.
            let found = unsafe { result::module::get_function(module, entry) };
            *function = found.map_err(|_| Error::Device {
                op: name.into(),
                what: "this kernel is not in the binary".into(),
                remedy: "build again from a clean checkout".into(),
            })?;
        }
    }
    Ok((modules, functions))
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Errors have nobody to go to; the process may be ending because of one.
        self.free_pools();
        self.cudnn.close();
        // SAFETY: nothing is queued after `free_pools`, which waits; each handle is released once.
        unsafe {
            for &module in &self.modules {
                let _ = result::module::unload(module);
            }
            let _ = result::stream::destroy(self.aside);
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
