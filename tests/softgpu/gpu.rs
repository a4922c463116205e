//! The driver API as these tests use it.

use std::ffi::{CStr, CString, c_char, c_void};

use bytemuck::Pod;
use cudarc::driver::{result, sys};

use crate::util::softgpu;

pub type Code = sys::CUresult;

/// A context of the software GPU with a stream, and what was allocated with it. Ends the context
/// when it is dropped, so that the next one of this thread knows nothing of its faults.
pub struct Gpu {
    pub stream: sys::CUstream,
    pub module: sys::CUmodule,
    device: sys::CUdevice,
    live: Vec<u64>,
}

/// One parameter of a kernel.
pub enum Arg {
    At(u64),
    Int(i32),
    Float(f32),
}

/// What a call answered.
pub fn code<T>(answer: Result<T, result::DriverError>) -> Code {
    answer.map_or_else(|e| e.0, |_| Code::CUDA_SUCCESS)
}

/// What the software GPU last complained of on this thread.
pub fn said() -> String {
    // SAFETY: the function takes nothing and returns a C string of this thread.
    unsafe {
        let said = softgpu::libcuda()
            .unwrap()
            .get::<unsafe extern "C" fn() -> *const c_char>(b"softgpu_said\0")
            .unwrap();
        CStr::from_ptr(said()).to_string_lossy().into_owned()
    }
}

/// How many things were still there when contexts of this thread ended.
pub fn leaks() -> i32 {
    // SAFETY: the function takes nothing.
    unsafe {
        softgpu::libcuda()
            .unwrap()
            .get::<unsafe extern "C" fn() -> i32>(b"softgpu_leaks\0")
            .unwrap()()
    }
}

impl Gpu {
    /// None without a host compiler, and on a machine with a GPU, whose driver goes before.
    pub fn new() -> Option<Self> {
        if softgpu::has_gpu() || !softgpu::load() {
            return None;
        }
        result::init().unwrap();
        let device = result::device::get(0).unwrap();
        // SAFETY: the device is there, the context is released by `drop`, and any image will do.
        unsafe {
            let context = result::primary_ctx::retain(device).unwrap();
            result::ctx::set_current(context).unwrap();
            let module = result::module::load_data(c"any".as_ptr().cast()).unwrap();
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
            Some(Self { stream, module, device, live: Vec::new() })
        }
    }

    /// Memory that holds `data`.
    pub fn input<T: Pod>(&mut self, data: &[T]) -> u64 {
        let at = self.empty::<T>(data.len());
        self.write(at, data);
        at
    }

    /// Queues a copy of `data` to `at`.
    pub fn write<T: Pod>(&self, at: u64, data: &[T]) {
        // SAFETY: the driver checks that [at, at + len) is an allocation, and keeps a copy of
        // `data`.
        unsafe { result::memcpy_htod_async(at, data, self.stream) }.unwrap();
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
        // SAFETY: the driver checks that [at, at + len) is an allocation, and waits for the copy.
        unsafe { result::memcpy_dtoh_async(&mut out, at, self.stream) }.unwrap();
        out
    }

    pub fn find(&self, name: &str) -> Result<sys::CUfunction, Code> {
        // SAFETY: the module is loaded.
        unsafe { result::module::get_function(self.module, CString::new(name).unwrap()) }
            .map_err(|e| e.0)
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
        let mut cells: Vec<*mut c_void> =
            cells.iter_mut().map(|c| std::ptr::from_mut(c).cast()).collect();
        let function = match self.find(name) {
            Ok(function) => function,
            Err(code) => return code,
        };
        // SAFETY: `args` follow the kernel's parameters; addresses are checked by the software GPU.
        code(unsafe {
            result::launch_kernel(function, grid, block, shared, self.stream, &mut cells)
        })
    }

    pub fn synchronize(&self) -> Code {
        // SAFETY: the stream is alive.
        code(unsafe { result::stream::synchronize(self.stream) })
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: all of this is alive, and is given back once. After a fault each call fails, and
        // the context's end frees all.
        unsafe {
            for at in self.live.drain(..) {
                let _ = result::free_sync(at);
            }
            let _ = result::stream::destroy(self.stream);
            let _ = result::module::unload(self.module);
            result::primary_ctx::release(self.device).unwrap();
        }
    }
}
