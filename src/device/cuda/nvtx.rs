//! Named ranges for Nsight, through NVIDIA's NVTX library where one is installed (`libnvtx3interop`
//! of CUDA 13, `libnvToolsExt` before; `pip install nvidia-nvtx`). Without it ranges cost a test of
//! a pointer.

use std::ffi::{CString, c_char, c_int};

use libloading::Library;

/// The library's two functions that are used.
#[derive(Clone, Copy)]
pub(super) struct Nvtx {
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
}

impl Nvtx {
    pub fn open() -> Option<Self> {
        let names = [
            "libnvtx3interop.so.1",
            "libnvtx3interop.so",
            "libnvToolsExt.so.1",
            "libnvToolsExt.so",
        ];
        // SAFETY: NVTX does nothing when loaded but look for a profiler.
        let library = names.into_iter().find_map(|name| unsafe { Library::new(name) }.ok())?;
        // SAFETY: these are the signatures of nvToolsExt.h. The library is leaked, so the functions
        // stay.
        unsafe {
            let push = *library.get(b"nvtxRangePushA\0").ok()?;
            let pop = *library.get(b"nvtxRangePop\0").ok()?;
            std::mem::forget(library);
            Some(Nvtx { push, pop })
        }
    }

    pub fn push(self, name: &str) {
        // A name with a zero byte has nobody to complain to.
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: the string is terminated and read before the call returns.
        unsafe { (self.push)(name.as_ptr()) };
    }

    pub fn pop(self) {
        // SAFETY: takes nothing.
        unsafe { (self.pop)() };
    }
}
