//! The files of a data set: the images below a folder, and the items that a layout makes of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::base::say::warn;
use crate::base::{Error, Result, stop};

/// The endings of image files. The first six are all of JPEGs.
const EXTENSIONS: [&str; 12] =
    ["jpg", "jpeg", "jpe", "jfif", "jif", "pjpeg", "png", "bmp", "dib", "webp", "tif", "tiff"];

/// Called with (done, total) as a long pass over files proceeds, from many threads.
pub type OnProgress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// One picture and, where the data set has one, its label map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name results are listed under: file stem, or path below the root for a plain folder.
    pub id: String,
    pub image: PathBuf,
    pub label: Option<PathBuf>,
}

/// The file name of `path` without its extension, which most layouts use as an item's id.
pub fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The image files at any depth below `dir`, sorted by path. Hidden files and folders are left out.
pub fn images(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(dir, &mut HashSet::new(), &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(dir: &Path, seen: &mut HashSet<PathBuf>, found: &mut Vec<PathBuf>) -> Result<()> {
    let io = |e| Error::io(dir, e);
    // Links to folders are followed, so a folder may be met twice, or contain itself.
    if !seen.insert(dir.canonicalize().map_err(io)?) {
        return Ok(());
    }
    stop::check()?;
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, seen, found)?;
        } else if is_image(&path) {
            // To read a pipe would wait for a writer, for ever.
            if path.metadata().is_ok_and(|file| !file.is_file()) {
                warn(format_args!(
                    "left out: {}: not a file, but a pipe or the like",
                    path.display()
                ));
            } else {
                found.push(path);
            }
        }
    }
    Ok(())
}

fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}
