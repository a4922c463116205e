//! The libraries that cuDNN opens by itself: NVIDIA's `libcudnn.so.9` is a shim that has nothing but their names. One that is missing
//! ends the process in the best case, and in the worst makes every step slower without a word.

use std::path::{Path, PathBuf};

use super::api::{INSTALL, error};
use crate::base::Result;

/// Where they lie besides the loader's places, from the folder of libcudnn: there, or where pip puts them.
const FOLDERS: [&str; 4] = [".", "../../cu13/lib", "../../cuda_nvrtc/lib", "../../cublas/lib"];

/// Parts without which some engines are missing: their names, and what they are for.
const PARTS: [(&[&str], &str); 5] = [
    (&["libcudnn_heuristic.so.9"], "the choice of engines"),
    (&["libcudnn_engines_precompiled.so.9"], "most engines"),
    (&["libcudnn_engines_runtime_compiled.so.9"], "convolutions with an epilogue"),
    (&["libnvrtc.so.13", "libnvrtc.so.12"], "convolutions with an epilogue"),
    (&["libcublasLt.so.13", "libcublasLt.so.12"], "some engines"),
];

/// The folder of NVIDIA's shim. None where libcudnn has its parts within.
fn folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut files = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let shim =
        files.find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libcudnn.so.9")));
    shim.and_then(Path::parent).map(Path::to_path_buf)
}

/// Opens the first of `names` that there is, and leaves it open for cuDNN, which opens it by the same name.
fn open(folder: &Path, names: &[&str]) -> std::result::Result<(), String> {
    let mut why = String::new();
    for name in names {
        let places = FOLDERS.iter().map(|place| folder.join(place).join(name)).filter(|path| path.exists());
        for path in places.chain([PathBuf::from(name)]) {
            // SAFETY: the library is one that cuDNN opens as well; it sets itself up.
            match unsafe { libloading::Library::new(&path) } {
                Ok(library) => {
                    std::mem::forget(library);
                    return Ok(());
                }
                Err(e) if why.is_empty() => why = e.to_string(),
                Err(_) => {}
            }
        }
    }
    Err(why)
}

/// Errors: the part that every call needs does not open.
pub fn check_parts() -> Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    open(&folder, &["libcudnn_graph.so.9"])
        .map_err(|why| error(format!("its part libcudnn_graph does not open: {why}"), INSTALL))
}

/// A line that names the parts that do not open, if any.
pub fn missing() -> Option<String> {
    let folder = folder()?;
    let missing = |(names, what): &(&[&str], &str)| {
        open(&folder, names).err().map(|why| format!("{} for {what} ({why})", names[0]))
    };
    let missing: Vec<String> = PARTS.iter().filter_map(missing).collect();
    (!missing.is_empty()).then(|| format!("cuDNN lacks {}; {INSTALL}", missing.join(", ")))
}
