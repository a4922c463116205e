//! What the user named as photos: files, folders, and patterns that no shell has expanded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::say::warn;
use crate::base::{Error, Result, tell};
use crate::data::{Account, photos_below};

/// A file that is to be segmented.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    pub path: PathBuf,
    /// What its outputs are called, below the folder for these: as the photo without its ending, or
    /// with it where photos differ in nothing else. It keeps its folders below a folder that was
    /// named.
    pub name: PathBuf,
}

/// The files that the `words` of a command line stand for, each once, in their order. Words that
/// stand for none go to `failed`, with the reason.
pub fn find(words: &[PathBuf], mut failed: impl FnMut(&Path, Error)) -> Result<Vec<Named>> {
    let mut found = Vec::new();
    for word in words {
        match expanded(word) {
            Ok(paths) => {
                for path in paths {
                    match files(&path) {
                        Err(e @ Error::Interrupted { .. }) => return Err(e),
                        Err(e) => failed(&path, e),
                        Ok(more) => found.extend(more),
                    }
                }
            }
            Err(e) => failed(word, e),
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|named| seen.insert(named.clone()));
    let mut names = BTreeMap::new();
    found.iter().for_each(|named| *names.entry(named.name.clone()).or_insert(0) += 1);
    for named in found.iter_mut().filter(|named| names[&named.name] > 1) {
        named.name = named.name.with_file_name(named.path.file_name().unwrap_or_default());
    }
    Ok(found)
}

/// The paths that a word stands for: itself, or what it matches if it is a pattern and no file.
fn expanded(word: &Path) -> Result<Vec<PathBuf>> {
    let pattern = word.to_str().filter(|text| text.contains(['*', '?', '[']));
    let Some(pattern) = pattern.filter(|_| word.symlink_metadata().is_err()) else {
        return Ok(vec![word.to_path_buf()]);
    };
    let matches = glob::glob(pattern).map_err(|e| {
        Error::file(word, format!("not a pattern: {}", e.msg), "check it, or name files")
    })?;
    let paths: Vec<PathBuf> = matches.flatten().collect();
    if paths.is_empty() {
        return Err(Error::file(word, "no file matches this pattern", "check the path"));
    }
    Ok(paths)
}

/// The file itself, or the photos below a folder.
fn files(path: &Path) -> Result<Vec<Named>> {
    if !path.is_dir() {
        let name = PathBuf::from(path.file_stem().unwrap_or_default());
        return Ok(vec![Named { path: path.to_path_buf(), name }]);
    }
    let mut account = Account::default();
    let photos = photos_below(path, &mut account)?;
    if photos.is_empty() {
        let what = format!("there are no photos below this folder{}", account.instead());
        return Err(Error::file(path, what, "name another one"));
    }
    if let Some(line) = account.line(path, photos.len()) {
        if account.misses() { warn(line) } else { tell(line) }
    }
    let name = |photo: &PathBuf| {
        let below = photo.strip_prefix(path).unwrap_or(photo);
        below.with_file_name(below.file_stem().unwrap_or_default())
    };
    Ok(photos.iter().map(|photo| Named { path: photo.clone(), name: name(photo) }).collect())
}
