//! Builds the software GPU with the host's compiler and puts it in the place of the driver, where
//! the machine has no GPU.
//!
//! `tests/softgpu/*.cpp` and the kernels of `cuda/` become `libcuda.so`, `tests/softgpu/cudnn*.cpp`
//! become `libcudnn.so`, `tests/softgpu/nvml.cpp` becomes `libnvidia-ml.so.1`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

mod build;

pub use build::sources;

use build::Build;

/// How the software GPU is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Built {
    Plain,
    /// With AddressSanitizer and UBSan.
    Sanitized,
    /// With counted accesses of memory; kernels of f32 and bf16 alone.
    Traced,
}

/// The folder with `libcuda.so` and `libcudnn.so`: for `LD_LIBRARY_PATH` of a child process. None
/// without a host compiler; traced, without g++.
pub fn folder(built: Built) -> Option<&'static Path> {
    static FOLDERS: [OnceLock<Option<PathBuf>>; 3] = [const { OnceLock::new() }; 3];
    FOLDERS[built as usize].get_or_init(|| find(built)).as_deref()
}

/// Whether the CUDA engine can run in this process: on the machine's GPU, else on the software GPU,
/// loaded here and now.
pub fn load() -> bool {
    static LOADED: OnceLock<bool> = OnceLock::new();
    *LOADED.get_or_init(|| has_gpu() || libraries().is_some())
}

/// Whether the machine's own GPU runs the tests: it goes before the software one where the CUDA
/// engine opens on it.
pub fn has_gpu() -> bool {
    static GPU: OnceLock<bool> = OnceLock::new();
    *GPU.get_or_init(|| {
        // A process that was given a software GPU uses it.
        if !has_driver() || std::env::var_os("PICIE_SOFTGPU").is_some() {
            return false;
        }
        let verdict = probe(&[]);
        if let Err(why) = &verdict {
            eprintln!("the tests of the CUDA engine use the software GPU, as the machine's own cannot run it: {why}");
        }
        verdict.is_ok()
    })
}

/// Whether the machine has an NVIDIA driver, of whatever age.
pub fn has_driver() -> bool {
    Path::new("/dev/nvidiactl").exists()
}

/// Whether the CUDA engine opens in a process with this environment, or why not. NOTE: in another
/// process, for a driver that was opened cannot be replaced.
fn probe(env: &[(&str, &str)]) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "util::softgpu::tests::opens", "--ignored", "--nocapture"]);
    let out = command.envs(env.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    match text.lines().find_map(|line| line.strip_prefix(VERDICT)) {
        Some("") => Ok(()),
        Some(why) => Err(why.into()),
        None => Err(format!("opening it ends with {}", out.status)),
    }
}

/// What the probe's line begins with, before the reason.
const VERDICT: &str = "the CUDA engine opens: ";

/// Under AddressSanitizer a kernel that touches these bytes of device memory dies there and then;
/// nothing elsewhere.
pub fn forbid(address: u64, bytes: usize) {
    type Forbid = unsafe extern "C" fn(u64, usize);
    if let Some(libcuda) = libcuda() {
        // SAFETY: this is the function's signature (tests/softgpu/memory.cpp); the bytes are of a
        // live allocation.
        unsafe { libcuda.get::<Forbid>(b"softgpu_forbid\0").unwrap()(address, bytes) }
    }
}

/// Asynchronous copies to the device that this thread asked for so far; 0 on a GPU, which does not
/// count them.
pub fn copies_to_device() -> usize {
    type Count = unsafe extern "C" fn() -> usize;
    // SAFETY: this is the function's signature (tests/softgpu/libcuda.cpp); it reads a number.
    libcuda().map_or(0, |libcuda| unsafe {
        libcuda.get::<Count>(b"softgpu_copies_to_device\0").unwrap()()
    })
}

/// What the kernels of the traced software GPU asked of memory since the last call, as
/// `tests/softgpu/trace.cpp` says it.
pub fn traffic() -> String {
    type Traffic = unsafe extern "C" fn() -> *const std::ffi::c_char;
    let libcuda = libcuda().expect("the traced software GPU");
    // SAFETY: this is the function's signature; its text is good until the next call.
    let text = unsafe {
        std::ffi::CStr::from_ptr(libcuda.get::<Traffic>(b"softgpu_traffic\0").unwrap()())
    };
    text.to_string_lossy().into_owned()
}

/// `libcuda.so` of the software GPU, loaded so that a later `dlopen("libcuda.so")` finds it by its
/// name.
pub fn libcuda() -> Option<&'static libloading::Library> {
    libraries().map(|all| &all[0])
}

/// What a process must preload to open the sanitized libraries, which its own executable knows
/// nothing of.
pub fn sanitizer() -> Option<PathBuf> {
    let out = Command::new(compiler()?).arg("-print-file-name=libasan.so").output().ok()?;
    // A compiler that has none prints the bare name.
    let path = PathBuf::from(String::from_utf8(out.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}

fn libraries() -> Option<&'static Vec<libloading::Library>> {
    static LIBRARIES: OnceLock<Option<Vec<libloading::Library>>> = OnceLock::new();
    let open = |name| {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        let path = folder(Built::Plain)?.join(name);
        // SAFETY: the libraries were built from this repository's sources and only fill their
        // tables when loaded.
        path.exists()
            .then(|| unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.unwrap().into())
    };
    LIBRARIES
        .get_or_init(|| {
            let found: Vec<_> =
                ["libcuda.so", "libcudnn.so"].into_iter().filter_map(open).collect();
            (!found.is_empty()).then_some(found)
        })
        .as_ref()
}

fn find(built: Built) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("PICIE_SOFTGPU") {
        return Some(folder.into());
    }
    let Some(compiler) = compiler() else {
        eprintln!(
            "no host C++ compiler ($CXX, g++, clang++, c++): tests of the CUDA engine are skipped"
        );
        return None;
    };
    if built == Built::Traced && !is_gnu(&compiler) {
        eprintln!(
            "{compiler} is not g++, for whose accesses numbers are recorded: none are counted"
        );
        return None;
    }
    Some(Build::new(compiler, built).run())
}

fn is_gnu(compiler: &str) -> bool {
    let out = Command::new(compiler).arg("--version").output();
    out.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("Free Software Foundation"))
}

/// The first C++ compiler that runs.
pub fn compiler() -> Option<String> {
    // Stand-ins for a driver are built for Linux alone.
    let named =
        std::env::var("CXX").ok().into_iter().chain(["g++", "clang++", "c++"].map(str::to_string));
    let runs = |c: &String| {
        Command::new(c).arg("--version").output().is_ok_and(|out| out.status.success())
    };
    if cfg!(target_os = "linux") { named.into_iter().find(runs) } else { None }
}

mod tests {
    use super::*;
    use picie::device::Dtype;
    use picie::device::cuda::{Cuda, Options};

    #[test]
    #[ignore = "run by `probe`, in a process that has no software GPU"]
    fn opens() {
        let why = Cuda::new(Options::default(), Dtype::F32)
            .map_or_else(|e| e.to_string().replace('\n', " "), |_| String::new());
        println!("\n{VERDICT}{why}");
    }

    /// The software GPU plays the machine's own.
    #[test]
    fn a_gpu_that_cannot_run_picie_is_not_counted() {
        let Some(folder) = folder(Built::Plain).filter(|_| !has_driver()) else { return };
        let at = ("LD_LIBRARY_PATH", folder.to_str().unwrap());
        assert_eq!(probe(&[at]), Ok(()));
        for (env, part) in [
            (("SOFTGPU_DRIVER_VERSION", "12040"), "knows CUDA 12.4"),
            (("SOFTGPU_BAD_IMAGE", "1"), "kernels"),
            (("SOFTCUDNN_VERSION", "8907"), "cuDNN"),
            (("SOFTGPU_DEVICES", "0"), "no GPU"),
        ] {
            let why = probe(&[at, env]).unwrap_err();
            assert!(why.contains(part), "{env:?}: {why}");
        }
        assert!(probe(&[]).unwrap_err().contains("no NVIDIA driver"));
        assert!(!has_gpu(), "no driver, no GPU");
    }
}
