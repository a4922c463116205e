//! `picie cache` lists what lies in the user's cache folder, or removes it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::fs::remove_abandoned;
use crate::base::{Error, Result};
use crate::cli::args::CacheArgs;
use crate::cli::paths::cache;
use crate::cli::say;
use crate::data::kept::{self, KeptSet};

/// Runs the command: lists the folder, or clears it.
pub fn run(args: &CacheArgs) -> Result<()> {
    let folder = cache();
    let sets = kept::sets(&folder.join(kept::FOLDER));
    if args.clear {
        return clear(&folder, sets);
    }
    let mut rows: Vec<(u64, String)> = Vec::new();
    for set in &sets {
        let used = humantime::format_rfc3339_seconds(set.used);
        let what = match set.contents() {
            Ok(of) => {
                let images = format!("{} images of {}² pixels", of.entries.len(), of.size);
                format!("{images}, {} ({}), last used {used}", of.root.display(), of.split)
            }
            Err(_) => "damaged".into(),
        };
        rows.push((set.bytes, format!("{}: {what}", set.path.display())));
    }
    let others = entries(&folder).into_iter().filter(|path| !path.ends_with(kept::FOLDER));
    rows.extend(others.map(|path| (taken(&path), path.display().to_string())));
    for (bytes, what) in &rows {
        say(format_args!("{:8.1} MiB  {what}", mib(*bytes)))?;
    }
    let all = rows.iter().map(|row| row.0).sum();
    say(format_args!(
        "{:8.1} MiB  in {}; picie cache --clear removes what can be made again",
        mib(all),
        folder.display()
    ))
}

/// Removes kept sets, what killed writers left of them, and measured engines.
fn clear(folder: &Path, sets: Vec<KeptSet>) -> Result<()> {
    let engines = entries(folder).into_iter().filter(|path| name(path).starts_with("cudnn-"));
    let mut freed = remove_abandoned(&folder.join(kept::FOLDER));
    for path in sets.into_iter().map(|set| set.path).chain(engines) {
        let bytes = taken(&path);
        std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        freed += bytes;
    }
    say(format_args!("{:.1} MiB freed in {}", mib(freed), folder.display()))
}

/// Lists what lies in a folder, by name; nothing where there is no such folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The bytes of the disk that a file or a folder takes. Links are not followed.
fn taken(path: &Path) -> u64 {
    let own = path
        .symlink_metadata()
        .map_or(0, |stat| if stat.is_dir() { 0 } else { 512 * stat.blocks() });
    own + if path.is_symlink() {
        0
    } else {
        entries(path).iter().map(|path| taken(path)).sum::<u64>()
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}
