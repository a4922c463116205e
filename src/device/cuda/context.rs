//! One GPU, one stream, the kernels in it, and launches.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::rc::Rc;

use bytemuck::Pod;
use cudarc::driver::{result, sys};

use crate::base::{Error, Result};
use crate::device::arena::POOLS;
use crate::device::cuda::conv::Pass;
use crate::device::cuda::cudnn;
use crate::device::cuda::images::{IMAGES, MISSING_KERNELS};
use crate::device::cuda::memory::Reserved;
use crate::device::cuda::nvtx::Nvtx;
use crate::device::cuda::sheet::Sheet;
use crate::device::cuda::staging::Staged;
use crate::device::{Activation, Element, Pool, Slot};

/// How the engine runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which GPU, as CUDA counts them.
    pub ordinal: usize,
    /// Launch op by op instead of replaying recorded steps, so that a profiler sees names.
    pub no_graph: bool,
    pub autotune: Autotune,
    /// Only cuDNN engines that give the same bits every time.
    pub deterministic: bool,
    /// Where chosen cuDNN engines are kept; None: nowhere.
    pub cache: Option<PathBuf>,
    pub watch: Watcher,
}

/// How far the choice of engines is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choosing {
    pub done: usize,
    pub total: usize,
    /// Of how many no plan is kept from an earlier start: those take their time.
    pub new: usize,
}

/// Hears how the choice of engines goes on, and may end it by an error.
#[derive(Clone, Default)]
pub struct Watcher(Option<Rc<dyn Fn(Choosing) -> Result<()>>>);

impl Watcher {
    pub fn new(hear: impl Fn(Choosing) -> Result<()> + 'static) -> Self {
        Watcher(Some(Rc::new(hear)))
    }

    pub(super) fn tell(&self, choosing: Choosing) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |hear| hear(choosing))
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Watcher" } else { "nobody" })
    }
}

/// How cuDNN's engines are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Autotune {
    /// The first that is offered
    Off,
    /// What was chosen before, else the first that is offered
    Cached,
    /// What was measured before; what was not is measured
    #[default]
    Load,
    /// All are measured
    Exhaustive,
}

/// The CUDA engine with activations of type `A`. Every op is queued on one stream; only `read`
/// waits.
pub struct Cuda<A: Activation> {
    pub sheet: Sheet,
    pub(super) options: Options,
    pub(super) stream: sys::CUstream,
    /// For copies that go on beside it.
    pub(super) aside: sys::CUstream,
    modules: Vec<sys::CUmodule>,
    /// Entries that were asked for before.
    kernels: HashMap<&'static str, Kernel>,
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
    /// Passes behind cuDNN's convolutions, by the number of the ask.
    pub(super) passes: Vec<Option<Pass>>,
    device: sys::CUdevice,
    act: PhantomData<A>,
}

/// An entry of a `.cu` file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    function: sys::CUfunction,
    name: &'static str,
}

/// Blocks of a launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks(u32, u32, u32);

impl From<usize> for Blocks {
    fn from(x: usize) -> Self {
        (x, 1, 1).into()
    }
}

impl From<(usize, usize)> for Blocks {
    fn from((x, y): (usize, usize)) -> Self {
        (x, y, 1).into()
    }
}

impl From<(usize, usize, usize)> for Blocks {
    fn from((x, y, z): (usize, usize, usize)) -> Self {
        // Plans cut work into far fewer blocks.
        let blocks = |n: usize| u32::try_from(n).expect("fewer than 2³² blocks");
        Blocks(blocks(x), blocks(y), blocks(z))
    }
}

/// The shape of a launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    blocks: Blocks,
    threads: u32,
    shared: u32,
}

impl Grid {
    pub fn new(blocks: impl Into<Blocks>, threads: u32) -> Self {
        Grid { blocks: blocks.into(), threads, shared: 0 }
    }

    /// Bytes of dynamic shared memory a block.
    pub fn shared(self, bytes: usize) -> Self {
        Grid { shared: bytes as u32, ..self }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a> {
    /// 8 bytes, little-endian: the kernel's parameter type decides how many it reads.
    Cell(u64),
    /// The bytes of a struct that the kernel takes by value.
    Struct(&'a [u8]),
}

impl<'a> Arg<'a> {
    /// `T` is `repr(C)` and laid out as the kernel's parameter type.
    pub fn by_value<T: Pod>(x: &'a T) -> Self {
        Arg::Struct(bytemuck::bytes_of(x))
    }
}

impl From<usize> for Arg<'_> {
    fn from(x: usize) -> Self {
        Arg::Cell(x as u64)
    }
}

impl From<u32> for Arg<'_> {
    fn from(x: u32) -> Self {
        Arg::Cell(u64::from(x))
    }
}

impl From<i32> for Arg<'_> {
    fn from(x: i32) -> Self {
        Arg::Cell(u64::from(x as u32))
    }
}

impl From<f32> for Arg<'_> {
    fn from(x: f32) -> Self {
        Arg::Cell(u64::from(x.to_bits()))
    }
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

impl<A: Activation> Cuda<A> {
    /// Opens the driver and GPU `options.ordinal`, and loads the kernels. Errors: no driver, one
    /// that is too old, no such GPU, kernels that are not in this binary or not for this GPU, no
    /// cuDNN.
    pub fn new(options: Options) -> Result<Self> {
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
        let mut modules = Vec::new();
        for image in IMAGES.iter().filter(|image| image.name.ends_with(&format!(".{}", A::NAME))) {
            // SAFETY: the image is a fatbin or a zero-terminated text, complete and 'static.
            let module = unsafe { result::module::load_data(image.data.as_ptr().cast()) };
            modules
                .push(module.map_err(|e| {
                    driver_error(&format!("loading the kernels {}", image.name), e)
                })?);
        }
        Ok(Cuda {
            sheet,
            options,
            stream,
            aside,
            modules,
            kernels: HashMap::new(),
            pools: [0; POOLS.len()],
            reserved: Reserved::default(),
            scratch: 0,
            staged: Staged::default(),
            said_plain: false,
            nvtx: Nvtx::open(),
            cudnn,
            passes: Vec::new(),
            device,
            act: PhantomData,
        })
    }

    /// The entry `name` for this engine's element type. For plans, and for ops that have none.
    pub(super) fn kernel(&mut self, name: &'static str) -> Result<Kernel> {
        if let Some(kernel) = self.kernels.get(name) {
            return Ok(*kernel);
        }
        let entry = CString::new(format!("{name}_{}", A::NAME)).expect("names have no zero byte");
        let find = |&module: &sys::CUmodule| {
            // SAFETY: modules are never unloaded while the engine lives.
            unsafe { result::module::get_function(module, entry.clone()) }.ok()
        };
        match self.modules.iter().find_map(find) {
            Some(function) => {
                let kernel = Kernel { function, name };
                self.kernels.insert(name, kernel);
                Ok(kernel)
            }
            None => Err(Error::Device {
                op: name.into(),
                what: "this kernel is not in the binary".into(),
                remedy: "build again from a clean checkout".into(),
            }),
        }
    }

    /// Lets `kernel` use more than 48 KiB of dynamic shared memory. For plans.
    pub(super) fn allow_shared(&mut self, kernel: Kernel, bytes: usize) -> Result<()> {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to a loaded module.
        let set = unsafe {
            result::function::set_function_attribute(kernel.function, attribute, bytes as i32)
        };
        set.map_err(|e| driver_error(kernel.name, e))
    }

    /// Queues a kernel. An empty grid does nothing.
    pub(super) fn launch(&mut self, kernel: Kernel, grid: Grid, args: &[Arg<'_>]) -> Result<()> {
        let Grid { blocks: Blocks(x, y, z), threads, shared } = grid;
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        self.flush()?;
        let mut cells = [std::ptr::null_mut::<c_void>(); 40];
        for (cell, arg) in cells.iter_mut().zip(args) {
            *cell = match arg {
                Arg::Cell(x) => std::ptr::from_ref(x).cast_mut().cast(),
                Arg::Struct(bytes) => bytes.as_ptr().cast_mut().cast(),
            };
        }
        let cells = &mut cells[..args.len()];
        // SAFETY: the function is loaded; each cell points at 8 readable bytes or at a whole
        // struct, and the launcher passes what the kernel declares (its test runs both); slots lie
        // in reserved pools.
        let launched = unsafe {
            result::launch_kernel(
                kernel.function,
                (x, y, z),
                (threads, 1, 1),
                shared,
                self.stream,
                cells,
            )
        };
        launched.map_err(|e| driver_error(kernel.name, e))
    }

    /// The device address of a slot, as an argument.
    pub(super) fn at<T: Element>(&self, slot: Slot<T>) -> Arg<'static> {
        Arg::Cell(self.address(slot))
    }

    /// 0 for none.
    pub(super) fn at_or_null<T: Element>(&self, slot: Option<Slot<T>>) -> Arg<'static> {
        Arg::Cell(slot.map_or(0, |slot| self.address(slot)))
    }

    /// The device address of a slot.
    pub fn address<T: Element>(&self, slot: Slot<T>) -> u64 {
        self.pools[slot.pool as usize] + slot.offset as u64
    }

    /// Asks for at least `bytes` of scratch; called by plans.
    pub(super) fn ask_scratch(&mut self, bytes: usize) {
        self.scratch = self.scratch.max(bytes);
    }

    /// `len` elements of the scratch of one op from byte `offset` on. What lies there from before
    /// is garbage. Errors: more than `reserve` took, as for an op that was planned after it.
    pub(super) fn scratch<T: Element>(&self, offset: usize, len: usize) -> Result<Slot<T>> {
        let (got, want) = (self.reserved.scratch, offset + len * size_of::<T>());
        if want <= got {
            Ok(Slot::new(Pool::Scratch, offset, len))
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

impl<A: Activation> Drop for Cuda<A> {
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
