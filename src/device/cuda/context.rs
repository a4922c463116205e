//! One GPU, one stream and the kernels in it.

use std::ffi::CString;

use cudarc::driver::{result, sys};

use crate::base::{Error, Result};
use crate::device::cuda::conv::{ConvPlan, Pass};
use crate::device::cuda::cudnn;
use crate::device::cuda::iic::IicPlan;
use crate::device::cuda::images::{IMAGES, MISSING_KERNELS};
use crate::device::cuda::kernels::KERNELS;
use crate::device::cuda::memory::Reserved;
use crate::device::cuda::nvtx::Nvtx;
use crate::device::cuda::options::Options;
use crate::device::cuda::sheet::Sheet;
use crate::device::cuda::staging::Staged;
use crate::device::{Act, Dtype, Element, POOLS, Pool, Slot, Trace};

/// The CUDA engine. Every op is queued on one stream; only reading waits.
pub struct Cuda {
    pub sheet: Sheet,
    pub(super) dtype: Dtype,
    pub(super) options: Options,
    pub(super) stream: sys::CUstream,
    /// For copies that go on beside the stream.
    pub(super) aside: sys::CUstream,
    modules: Vec<sys::CUmodule>,
    /// The kernels of this dtype, in the order of [`KERNELS`].
    pub(super) functions: [sys::CUfunction; KERNELS.len()],
    /// Device address of each pool once reserved.
    pub(super) pools: [sys::CUdeviceptr; POOLS.len()],
    pub(super) reserved: Reserved,
    /// Bytes of scratch that the plans asked for.
    pub(super) scratch: usize,
    pub(super) staged: Staged,
    /// Whether it was said that a step cannot be recorded.
    pub(super) said_plain: bool,
    pub(super) nvtx: Option<Nvtx>,
    pub(super) cudnn: cudnn::Handle,
    /// Plans of convolutions, by their number.
    pub(super) convolutions: Vec<ConvPlan>,
    /// Passes behind cuDNN's convolutions, by the number of the ask.
    pub(super) passes: Vec<Option<Pass>>,
    /// Plans of IIC's loss, by their number.
    pub(super) losses: Vec<IicPlan>,
    pub(super) trace: Trace,
    device: sys::CUdevice,
}

/// What a failed driver call means to a user: `doing` says where.
pub(super) fn driver_error(doing: &str, e: result::DriverError) -> Error {
    use sys::CUresult::*;
    let name = format!("{:?}", e.0);
    let (what, remedy) = match e.0 {
        CUDA_ERROR_OUT_OF_MEMORY => (
            "the GPU is out of memory".into(),
            "lower --batch or --batch-cluster, or stop what else uses the GPU",
        ),
        CUDA_ERROR_NO_BINARY_FOR_GPU | CUDA_ERROR_INVALID_IMAGE | CUDA_ERROR_INVALID_PTX => {
            match MISSING_KERNELS {
                Some(why) => (format!("no kernels in this binary: {why}"), NO_KERNELS),
                None => (
                    "the kernels in this binary are not for this GPU".into(),
                    "build again with its architecture in $PICIE_CUDA_ARCHS (80, 86, 89, 90a, 100, 120)",
                ),
            }
        }
        CUDA_ERROR_UNSUPPORTED_PTX_VERSION => (
            "the driver is older than the kernels".into(),
            "update the NVIDIA driver to 580 or later",
        ),
        _ => (
            format!("the GPU reports {name}"),
            "run again with --no-graph and CUDA_LAUNCH_BLOCKING=1 to see which op it is; the last checkpoint is whole",
        ),
    };
    Error::Device { op: doing.into(), what, remedy: remedy.into() }
}

/// How to get nvcc.
pub(super) const NO_KERNELS: &str = "install nvcc (CUDA 13 toolkit, or pip install nvidia-cuda-nvcc nvidia-cuda-crt \
     nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl in the active environment), touch build.rs and build again";

impl Cuda {
    /// Opens the driver and GPU `options.ordinal`, and loads the kernels for activations of
    /// `dtype`. Errors: no driver, one that is too old, no such GPU, kernels that are not in this
    /// binary or not for this GPU, no cuDNN.
    pub fn new(options: Options, dtype: Dtype) -> Result<Self> {
        let doing = "starting the GPU";
        let e = |e| driver_error(doing, e);
        let device = super::sheet::open(options.ordinal)?;
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
    pub(super) fn ask_scratch(&mut self, bytes: usize) {
        self.scratch = self.scratch.max(bytes);
    }

    /// `len` elements of the scratch of one op from byte `offset` on. What lies there from before
    /// is garbage. Errors: more than `reserve` took, as for an op that was planned after it.
    pub(super) fn scratch<T: Element>(&self, offset: usize, len: usize) -> Result<Slot<T>> {
        self.in_scratch(offset + len * size_of::<T>())?;
        Ok(Slot::new(Pool::Scratch, offset, len))
    }

    /// As [`Cuda::scratch`], for activations.
    pub(super) fn scratch_acts(&self, offset: usize, len: usize) -> Result<Slot<Act>> {
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
    pub(super) fn synchronize(&mut self, doing: &str) -> Result<()> {
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
