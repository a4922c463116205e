//! The libraries that cuDNN opens by itself: NVIDIA's `libcudnn.so.9` is a shim that has nothing
//! but their names. One that is missing ends the process in the best case, and in the worst makes
//! every step slower without a word.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use crate::base::{Error, Result, tell};

/// How to get a whole set of libraries.
pub const INSTALL: &str = "pip install nvidia-cudnn-cu13 (with nvidia-cuda-nvrtc and nvidia-cublas of CUDA 13), and put the folders of its \
     libcudnn.so.9, of libnvrtc and of libcublasLt into LD_LIBRARY_PATH";

/// An error of cuDNN as a whole.
pub(super) fn error(what: impl Into<String>, remedy: &str) -> Error {
    Error::Device { op: "cuDNN".into(), what: what.into(), remedy: remedy.into() }
}

/// Where they lie besides the loader's places, from the folder of libcudnn: there, or where pip
/// puts them.
const FOLDERS: [&str; 4] = [".", "../../cu13/lib", "../../cuda_nvrtc/lib", "../../cublas/lib"];

/// Parts that every convolution needs, by their names of each CUDA: without the first and the last
/// cuDNN ends the process.
const NEEDED: [&[&str]; 3] = [
    &["libcudnn_graph.so.9"],
    &["libcudnn_engines_runtime_compiled.so.9"],
    &["libcublasLt.so.13", "libcublasLt.so.12"],
];

/// Parts without which cuDNN silently compiles a kernel for each convolution.
const WANTED: [&str; 2] = ["libcudnn_engines_precompiled.so.9", "libcudnn_heuristic.so.9"];

/// The folder of NVIDIA's shim. None where libcudnn has its parts within.
fn folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut files = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let shim = files.find(|file| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libcudnn.so.9"))
    });
    shim.and_then(Path::parent).map(Path::to_path_buf)
}

/// Opens the first of `names` that there is, and leaves it open for cuDNN, which opens it by the
/// same name.
fn open(folder: &Path, names: &[&str]) -> std::result::Result<(), String> {
    let mut why = String::new();
    for name in names {
        let places =
            FOLDERS.iter().map(|place| folder.join(place).join(name)).filter(|path| path.exists());
        for path in places.chain([PathBuf::from(name)]) {
            // SAFETY: the library is one that cuDNN opens as well; it sets itself up.
            match unsafe { libloading::Library::new(&path) } {
                Ok(library) => {
                    std::mem::forget(library);
                    return Ok(());
                }
                // The loader's own words are the error's source.
                Err(e) if why.is_empty() => {
                    why = e.source().map_or_else(|| e.to_string(), ToString::to_string)
                }
                Err(_) => {}
            }
        }
    }
    Err(why)
}

/// Looks for the parts, before cuDNN does. Errors: one that is needed does not open.
pub fn check() -> Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    for names in NEEDED {
        open(&folder, names)
            .map_err(|why| error(format!("{} does not open: {why}", names[0]), INSTALL))?;
    }
    for name in WANTED {
        if let Err(why) = open(&folder, &[name]) {
            tell(format_args!(
                "cuDNN compiles kernels that it should have, which are slower: {name} does not open: {why}; {INSTALL}"
            ));
        }
    }
    Ok(())
}
