//! libcudnn, opened at run time, and the eleven functions of it that are used.
//!
//! NOTE: signatures take and return plain integers where cudarc's bindings have enums. A library that is newer than the bindings
//! reports values they do not list, which a Rust enum must never hold.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use cudarc::cudnn::sys;

use crate::base::{Error, Result};

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

/// A status that is not success, with what the library says about it.
#[derive(Clone, Debug)]
pub struct Refusal(pub String);

pub type Answer<T = ()> = std::result::Result<T, Refusal>;

const REMEDY: &str =
    "pip install nvidia-cudnn-cu13, put the folder of its libcudnn.so.9 into LD_LIBRARY_PATH, or use --device cpu";

pub(super) fn error(what: impl Into<String>, remedy: &str) -> Error {
    Error::Device { op: "cuDNN".into(), what: what.into(), remedy: remedy.into() }
}

impl Api {
    /// The library, opened by the first call. Errors: there is none, or one that is older than 9.
    pub fn get() -> Result<&'static Api> {
        static API: OnceLock<Option<Api>> = OnceLock::new();
        // SAFETY: only tries to open libraries by name.
        if !unsafe { sys::is_culib_present() } {
            return Err(error("libcudnn is not there", REMEDY));
        }
        let Some(api) = API.get_or_init(Api::load) else {
            return Err(error("libcudnn lacks the graph API: it is older than 9", REMEDY));
        };
        match api.version() {
            version if version < OLDEST => Err(error(format!("libcudnn is version {version}, older than 9"), REMEDY)),
            _ => Ok(api),
        }
    }

    /// None where a function is missing.
    fn load() -> Option<Api> {
        // SAFETY: the library is present (checked by the caller) and stays open for the life of the process.
        let library = unsafe { sys::culib() };
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is the function's signature in cudnn_graph.h of version 9; enums are 32-bit integers there.
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
        let mut text = [0u8; 512];
        // SAFETY: the buffer is writable for the length given, and the library ends the text with a zero inside of it.
        unsafe { (self.last_error)(text.as_mut_ptr().cast(), text.len()) };
        let said = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy();
        Err(Refusal(format!("{call} returned status {status}: {}", said.lines().next().unwrap_or("no reason").trim())))
    }
}
