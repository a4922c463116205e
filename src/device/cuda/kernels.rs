//! The arguments of every kernel, which build.rs writes from `cuda/*.cu`, and launches of them.

use std::ffi::c_void;

use cudarc::driver::{result, sys};

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::error::driver_error;
use crate::device::ops::{Crop, Photo};
use crate::device::{Act, POOLS, Slot};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// A kernel with its arguments. Implemented by build.rs alone, since [`Cuda::launch`] relies on it.
pub(super) trait Launch {
    /// Its place in [`KERNELS`].
    const INDEX: usize;
    /// Threads of a block.
    const THREADS: usize;

    /// Appends the arguments in the order of the kernel's parameters.
    fn pack(&self, p: &mut Parameters) -> Result<()>;
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

/// The parameters of a launch as bytes, each laid out as in C.
pub(super) struct Parameters {
    pools: [sys::CUdeviceptr; POOLS.len()],
    /// All zero behind `len`.
    bytes: Bytes,
    len: usize,
    /// Where each parameter begins.
    starts: [usize; 32],
    count: usize,
}

/// Room for the parameters of any kernel, aligned as the widest of them.
#[repr(C, align(8))]
struct Bytes([u8; 512]);

impl Parameters {
    fn new(pools: [sys::CUdeviceptr; POOLS.len()]) -> Self {
        Parameters { pools, bytes: Bytes([0; 512]), len: 0, starts: [0; 32], count: 0 }
    }

    /// Begins the next parameter.
    fn start(&mut self) {
        self.align(8);
        self.starts[self.count] = self.len;
        self.count += 1;
    }

    fn align(&mut self, to: usize) {
        self.len = self.len.next_multiple_of(to);
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.bytes.0[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
    }

    fn slot<T>(&mut self, slot: Slot<T>) {
        let address = self.pools[slot.pool as usize] + slot.offset as u64;
        self.put(address.to_ne_bytes());
    }

    fn maybe<T>(&mut self, slot: Option<Slot<T>>) {
        match slot {
            Some(slot) => self.slot(slot),
            None => self.long(0),
        }
    }

    fn long(&mut self, x: usize) {
        self.put(x.to_ne_bytes());
    }

    fn int(&mut self, what: &str, x: usize) -> Result<()> {
        self.put(i32::try_from(x).map_err(|_| too_large(what, x))?.to_ne_bytes());
        Ok(())
    }

    fn unsigned(&mut self, what: &str, x: usize) -> Result<()> {
        self.put(u32::try_from(x).map_err(|_| too_large(what, x))?.to_ne_bytes());
        Ok(())
    }

    fn float(&mut self, x: f32) {
        self.put(x.to_ne_bytes());
    }

    fn flag(&mut self, x: bool) {
        self.put([u8::from(x)]);
    }
}

fn too_large(what: &str, x: usize) -> Error {
    Error::Device {
        op: what.into(),
        what: format!("{x} is more than the kernel can count"),
        remedy: "lower --batch or --size".into(),
    }
}

impl Cuda {
    /// Queues a kernel: `blocks` of [`Launch::THREADS`] threads and `shared` bytes of dynamic
    /// shared memory each. An empty grid does nothing.
    pub(super) fn launch<K: Launch>(
        &mut self,
        blocks: impl Into<Blocks>,
        shared: usize,
        kernel: K,
    ) -> Result<()> {
        let mut parameters = Parameters::new(self.pools);
        kernel.pack(&mut parameters)?;
        self.queue(K::INDEX, K::THREADS, blocks.into(), shared, &parameters)
    }

    /// What [`Cuda::launch`] does for every kernel.
    fn queue(
        &mut self,
        index: usize,
        threads: usize,
        Blocks(x, y, z): Blocks,
        shared: usize,
        parameters: &Parameters,
    ) -> Result<()> {
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        self.flush()?;
        let at = |start: usize| parameters.bytes.0[start..].as_ptr().cast_mut().cast::<c_void>();
        let mut cells = parameters.starts.map(at);
        // SAFETY: the function is loaded; build.rs wrote `pack` from the kernel's own declaration,
        // so each cell points at a parameter as the kernel declares it; slots lie in reserved
        // pools, and passed the op's door or were cut from the scratch.
        let launched = unsafe {
            result::launch_kernel(
                self.functions[index],
                (x, y, z),
                (threads as u32, 1, 1),
                shared as u32,
                self.stream,
                &mut cells[..parameters.count],
            )
        };
        launched.map_err(|e| driver_error(KERNELS[index].1, e))
    }

    /// Lets a kernel use more than 48 KiB of dynamic shared memory. For plans.
    pub(super) fn allow_shared<K: Launch>(&mut self, bytes: usize) -> Result<()> {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let function = self.functions[K::INDEX];
        // SAFETY: the function belongs to a loaded module.
        let set =
            unsafe { result::function::set_function_attribute(function, attribute, bytes as i32) };
        set.map_err(|e| driver_error(KERNELS[K::INDEX].1, e))
    }
}
