//! The driver API as these tests use it.

use std::ffi::{CString, c_void};

use bytemuck::Pod;
use cudarc::driver::{result, sys};

use crate::util::softgpu;

pub type Code = sys::CUresult;

/// A stream of the software GPU, and what was allocated with it.
pub struct Gpu {
    pub stream: sys::CUstream,
    module: sys::CUmodule,
    live: Vec<u64>,
}

/// One parameter of a kernel.
pub enum Arg {
    At(u64),
    Int(i32),
    Float(f32),
}

impl Gpu {
    /// None without a host compiler, and on a machine with a GPU, whose driver goes before.
    pub fn new() -> Option<Self> {
        if softgpu::has_gpu() || !softgpu::load() {
            return None;
        }
        result::init().unwrap();
        let device = result::device::get(0).unwrap();
        // SAFETY: the device is there, the context lives as long as the process, and any image will do.
        unsafe {
            let context = result::primary_ctx::retain(device).unwrap();
            result::ctx::set_current(context).unwrap();
            let module = result::module::load_data(c"any".as_ptr().cast()).unwrap();
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
            Some(Self { stream, module, live: Vec::new() })
        }
    }

    /// Memory that holds `data`.
    pub fn input<T: Pod>(&mut self, data: &[T]) -> u64 {
        let at = self.empty::<T>(data.len());
        // SAFETY: `at` has room for `data`.
        unsafe { result::memcpy_htod_sync(at, data) }.unwrap();
        at
    }

    /// Memory that nobody wrote yet.
    pub fn empty<T>(&mut self, len: usize) -> u64 {
        // SAFETY: the context is current on this thread.
        let at = unsafe { result::malloc_sync(len * size_of::<T>()) }.unwrap();
        self.live.push(at);
        at
    }

    pub fn read<T: Pod>(&self, at: u64, len: usize) -> Vec<T> {
        let mut out = vec![T::zeroed(); len];
        // SAFETY: the driver checks that [at, at + len) is an allocation.
        unsafe { result::memcpy_dtoh_sync(&mut out, at) }.unwrap();
        out
    }

    pub fn find(&self, name: &str) -> Result<sys::CUfunction, Code> {
        // SAFETY: the module is loaded.
        unsafe { result::module::get_function(self.module, CString::new(name).unwrap()) }.map_err(|e| e.0)
    }

    pub fn launch(&self, name: &str, grid: u32, block: u32, args: &[Arg]) -> Code {
        self.launch_shared(name, (grid, 1, 1), (block, 1, 1), 0, args)
    }

    pub fn launch_shared(
        &self,
        name: &str,
        grid: (u32, u32, u32),
        block: (u32, u32, u32),
        shared: u32,
        args: &[Arg],
    ) -> Code {
        let mut cells: Vec<u64> = args
            .iter()
            .map(|arg| match *arg {
                Arg::At(at) => at,
                Arg::Int(i) => u64::from(i as u32),
                Arg::Float(f) => u64::from(f.to_bits()),
            })
            .collect();
        let mut cells: Vec<*mut c_void> = cells.iter_mut().map(|c| std::ptr::from_mut(c).cast()).collect();
        let function = self.find(name).unwrap();
        // SAFETY: `args` follow the kernel's parameters; addresses are checked by the software GPU.
        let done = unsafe { result::launch_kernel(function, grid, block, shared, self.stream, &mut cells) };
        done.map_or_else(|e| e.0, |()| Code::CUDA_SUCCESS)
    }

    pub fn synchronize(&self) -> Code {
        // SAFETY: the stream is alive.
        unsafe { result::stream::synchronize(self.stream) }.map_or_else(|e| e.0, |()| Code::CUDA_SUCCESS)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: all of this is alive, and nothing runs: the software GPU works while it is called.
        unsafe {
            for at in self.live.drain(..) {
                let _ = result::free_sync(at);
            }
            let _ = result::stream::destroy(self.stream);
        }
    }
}
