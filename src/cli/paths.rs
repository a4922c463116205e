//! Where things lie: the cache, run folders.

use std::path::{Path, PathBuf};

use crate::base::{Error, Result};

/// The user's cache folder for this program.
pub fn cache() -> PathBuf {
    dirs::cache_dir().unwrap_or_else(std::env::temp_dir).join("picie")
}

/// The path from the root, under which a later command finds it too.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|e| Error::io(path, e))
}

/// The first run folder of a recipe that does not exist yet.
pub fn next_free(recipe: &str) -> PathBuf {
    let numbered = |i: usize| Path::new("runs").join(format!("{recipe}-{i:03}"));
    (1..).map(numbered).find(|p| !p.exists()).expect("numbers do not end")
}

/// The run in `runs/` that was written to last.
pub fn newest() -> Option<PathBuf> {
    let runs = std::fs::read_dir("runs")
        .ok()?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.join("run.json").exists());
    runs.max_by_key(|p| p.metadata().and_then(|m| m.modified()).ok())
}
