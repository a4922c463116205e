//! libcudnn, opened at run time, and the eleven functions of it that are used.
//!
//! NOTE: signatures take and return plain integers where cudarc's bindings have enums. A library
//! that is newer than the bindings reports values they do not list, which a Rust enum must never
//! hold.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use cudarc::cudnn::sys::{self, cudnnStatus_t};
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;

use super::install::{self, INSTALL, error};
use crate::base::Result;

pub type Raw = sys::cudnnBackendDescriptor_t;
type Handle = sys::cudnnHandle_t;

/// The first version with the sub-libraries and status codes that are relied on.
const OLDEST: usize = 90_000;

pub struct Api {
    version: unsafe extern "C" fn() -> usize,
    pub create: unsafe extern "C" fn(*mut Handle) -> u32,
    pub destroy: unsafe extern "C" fn(Handle) -> u32,
    pub set_stream: unsafe extern "C" fn(Handle, sys::cudaStream_t) -> u32,
    last_error: unsafe extern "C" fn(*mut c_char, usize),
    pub create_descriptor: unsafe extern "C" fn(u32, *mut Raw) -> u32,
    pub destroy_descriptor: unsafe extern "C" fn(Raw) -> u32,
    pub set_attribute: unsafe extern "C" fn(Raw, u32, u32, i64, *const c_void) -> u32,
    pub get_attribute: unsafe extern "C" fn(Raw, u32, u32, i64, *mut i64, *mut c_void) -> u32,
    pub finalize: unsafe extern "C" fn(Raw) -> u32,
    pub execute: unsafe extern "C" fn(Handle, Raw, Raw) -> u32,
}

/// Of what kind a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Not for this engine: another one may do.
    Unsupported,
    /// No memory was left.
    Memory,
    /// A library that cuDNN needs is missing or does not fit, or the driver does not.
    Installation,
    /// Anything else.
    Fault,
}

/// A status that is not success, with what the library says about it.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub class: Class,
    pub text: String,
}

pub type Answer<T = ()> = std::result::Result<T, Refusal>;

impl Refusal {
    pub fn unsupported(text: impl Into<String>) -> Self {
        Refusal { class: Class::Unsupported, text: text.into() }
    }

    /// With the stage that it was met at.
    pub fn at(self, stage: &str) -> Self {
        Refusal { text: format!("{stage}: {}", self.text), ..self }
    }

    /// The one of two that is worth telling: the first, unless it only says that something is not
    /// supported and the second more.
    pub fn or(self, later: Refusal) -> Self {
        if self.class == Class::Unsupported && later.class != Class::Unsupported {
            later
        } else {
            self
        }
    }

    pub fn remedy(&self) -> &'static str {
        match self.class {
            Class::Unsupported => {
                "use another cuDNN 9, another --precision, or --device cpu; without --deterministic there are more engines"
            }
            Class::Memory => "lower --batch or --batch-cluster, or stop what else uses the GPU",
            Class::Installation => INSTALL,
            Class::Fault => {
                "run again with CUDNN_LOGLEVEL_DBG=2 CUDNN_LOGDEST_DBG=stderr to see all that cuDNN says, or use another cuDNN 9"
            }
        }
    }
}

impl From<DriverError> for Refusal {
    fn from(e: DriverError) -> Self {
        let class =
            if e.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY { Class::Memory } else { Class::Fault };
        Refusal { class, text: format!("the GPU reports {:?}", e.0) }
    }
}

/// What names an installation that does not fit in the texts of cuDNN, which may come without a
/// status: heuristics just find nothing then.
const UNFIT: [&str; 3] = ["RUNTIME_PREREQUISITE_MISSING", "SUBLIBRARY", "INCOMPATIBLE_CUD"];

/// Statuses of cuDNN 9 go by thousands.
fn family(status: u32) -> &'static str {
    match status / 1000 {
        2 => "BAD_PARAM",
        3 => "NOT_SUPPORTED",
        4 => "INTERNAL_ERROR",
        5 => "EXECUTION_FAILED",
        _ => "NOT_INITIALIZED",
    }
}

fn class_of(status: u32, said: &str) -> Class {
    use cudnnStatus_t::*;
    let is = |of: &[cudnnStatus_t]| of.iter().any(|s| *s as u32 == status);
    let compiles_not = CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED;
    let host = CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    let device = CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
    let unfit = [
        CUDNN_STATUS_NOT_SUPPORTED_INCOMPATIBLE_CUDA_DRIVER,
        CUDNN_STATUS_NOT_SUPPORTED_INCOMPATIBLE_CUDART,
        CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING,
        CUDNN_STATUS_NOT_SUPPORTED_SUBLIBRARY_UNAVAILABLE,
        compiles_not,
    ];
    if is(&[host, device]) || said.to_lowercase().replace('_', " ").contains("out of memory") {
        Class::Memory
    } else if status < 2000 || is(&unfit) || UNFIT.iter().any(|word| said.contains(word)) {
        Class::Installation
    } else if status / 1000 == 3 {
        Class::Unsupported
    } else {
        Class::Fault
    }
}

const REMEDY: &str = "pip install nvidia-cudnn-cu13, put the folder of its libcudnn.so.9 into LD_LIBRARY_PATH, or use --device cpu";

impl Api {
    /// The library, opened by the first call. Errors: there is none, one that lacks a part, or one
    /// that is older than 9.
    pub fn get() -> Result<&'static Api> {
        static API: OnceLock<Option<Api>> = OnceLock::new();
        // SAFETY: only tries to open libraries by name.
        if !unsafe { sys::is_culib_present() } {
            return Err(error("libcudnn is not there", REMEDY));
        }
        let Some(api) = API.get_or_init(Api::load) else {
            return Err(error("libcudnn lacks the graph API: it is older than 9", REMEDY));
        };
        // NOTE: without its parts cuDNN ends the process at the first call, be it for its version.
        install::check()?;
        match api.version() {
            version if version < OLDEST => {
                Err(error(format!("libcudnn is version {version}, older than 9"), REMEDY))
            }
            _ => Ok(api),
        }
    }

    /// None where a function is missing.
    fn load() -> Option<Api> {
        // SAFETY: the library is present (checked by the caller) and stays open for the life of the
        // process.
        let library = unsafe { sys::culib() };
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is the function's signature in cudnn_graph.h of version
                // 9; enums are 32-bit integers there.
                *unsafe { library.get($name) }.ok()?
            };
        }
        Some(Api {
            version: function!(b"cudnnGetVersion\0"),
            create: function!(b"cudnnCreate\0"),
            destroy: function!(b"cudnnDestroy\0"),
            set_stream: function!(b"cudnnSetStream\0"),
            last_error: function!(b"cudnnGetLastErrorString\0"),
            create_descriptor: function!(b"cudnnBackendCreateDescriptor\0"),
            destroy_descriptor: function!(b"cudnnBackendDestroyDescriptor\0"),
            set_attribute: function!(b"cudnnBackendSetAttribute\0"),
            get_attribute: function!(b"cudnnBackendGetAttribute\0"),
            finalize: function!(b"cudnnBackendFinalize\0"),
            execute: function!(b"cudnnBackendExecute\0"),
        })
    }

    /// Such as 91200 for 9.12.0.
    pub fn version(&self) -> usize {
        // SAFETY: no arguments, no state.
        unsafe { (self.version)() }
    }

    /// What a call's status means.
    pub fn check(&self, call: &str, status: u32) -> Answer {
        if status == 0 {
            return Ok(());
        }
        let said = self.said();
        Err(Refusal {
            class: class_of(status, &said),
            text: format!("{call}: {} ({status}): {said}", family(status)),
        })
    }

    /// Why heuristics that succeeded came back with nothing.
    pub fn nothing(&self) -> Refusal {
        let said = self.said();
        Refusal {
            class: class_of(cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED as u32, &said),
            text: said,
        }
    }

    /// The line that says most of what was said last: cuDNN reports every engine that it tried, in
    /// several lines each.
    fn said(&self) -> String {
        // A list of engines that were tried takes up to 23 KB.
        let mut text = vec![0u8; 1 << 15];
        // SAFETY: the buffer is writable for the length given, and the library ends the text with a
        // zero inside of it.
        unsafe { (self.last_error)(text.as_mut_ptr().cast(), text.len()) };
        let all = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy();
        let lines = || {
            let bare = all.lines().map(|line| {
                line.trim().trim_start_matches("Warning: ").trim_start_matches("Error: ")
            });
            bare.filter(|line| !line.is_empty() && !line.starts_with('{'))
        };
        let unfit = lines().find(|line| UNFIT.iter().any(|word| line.contains(word)));
        let telling = || lines().find(|line| !line.starts_with("CUDNN_STATUS_NOT_SUPPORTED;"));
        unfit
            .or_else(telling)
            .or_else(|| lines().next())
            .unwrap_or("no reason is given")
            .to_string()
    }
}
