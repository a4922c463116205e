//! The paths of the cache folder and of run folders.

use std::path::{Path, PathBuf};

use crate::base::{Error, Result};

/// The user's cache folder for this program.
pub fn cache() -> PathBuf {
    dirs::cache_dir().unwrap_or_else(std::env::temp_dir).join("picie")
}

/// The file of the cuDNN engines that were chosen before.
pub fn cudnn_engines() -> PathBuf {
    cache().join("cudnn-engines.json")
}

/// The path as text, for JSON; bytes that are no text are replaced.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The absolute path, by which a later command finds the file, too.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|e| Error::io(path, e))
}

/// The run folder of a recipe with the lowest number that does not exist yet.
pub fn next_free(recipe: &str) -> PathBuf {
    let numbered = |i: usize| Path::new("runs").join(format!("{recipe}-{i:03}"));
    (1..).map(numbered).find(|p| !p.exists()).expect("numbers do not end")
}

/// The run folder in `runs/` that was written to last. `None` if there is none.
pub fn newest() -> Option<PathBuf> {
    let runs = std::fs::read_dir("runs")
        .ok()?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.join("run.json").exists());
    runs.max_by_key(|p| p.metadata().and_then(|m| m.modified()).ok())
}
